//! Runs with damage.

use super::super::build::frame;
use super::super::cell::*;

/// The end of the chunks of a sealed segment's last frame.
fn before_footer(bytes: &[u8]) -> usize {
    let footer = (0..bytes.len() - 4).rfind(|&i| &bytes[i..i + 4] == b"HCIX");
    footer.unwrap() - 13
}

const STEP_5: &str = "seg-00000001.hcs: corrupt, segment 1, step 5";
const CHUNK: &str = "step 5, tensors 0.linear.bias, 0.linear.weight: chunk checksum";
const FINAL: &str = "seg-00000003.hcs: corrupt, segment 3, step 12";
const SEAL: &str = "manifest.json: corrupt: seal of the manifest";
const NO_MANIFEST: &str = "manifest.json: corrupt: manifest: expected present, got missing";
const NO_SEGMENT: &str =
    "seg-00000001.hcs: corrupt, segment 1: segment file: expected present, got missing";

pub(super) fn hit() -> Vec<State> {
    vec![
        damaged_frame_tensors(),
        damaged_frame_metadata(),
        damaged_frame_header(),
        damaged_final_state(),
        damaged_manifest(),
        missing_manifest(),
        missing_segment(),
    ]
}

fn damaged_frame_tensors() -> State {
    State {
        name: "damaged frame: tensors",
        meaning: "A flipped bit in the tensors of step 5. The step's state can still be decoded from the other end of its segment.",
        build: |w| w.hit("seg-00000001.hcs", |b| frame(b, 2) - 13),
        cells: [
            ok(&["12 steps in 0..12, 3 epochs"]),
            damaged(&[
                CHUNK,
                "DAMAGED: 3 findings; 12 of 12 steps can be recovered",
            ]),
            damaged(&[CHUNK, "not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            predicted("at the averaged model mean:last-epoch"),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            bounds("8..12"),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            damaged(&["the trace can't be read", CHUNK, RECOVER]),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1, step 5, tensors 0.linear.bias, 0.linear.weight: chunk checksum",
                RECOVER,
            ]),
            report(),
            damaged(&[CHUNK, RECOVER]),
            checkpoint(),
            lossless("12 steps recovered", ENDED),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&["at step 6", CHUNK, RESUMABLE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn damaged_frame_metadata() -> State {
    State {
        name: "damaged frame: metadata",
        meaning: "A flipped bit in the metadata of step 5: without its batch, the step can't be used.",
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
                "11 of 12 steps can be recovered",
            ]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[
                "steps 0..12: 11 steps in 3 epochs",
                "history.csv (11 rows)",
                "seg-00000001.hcs: corrupt, segment 1, step 5: metadata checksum",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1, step 5: metadata checksum",
                RECOVER,
            ]),
            damaged_report(&["warning: ", STEP_5, "metadata checksum"]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[STEP_5, "metadata checksum", RECOVER]),
            damaged(&[
                "LOST: step 5: lost, metadata and tensors",
                "11 steps recovered",
                ENDED,
                "a sweep can't skip steps",
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[STEP_5, "metadata checksum", RESUMABLE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn damaged_frame_header() -> State {
    State {
        name: "damaged frame: header",
        meaning: "A flipped bit in the frame header of step 5.",
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
                "11 of 12 steps can be recovered",
            ]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[
                "steps 0..12: 11 steps in 3 epochs",
                "history.csv (11 rows)",
                "seg-00000001.hcs: corrupt, segment 1, step 5: frame header checksum",
            ]),
            damaged(&[
                "seg-00000001.hcs: corrupt, segment 1, step 5: frame header checksum",
                RECOVER,
            ]),
            damaged_report(&["warning: ", STEP_5, "frame header checksum"]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[STEP_5, "frame header checksum", RECOVER]),
            damaged(&[
                "LOST: step 5: lost, metadata and tensors",
                "11 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[STEP_5, "frame header checksum", RESUMABLE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn damaged_final_state() -> State {
    State {
        name: "damaged final state",
        meaning: "A flipped bit in θ_T. Its frame is still found through the last segment's link.",
        build: |w| w.hit("seg-00000003.hcs", before_footer),
        cells: [
            ok(&["12 steps in 0..12, 3 epochs"]),
            damaged(&[FINAL, "chunk checksum"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            damaged(&[FINAL, "chunk checksum", RECOVER]),
            ok(&["steps 0..12: 12 steps in 3 epochs", "history.csv (12 rows)"]),
            damaged(&[
                "seg-00000003.hcs: corrupt, segment 3, step 12, tensors 0.linear.bias, 0.linear.weight: chunk checksum",
                RECOVER,
            ]),
            damaged_report(&["warning: ", FINAL, "chunk checksum"]),
            ok(&["steps/steps.jsonl"]),
            checkpoint(),
            lossless("12 steps recovered", ENDED),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            ok(&["resumes at step 6 of 12"]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn damaged_manifest() -> State {
    State {
        name: "damaged manifest",
        meaning: "A flipped bit in `manifest.json`. Every segment repeats the description of the run.",
        build: |w| w.hit("manifest.json", |_| 700),
        cells: [
            damaged(&["12 steps in 0..12, 3 epochs", "head        none", SEAL]),
            damaged(&[SEAL, "DAMAGED: 1 finding; 12 of 12 steps can be recovered"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            ok(&["warning: ", SEAL, "window 0..12 of 12 steps"]),
            predicted("at the averaged model mean:last-epoch"),
            explained("window 0..12 of 12 steps"),
            ok(&["warning: ", SEAL, "steps 0..12"]),
            cleaned(),
            ok(&["warning: ", SEAL, "each in one batch of the steps 8..12"]),
            ok(&["steps 0..12: 32 examples", "dynamics.csv ("]),
            ok(&["0 of 0 steps"]),
            ok(&[
                "steps 0..12: 12 steps in 3 epochs",
                "history.csv (12 rows)",
                "manifest.json: corrupt: seal of the manifest",
            ]),
            ok(&[
                "the runs are identical",
                "manifest.json: corrupt: seal of the manifest",
            ]),
            damaged_report(&["warning: ", SEAL]),
            ok(&["warning: ", SEAL, "steps/steps.jsonl"]),
            ok(&["warning: ", SEAL, CHECKPOINT]),
            damaged(&[
                "LOST: what only the manifest held",
                SEAL,
                "12 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[
                "its manifest.json is lost or damaged; recover the run, and resume what `recover` wrote",
            ]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn missing_manifest() -> State {
    State {
        name: "missing manifest",
        meaning: "`manifest.json` is missing.",
        build: |w| w.without("manifest.json"),
        cells: [
            damaged(&[
                "12 steps in 0..12, 3 epochs",
                "head        none",
                NO_MANIFEST,
            ]),
            damaged(&[
                NO_MANIFEST,
                "DAMAGED: 1 finding; 12 of 12 steps can be recovered",
            ]),
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
                "manifest.json: corrupt: manifest: expected present",
            ]),
            ok(&[
                "the runs are identical",
                "manifest.json: corrupt: manifest: expected present",
            ]),
            damaged_report(&["warning: ", NO_MANIFEST]),
            ok(&["warning: ", NO_MANIFEST, "steps/steps.jsonl"]),
            ok(&["warning: ", NO_MANIFEST, CHECKPOINT]),
            damaged(&[
                "LOST: what only the manifest held",
                NO_MANIFEST,
                "12 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[
                "its manifest.json is lost or damaged; recover the run, and resume what `recover` wrote",
            ]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}

fn missing_segment() -> State {
    State {
        name: "missing segment",
        meaning: "The file of steps 4..8 is missing.",
        build: |w| w.without("seg-00000001.hcs"),
        cells: [
            damaged(&["12 steps in 0..12, epochs unknown", NO_SEGMENT]),
            damaged(&[NO_SEGMENT, "8 of 12 steps"]),
            damaged(&["not replayed: the trace is damaged"]),
            damaged(&["not signed: run is damaged"]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
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
            damaged_report(&["warning: ", NO_SEGMENT]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[NO_SEGMENT, RECOVER]),
            damaged(&[
                "LOST: steps 4..8: lost, metadata and tensors",
                "8 steps recovered",
                ENDED,
            ]),
            not_intact(),
            not_intact(),
            not_intact(),
            taken(),
            fails(&[NO_SEGMENT, RESUMABLE]),
            damaged(&["hindcast recover", "hindcast record --resume NEW"]),
        ],
    }
}
