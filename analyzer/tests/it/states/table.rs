//! The table: a state a function, a cell a command, in the order of [`COMMANDS`](super::COMMANDS).

use std::fs;

use super::build::{Setup, World, frame};
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

/// A folder that is taken is never written to by `record`, whatever is in it.
fn taken() -> Cell {
    fails(&["run exists: a run is never overwritten; name a new folder"])
}

const CHECKPOINT: &str = "model.safetensors: 2 parameters and 0 buffers as before step 6";

fn checkpoint() -> Cell {
    ok(&[CHECKPOINT])
}

/// The newest epoch of which a whole step is there holds each example once.
fn bounds(steps: &'static str) -> Cell {
    let says: Vec<&'static str> = vec!["each in one batch of the steps", steps, "Theorem 6"];
    Cell(0, says.leak())
}

fn report() -> Cell {
    ok(&["scores.csv", "report.html", "open it in a browser"])
}

/// The page is written all the same, and says what is damaged.
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
const RECOVER: &str = "`hindcast verify` says all that is damaged; `hindcast recover` writes what is left as a new run";
const RESUMABLE: &str =
    "`hindcast recover` writes what is left of it as a new run, which can be resumed";

pub(super) fn states() -> Vec<State> {
    let mut states = whole();
    states.extend(cut_short());
    states.extend(hit());
    states.extend(mended_or_foreign());
    states.extend(no_run());
    states
}

fn whole() -> Vec<State> {
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
            ],
        },
    ]
}

fn cut_short() -> Vec<State> {
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
                    "was not written to its end; the last whole step is 8",
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
            ],
        },
    ]
}

const HALF_BORN: Words = &[
    "run: not a recorded run: there is no such folder",
    ".run.new-4711, beside it, is what a recorder leaves that is killed while it makes a run",
    "remove it and record again",
];

/// Where the chunks of the last frame of a sealed segment end.
fn before_footer(bytes: &[u8]) -> usize {
    let footer = (0..bytes.len() - 4).rfind(|&i| &bytes[i..i + 4] == b"HCIX");
    footer.unwrap() - 13
}

