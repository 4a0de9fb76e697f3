//! Prints what `verify --replay` found.

use std::io::{self, Write};
use std::ops::Range;

use crate::terminal::field;
use crate::words::{self, counted};
use hindcast_analyzer::check::{PassCheck, ReplayCheckReport, StepCheck};

/// The shares of wrong steps for which the probability to catch them is printed.
const SHARES: [f64; 3] = [0.01, 0.05, 0.2];

pub(super) fn print(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    for check in report.steps.iter().filter(|c| !c.passed) {
        not_reproduced(out, report, check)?;
    }
    for check in report.passes.iter().filter(|c| !c.passed) {
        other_pass(out, check)?;
    }
    if report.steps.iter().all(|c| c.passed) && !report.updates_agree() {
        updates_disagree(out, report)?;
    }
    let failed = report.worst_update().filter(|_| !report.passed());
    if let Some(cause) = failed.and_then(|c| c.cause.as_ref()) {
        writeln!(out, "{}", field(cause))?;
    }
    contradictions(out, report)?;
    result(out, report)?;
    power(out, report)?;
    let by_rounding = report.by_rounding();
    if by_rounding > 0 {
        writeln!(
            out,
            "{} whose gradients are zero up to rounding {} judged by what rounding explains there, up to a whole step of the optimizer",
            counted(by_rounding, "update", "updates"),
            if by_rounding == 1 { "was" } else { "were" }
        )?;
    }
    if let Some((step, got, want)) = report.other_loss() {
        writeln!(
            out,
            "warning: the recorded batch losses differ from the computed ones (step {step}: {want:.6} recorded, {got:.6} computed)"
        )?;
    }
    if !report.note.is_empty() {
        writeln!(out, "note: {}", field(&report.note))?;
    }
    pieces(out, report)
}

/// Updates of which each is close enough, and all together aren't.
fn updates_disagree(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    let median = report.median_update_error();
    if median > report.median_tolerance {
        return writeln!(
            out,
            "NOT REPRODUCED: the updates differ by {median:.2e} of their size on the median, more than rounding explains ({:.0e})",
            report.median_tolerance
        );
    }
    writeln!(
        out,
        "NOT REPRODUCED: {} of {} updates differ by more than {:.0e} of their size, which rounding explains for a tenth of them",
        report.far_updates(),
        report.steps.len(),
        report.most_tolerance
    )
}

fn not_reproduced(
    out: &mut dyn Write,
    report: &ReplayCheckReport,
    check: &StepCheck,
) -> io::Result<()> {
    write!(
        out,
        "NOT REPRODUCED: step {}: relative error {:.2e}",
        check.step, check.comparison.max_relative_error
    )?;
    if let Some(tensor) = &check.comparison.tensor {
        write!(out, " in {}", field(tensor))?;
    }
    if report.same_bits && !check.comparison.bit_identical {
        write!(
            out,
            "; this kind of processor recorded the run, so the bits should be the same"
        )?;
    }
    if check.update_error > report.update_tolerance
        && let Some(tensor) = &check.update_tensor
    {
        write!(
            out,
            "; the update of {} differs by {:.2e} of its size",
            field(tensor),
            check.update_error
        )?;
    }
    if let Some(error) = check.state_error.filter(|error| *error > 0.0) {
        write!(
            out,
            "; the optimizer's state after it differs by {error:.2e} of its size"
        )?;
    }
    if !check.statistics_agree {
        write!(
            out,
            "; the next keyframe begins with other running statistics"
        )?;
    }
    pass_differs(
        out,
        check.weights_agree,
        check.loss.filter(|_| !check.loss_agrees),
        &check.trained_differs,
    )
}

/// A step of which only the pass was recomputed, and which differs.
fn other_pass(out: &mut dyn Write, check: &PassCheck) -> io::Result<()> {
    write!(
        out,
        "NOT REPRODUCED: step {}, of which only the pass can be recomputed",
        check.step
    )?;
    if check.statistics_agree == Some(false) {
        write!(out, "; the running statistics after it are others")?;
    }
    pass_differs(
        out,
        check.weights_agree,
        check.loss.filter(|_| !check.loss_agrees),
        &check.trained_differs,
    )
}

/// Ends the line about a step with what differs in its pass. `loss` is the computed and the recorded one, if they differ.
fn pass_differs(
    out: &mut dyn Write,
    weights_agree: bool,
    loss: Option<(f64, f64)>,
    trained_differs: &[String],
) -> io::Result<()> {
    if !weights_agree {
        write!(
            out,
            "; the examples have other weights than the task gives them"
        )?;
    }
    if let Some((got, want)) = loss {
        write!(
            out,
            "; the batch loss is {got} computed and {want} recorded"
        )?;
    }
    if !trained_differs.is_empty() {
        write!(
            out,
            "; different tensors had a gradient: {}",
            field(trained_differs.join(", "))
        )?;
    }
    writeln!(out)
}

