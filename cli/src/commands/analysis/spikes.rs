//! `hindcast spikes`: the steps where the loss jumped, and what their examples contributed.

use std::io::Write;
use std::time::Instant;

use serde::Serialize;

use super::walking::{Opened, Walk, watched};
use crate::args::Spikes;
use crate::commands::context::Models;
use crate::commands::{Outcome, Usage};
use crate::terminal::{self, field, say};
use crate::words;
use crate::words::decimal;
use hindcast_analyzer::estimators::dynamics::{
    FEWEST_BEFORE, Spike, SpikeOptions, SpikeReport, spikes,
};

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: String,
    before: usize,
    above: f64,
    #[serde(flatten)]
    report: &'a SpikeReport,
    notes: &'a [String],
    seconds: f64,
}

pub(crate) fn run(args: &Spikes, models: &Models) -> anyhow::Result<Outcome> {
    let walk = Walk::parse(&args.window, &args.replay, args.json)?;
    if !(args.above.is_finite() && args.above > 0.0) {
        return Err(Usage(format!(
            "--above {}: expected a number of deviations above 0",
            args.above
        ))
        .into());
    }
    let Opened {
        run,
        mut engine,
        steps,
        notes,
    } = walk.open(models, &args.run, args.own.given(args.data.as_deref()))?;
    let options = SpikeOptions {
        steps,
        before: args.before as usize,
        above: args.above,
        top: args.top,
    };
    let begun = Instant::now();
    let report = watched(args.json, "the walk was stopped", |observer| {
        spikes(&run, engine.as_mut(), &options, observer)
    })?;
    let mut out = terminal::stdout();
    if args.json {
        let report = Report {
            run: args.run.display().to_string(),
            run_digest: run.head(),
            before: options.before,
            above: options.above,
            report: &report,
            notes: &notes,
            seconds: begun.elapsed().as_secs_f64(),
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    print(&mut out, &report, &options, args.rows)?;
    for note in &notes {
        writeln!(out, "{}", field(note))?;
    }
    say!("took {}", words::duration(begun.elapsed()));
    Ok(Outcome::Fine)
}

fn print(
    out: &mut dyn Write,
    report: &SpikeReport,
    options: &SpikeOptions,
    rows: usize,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "{} of {} steps: loss more than {} robust standard deviations above the median of the {} steps before; \
         the first {} of the window are not judged",
        report.found,
        report.judged,
        options.above,
        options.before,
        FEWEST_BEFORE.min(options.before)
    )?;
    writeln!(
        out,
        "{}",
        if report.recorded {
            "losses as recorded; only the tensors of the checked and the shown steps were read, so damage of others isn't noticed (`hindcast verify` finds it)"
        } else {
            "the run doesn't record every loss: losses were recomputed"
        }
    )?;
    for spike in &report.spikes {
        explain(out, spike, rows)?;
    }
    Ok(())
}

fn explain(out: &mut dyn Write, spike: &Spike, rows: usize) -> anyhow::Result<()> {
    let number = |x: Option<f64>, digits: usize| match x {
        Some(x) => format!("{x:.digits$}"),
        None => "-".to_owned(),
    };
    writeln!(
        out,
        "\nstep {} (epoch {}): loss {}, expected {}, {} deviations",
        spike.step,
        spike.epoch,
        spike
            .loss
            .map_or("not finite".to_owned(), |x| decimal(x, 4)),
        decimal(spike.expected, 4),
        number(spike.deviations, 1)
    )?;
    writeln!(
        out,
        " index      row file         label        share       loss  |gradient|     margin"
    )?;
    for e in spike.examples.iter().take(rows) {
        let share = e
            .share
            .map_or("-".to_owned(), |x| format!("{:.1} %", 100.0 * x));
        writeln!(
            out,
            "{:>6} {:>8} {:<12} {:<9} {:>8} {:>10} {:>11} {:>10}",
            e.index,
            e.row,
            field(&e.file),
            field(&e.label),
            share,
            number(e.loss, 4),
            number(e.gradient, 3),
            number(e.margin, 3)
        )?;
    }
    if spike.examples.len() > rows {
        writeln!(out, "  … and {} more", spike.examples.len() - rows)?;
    }
    Ok(())
}
