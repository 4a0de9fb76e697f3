//! Checks before an analysis: an own model's derivatives, and whether the recorded steps follow.

use std::ops::Range;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use hindcast_model::net::{Net, Node, Op};

use crate::args::CheckArgs;
use crate::clean::{field, say};
use crate::commands::memory;
use crate::commands::memory::Limit;
use crate::commands::progress;
use hindcast_analyzer::rule_check;
use hindcast_analyzer::run::batch_sizes::BatchSizes;
use hindcast_analyzer::sweep::step_bytes;
use hindcast_analyzer::{RecordedRun, RuleCheckOptions, Subject};

/// Checks an own model's derivatives before they are believed.
pub(crate) fn derivatives(subject: &Subject, quiet: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    match subject
        .check()
        .context("checking the model's derivatives")?
    {
        None => {}
        Some(report) if !report.passed() => bail!("{report}"),
        Some(_) if quiet => {}
        Some(report) => say!("{report}; {}", progress::duration(begun.elapsed())),
    }
    Ok(())
}

/// Recomputes a few steps between the start of `window` and the end of training. Refuses a run whose steps don't follow
/// from the recorded rule, batches and data. Returns the notes that the results must carry if the analysis continues.
pub(crate) fn steps(
    subject: &Subject,
    run: &RecordedRun<'_>,
    window: Range<u64>,
    args: &CheckArgs,
    limit: Option<Limit>,
    quiet: bool,
) -> anyhow::Result<Option<String>> {
    let begun = Instant::now();
    fits(
        subject,
        run,
        window.clone(),
        "the check of recorded steps",
        limit,
    )?;
    let seed = args.check_seed.unwrap_or_else(clock);
    let checked = rule_check(run, &RuleCheckOptions::new(window, seed));
    let report = match checked {
        Ok(report) => report,
        // A step that can't be computed here can't be analysed either, unless only the check fails.
        Err(error) if args.unverified => {
            return Ok(Some(warned(format!(
                "UNVERIFIED: the recorded steps could not be computed again: {error}"
            ))));
        }
        Err(error) => return Err(error.into()),
    };
    if report.is_empty() {
        return Ok(Some(warned(
            "the window has no two consecutive steps that can be recomputed, so it is not known whether they follow from the recorded update rule and data".to_owned(),
        )));
    }
    if !report.passed() {
        if args.unverified {
            return Ok(Some(warned(format!("UNVERIFIED: {report}"))));
        }
        bail!(
            "{report}. An analysis would describe another training, so nothing was computed. \
             `hindcast verify --replay` checks more steps; --check-seed {seed} repeats this choice; \
             --unverified analyses the run anyway, and the result says so"
        );
    }
    if let Some((step, got, want)) = report.other_loss() {
        return Ok(Some(warned(format!(
            "the recorded batch losses differ from the computed ones (step {step}: {want:.6} recorded, {got:.6} computed), although the updates agree"
        ))));
    }
    if !quiet {
        say!(
            "checked: {}; {}",
            field(&report),
            progress::duration(begun.elapsed())
        );
    }
    Ok(None)
}

/// Refuses to compute training steps if the largest batch doesn't fit into memory.
pub(crate) fn fits(
    subject: &Subject,
    run: &RecordedRun<'_>,
    steps: Range<u64>,
    what: &str,
    limit: Option<Limit>,
) -> anyhow::Result<()> {
    let sizes = BatchSizes::of(run.source(), steps)?;
    let width = run.dtype().size_in_bytes();
    let read = step_bytes(run, width, sizes.largest);
    let per_example = width as u64 * values_per_example(subject).unwrap_or(0);
    let certain = read + per_example * sizes.largest_pass;
    let about = read + TRAINING * per_example * sizes.largest_pass;
    let hint = format!(
        "the largest batch has {} examples; use a machine with more memory",
        sizes.largest
    );
    memory::check_quietly(what, certain, about, limit, &hint)
}

/// Approximate number of values that a training step holds per output value of a layer: the value, its gradient, and
/// candle's intermediate results.
const TRAINING: u64 = 4;

/// Output values of all layers for one example.
pub(crate) fn values_per_example(subject: &Subject) -> Option<u64> {
    fn of(nodes: &[Node]) -> u64 {
        nodes
            .iter()
            .map(|node| {
                let inner = match &node.op {
                    Op::Residual { body, projection } => of(body) + of(projection),
                    _ => 0,
                };
                inner + node.output.iter().product::<usize>() as u64
            })
            .sum()
    }
    let task = subject.task()?;
    let net = Net::new(&task.model, &task.loss).ok()?;
    Some(of(net.nodes()) + net.input_shape().iter().product::<usize>() as u64)
}

fn warned(note: String) -> String {
    say!("warning: {}", field(&note));
    note
}

/// A seed that differs from call to call.
fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| u64::from(t.subsec_nanos()) ^ t.as_secs()) % 1_000_000
}
