//! Validates a Task without its data.

use super::error::TaskError;
use super::loss::LossKind;
use super::spec::Task;
use super::training::Cut;
use crate::data::Target;
use crate::net::Net;

impl Task {
    /// Checks that the Task can be trained: the shape of every layer, the range of every number, and that the tables fit
    /// together.
    ///
    /// # Errors
    /// [`TaskError::Layer`] for the first layer that doesn't fit its input shape. [`TaskError::Value`] for a number out
    /// of range. [`TaskError::Data`] for the `[data]` and `[augment]` tables, and [`TaskError::Update`] for
    /// `[optimizer]`.
    pub fn validate(&self) -> Result<(), TaskError> {
        match self.problems().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// All reasons for which the Task can't be trained, without its data. [`Task::validate`] returns the first.
    pub fn problems(&self) -> Vec<TaskError> {
        let mut problems = Vec::new();
        if self.name.is_empty() {
            problems.push(TaskError::value("name", "\"\"", "a name"));
        }
        problems.extend(self.data.problems().into_iter().map(TaskError::from));
        let augment = self.augment.validate(&self.model.input);
        problems.extend(augment.err().map(TaskError::from));
        problems.extend(self.optimizer.validate().err().map(TaskError::from));
        if let Some((key, value, expected)) = self.schedule.out_of_range() {
            problems.push(TaskError::value(key, value, expected));
        }
        problems.extend(self.training_problems());
        match Net::new(&self.model, &self.loss) {
            Ok(net) => problems.extend(self.validate_loss(net.output_shape()).err()),
            Err(problem) => problems.push(problem),
        }
        problems
    }

    fn training_problems(&self) -> Vec<TaskError> {
        let train = &self.train;
        let positive = "1 or more";
        let mut problems = Vec::new();
        for (key, zero) in [
            ("train.epochs", train.epochs == 0),
            ("train.batch", train.batch == 0),
            ("train.micro_batch", train.micro_batch == Some(0)),
        ] {
            if zero {
                problems.push(TaskError::value(key, 0, positive));
            }
        }
        if train.epochs > u64::from(u32::MAX) {
            let most = format!("at most {}", u32::MAX);
            problems.push(TaskError::value("train.epochs", train.epochs, most));
        }
        if i64::try_from(train.seed).is_err() {
            let most = format!("at most {}, the largest integer of TOML", i64::MAX);
            problems.push(TaskError::value("train.seed", train.seed, most));
        }
        if train.drop_last && train.batches == Cut::Even {
            problems.push(TaskError::value(
                "train.drop_last",
                "true",
                "false with batches = \"even\", because its last batch isn't short",
            ));
        }
        problems
    }

    fn validate_loss(&self, output: &[usize]) -> Result<(), TaskError> {
        let loss = &self.loss;
        if !(loss.penalty.is_finite() && loss.penalty >= 0.0) {
            return Err(TaskError::value(
                "loss.penalty",
                loss.penalty,
                "a number of at least 0",
            ));
        }
        let classes = match (loss.kind, output) {
            (LossKind::CrossEntropy, [k]) if *k >= 2 => Some(*k),
            (LossKind::CrossEntropy, _) => {
                return Err(TaskError::value(
                    "loss.kind",
                    "\"cross-entropy\"",
                    format!(
                        "a model whose output is [classes] with at least 2 classes, got {output:?}"
                    ),
                ));
            }
            (LossKind::BinaryCrossEntropy, [1]) => Some(2),
            (LossKind::BinaryCrossEntropy | LossKind::MeanSquaredError, _) => None,
        };
        if let (LossKind::CrossEntropy, Some(target @ (Target::Value | Target::Input))) =
            (loss.kind, self.data.target)
        {
            return Err(TaskError::value(
                "data.target",
                format!("{target:?}").to_lowercase(),
                "\"class\" with the cross-entropy loss",
            ));
        }
        if let (Some(k), true) = (classes, !self.data.classes.is_empty()) {
            let kept = self.data.classes.len();
            if kept > k {
                return Err(TaskError::value(
                    "data.classes",
                    format!("{kept} classes"),
                    format!("at most {k}, because the model's output has shape {output:?}"),
                ));
            }
        }
        if loss.class_weights.is_empty() {
            return Ok(());
        }
        let Some(classes) = classes else {
            return Err(TaskError::value(
                "loss.class_weights",
                format!("{:?}", loss.class_weights),
                "none: this loss and output have no classes",
            ));
        };
        if loss.class_weights.len() != classes {
            return Err(TaskError::value(
                "loss.class_weights",
                format!("{:?}", loss.class_weights),
                format!("{classes} numbers, one per class"),
            ));
        }
        match loss
            .class_weights
            .iter()
            .find(|w| !(w.is_finite() && **w > 0.0))
        {
            Some(w) => Err(TaskError::value("loss.class_weights", w, "numbers above 0")),
            None => Ok(()),
        }
    }
}
