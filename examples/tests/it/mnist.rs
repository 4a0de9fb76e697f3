//! The convolutional network with dropout.

use crate::program::Program;
use crate::story::{planted_digits, told};

const MNIST: Program = Program {
    path: env!("CARGO_BIN_EXE_mnist"),
    small: &["--epochs", "3"],
    steps: 60,
};

#[test]
fn a_network_with_dropout_and_adamw() {
    let dir = tempfile::tempdir().unwrap();
    let story = told(MNIST, dir.path());
    story.agrees();
    let lift = story.lift(32, planted_digits());
    assert!(
        lift > 2.0,
        "flipped labels among the worst 32: {lift} times their share"
    );
}
