//! The table: one function per state, with one cell per command in the order of [`COMMANDS`](super::COMMANDS).

mod cut_short;
mod hit;
mod mended_or_foreign;
mod misplaced;
mod no_run;
mod whole;

use super::{Cell, State};

type Words = &'static [&'static str];

fn ok(says: Words) -> Cell {
    Cell(0, says)
}

fn fails(says: Words) -> Cell {
    Cell(1, says)
}

fn damaged(says: Words) -> Cell {
    Cell(3, says)
}

/// `record` never writes to a folder that isn't empty.
fn taken() -> Cell {
    fails(&["run exists: a run is never overwritten; name a new folder"])
}

const CHECKPOINT: &str = "model.safetensors: 2 parameters and 0 buffers before step 6";

fn checkpoint() -> Cell {
    ok(&[CHECKPOINT])
}

/// The newest epoch with a complete step contains each example once.
fn bounds(steps: &'static str) -> Cell {
    let says: Vec<&'static str> = vec!["each in one batch of the steps", steps, "Theorem 6"];
    Cell(0, says.leak())
}

fn report() -> Cell {
    ok(&["scores.csv", "report.html", "open it in a browser"])
}

/// The page is written, and says what is damaged.
fn damaged_report(says: Words) -> Cell {
    Cell(3, [says, &["report.html"]].concat().leak())
}

fn lossless(steps: &'static str, end: &'static str) -> Cell {
    let says: Vec<&'static str> = vec![steps, end, "nothing was lost", "run is as it was"];
    Cell(0, says.leak())
}

const ENDED: &str = "with its final state";
const NOT_ENDED: &str = "without a final state";
const NO_END: &str = "before step";
const RECOVER: &str =
    "`hindcast verify` lists all damage; `hindcast recover` copies what is readable to a new run";
const RESUMABLE: &str =
    "`hindcast recover` writes what is left of it as a new run, which can be resumed";

pub(super) fn states() -> Vec<State> {
    let mut states = whole::whole();
    states.extend(cut_short::cut_short());
    states.extend(hit::hit());
    states.extend(misplaced::misplaced());
    states.extend(mended_or_foreign::mended_or_foreign());
    states.extend(no_run::no_run());
    states
}
