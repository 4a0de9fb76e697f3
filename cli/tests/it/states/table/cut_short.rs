//! Runs whose recorder was killed, or is still at work.

use super::super::State;
use super::super::build::World;
use super::*;

const HALF_BORN: Words = &[
    "run: not a recorded run: there is no such folder",
    ".run.new-4711, beside it, is what a recorder leaves that is killed while it makes a run",
    "remove it and record again",
];

pub(super) fn cut_short() -> Vec<State> {
    vec![
        State {
            name: "half-born",
            meaning: "The recorder was killed while it made the run: only its temporary folder, `.run.new-…`, is there.",
            build: World::half_born,
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
                ok(&["run: 12 steps", "head"]),
                fails(&["run: not a recorded run: there is no such folder"]),
                fails(&["not a recorded run", ".run.new-4711"]),
            ],
        },
        State {
            name: "open",
            meaning: "The recorder was killed: the last segment has no end. Everything acknowledged is there.",
            build: World::killed,
            cells: [
                ok(&[
                    "open: being recorded now, or its recorder was killed",
                    "10 steps in 0..10",
                ]),
                ok(&["ok: 10 steps", "open"]),
                ok(&["9 of 9 sampled steps"]),
                ok(&[
                    NO_END,
                    "the run has no final state",
                    "window 0..9 of 9 steps",
                ]),
                ok(&["steps 0..9"]),
                bounds("8..9"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("10 steps recovered", NOT_ENDED),
                taken(),
                ok(&["goes on at step 6 of 10"]),
                ok(&["resuming at step"]),
            ],
        },
        State {
            name: "open, beside a live writer",
            meaning: "A recorder is at work on it. Readers see what is there; a second writer is refused.",
            build: World::live,
            cells: [
                ok(&[
                    "open: being recorded now, or its recorder was killed",
                    "10 steps in 0..10",
                ]),
                ok(&["ok: 10 steps", "open"]),
                ok(&["9 of 9 sampled steps"]),
                ok(&[NO_END, "window 0..9 of 9 steps"]),
                ok(&["steps 0..9"]),
                bounds("8..9"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("10 steps recovered", NOT_ENDED),
                taken(),
                fails(&[
                    "a recorder is writing this run at this moment; wait until it has ended, or end it first",
                ]),
                fails(&["a recorder is writing this run"]),
            ],
        },
        State {
            name: "torn tail",
            meaning: "Killed in the middle of a frame: that step was never acknowledged.",
            build: World::torn,
            cells: [
                ok(&["9 steps in 0..9"]),
                ok(&[
                    "warning: seg-00000002.hcs: the frame that begins at byte",
                    "is incomplete; the last complete step is 8",
                    "ok: 9 steps",
                ]),
                ok(&["8 of 8 sampled steps"]),
                ok(&[NO_END, "window 0..8 of 8 steps"]),
                ok(&["steps 0..8"]),
                bounds("4..8"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("9 steps recovered", NOT_ENDED),
                taken(),
                ok(&["goes on at step 6 of 9"]),
                ok(&["resuming at step"]),
            ],
        },
    ]
}