/// What the task says and the steps contradict.
fn contradictions(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    for found in &report.contradictions {
        write!(out, "NOT AS THE TASK SAYS: {}", found.about)?;
        if let Some(step) = found.step {
            write!(out, " of step {step}")?;
        }
        write!(out, ": {}", field(&found.text))?;
        if found.steps > 1 {
            write!(
                out,
                " (and {})",
                counted(found.steps - 1, "other step", "other steps")
            )?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn result(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    let passed = report.steps.iter().filter(|c| c.passed).count();
    let count = report.steps.len();
    let which = match report.drawn {
        _ if report.is_complete() => "steps".to_owned(),
        Some(drawn) if drawn == count as u64 => {
            format!("steps chosen at random (seed {})", report.seed)
        }
        Some(drawn) => format!(
            "steps, {drawn} of them chosen at random (seed {}),",
            report.seed
        ),
        None => "chosen steps".to_owned(),
    };
    write!(
        out,
        "replayed: {passed} of {count} {which} give the next recorded state"
    )?;
    if report.bit_identical() {
        return writeln!(out, ", bit for bit");
    }
    let of = |worst: Option<f64>| worst.unwrap_or(f64::NAN);
    match report.tolerance {
        Some(tolerance) => writeln!(
            out,
            " within {tolerance:.0e} (largest relative error {:.1e})",
            of(report.worst().map(|w| w.comparison.max_relative_error))
        )?,
        None => writeln!(
            out,
            " (largest difference {:.1e} of an update, median {:.1e})",
            of(report.worst_update().map(|w| w.update_error)),
            report.median_update_error()
        )?,
    }
    if let Some(processor) = &report.other_processor {
        writeln!(
            out,
            "note: the run was recorded on another kind of processor, {}, whose rounding differs",
            field(processor)
        )?;
    }
    Ok(())
}

/// How likely this check would have caught a false run.
fn power(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    if report.is_complete() || report.steps.is_empty() {
        return Ok(());
    }
    let of = report.replayable;
    if report.drawn.is_none() {
        return writeln!(
            out,
            "nothing is said about the other {}; --steps 0 recomputes all",
            counted(of - report.steps.len() as u64, "step", "steps")
        );
    }
    let shares = SHARES.iter().filter_map(|&share| {
        let caught = report.caught(share)?;
        Some(format!(
            "{:.0} % if {:.0} % of them were",
            100.0 * caught,
            100.0 * share
        ))
    });
    let shares: Vec<String> = shares.collect();
    writeln!(
        out,
        "the probability to catch steps that are no training steps, among {of}: {}; --steps 0 recomputes all",
        shares.join(", ")
    )
}

/// Where the recorded steps begin and where they are interrupted.
fn pieces(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    if let Some(first) = report.pieces.first().filter(|first| first.start > 0) {
        writeln!(
            out,
            "note: the recorded steps begin at step {}: nothing shows how the state before it was reached",
            first.start
        )?;
    }
    lacking(out, report)?;
    if report.pieces.len() > 1 {
        writeln!(
            out,
            "note: the recorded steps are {} pieces ({}): nothing shows that a piece follows from the one before it",
            report.pieces.len(),
            first_of(&report.pieces)
        )?;
    }
    Ok(())
}

/// Steps that can't be recomputed, and what is known of them.
fn lacking(out: &mut dyn Write, report: &ReplayCheckReport) -> io::Result<()> {
    let lacking = report.span.saturating_sub(report.replayable);
    if lacking == 0 {
        return Ok(());
    }
    writeln!(
        out,
        "note: {lacking} of {} can't be recomputed, because the trace lacks their tensors, those of the next step or the optimizer's state before them",
        counted(report.span, "step", "steps")
    )?;
    let passes = report.passes.len() as u64;
    if passes > 0 {
        writeln!(
            out,
            "note: the batch {} of {passes} of them {} recomputed from {} recorded parameters; nothing shows that these parameters come from training",
            words::plural(passes, "loss", "losses"),
            words::plural(passes, "was", "were"),
            words::plural(passes, "its", "their")
        )?;
    }
    if lacking > passes {
        writeln!(
            out,
            "note: nothing is said about {}",
            match (lacking - passes, passes) {
                (_, 0) => "them".to_owned(),
                (more, _) => format!("{more} of them"),
            }
        )?;
    }
    Ok(())
}

/// The first ranges of a list, which may be long.
fn first_of(pieces: &[Range<u64>]) -> String {
    const SHOWN: usize = 5;
    let shown = words::ranges(&pieces[..pieces.len().min(SHOWN)]);
    match pieces.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
