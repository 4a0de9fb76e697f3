//! Two optimizers over one model, with accumulated gradients and clipping.

use crate::program::Program;
use crate::story::told;

const GROUPS: Program = Program {
    path: env!("CARGO_BIN_EXE_groups"),
    small: &["--epochs", "4"],
    steps: 80,
};

#[test]
fn two_optimizers_with_accumulation_and_clipping() {
    let dir = tempfile::tempdir().unwrap();
    let story = told(GROUPS, dir.path());
    story.agrees();
}
