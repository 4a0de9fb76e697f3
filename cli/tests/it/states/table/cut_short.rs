//! Runs whose recorder was killed or is still recording.

use super::super::build::World;
use super::super::cell::*;

const HALF_BORN: Words = &[
    "run: not a recorded run: there is no such folder",
    ".run.new-4711 next to it was left by a recorder that was killed while it created the run",
    "remove it and record again",
];

pub(super) fn cut_short() -> Vec<State> {
    vec![
        killed_during_creation(),
        open(),
        open_beside_a_live_writer(),
        torn_tail(),
    ]
}

fn killed_during_creation() -> State {
    State {
        name: "killed during creation",
        meaning: "The recorder was killed while it created the run: only its temporary folder, `.run.new-…`, exists.",
        build: World::killed_during_creation,
        cells: [
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            fails(HALF_BORN),
            ok(&["run: 12 steps", "head"]),
            fails(&["run: not a recorded run: there is no such folder"]),
            fails(&["not a recorded run", ".run.new-4711"]),
        ],
    }
}

fn open() -> State {
    State {
        name: "open",
        meaning: "The recorder was killed: the last segment has no end. All acknowledged steps are there.",
        build: World::killed,
        cells: [
            ok(&[
                "open: being recorded, or its recorder was killed",
                "10 steps in 0..10",
            ]),
            ok(&["ok: 10 steps", "open"]),
            ok(&["9 of 9 steps"]),
            fails(&["the run is still open"]),
            ok(&[
                NO_END,
                "the run has no final state",
                "window 0..9 of 9 steps",
            ]),
            predicted("the run has no final state"),
            explained("window 0..9 of 9 steps"),
            ok(&["steps 0..9"]),
            cleaned(),
            bounds("8..9"),
            ok(&["steps 0..9: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 0..10: 10 steps in 3 epochs", "history.csv (10 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("10 steps recovered", NOT_ENDED),
            still_open(),
            still_open(),
            still_open(),
            taken(),
            ok(&["resumes at step 6 of 10"]),
            ok(&["resuming at step"]),
        ],
    }
}

fn open_beside_a_live_writer() -> State {
    State {
        name: "open, with a live writer",
        meaning: "A recorder is writing the run. Readers see the steps written so far; a second writer is refused.",
        build: World::live,
        cells: [
            ok(&[
                "open: being recorded, or its recorder was killed",
                "10 steps in 0..10",
            ]),
            ok(&["ok: 10 steps", "open"]),
            ok(&["9 of 9 steps"]),
            fails(&["the run is still open"]),
            ok(&[NO_END, "window 0..9 of 9 steps"]),
            predicted("the run has no final state"),
            explained("window 0..9 of 9 steps"),
            ok(&["steps 0..9"]),
            cleaned(),
            bounds("8..9"),
            ok(&["steps 0..9: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 0..10: 10 steps in 3 epochs", "history.csv (10 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("10 steps recovered", NOT_ENDED),
            still_open(),
            still_open(),
            still_open(),
            taken(),
            fails(&[
                "a recorder is writing this run at this moment; wait until it has ended, or end it first",
            ]),
            fails(&["a recorder is writing this run"]),
        ],
    }
}

fn torn_tail() -> State {
    State {
        name: "torn tail",
        meaning: "The recorder was killed while it wrote a frame: that step was never acknowledged.",
        build: World::torn,
        cells: [
            ok(&["9 steps in 0..9"]),
            ok(&[
                "warning: seg-00000002.hcs: the frame that begins at byte",
                "is incomplete; the last complete step is 8",
                "ok: 9 steps",
            ]),
            ok(&["8 of 8 steps"]),
            fails(&["the run is still open"]),
            ok(&[NO_END, "window 0..8 of 8 steps"]),
            predicted("the run has no final state"),
            explained("window 0..8 of 8 steps"),
            ok(&["steps 0..8"]),
            cleaned(),
            bounds("4..8"),
            ok(&["steps 0..8: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 0..9: 9 steps in 3 epochs", "history.csv (9 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("9 steps recovered", NOT_ENDED),
            still_open(),
            still_open(),
            still_open(),
            taken(),
            ok(&["resumes at step 6 of 9"]),
            ok(&["resuming at step"]),
        ],
    }
}
