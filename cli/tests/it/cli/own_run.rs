//! A training loop that records a run of a built-in task, with batches chosen by the test, so that the command can analyse it.

use candle_core::{DType, Device, Tensor, Var};
use hindcast_format::{DataIdentity, SplitFingerprint};
use hindcast_model::data::load;
use hindcast_model::net::Net;
use hindcast_model::objective::Objective as _;
use hindcast_model::task::Task;
use hindcast_recorder::{Named, Recorder};

use super::*;

/// A small digits task, and variables for its parameters.
pub(crate) struct OwnRun {
    pub task: Task,
    pub variables: Vec<(String, Var)>,
}

impl OwnRun {
    pub fn new() -> Self {
        let mut task = Task::builtin("digits").unwrap();
        let small = [
            ("data.train", "50"),
            ("data.validation", "20"),
            ("data.test", "0"),
        ];
        for (key, value) in small {
            task.set(key, value).unwrap();
        }
        let net = Net::new(&task.model, &task.loss).unwrap();
        let variables = net.parameters().iter().map(|d| {
            let zeros = Tensor::zeros(d.shape.clone(), DType::F32, &Device::Cpu).unwrap();
            (d.name.clone(), Var::from_tensor(&zeros).unwrap())
        });
        OwnRun {
            variables: variables.collect(),
            task,
        }
    }

    /// Records into `dir/run`.
    pub fn recorder(&self, dir: &Path) -> Recorder {
        let task = &self.task;
        let data = load(&task.data, Some(&task.augment), None, task.train.seed).unwrap();
        let splits = data.fingerprint().into_iter().map(|s| SplitFingerprint {
            name: s.name,
            examples: s.examples,
            root: s.root,
        });
        let builder = Recorder::builder(dir.join("run"))
            .task(task.to_toml().unwrap())
            .rule_text(task.optimizer.to_toml().unwrap())
            .seed(task.train.seed)
            .data(DataIdentity::Fingerprint {
                splits: splits.collect(),
            });
        let named = self
            .variables
            .iter()
            .map(|(name, var)| Named::parameter(name.as_str(), var));
        builder.create_from(named.collect::<Vec<_>>()).unwrap()
    }
}