fn hit() -> Vec<State> {
    const STEP_5: &str = "seg-00000001.hcs: corrupt, segment 1, step 5";
    const CHUNK: &str = "step 5, tensors 0.linear.bias, 0.linear.weight: chunk checksum";
    const FINAL: &str = "seg-00000003.hcs: corrupt, segment 3, step 12";
    const SEAL: &str = "manifest.json: corrupt: seal of the manifest";
    const NO_MANIFEST: &str = "manifest.json: corrupt: manifest: expected present, got missing";
    const NO_SEGMENT: &str =
        "seg-00000001.hcs: corrupt, segment 1: segment file: expected present, got missing";
    vec![
        State {
            name: "damaged frame: tensors",
            meaning: "A bit in the tensors of step 5. The state is still reached from the other side of its segment.",
            build: |w| w.hit("seg-00000001.hcs", |b| frame(b, 2) - 13),
            cells: [
                ok(&["12 steps in 0..12, 3 epochs"]),
                damaged(&[
                    CHUNK,
                    "DAMAGED: 3 findings; 12 of the 12 steps that are left can be read",
                ]),
                damaged(&[CHUNK, "not replayed: the trace is damaged"]),
                damaged(&["the trace can't be read", CHUNK, RECOVER]),
                damaged(&["the trace can't be read", CHUNK, RECOVER]),
                bounds("8..12"),
                report(),
                damaged(&[CHUNK, RECOVER]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                fails(&["at step 6", CHUNK, RESUMABLE]),
            ],
        },
        State {
            name: "damaged frame: metadata",
            meaning: "A bit in what step 5 says about itself: a step without its batch is no step.",
            build: |w| w.hit("seg-00000001.hcs", |b| frame(b, 1) + 66),
            cells: [
                damaged(&[
                    "12 steps in 0..12, epochs unknown",
                    "damaged",
                    STEP_5,
                    "metadata checksum",
                ]),
                damaged(&[
                    STEP_5,
                    "metadata checksum",
                    "11 of the 12 steps that are left can be read",
                ]),
                damaged(&["not replayed: the trace is damaged"]),
                damaged(&[STEP_5, "metadata checksum", RECOVER]),
                damaged(&[STEP_5, "metadata checksum", RECOVER]),
                damaged(&[STEP_5, "metadata checksum", RECOVER]),
                damaged_report(&["warning: ", STEP_5, "metadata checksum"]),
                damaged(&[STEP_5, "metadata checksum", RECOVER]),
                damaged(&[STEP_5, "metadata checksum", RECOVER]),
                damaged(&[
                    "LOST: step 5: lost whole, metadata and tensors",
                    "11 steps recovered",
                    ENDED,
                    "a sweep can't pass over steps",
                ]),
                taken(),
                fails(&[STEP_5, "metadata checksum", RESUMABLE]),
            ],
        },
        State {
            name: "damaged frame: header",
            meaning: "A bit in the frame header of step 5.",
            build: |w| w.hit("seg-00000001.hcs", |b| frame(b, 1) + 20),
            cells: [
                damaged(&[
                    "12 steps in 0..12, epochs unknown",
                    "damaged",
                    STEP_5,
                    "frame header checksum",
                ]),
                damaged(&[
                    STEP_5,
                    "frame header checksum",
                    "11 of the 12 steps that are left can be read",
                ]),
                damaged(&["not replayed: the trace is damaged"]),
                damaged(&[STEP_5, "frame header checksum", RECOVER]),
                damaged(&[STEP_5, "frame header checksum", RECOVER]),
                damaged(&[STEP_5, "frame header checksum", RECOVER]),
                damaged_report(&["warning: ", STEP_5, "frame header checksum"]),
                damaged(&[STEP_5, "frame header checksum", RECOVER]),
                damaged(&[STEP_5, "frame header checksum", RECOVER]),
                damaged(&[
                    "LOST: step 5: lost whole, metadata and tensors",
                    "11 steps recovered",
                    ENDED,
                ]),
                taken(),
                fails(&[STEP_5, "frame header checksum", RESUMABLE]),
            ],
        },
        State {
            name: "damaged final state",
            meaning: "A bit in θ_T. The link of the last segment leads to it all the same.",
            build: |w| w.hit("seg-00000003.hcs", before_footer),
            cells: [
                ok(&["12 steps in 0..12, 3 epochs"]),
                damaged(&[FINAL, "chunk checksum"]),
                damaged(&["not replayed: the trace is damaged"]),
                damaged(&[FINAL, "chunk checksum", RECOVER]),
                damaged(&[FINAL, "chunk checksum", RECOVER]),
                damaged(&[FINAL, "chunk checksum", RECOVER]),
                report(),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
            ],
        },
        State {
            name: "damaged manifest",
            meaning: "A bit in `manifest.json`. Every segment repeats what the run is.",
            build: |w| w.hit("manifest.json", |_| 700),
            cells: [
                damaged(&["12 steps in 0..12, 3 epochs", "head        none", SEAL]),
                damaged(&[
                    SEAL,
                    "DAMAGED: 1 finding; 12 of the 12 steps that are left can be read",
                ]),
                damaged(&["not replayed: the trace is damaged"]),
                ok(&["warning: ", SEAL, "window 0..12 of 12 steps"]),
                ok(&["warning: ", SEAL, "steps 0..12"]),
                ok(&["warning: ", SEAL, "each in one batch of the steps 8..12"]),
                damaged_report(&["warning: ", SEAL]),
                ok(&["warning: ", SEAL, "steps/steps.jsonl"]),
                ok(&["warning: ", SEAL, CHECKPOINT]),
                damaged(&[
                    "LOST: what the manifest alone said",
                    SEAL,
                    "12 steps recovered",
                    ENDED,
                ]),
                taken(),
                fails(&[
                    "its manifest.json is lost or damaged; recover the run, and resume what `recover` wrote",
                ]),
            ],
        },
        State {
            name: "missing manifest",
            meaning: "`manifest.json` is gone.",
            build: |w| w.without("manifest.json"),
            cells: [
                damaged(&[
                    "12 steps in 0..12, 3 epochs",
                    "head        none",
                    NO_MANIFEST,
                ]),
                damaged(&[
                    NO_MANIFEST,
                    "DAMAGED: 1 finding; 12 of the 12 steps that are left can be read",
                ]),
                damaged(&["not replayed: the trace is damaged"]),
                ok(&["warning: ", NO_MANIFEST, "window 0..12 of 12 steps"]),
                ok(&["warning: ", NO_MANIFEST, "steps 0..12"]),
                ok(&[
                    "warning: ",
                    NO_MANIFEST,
                    "each in one batch of the steps 8..12",
                ]),
                damaged_report(&["warning: ", NO_MANIFEST]),
                ok(&["warning: ", NO_MANIFEST, "steps/steps.jsonl"]),
                ok(&["warning: ", NO_MANIFEST, CHECKPOINT]),
                damaged(&[
                    "LOST: what the manifest alone said",
                    NO_MANIFEST,
                    "12 steps recovered",
                    ENDED,
                ]),
                taken(),
                fails(&[
                    "its manifest.json is lost or damaged; recover the run, and resume what `recover` wrote",
                ]),
            ],
        },
        State {
            name: "missing segment",
            meaning: "The file of steps 4..8 is gone.",
            build: |w| w.without("seg-00000001.hcs"),
            cells: [
                damaged(&["12 steps in 0..12, epochs unknown", NO_SEGMENT]),
                damaged(&[NO_SEGMENT, "8 of the 12 steps"]),
                damaged(&["not replayed: the trace is damaged"]),
                damaged(&[NO_SEGMENT, RECOVER]),
                damaged(&[NO_SEGMENT, RECOVER]),
                damaged(&[NO_SEGMENT, RECOVER]),
                damaged_report(&["warning: ", NO_SEGMENT]),
                damaged(&[NO_SEGMENT, RECOVER]),
                damaged(&[NO_SEGMENT, RECOVER]),
                damaged(&[
                    "LOST: steps 4..8: lost whole, metadata and tensors",
                    "8 steps recovered",
                    ENDED,
                ]),
                taken(),
                fails(&[NO_SEGMENT, RESUMABLE]),
            ],
        },
    ]
}

fn with_data(w: &World, data: &'static str) -> Setup {
    Setup {
        data,
        ..w.finished()
    }
}

fn mended_or_foreign() -> Vec<State> {
    const HOLE: &str = "needs every step of 0..12, but 1 of them is not in the trace: 5; the newest contiguous steps are 6..12: use --window 6..12";
    const FUTURE: &str = "manifest.json: format version 9, and this build reads up to version 1; use a newer hindcast";
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
    vec![
        State {
            name: "recovered, with a hole",
            meaning: "What `recover` wrote of a run whose step 5 was lost whole. It is whole itself, and no sweep passes over the hole.",
            build: World::recovered,
            cells: [
                ok(&[
                    "11 steps in 0..12",
                    "in 2 pieces (0..5, 6..12)",
                    "recovery-1.lost: step 5",
                ]),
                ok(&["ok: 11 steps"]),
                ok(&["10 of 10 sampled steps"]),
                fails(&[HOLE]),
                fails(&[HOLE]),
                bounds("8..12"),
                report(),
                fails(&["--steps 4..8: the run holds 0..5, 6..12"]),
                checkpoint(),
                lossless("11 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
            ],
        },
        State {
            name: "future format version",
            meaning: "Written by a later Hindcast.",
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
                taken(),
                fails(&[FUTURE]),
            ],
        },
        State {
            name: "wrong data",
            meaning: "`--data` has the same files with another label in row 3.",
            build: |w| with_data(w, "other"),
            cells: [
                ok(&["finished"]),
                ok(&["ok: 12 steps"]),
                fails(OTHER),
                fails(OTHER),
                fails(OTHER),
                fails(OTHER),
                fails(OTHER),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
            ],
        },
        State {
            name: "data missing",
            meaning: "`--data` leads nowhere.",
            build: |w| with_data(w, "nowhere"),
            cells: [
                ok(&["finished"]),
                ok(&["ok: 12 steps"]),
                fails(NO_DATA),
                fails(NO_DATA),
                fails(NO_DATA),
                fails(NO_DATA),
                fails(NO_DATA),
                ok(&["steps/steps.jsonl"]),
                checkpoint(),
                lossless("12 steps recovered", ENDED),
                taken(),
                ok(&["goes on at step 6 of 12"]),
            ],
        },
    ]
}

/// The commands that need a run say the same; `record` makes one or refuses; so does the library.
fn refused(says: Words, record: Cell) -> [Cell; super::COMMANDS.len()] {
    [
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        record,
        fails(says),
    ]
}

fn no_run() -> Vec<State> {
    vec![
        State {
            name: "no such folder",
            meaning: "A mistyped name.",
            build: World::empty,
            cells: refused(
                &["run: not a recorded run: there is no such folder"],
                ok(&["run: 12 steps", "head"]),
            ),
        },
        State {
            name: "empty folder",
            meaning: "An empty folder is no run; a run may be recorded into it.",
            build: |w| {
                let setup = w.empty();
                fs::create_dir(setup.run()).unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: the folder is empty"],
                ok(&["run: 12 steps", "head"]),
            ),
        },
        State {
            name: "a folder of something else",
            meaning: "Neither a manifest nor a segment in it.",
            build: |w| {
                let setup = w.empty();
                fs::create_dir(setup.run()).unwrap();
                fs::write(setup.run().join("notes.txt"), "mine").unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: there is no manifest.json and no segment in it"],
                taken(),
            ),
        },
        State {
            name: "a file",
            meaning: "Not a folder at all.",
            build: |w| {
                let setup = w.empty();
                fs::write(setup.run(), "mine").unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: it is a file, and a run is a folder"],
                taken(),
            ),
        },
    ]
}
