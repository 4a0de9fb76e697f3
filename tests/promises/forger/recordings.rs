//! The runs from which forgeries are made: short trainings of a small net on generated digits.

use std::path::{Path, PathBuf};

use super::read::read;
use super::run::Run;
use crate::common::{Tested, fine};

/// Steps of an epoch.
pub const EPOCH: u64 = 64;
/// Steps of a run.
pub const STEPS: u64 = 5 * EPOCH;
/// The second keyframe, where the last epoch begins.
pub const KEYFRAME: u64 = 256;

/// An optimizer, and a net that it trains.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    pub name: &'static str,
    optimizer: &'static str,
    /// η, as the task's text has it.
    pub rate: &'static str,
    /// A rate at which a step hardly moves the weights.
    tiny: &'static str,
    pub batch_norm: bool,
    /// Whether keyframes hold a state of the optimizer.
    pub stateful: bool,
}

pub const SGD: Rule = Rule {
    name: "sgd",
    optimizer: r#"{kind="sgd"}"#,
    rate: "0.05",
    tiny: "1e-6",
    batch_norm: false,
    stateful: false,
};

pub const MOMENTUM: Rule = Rule {
    name: "momentum",
    optimizer: r#"{kind="sgd",momentum=0.9}"#,
    rate: "0.01",
    stateful: true,
    ..SGD
};

pub const ADAM: Rule = Rule {
    name: "adam",
    optimizer: r#"{kind="adam"}"#,
    rate: "0.003",
    tiny: "1e-7",
    stateful: true,
    ..SGD
};

pub const ADAMW: Rule = Rule {
    name: "adamw",
    optimizer: r#"{kind="adamw"}"#,
    ..ADAM
};

pub const BATCH_NORM: Rule = Rule {
    name: "batch-norm",
    tiny: "1e-7",
    batch_norm: true,
    ..MOMENTUM
};

/// Recorded runs of one rule on the same data. They differ from [`base`](Self::base) as stated.
pub struct Recordings {
    pub rule: Rule,
    pub base: Run,
    /// Another seed: other initial weights, another order.
    pub other: Run,
    /// A constant learning rate of 1e-5.
    pub small: Run,
    /// A constant learning rate at which a step hardly moves the weights.
    pub tiny: Run,
    /// The examples in the order of the split in each epoch.
    pub sequential: Run,
    /// The same with another seed, which only means other initial weights.
    pub elsewhere: Run,
    /// The examples in the order of the split, at a constant rate.
    pub steady: Run,
    /// Other data.
    pub other_data: Run,
    /// Data without wrong labels.
    pub clean: Run,
}

impl Recordings {
    pub fn new(dir: &Path, rule: Rule) -> anyhow::Result<Self> {
        let small = constant("1e-5");
        let tiny = constant(rule.tiny);
        let steady = constant(rule.rate);
        let run = |name: &str, set: &[&str]| -> anyhow::Result<Run> {
            let options: Vec<&str> = set.iter().flat_map(|key| ["--set", key]).collect();
            read(&record(dir, rule, name, &options))
        };
        Ok(Recordings {
            rule,
            base: run("base", &[])?,
            other: run("other", &["train.seed=1"])?,
            small: run("small", &[&small])?,
            tiny: run("tiny", &[&tiny])?,
            sequential: run("sequential", &["train.order=sequential"])?,
            elsewhere: run("elsewhere", &["train.order=sequential", "train.seed=1"])?,
            steady: run("steady", &["train.order=sequential", &steady])?,
            other_data: run("other-data", &["data.seed=1"])?,
            clean: run("clean", &["data.flipped=0.0"])?,
        })
    }

    /// All runs, by name.
    pub fn all(&self) -> [(&'static str, &Run); 9] {
        [
            ("base", &self.base),
            ("other", &self.other),
            ("small", &self.small),
            ("tiny", &self.tiny),
            ("sequential", &self.sequential),
            ("elsewhere", &self.elsewhere),
            ("steady", &self.steady),
            ("other-data", &self.other_data),
            ("clean", &self.clean),
        ]
    }
}

fn constant(rate: &str) -> String {
    format!(r#"schedule={{kind="constant",learning_rate={rate}}}"#)
}

/// Records a run in `dir/name` with these options of `record`.
pub fn record(dir: &Path, rule: Rule, name: &str, options: &[&str]) -> PathBuf {
    let norm = if rule.batch_norm {
        r#"{kind="batch_norm"},"#
    } else {
        ""
    };
    let layers = format!(
        r#"model.layers=[{{kind="conv2d",out=3,kernel=5,stride=4}},{norm}{{kind="tanh"}},{{kind="flatten"}},{{kind="linear",out=10}}]"#
    );
    let optimizer = format!("optimizer={}", rule.optimizer);
    let schedule = format!(r#"schedule={{kind="linear",learning_rate={}}}"#, rule.rate);
    let mut words = vec!["record", "digits", "--out", name];
    let usual = [
        "data.train=256",
        "data.validation=20",
        "data.test=20",
        "data.seed=0",
        "train.batch=4",
        "train.epochs=5",
        &layers,
        &optimizer,
        &schedule,
    ];
    for key in usual {
        words.extend(["--set", key]);
    }
    words.extend(options);
    fine(dir, &words);
    dir.join(name)
}

/// A run that was read is written again and read again with the same content.
pub fn same(a: &Run, b: &Run) -> Tested {
    anyhow::ensure!(format!("{a:?}") == format!("{b:?}"), "the runs differ");
    Ok(())
}
