//! `hindcast recover`: copy everything that is still readable in a damaged run to a new run.

use std::io::Write;

use anyhow::Context as _;
use hindcast_format::{FormatError, LossKind, RecoverReport, Trace};

use super::new_run;
use crate::args::Recover;
use crate::commands::context::unopened;
use crate::commands::interrupt::{Interrupted, Interrupts};
use crate::commands::{Outcome, context, progress};
use crate::terminal;
use crate::terminal::field;
use crate::words;
use hindcast_analyzer::output;

pub(crate) fn run(args: &Recover) -> anyhow::Result<Outcome> {
    let memory = context::memory(args.memory.as_deref())?;
    // A path that exists is refused below in any case.
    if !args.out.exists() {
        output::outside_of_runs(&args.out)
            .with_context(|| format!("cannot write {}", args.out.display()))?;
    }
    let bar = progress::bar(0, "recovering", "steps");
    let interrupts = Interrupts::listen();
    let report = hindcast_format::recover_within(
        &args.run,
        &args.out,
        &context::access(memory),
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            interrupts.flow()
        },
    );
    drop(interrupts);
    bar.finish_and_clear();
    // Exit code 3 means that a new run was written, so an error about damage must not lead to it.
    let report = report.map_err(|e| {
        if matches!(e, FormatError::Cancelled) {
            let out = args.out.display();
            return Interrupted(format!("nothing was written to {out}")).into();
        }
        // That there is no run is the first thing to know, whatever else is wrong.
        if let Err(none @ FormatError::NotARun { .. }) =
            Trace::open_storage(context::storage(&args.run, memory))
        {
            return unopened(&args.run, none);
        }
        if e.is_damage() {
            anyhow::anyhow!("{}: nothing was written: {e}", args.run.display())
        } else {
            unopened(&args.run, e)
        }
    })?;
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(if report.is_lossless() {
        Outcome::Fine
    } else {
        Outcome::Damaged
    })
}

fn print(out: &mut dyn Write, report: &RecoverReport) -> std::io::Result<()> {
    for remark in &report.remarks {
        writeln!(out, "note: {}", field(remark))?;
    }
    for loss in &report.losses {
        writeln!(out, "LOST: {}", field(loss))?;
    }
    let (gaps, end) = new_run::content(report.gaps, report.status);
    writeln!(
        out,
        "{}: {} recovered{gaps}, {end}; {} in {}, verified and compared with the original",
        field(&report.recovered),
        words::counted(report.steps, "step", "steps"),
        words::bytes(report.bytes),
        words::counted(report.segments, "segment", "segments")
    )?;
    let lost = |kind| report.losses.iter().any(|l| l.kind == kind);
    if report.is_lossless() {
        writeln!(
            out,
            "nothing was lost: it contains everything that the original had acknowledged"
        )?;
    } else if lost(LossKind::Step) || lost(LossKind::Tensors) {
        writeln!(
            out,
            "a sweep can't skip steps whose tensors are lost: `hindcast influence` says which window remains"
        )?;
    }
    writeln!(out, "{} is unchanged", field(&report.original))?;
    writeln!(out, "head {}", report.head_digest)
}
