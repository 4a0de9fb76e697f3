//! A state of a run, and what a command is expected to print in it.

use super::build::{Setup, World};

/// The commands, in the order of a state's cells. A new command needs a row here and a cell in every state.
pub(super) const COMMANDS: [(&str, &str); 24] = [
    ("info", "hindcast info run"),
    ("verify", "hindcast verify run"),
    (
        "verify --replay",
        "hindcast verify run --replay --data data",
    ),
    ("sign", "hindcast sign run --key key"),
    ("influence", "hindcast influence run --data data"),
    (
        "predict",
        "hindcast predict run --data data --out predictions.csv",
    ),
    // A fixed seed of the check of random steps, as for `spikes`.
    (
        "explain",
        "hindcast explain run validation:0 --data data --check-seed 1",
    ),
    (
        "counterfactual",
        "hindcast counterfactual run --data data --without out.txt",
    ),
    ("clean", "hindcast clean run --data data --out cleaned.csv"),
    (
        "bounds",
        "hindcast bounds run --data data --window last-epoch --out bounds.csv",
    ),
    (
        "dynamics",
        "hindcast dynamics run --data data --out dynamics.csv",
    ),
    // It reads tensors only for its check of random steps: a fixed seed, so that it meets the same damage every time.
    ("spikes", "hindcast spikes run --data data --check-seed 1"),
    // It reads only metadata, as in its default.
    ("history", "hindcast history run --out history.csv"),
    ("compare", "hindcast compare run run --data data"),
    (
        "report",
        "hindcast report run scores.csv --data data --out report.html",
    ),
    ("export", "hindcast export run --steps 4..8 --out steps"),
    (
        "checkpoint",
        "hindcast checkpoint run --step 6 --out model.safetensors",
    ),
    ("recover", "hindcast recover run --out new"),
    ("prune", "hindcast prune run --keep last-epoch --out new"),
    ("compact", "hindcast compact run --out new"),
    ("redact", "hindcast redact run --out new"),
    ("record", "hindcast record task.toml --data data --out run"),
    (
        RESUME,
        "Recorder::builder(\"run\").restore_variables().resume_from(variables, 6)",
    ),
    (
        "record --resume",
        "hindcast record --resume run --data data",
    ),
];
pub(super) const RESUME: &str = "resume";

/// The expected exit code of a command in a state, and words in its output. For the library, an error counts as 1.
pub(super) struct Cell(pub i32, pub &'static [&'static str]);

/// A state, in which every command is run.
pub(super) struct State {
    pub name: &'static str,
    /// Its description on the page.
    pub meaning: &'static str,
    pub build: fn(&World) -> Setup,
    pub cells: [Cell; COMMANDS.len()],
}

impl State {
    /// The same state, in which that command ends otherwise.
    pub fn with(mut self, command: &str, cell: Cell) -> State {
        let at = COMMANDS.iter().position(|(name, _)| *name == command);
        self.cells[at.unwrap()] = cell;
        self
    }
}

pub(super) type Words = &'static [&'static str];

pub(super) fn ok(says: Words) -> Cell {
    Cell(0, says)
}

pub(super) fn fails(says: Words) -> Cell {
    Cell(1, says)
}

pub(super) fn damaged(says: Words) -> Cell {
    Cell(3, says)
}

/// `record` never writes to a folder that isn't empty.
pub(super) fn taken() -> Cell {
    fails(&["run exists: a run is never overwritten; name a new folder"])
}

pub(super) fn signed() -> Cell {
    ok(&["run: signed with the key ", "run/manifest.json.minisig"])
}

pub(super) const CHECKPOINT: &str = "model.safetensors: 2 parameters and 0 buffers before step 6";

pub(super) fn checkpoint() -> Cell {
    ok(&[CHECKPOINT])
}

/// The newest epoch with a complete step contains each example once.
pub(super) fn bounds(steps: &'static str) -> Cell {
    let says: Vec<&'static str> = vec!["each in one batch of the steps", steps, "Theorem 6"];
    Cell(0, says.leak())
}

/// The validation split has eight examples.
pub(super) fn predicted(at: &'static str) -> Cell {
    let says: Vec<&'static str> = vec!["8 validation examples", at, "predictions.csv (8 rows)"];
    Cell(0, says.leak())
}

pub(super) fn explained(window: &'static str) -> Cell {
    let says: Vec<&'static str> = vec![window, "validation:0 (row ", "pushed away from the label"];
    Cell(0, says.leak())
}

/// The issues are found, and the cleaned table is written.
pub(super) fn cleaned() -> Cell {
    ok(&[
        "label issues: ",
        " of 32 (",
        "issues.csv (",
        "cleaned.csv: ",
    ])
}

pub(super) fn report() -> Cell {
    ok(&["scores.csv", "report.html", "open it in a browser"])
}

/// The page is written, and says what is damaged.
pub(super) fn damaged_report(says: Words) -> Cell {
    Cell(3, [says, &["report.html"]].concat().leak())
}

pub(super) fn lossless(steps: &'static str, end: &'static str) -> Cell {
    let says: Vec<&'static str> = vec![steps, end, "nothing was lost", "run is unchanged"];
    Cell(0, says.leak())
}

/// A new run was made from an intact one.
pub(super) fn derived() -> Cell {
    ok(&[
        "verified and compared with the original",
        "run is unchanged",
    ])
}

pub(super) fn still_open() -> Cell {
    fails(&["run: the run is still open: a recorder is writing it, or was killed"])
}

pub(super) fn not_intact() -> Cell {
    damaged(&["run: the run is damaged, and a copy would hide that: "])
}

pub(super) const ENDED: &str = "with its final state";
pub(super) const NOT_ENDED: &str = "without a final state";
pub(super) const NO_END: &str = "before step";
pub(super) const RECOVER: &str =
    "`hindcast verify` lists all damage; `hindcast recover` copies what is readable to a new run";
pub(super) const RESUMABLE: &str =
    "`hindcast recover` writes what is left of it as a new run, which can be resumed";
