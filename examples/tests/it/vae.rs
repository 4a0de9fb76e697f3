//! The variational autoencoder.

use crate::program::Program;
use crate::story::{ranked, told};

const VAE: Program = Program {
    path: env!("CARGO_BIN_EXE_vae"),
    small: &["--epochs", "4"],
    steps: 80,
};

#[test]
fn a_variational_autoencoder_with_a_sum_loss() {
    let dir = tempfile::tempdir().unwrap();
    let story = told(VAE, dir.path());
    assert!(story.predicted < 0.0, "{:e}", story.predicted);
    // The first steps of Adam are nearly steps along the sign of the gradient, which a derivative doesn't describe.
    ranked(VAE, dir.path(), "5..80").agrees();
}
