//! `hindcast experiment`: experiments over many runs.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::figures::{draw_agreement, draw_cleansing};
use super::{agreement, cleansing, quality, sharded};
use crate::args;
use crate::args::Experiment;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::recording::task;
use crate::commands::{Outcome, progress};
use crate::terminal;
use crate::terminal::field;
use hindcast_analyzer::load_data;
use hindcast_lab::protocols::recording_cost;

pub(crate) fn run(args: &Experiment) -> anyhow::Result<Outcome> {
    match args {
        Experiment::Agreement(args) => {
            let outcome = sharded::run(args, agreement::run)?;
            figures(&args.out, &args.figures, draw_agreement).map(|()| outcome)
        }
        Experiment::Cleansing(args) => {
            let outcome = sharded::run(args, cleansing::run)?;
            figures(&args.out, &args.figures, draw_cleansing).map(|()| outcome)
        }
        Experiment::Quality(args) => sharded::run(args, quality::run),
        Experiment::Recording(args) => run_recording(args),
    }
}

/// Draws the rows of an experiment if `--figures` is given.
fn figures(
    rows: &Option<PathBuf>,
    folder: &Option<PathBuf>,
    draw: fn(&Path, &Path) -> anyhow::Result<Vec<PathBuf>>,
) -> anyhow::Result<()> {
    // A shard's rows are not in the file yet.
    if let (Some(rows), Some(folder)) = (rows, folder)
        && rows.exists()
    {
        let mut out = terminal::stdout();
        for file in draw(rows, folder)? {
            writeln!(out, "{}", field(file.display()))?;
        }
    }
    Ok(())
}

fn run_recording(args: &args::RecordingCost) -> anyhow::Result<Outcome> {
    let mut rows = Vec::new();
    let interrupts = Interrupts::listen();
    for name in &args.tasks {
        let task = task::find(name, &args.set)?;
        let data = load_data(&task, args.data.as_deref(), task.train.seed)?;
        let bar = progress::bar(0, "training twice", "steps");
        let row = recording_cost(&task, data.as_ref(), args.block, &mut |done, total| {
            bar.at(done, total);
            interrupts.flow()
        });
        drop(bar);
        rows.push(row.map_err(|e| told(e, || "no measurement was completed".to_owned()))?);
    }
    drop(interrupts);
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    for row in rows {
        writeln!(
            out,
            "{}: {} steps, median ms per step {:.4} plain, {:.4} recorded ({:+.1} us): ratio {:.4}; {:.4} of the raw bytes stored",
            field(&row.task),
            row.steps,
            row.plain_ms,
            row.recorded_ms,
            1e3 * (row.recorded_ms - row.plain_ms),
            row.ratio,
            row.stored_share
        )?;
    }
    Ok(Outcome::Fine)
}
