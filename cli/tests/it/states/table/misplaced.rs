//! Files that are misnamed, emptied or replaced by something other than a file, and forged sizes.

use super::super::build::World;
use super::super::cell::*;

const SWAPPED: &str = "seg-00000001.hcs: corrupt, segment 1: content of the file: expected segment 1 of the run, got segment 2; `hindcast recover` finds each segment by its content";
const MISSING: &str =
    "seg-00000001.hcs: corrupt, segment 1: segment file: expected present, got missing";
const EMPTY: &str =
    "seg-00000001.hcs: corrupt, segment 1: length of the segment file in bytes: expected";
const FEWER: &str = "steps of the segment: expected the 4 steps that the manifest lists, got 0";
const PIPE: &str =
    "seg-00000001.hcs: corrupt, segment 1: file: expected a regular file, got a pipe (FIFO)";
const NO_MANIFEST: &str =
    "manifest.json: corrupt: file: expected a regular file, got a pipe (FIFO)";
const OTHER_TASK: Words = &["so one of them is not what was trained"];
const MEMORY: Words = &["may take", "of memory", "--memory SIZE"];

pub(super) fn misplaced() -> Vec<State> {
    vec![
        swapped_segments(),
        renamed_segment(),
        segment_copied_over_another(),
        emptied_segment(),
        pipe_as_segment(),
        pipe_as_manifest(),
        forged_sizes(),
    ]
}

