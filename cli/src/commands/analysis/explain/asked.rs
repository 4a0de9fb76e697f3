//! Reads and checks the command line of `explain`, and finds the examples that it names.

use anyhow::Context as _;
use hindcast_model::objective::Split;

use super::found::Example;
use crate::args::Explain;
use crate::commands::analysis::asked::{check_output, parse_split, parse_window};
use crate::commands::analysis::predict::{without_labels, worst};
use crate::commands::analysis::walking::watched_as;
use crate::commands::memory::Limit;
use crate::commands::{Usage, context, ends_in};
use hindcast_analyzer::output::{Kind, apart, try_folder};
use hindcast_analyzer::predictions::{Predictions, predict};
use hindcast_analyzer::query::QueryState;
use hindcast_analyzer::{Names, Query, QueryPoint, RecordedRun, ReplayEngine, Window};

/// Most examples that are explained at once.
const MOST: usize = 1000;

/// The command line, read and checked as far as that is possible without the run.
pub(super) struct Asked {
    pub window: Window,
    pub memory: Option<Limit>,
    /// Names of the training examples.
    pub names: Option<Names>,
    /// The queries that name examples.
    named: Vec<Query>,
    wrong: Option<Split>,
}

/// The model that predicts.
pub(super) struct Model {
    /// The point that `mean` stands for in this run and window.
    pub point: QueryPoint,
    name: String,
    state: QueryState,
}

impl Model {
    pub fn of(at: &QueryPoint, run: &RecordedRun<'_>, from: u64) -> anyhow::Result<Self> {
        let point = at.in_run(run.source(), from)?;
        let weights = point.resolve(run.source(), from)?;
        Ok(Model {
            name: weights.point().to_owned(),
            state: weights.state(run.source())?,
            point,
        })
    }
}

impl Asked {
    pub fn parse(args: &Explain) -> anyhow::Result<Self> {
        let named = args.examples.iter().map(|text| named(text));
        let names = ("the names (--names)", args.names.names.as_deref());
        if let Some(picture) = &args.picture {
            ends_in("--picture", picture, "png")?;
            let table = ("the table (--out)", args.out.as_deref());
            apart(picture, &[table, names])
                .and_then(|()| try_folder(picture, Kind::Picture))
                .with_context(|| format!("cannot write {}", picture.display()))?;
        }
        if let Some(out) = &args.out {
            check_output(out)?;
            apart(out, &[names])
                .and_then(|()| try_folder(out, Kind::Scores))
                .with_context(|| format!("cannot write {}", out.display()))?;
        }
        Ok(Asked {
            window: parse_window(&args.window)?,
            memory: context::memory(args.replay.memory.as_deref())?,
            names: context::names(&args.names)?,
            named: named.collect::<anyhow::Result<_>>()?,
            wrong: args
                .wrong
                .as_deref()
                .map(|text| parse_split("--wrong", text))
                .transpose()?,
        })
    }

    /// The examples, each once, with their predictions: those that are named, in their order, then the wrong ones.
    pub fn examples(
        &self,
        args: &Explain,
        run: &RecordedRun<'_>,
        model: &Model,
    ) -> anyhow::Result<Vec<Example>> {
        let device = context::device(&args.replay.device)?;
        let kind = run.engine_kind(args.replay.engine.map(Into::into), &device)?;
        let dtype = args.replay.precision.dtype().unwrap_or(run.dtype());
        let mut engine = run.engine(Some(kind), Some(dtype), device)?;
        let mut out: Vec<Example> = Vec::new();
        let mut add = |found: Predictions, count: usize| {
            for prediction in found.rows.into_iter().take(count) {
                let example = Example {
                    split: found.split,
                    prediction,
                };
                if !out.iter().any(|known| known.query() == example.query()) {
                    out.push(example);
                }
            }
        };
        for query in &self.named {
            let Query::Loss { split, .. } = query else {
                continue;
            };
            let list = query.examples(run.data())?;
            add(
                predicted(args, run, engine.as_mut(), model, *split, &list)?,
                list.len(),
            );
        }
        if let Some(split) = self.wrong {
            let whole: Query = split.name().parse()?;
            let list = whole.examples(run.data())?;
            let mut found = predicted(args, run, engine.as_mut(), model, split, &list)?;
            if let Some(why) = without_labels(&found) {
                return Err(Usage(format!(
                    "--wrong: {why}: name examples instead, such as {}:0",
                    split.name()
                ))
                .into());
            }
            found.rows = worst(&found).into_iter().cloned().collect();
            if found.rows.is_empty() && self.named.is_empty() {
                anyhow::bail!(
                    "no {} example is predicted wrongly: name examples to explain, such as {}:0",
                    split.name(),
                    split.name()
                );
            }
            add(found, args.count.get());
        }
        if out.len() > MOST {
            return Err(Usage(format!(
                "{} examples are too many to read: name at most {MOST}, or use `influence --query`, which writes a table",
                out.len()
            ))
            .into());
        }
        Ok(out)
    }
}

/// The predictions for some examples.
fn predicted(
    args: &Explain,
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    model: &Model,
    split: Split,
    examples: &[u64],
) -> anyhow::Result<Predictions> {
    watched_as(
        "predicting",
        "examples",
        args.json,
        "nothing was explained",
        |observer| {
            predict(
                run,
                engine,
                (&model.name, &model.state),
                split,
                examples,
                observer,
            )
        },
    )
}

/// A query that lists examples.
fn named(text: &str) -> anyhow::Result<Query> {
    let query: Query = text.parse().map_err(|e| {
        Usage(format!(
            "{e}. An example is named by its split and its index: `hindcast predict RUN --split test --out examples.csv` lists all examples of a split with index, file, row and, with --names, your own name"
        ))
    })?;
    match &query {
        Query::Loss {
            examples: Some(_), ..
        } => Ok(query),
        Query::Loss { split, .. } => Err(Usage(format!(
            "`{text}` is a whole split: name examples, such as {0}:17, or use --wrong {0}",
            split.name()
        ))
        .into()),
        Query::Vector { .. } => Err(Usage(format!(
            "`{text}`: a vector isn't an example: name examples, such as validation:17"
        ))
        .into()),
    }
}
