//! Runs that were made from others.

use super::super::build::World;
use super::super::cell::*;
use super::whole::as_finished;

const PRUNED: &str = "pruned from a run with head";
const HOLES: &str = "6 of them are not in the trace: 1, 3, 5, 7, 9, … (6 ranges) (left out on purpose: the run was pruned from the one with head";
const THE_ORIGINAL: &str = "analyse the run from which this one was pruned";

pub(super) fn derived_runs() -> Vec<State> {
    vec![pruned(), thinned(), compacted(), redacted()]
}

fn pruned() -> State {
    State {
        name: "pruned",
        meaning: "Made by `prune --keep last-epoch` from the finished run. It behaves as a run that was recorded with this choice.",
        build: |w| w.pruned("last-epoch"),
        cells: [
            ok(&["4 steps in 8..12, 1 epoch", PRUNED, "left out: steps 0..8"]),
            ok(&["ok: 4 steps in 2 segments are whole", PRUNED]),
            ok(&["4 of 4 steps give the next recorded state, bit for bit"]),
            signed(),
            ok(&["window 8..12 of 12 steps"]),
            predicted("at the averaged model"),
            explained("window 8..12 of 12 steps"),
            ok(&["steps 8..12"]),
            cleaned(),
            bounds("8..12"),
            ok(&["steps 8..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&["steps 8..12: 4 steps in 1 epoch", "history.csv (4 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            fails(&["--steps 4..8: the run has 8..12"]),
            fails(&["step 6"]),
            lossless("4 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            fails(&["6"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}

fn thinned() -> State {
    State {
        name: "pruned to every second step",
        meaning: "Made by `prune --keep every=2`. Every other step has metadata and the digest of its tensors. No sweep can skip them, and the message says that they were left out on purpose.",
        build: |w| w.pruned("every=2"),
        cells: [
            ok(&[
                "6 steps in 0..12, 3 epochs, 6 more without their tensors",
                PRUNED,
            ]),
            ok(&[
                "ok: 6 steps",
                "6 steps have no tensors: pruned, or without them in the run from which this one was made",
                PRUNED,
            ]),
            fails(&[
                "0 of 0 steps",
                "no two consecutive steps are recorded: nothing can be recomputed",
            ]),
            signed(),
            fails(&[HOLES, THE_ORIGINAL]),
            predicted("at the end of training"),
            fails(&[HOLES, THE_ORIGINAL]),
            fails(&[HOLES, THE_ORIGINAL]),
            fails(&[HOLES, THE_ORIGINAL]),
            fails(&["left out on purpose", THE_ORIGINAL]),
            fails(&[HOLES, THE_ORIGINAL]),
            fails(&[HOLES, THE_ORIGINAL]),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            ok(&["the runs are identical"]),
            report(),
            fails(&["--steps 4..8: the run has 0..1, 2..3"]),
            checkpoint(),
            lossless("6 steps recovered", ENDED),
            derived(),
            derived(),
            derived(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            fails(&["is finished, after 12 steps: there is nothing to resume"]),
        ],
    }
}

fn compacted() -> State {
    as_finished(
        "compacted",
        "Made by `compact` from the finished run: its three segments of steps are one, because no state of an optimizer is lost.",
        World::compacted,
    )
    .with(
        "info",
        ok(&[
            "task        tiny",
            "12 steps in 0..12, 3 epochs",
            "derived     compacted from a run with head",
        ]),
    )
    .with(
        "verify",
        ok(&[
            "ok: 12 steps in 2 segments are whole",
            "note: compacted from a run with head",
        ]),
    )
}

fn redacted() -> State {
    as_finished(
        "redacted",
        "Made by `redact` from the finished run. The data's file has the name that the new task gives it, so a table of the original's scores isn't its table.",
        World::redacted,
    )
    .with(
        "info",
        ok(&[
            "task        redacted",
            "12 steps in 0..12, 3 epochs",
            "derived     redacted from a run with head",
        ]),
    )
    .with(
        "verify",
        ok(&[
            "ok: 12 steps in 4 segments are whole",
            "note: redacted from a run with head",
        ]),
    )
    .with(
        "report",
        fails(&["has the file \"train.csv\" in the table and \"file-1.csv\" in the data"]),
    )
}
