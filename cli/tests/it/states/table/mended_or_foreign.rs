//! Recovered runs, a later version of the format, and different data.

use super::super::build::{Setup, World};
use super::super::cell::*;

fn with_data(w: &World, data: &'static str) -> Setup {
    Setup {
        data,
        ..w.finished()
    }
}

const HOLE: &str = "needs every step of 0..12, but 1 of them is not in the trace: 5; the newest contiguous steps are 6..12; use --window 6..12";
const WALKED: &str = "every step of 0..12 is replayed, but 1 of them is not in the trace: 5; the longest range without a gap is 6..12; use --window 6..12";
const FUTURE: &str =
    "manifest.json: format version 9, and this build reads up to version 2; use a newer hindcast";
const OTHER: Words = &[
    "this is not the data that the run was trained on",
    "was recorded, the data has",
    "the first examples that differ: 3 (row 3 of train.csv)",
    "point --data at the recorded files",
];
const NO_DATA: Words = &[
    "no data file \"train.csv\" in nowhere",
    "There is no folder nowhere",
];

pub(super) fn mended_or_foreign() -> Vec<State> {
    vec![
        recovered_with_a_hole(),
        future_format_version(),
        wrong_data(),
        data_missing(),
    ]
}

fn recovered_with_a_hole() -> State {
    State {
        name: "recovered, with a hole",
        meaning: "Written by `recover` from a run that had lost step 5. The new run is undamaged, but no sweep can skip the missing step.",
        build: World::recovered,
        cells: [
            ok(&[
                "11 steps in 0..12",
                "in 2 pieces (0..5, 6..12)",
                "derived     recovered from a run with head",
                "what was lost: step 5",
            ]),
            ok(&["ok: 11 steps"]),
            ok(&["10 of 10 steps"]),
            signed(),
            fails(&[HOLE]),
            predicted("at the averaged model mean:last-epoch"),
            fails(&[HOLE]),
            fails(&[HOLE]),
            fails(&[WALKED]),
            bounds("8..12"),
            fails(&[WALKED]),
            fails(&[WALKED]),
            ok(&["steps 0..12: 11 steps in 3 epochs", "history.csv (11 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            fails(&["--steps 4..8: the run has 0..5, 6..12"]),
            checkpoint(),
            lossless("11 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}

fn future_format_version() -> State {
    State {
        name: "future format version",
        meaning: "Written by a later version of Hindcast.",
        build: World::future,
        cells: [
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            fails(&[FUTURE]),
            taken(),
            fails(&[FUTURE]),
            fails(&["format version 9"]),
        ],
    }
}

fn wrong_data() -> State {
    State {
        name: "wrong data",
        meaning: "`--data` has the same files with a different label in row 3.",
        build: |w| with_data(w, "other"),
        cells: [
            ok(&["finished"]),
            ok(&["ok: 12 steps"]),
            fails(OTHER),
            signed(),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            fails(OTHER),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            fails(OTHER),
            fails(OTHER),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("12 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}

fn data_missing() -> State {
    State {
        name: "data missing",
        meaning: "The folder of `--data` doesn't exist.",
        build: |w| with_data(w, "nowhere"),
        cells: [
            ok(&["finished"]),
            ok(&["ok: 12 steps"]),
            fails(NO_DATA),
            signed(),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            fails(NO_DATA),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            fails(NO_DATA),
            fails(NO_DATA),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("12 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}
