//! `hindcast explain`: predictions, and the training examples that pushed the model towards their labels and away from them.

mod asked;
mod found;
mod json;
mod picture;
mod print;

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::objective::Split;

use super::answering::{Settings, answer};
use super::existing::{Question, keep};
use super::pictures::drawable;
use super::{diverged, trust};
use crate::args::Explain;
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, next};
use crate::terminal::{self, say};
use crate::words::{about, counted, duration, steps};
use asked::{Asked, Model};
use found::{Example, Found};
use hindcast_analyzer::estimators::choose;
use hindcast_analyzer::{Query, RecordedRun, ScoreTable, Window};

pub(crate) fn run(args: &Explain, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
    let begun = Instant::now();
    let run = models.open(
        &args.run,
        args.own.given(args.data.as_deref()),
        asked.memory,
    )?;
    context::warn_or_refuse_run(&run, &args.run)?;
    if let Some(names) = &asked.names {
        names.of_split(run.data(), Split::Train)?;
    }
    drawable(args.picture.as_deref(), run.data())?;
    let window = asked.window.resolve(run.source())?;
    let model = Model::of(&args.at, &run, window.start)?;
    let examples = asked
        .examples(args, &run, &model)
        .map_err(|e| diverged::explained(&run, e))?;
    let queries: Vec<Query> = examples.iter().map(Example::query).collect();
    let sweep = Sweep {
        args,
        asked: &asked,
        run: &run,
        queries: &queries,
        model: &model,
    };
    sweep.spare_table()?;
    trust::derivatives(&run, args.json)?;
    let to_end = window.start..run.source().end()?.step;
    let replay = &args.replay;
    let note = trust::steps(&run, to_end.clone(), &replay.check, asked.memory, args.json)?;

    let mut out = terminal::stdout();
    if let Some(last) = first_answer(args, &asked.window, &run, &to_end)? {
        let first = Instant::now();
        let (table, swept) = sweep.over(&Window::LastEpoch)?;
        let took = first.elapsed();
        let found = Found::new(args, &run, &examples, &table, took);
        print::first(&mut out, &found, &last)?;
        announce(&last, &to_end, took, swept.min(took));
    }
    let (mut table, _) = sweep.over(&asked.window)?;
    table.metadata.notes.extend(note);
    if let Some(path) = &args.out {
        table
            .write(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let found = Found::new(args, &run, &examples, &table, begun.elapsed());
    if let Some(path) = &args.picture {
        picture::draw(path, &found)?;
    }
    if args.json {
        json::print(&mut out, &found)?;
    } else {
        print::all(&mut out, &found)?;
        say!("took {}", duration(found.took));
        let classes = run.data().class_count().is_some();
        let verb = if classes { "clean" } else { "influence" };
        let labels = args.own.labels.as_deref();
        let command = next::words(models, verb, &args.run, args.data.as_deref(), labels);
        if classes {
            next::tell(command, "which training labels are probably wrong");
        } else {
            let command = command.option("--out", "scores.csv");
            next::tell(command, "which training examples harm and help");
        }
    }
    Ok(Outcome::Fine)
}

/// The same question, over one window or another.
struct Sweep<'a> {
    args: &'a Explain,
    asked: &'a Asked,
    run: &'a RecordedRun<'a>,
    queries: &'a [Query],
    model: &'a Model,
}

impl Sweep<'_> {
    fn settings(&self, window: &Window) -> Settings<'_> {
        let replay = &self.args.replay;
        Settings {
            at: self.model.point.clone(),
            precision: replay.precision,
            engine: replay.engine.map(Into::into),
            device: Some(&replay.device),
            predictions: self.args.out.is_some() && *window == self.asked.window,
            memory: self.asked.memory,
            quiet: self.args.json,
            ..Settings::default()
        }
    }

    /// Refuses to replace a table of scores of another question, unless the command line allows it.
    fn spare_table(&self) -> anyhow::Result<()> {
        let (window, chosen) = (&self.asked.window, choose("sgd", &[])?);
        if let (Some(out), false) = (&self.args.out, self.args.replace) {
            let question = Question {
                queries: self.queries,
                window,
                chosen: &chosen,
                settings: &self.settings(window),
            };
            keep(out, &question, self.run, &[self.run.head()])?;
        }
        Ok(())
    }

    /// The scores of the training examples for all queries, counted in a window, and the time that the steps took.
    fn over(&self, window: &Window) -> anyhow::Result<(ScoreTable, Duration)> {
        let settings = self.settings(window);
        let sweep = choose("sgd", &[])?;
        let found = answer(self.run, self.queries, window, &settings, &sweep)?;
        let swept = found.sweep.map(|sweep| sweep.times.total());
        let mut table = found.scores.table(self.run);
        if let Some(names) = &self.asked.names {
            table.join(names)?;
        }
        Ok((table, swept.unwrap_or_default()))
    }
}

/// The steps of the last epoch, if they are swept first. For scripts there is only the complete answer.
fn first_answer(
    args: &Explain,
    window: &Window,
    run: &RecordedRun<'_>,
    all: &Range<u64>,
) -> anyhow::Result<Option<Range<u64>>> {
    if args.json || *window != Window::All {
        return Ok(None);
    }
    // A run of an own loop may have no epochs.
    let last = Window::LastEpoch.resolve(run.source()).ok();
    Ok(last.filter(|last| 2 * (last.end - last.start) < all.end - all.start))
}

/// How long the answer from all steps will take, if that from `last` took this time and its steps `swept` of it. What is done
/// once doesn't grow with the steps.
fn whole(last: &Range<u64>, all: &Range<u64>, took: Duration, swept: Duration) -> Duration {
    let (done, total) = (last.end - last.start, all.end - all.start);
    (took - swept) + swept.mul_f64(total as f64 / done.max(1) as f64)
}

/// Prints how long the sweep over all steps will take.
fn announce(last: &Range<u64>, all: &Range<u64>, took: Duration, swept: Duration) {
    let total = all.end - all.start;
    say!(
        "all {} ({}): about {}; Ctrl-C keeps the answer above, which counts the last epoch only",
        counted(total, "step", "steps"),
        steps(all),
        about(whole(last, all, took, swept))
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_time_scales_the_steps_and_not_the_start() {
        let seconds = Duration::from_secs;
        let time = whole(&(90..100), &(0..100), seconds(5), seconds(2));
        assert_eq!(time, seconds(3 + 20));
    }
}
