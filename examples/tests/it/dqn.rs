//! Deep Q-learning with a target network.

use crate::program::Program;
use crate::story::told;

const DQN: Program = Program {
    path: env!("CARGO_BIN_EXE_dqn"),
    small: &["--epochs", "4"],
    steps: 80,
};

#[test]
fn q_learning_with_a_target_network() {
    let dir = tempfile::tempdir().unwrap();
    let story = told(DQN, dir.path());
    story.agrees();
    let lift = story.lift(64, |i| i % 10 == 9);
    assert!(
        lift > 2.0,
        "wrong rewards among the worst 64: {lift} times their share"
    );
}
