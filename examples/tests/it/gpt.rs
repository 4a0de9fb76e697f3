//! The character-level GPT.

use crate::program::Program;
use crate::story::told;

const GPT: Program = Program {
    path: env!("CARGO_BIN_EXE_gpt"),
    small: &["--sequences", "160", "--context", "24", "--epochs", "6"],
    steps: 60,
};

#[test]
fn a_gpt_with_adamw_and_a_schedule() {
    let dir = tempfile::tempdir().unwrap();
    let story = told(GPT, dir.path());
    story.agrees();
    let lift = story.lift(32, |i| i % 10 == 9);
    assert!(
        lift > 1.4,
        "garbled sequences among the worst 32: {lift} times their share"
    );
}

#[test]
fn an_analysis_of_another_programs_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mnist = Program {
        path: env!("CARGO_BIN_EXE_mnist"),
        small: &["--epochs", "1"],
        steps: 20,
    };
    mnist.train(dir.path(), "run");
    let (code, said) = GPT.run(dir.path(), &["influence", "run"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the run has no note `width`"), "{said}");
    assert!(!dir.path().join("scores.csv").exists());
}
