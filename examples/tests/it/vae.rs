//! The variational autoencoder.

use crate::program::Program;
use crate::story::told;

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
}
