//! `verify --original`: whether a run is what its notes say about the run from which it was made.

use std::io::{self, Write};
use std::path::Path;

use hindcast_format::{Descent, descent};

use crate::commands::context::{open_trace_within, unopened};
use crate::commands::memory::Limit;
use crate::commands::progress;
use crate::terminal::field;
use crate::words::counted;

/// How many differences are printed.
const PRINTED: usize = 10;

/// Compares the run with its original. Each step is read from both.
pub(super) fn compared(
    run: &Path,
    original: &Path,
    memory: Option<Limit>,
) -> anyhow::Result<Descent> {
    let ours = open_trace_within(run, memory)?;
    let theirs = open_trace_within(original, memory)?;
    let bar = progress::bar(0, "comparing", "steps");
    let found = descent(&ours, &theirs, &mut |done, total| bar.at(done, total));
    drop(bar);
    found.map_err(|e| unopened(original, e))
}

pub(super) fn print(out: &mut dyn Write, found: &Descent, original: &Path) -> io::Result<()> {
    let original = field(original.display());
    if found.problems.is_empty() {
        let by: Vec<&str> = found.by.iter().map(|by| by.done()).collect();
        let gaps = match found.gaps {
            0 => String::new(),
            n => format!(", and the digests of {n} more,"),
        };
        writeln!(
            out,
            "{} from {original}: tensors and metadata of {}{gaps} are the original's, and so is the rest; its head is the one in the notes",
            by.join(", then "),
            counted(found.steps, "step", "steps"),
        )?;
        let steps = counted(found.steps_left_out, "step", "steps");
        let tensors = counted(found.tensors_left_out, "step", "steps");
        return match (found.steps_left_out, found.tensors_left_out) {
            (0, 0) => Ok(()),
            (_, 0) => writeln!(out, "left out: {steps}"),
            (0, _) => writeln!(out, "left out: the tensors of {tensors}"),
            _ => writeln!(out, "left out: {steps}, and the tensors of {tensors} more"),
        };
    }
    for problem in found.problems.iter().take(PRINTED) {
        writeln!(out, "NOT THE ORIGINAL'S: {}", field(problem))?;
    }
    if found.problems.len() > PRINTED {
        let more = found.problems.len() - PRINTED;
        writeln!(out, "… and {more} more differences")?;
    }
    Ok(())
}
