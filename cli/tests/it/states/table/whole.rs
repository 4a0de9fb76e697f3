//! Undamaged runs.

use super::super::build::{Setup, World};
use super::super::cell::*;

pub(super) fn whole() -> Vec<State> {
    vec![
        finished(),
        signed_run(),
        encrypted(),
        locked(),
        unfinished(),
        ring_dropped(),
        resumed(),
    ]
}

fn finished() -> State {
    State {
        name: "finished",
        meaning: "Closed with a final state.",
        build: World::finished,
        cells: [
            ok(&["finished", "12 steps in 0..12, 3 epochs"]),
            ok(&["ok: 12 steps in 4 segments are whole"]),
            ok(&["12 of 12 steps give the next recorded state, bit for bit"]),
            signed(),
            ok(&["at the averaged model mean:last-epoch; window 0..12 of 12 steps"]),
            predicted("at the averaged model mean:last-epoch"),
            explained("window 0..12 of 12 steps"),
            ok(&["predicted", "real", "bit for bit"]),
            cleaned(),
            bounds("8..12"),
            ok(&["steps 0..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            ok(&["the runs are identical"]),
            report(),
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

/// A state in which every command ends as in the finished one, except for what [`State::with`] changes.
pub(super) fn as_finished(
    name: &'static str,
    meaning: &'static str,
    build: fn(&World) -> Setup,
) -> State {
    State {
        name,
        meaning,
        build,
        ..finished()
    }
}

fn signed_run() -> State {
    as_finished(
        "signed",
        "Finished, and signed by its owner.",
        World::signed,
    )
    .with(
        "verify",
        ok(&[
            "ok: 12 steps in 4 segments are whole",
            "a signature says that it was made with the key",
            "as recorded",
        ]),
    )
    .with(
        "sign",
        fails(&["run is signed already, with the key", "--replace"]),
    )
    .with(
        RESUME,
        fails(&[
            "the run is signed",
            "resume a copy of the run without its manifest.json.minisig",
        ]),
    )
}

fn encrypted() -> State {
    as_finished(
        "encrypted",
        "Finished and encrypted; the key is given with `HINDCAST_IDENTITY`, or to the library's builder.",
        World::encrypted,
    )
    .with(
        "info",
        ok(&[
            "finished",
            "12 steps in 0..12, 3 epochs",
            "encrypted   for the holders of its keys",
        ]),
    )
}

fn locked() -> State {
    const LOCKED: Words = &[
        "run: the run is encrypted, and no key was given",
        "--identity FILE",
    ];
    let mut state = as_finished(
        "encrypted, without its key",
        "The same, without the key.",
        World::locked,
    );
    for ((command, _), cell) in COMMANDS.iter().zip(&mut state.cells) {
        *cell = match *command {
            "record" => taken(),
            // The library knows no options.
            RESUME => fails(&LOCKED[..1]),
            _ => fails(LOCKED),
        };
    }
    state
}

fn unfinished() -> State {
    State {
        name: "unfinished",
        meaning: "The recorder was dropped without `finish` (an early `?`, a panic): the run is sealed without a final state.",
        build: World::unfinished,
        cells: [
            ok(&["unfinished: training stopped before it called finish"]),
            ok(&["ok: 10 steps", "unfinished"]),
            ok(&["9 of 9 steps"]),
            signed(),
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
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 10"]),
            ok(&["resuming at step"]),
        ],
    }
}

fn ring_dropped() -> State {
    State {
        name: "ring-dropped",
        meaning: "A recorder that keeps only the newest steps (`--keep last-epoch`) has dropped the oldest segments.",
        build: World::ring,
        cells: [
            ok(&["8 steps in 4..12", "1 older segment, as configured"]),
            ok(&[
                "note: manifest.json: 1 segment was dropped on purpose",
                "ok: 8 steps",
            ]),
            ok(&["8 of 8 steps"]),
            signed(),
            ok(&["window 4..12 of 12 steps"]),
            predicted("at the averaged model mean:last-epoch"),
            explained("window 4..12 of 12 steps"),
            ok(&["steps 4..12"]),
            cleaned(),
            bounds("8..12"),
            ok(&["steps 4..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 4..12: 8 steps in 2 epochs", "history.csv (8 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("8 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}

fn resumed() -> State {
    State {
        name: "resumed",
        meaning: "Cut back to step 6, resumed there, and finished; the manifest logs the cut.",
        build: World::resumed,
        cells: [
            ok(&["resumed", "at step 6", "steps up to 10 were superseded"]),
            ok(&["ok: 12 steps"]),
            ok(&["12 of 12 steps"]),
            signed(),
            ok(&["window 0..12 of 12 steps"]),
            predicted("at the averaged model mean:last-epoch"),
            explained("window 0..12 of 12 steps"),
            ok(&["steps 0..12"]),
            cleaned(),
            bounds("8..12"),
            ok(&["steps 0..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            ok(&["the runs are identical"]),
            report(),
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
