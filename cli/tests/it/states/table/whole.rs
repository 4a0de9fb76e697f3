//! Runs that are whole.

use super::super::State;
use super::super::build::World;
use super::*;

pub(super) fn whole() -> Vec<State> {
    vec![
        State {
            name: "finished",
            meaning: "Closed with its final state.",
            build: World::finished,
            cells: [
                ok(&["finished", "12 steps in 0..12, 3 epochs"]),
                ok(&["ok: 12 steps in 4 segments are whole"]),
                ok(&["12 of 12 sampled steps give the next recorded state, bit for bit"]),
                ok(&["at the end of training; window 0..12 of 12 steps"]),
                ok(&["predicted", "real", "bit for bit"]),
                bounds("8..12"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
                fails(&["is finished, after 12 steps: there is nothing to resume"]),
            ],
        },
        State {
            name: "unfinished",
            meaning: "Dropped without `finish` (an early `?`, a panic): sealed without a final state.",
            build: World::unfinished,
            cells: [
                ok(&["unfinished: training stopped before it said that it was done"]),
                ok(&["ok: 10 steps", "unfinished"]),
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
            name: "ring-dropped",
            meaning: "A ring of segments (`--keep last-epoch`) has dropped its oldest on purpose.",
            build: World::ring,
            cells: [
                ok(&["8 steps in 4..12", "1 older segment, as asked for"]),
                ok(&[
                    "note: manifest.json: 1 segment was dropped on purpose",
                    "ok: 8 steps",
                ]),
                ok(&["8 of 8 sampled steps"]),
                ok(&["window 4..12 of 12 steps"]),
                ok(&["steps 4..12"]),
                bounds("8..12"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("8 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
                fails(&["is finished, after 12 steps: there is nothing to resume"]),
            ],
        },
        State {
            name: "resumed",
            meaning: "Cut back at step 6, gone on from there and finished; the cut is logged.",
            build: World::resumed,
            cells: [
                ok(&["resumed", "at step 6", "steps up to 10 were superseded"]),
                ok(&["ok: 12 steps"]),
                ok(&["12 of 12 sampled steps"]),
                ok(&["window 0..12 of 12 steps"]),
                ok(&["steps 0..12"]),
                bounds("8..12"),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
                fails(&["is finished, after 12 steps: there is nothing to resume"]),
            ],
        },
    ]
}
