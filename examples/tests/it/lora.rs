//! Adapters on a frozen network.

use crate::program::Program;
use crate::story::{ranked, told};

const LORA: Program = Program {
    path: env!("CARGO_BIN_EXE_lora"),
    small: &["--base", "base.safetensors", "--epochs", "4"],
    steps: 80,
};

#[test]
fn adapters_on_a_frozen_base() {
    let dir = tempfile::tempdir().unwrap();
    LORA.fine(dir.path(), &["base", "base.safetensors"]);
    let story = told(LORA, dir.path());
    let lift = story.lift(64, |i| i % 10 == 9);
    assert!(
        lift > 2.0,
        "wrong labels among the worst 64: {lift} times their share"
    );
    assert!(story.predicted < 0.0, "{:e}", story.predicted);
    // The first steps of Adam are nearly steps along the sign of the gradient, which a derivative doesn't describe.
    ranked(LORA, dir.path(), "5..80").agrees();
    // The factors b begin at zero, so the sensitivity before the first step is huge. It weighs no score.
    let said = LORA.fine(dir.path(), &["influence", "run", "--out", "again.csv"]);
    assert!(!said.contains("exploded"), "{said}");
    // The run holds the base, so the analysis above didn't need its file. None of its four tensors was trained.
    let said = LORA.fine(dir.path(), &["info", "run"]);
    assert!(
        said.contains("4 of the 8 parameter tensors were trained in no step"),
        "{said}"
    );
    assert!(said.contains("first.base.weight"), "{said}");
}
