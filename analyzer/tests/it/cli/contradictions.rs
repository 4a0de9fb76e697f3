//! A setting that a trace says twice and differently is refused: nobody knows which of the two was in force.

use hindcast_recorder::{BatchInfo, Builder, StepInfo};

use super::own_run::OwnRun;
use super::*;

fn said(set: &[(&str, &str)], change: impl FnOnce(Builder) -> Builder) -> String {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = OwnRun::new(set);
    let recorder = run.recorder(dir, change);
    for _ in 0..2 {
        let batch = BatchInfo::new(0, &[1, 2, 3]);
        recorder.step(&StepInfo::new(batch, 0.05)).unwrap();
    }
    recorder.finish().unwrap();
    let output = hindcast(dir, &["influence", "run"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn the_task_and_the_trace_must_say_the_same() {
    let rule = said(&[], |b| b.rule("kind = \"sgd\"\nmomentum = 0.9"));
    assert!(
        rule.contains("SGD, momentum 0.9 as recorded, got SGD from the task"),
        "{rule}"
    );
    let seed = said(&[], |b| b.seed(4711));
    assert!(
        seed.contains("the seed is") && seed.contains("4711"),
        "{seed}"
    );
    let dtype = said(&[("train.dtype", "f64")], |b| b);
    assert!(dtype.contains("the parameters' type is f64"), "{dtype}");
}
