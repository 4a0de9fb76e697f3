//! `hindcast dynamics`: write the loss, margin and probability of every use of every example, or their sums per example.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use serde::Serialize;

use super::walking::{Opened, Walk, watched};
use crate::args::Dynamics;
use crate::commands::context::Models;
use crate::commands::{Outcome, Usage};
use crate::terminal::{self, field, say};
use crate::words;
use hindcast_analyzer::estimators::dynamics::{
    LabelDynamics, Written, write_example_table, write_long_table,
};
use hindcast_analyzer::output::{self, Kind};

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: String,
    window: std::ops::Range<u64>,
    rows: u64,
    #[serde(flatten)]
    learned: Learned,
    notes: &'a [String],
    table: String,
    seconds: f64,
}

/// How many examples had each outcome. The last four are `None` unless the model is a classifier.
#[derive(Serialize)]
struct Learned {
    examples: usize,
    never_seen: usize,
    never_right: Option<usize>,
    forgotten: Option<usize>,
    kept: Option<usize>,
    forgetting_events: Option<u64>,
}

impl Learned {
    fn of(written: &Written) -> Self {
        let all = &written.examples;
        let labels: Vec<LabelDynamics> = all.iter().filter_map(|e| e.label).collect();
        let classifier = !labels.is_empty();
        let count = |outcome: fn(&LabelDynamics) -> bool| {
            classifier.then(|| labels.iter().filter(|label| outcome(label)).count())
        };
        Learned {
            examples: all.len(),
            never_seen: all.iter().filter(|e| e.occurrences == 0).count(),
            never_right: count(|label| label.epochs_since_forgotten < 0),
            forgotten: count(|label| label.forgotten > 0),
            kept: count(|label| label.epochs_since_forgotten >= 0 && label.forgotten == 0),
            forgetting_events: classifier.then(|| labels.iter().map(|l| l.forgotten).sum()),
        }
    }
}

pub(crate) fn run(args: &Dynamics, models: &Models) -> anyhow::Result<Outcome> {
    let walk = Walk::parse(&args.window, &args.replay, args.json)?;
    check_output(&args.out)?;
    output::try_folder(&args.out, Kind::Dynamics)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let Opened {
        run,
        mut engine,
        steps,
        mut notes,
    } = walk.open(models, &args.run, args.own.given(args.data.as_deref()))?;
    let begun = Instant::now();
    let written = watched(args.json, "nothing was written", |observer| {
        let write = if args.per_example {
            write_example_table
        } else {
            write_long_table
        };
        write(&run, engine.as_mut(), &steps, &args.out, observer)
    })?;
    notes.extend_from_slice(&written.notes);
    let learned = Learned::of(&written);
    let mut out = terminal::stdout();
    if args.json {
        let report = Report {
            run: args.run.display().to_string(),
            run_digest: run.head(),
            window: steps,
            rows: written.rows,
            learned,
            notes: &notes,
            table: args.out.display().to_string(),
            seconds: begun.elapsed().as_secs_f64(),
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    writeln!(
        out,
        "steps {}..{}: {} examples, {} of them in no batch",
        steps.start, steps.end, learned.examples, learned.never_seen
    )?;
    match (learned.never_right, learned.forgotten, learned.kept) {
        (Some(never), Some(forgotten), Some(kept)) => writeln!(
            out,
            "never right: {never}; learned and later wrong again: {forgotten}; learned and kept: {kept}"
        )?,
        _ => writeln!(
            out,
            "{} are empty: the labels aren't classes with an output each",
            if args.per_example {
                "margin, probability, forgotten and epochs_since_forgotten"
            } else {
                "margin and probability"
            }
        )?,
    }
    for note in &notes {
        writeln!(out, "{}", field(note))?;
    }
    writeln!(
        out,
        "{} ({})",
        field(args.out.display()),
        words::counted(written.rows, "row", "rows")
    )?;
    say!("took {}", words::duration(begun.elapsed()));
    Ok(Outcome::Fine)
}

/// Refuses the name of a table that is neither CSV nor, if this build can write it, Parquet.
pub(super) fn check_output(path: &Path) -> Result<(), Usage> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let wanted = match ending.as_deref() {
        Some("csv") => return Ok(()),
        Some("parquet") if cfg!(feature = "parquet") => return Ok(()),
        Some("parquet") => "this build can't write Parquet: use a name that ends in .csv",
        _ if cfg!(feature = "parquet") => "expected a name that ends in .csv or .parquet",
        _ => "expected a name that ends in .csv",
    };
    Err(Usage(format!("--out {}: {wanted}", path.display())))
}