fn swapped_segments() -> State {
    State {
        name: "swapped segments",
        meaning: "The files of steps 4..8 and 8..12 have each other's names. Readers find segments by name and refuse a wrong one; `recover` identifies them by their content.",
        build: World::swapped,
        cells: [
            damaged(&["readable    4 of 12 steps", SWAPPED]),
            damaged(&["name of the segment", "4 of 12 steps"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[
                "steps 0..4: 4 steps in 1 epoch",
                "8 steps can't be read",
                "history.csv (4 rows)",
                "seg-00000002.hcs: corrupt, segment 2: content of the file: expected segment 2 of the run",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1: content of the file: expected segment 1 of the run",
                RECOVER,
            ]),
            damaged_report(&[
                "warning: ",
                SWAPPED,
                "4 of the 12 recorded steps can be read",
            ]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            lossless("12 steps recovered", ENDED),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[SWAPPED]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn renamed_segment() -> State {
    State {
        name: "renamed segment",
        meaning: "The file of steps 4..8 is named `seg-00000001 (1).hcs`, as some tools name a second copy.",
        build: World::renamed,
        cells: [
            damaged(&["readable    8 of 12 steps", MISSING]),
            damaged(&[MISSING, "8 of 12 steps"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[
                "steps 0..12: 8 steps in 2 epochs",
                "4 steps can't be read",
                "history.csv (8 rows)",
                "seg-00000001.hcs: corrupt, segment 1: segment file: expected present",
            ]),
            damaged(&[
                "the run recorded more steps than this damage leaves",
                "seg-00000001.hcs: corrupt, segment 1: segment file: expected present",
                RECOVER,
            ]),
            damaged_report(&[
                "warning: ",
                MISSING,
                "8 of the 12 recorded steps can be read",
            ]),
            damaged(&[MISSING, RECOVER]),
            damaged(&[MISSING, RECOVER]),
            lossless("12 steps recovered", ENDED),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[MISSING, RESUMABLE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn segment_copied_over_another() -> State {
    State {
        name: "segment copied over another",
        meaning: "The file of steps 4..8 contains a copy of steps 8..12.",
        build: World::copied_over,
        cells: [
            damaged(&["readable    8 of 12 steps", SWAPPED]),
            damaged(&["name of the segment", "8 of 12 steps"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[
                "steps 0..12: 8 steps in 2 epochs",
                "4 steps can't be read",
                "history.csv (8 rows)",
                "seg-00000001.hcs: corrupt, segment 1: content of the file: expected segment 1 of the run",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1: content of the file: expected segment 1 of the run",
                RECOVER,
            ]),
            damaged_report(&["warning: ", SWAPPED]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[SWAPPED, RECOVER]),
            damaged(&[
                "LOST: steps 4..8: lost, metadata and tensors",
                "8 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[SWAPPED]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn emptied_segment() -> State {
    State {
        name: "emptied segment",
        meaning: "The file of steps 4..8 has no bytes.",
        build: World::emptied,
        cells: [
            damaged(&["readable    8 of 12 steps", EMPTY]),
            damaged(&["8 of 12 steps can be recovered"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[
                "steps 0..12: 8 steps in 2 epochs",
                "4 steps can't be read",
                "history.csv (8 rows)",
                "seg-00000001.hcs: corrupt, segment 1: steps of the segment: expected the 4 steps that the manifest lists",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1: steps of the segment: expected the 4 steps that the manifest lists",
                RECOVER,
            ]),
            damaged_report(&["warning: ", EMPTY]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[FEWER, RECOVER]),
            damaged(&[
                "LOST: steps 4..8: lost, metadata and tensors",
                "8 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[FEWER]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn pipe_as_segment() -> State {
    State {
        name: "pipe as segment",
        meaning: "The file of steps 4..8 is a pipe (FIFO), on which a reader could block for ever.",
        build: |w| w.pipe("seg-00000001.hcs"),
        cells: [
            damaged(&["readable    8 of 12 steps", PIPE]),
            damaged(&[PIPE, "8 of 12 steps can be recovered"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[
                "steps 0..12: 8 steps in 2 epochs",
                "4 steps can't be read",
                "history.csv (8 rows)",
                "seg-00000001.hcs: corrupt, segment 1: file: expected a regular file",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1: file: expected a regular file",
                RECOVER,
            ]),
            damaged_report(&["warning: ", PIPE]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[PIPE, RECOVER]),
            damaged(&[
                "LOST: steps 4..8: lost, metadata and tensors",
                "8 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[PIPE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn pipe_as_manifest() -> State {
    State {
        name: "pipe as manifest",
        meaning: "`manifest.json` is a pipe (FIFO). Every segment repeats the description of the run.",
        build: |w| w.pipe("manifest.json"),
        cells: [
            damaged(&["12 steps in 0..12", "head        none", NO_MANIFEST]),
            damaged(&[NO_MANIFEST, "12 of 12 steps can be recovered"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            ok(&["warning: ", NO_MANIFEST, "window 0..12 of 12 steps"]),
            predicted("at the averaged model mean:last-epoch"),
            explained("window 0..12 of 12 steps"),
            ok(&["warning: ", NO_MANIFEST, "steps 0..12"]),
            cleaned(),
            ok(&[
                "warning: ",
                NO_MANIFEST,
                "each in one batch of the steps 8..12",
            ]),
            ok(&["steps 0..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&[
                "steps 0..12: 12 steps in 3 epochs",
                "history.csv (12 rows)",
                "manifest.json: corrupt: file: expected a regular file",
            ]),
            ok(&[
                "the runs are identical",
                "manifest.json: corrupt: file: expected a regular file",
            ]),
            damaged_report(&["warning: ", NO_MANIFEST]),
            ok(&["warning: ", NO_MANIFEST, "steps/steps.jsonl"]),
            ok(&["warning: ", NO_MANIFEST, CHECKPOINT]),
            damaged(&[
                "LOST: what only the manifest held",
                "12 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&["its manifest.json is lost or damaged"]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn forged_sizes() -> State {
    State {
        name: "forged sizes",
        meaning: "A manifest with a valid seal that declares 2^37 numbers: work that needs more memory than is available is refused before it starts.",
        build: World::forged,
        cells: [
            fails(MEMORY),
            fails(MEMORY),
            fails(MEMORY),
            fails(MEMORY),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            damaged(&[
                "steps 0..0: 0 steps in 0 epochs",
                "12 steps can't be read",
                "history.csv (0 rows)",
                "seg-00000002.hcs: corrupt, segment 2: content of the file: expected segment 2 of the run",
            ]),
            fails(OTHER_TASK),
            fails(OTHER_TASK),
            fails(MEMORY),
            damaged(&["a segment with another description of the run", RECOVER]),
            fails(MEMORY),
            fails(MEMORY),
            fails(MEMORY),
            fails(MEMORY),
            taken(),
            fails(&["its tensors differ"]),
            fails(&["of memory, but", "--memory SIZE"]),
        ],
    }
}
