//! Checks before the first step that a task and its data fit together.

use candle_core::{DType, Device, Tensor};

use super::loss::LossKind;
use super::spec::Task;
use super::training::Precision;
use crate::batches::Batches;
use crate::data::DataSet;
use crate::net::Net;
use crate::objective::{Batch, Split};
use crate::train::{TrainError, unfit};

/// Number of values per check, which limits memory.
const AT_ONCE: usize = 1 << 22;

impl Task {
    /// Checks that the examples fit the model and the loss.
    ///
    /// # Errors
    /// [`TrainError::Data`] if their shape isn't `model.input`, there are more classes than outputs, the labels don't
    /// fit the loss, or there are no training examples.
    pub fn check_data(&self, data: &dyn DataSet) -> Result<(), TrainError> {
        self.check_shape(data)?;
        self.check_labels(data)
    }

    /// All reasons for which the examples don't fit the Task: those of [`Task::check_data`], [`Task::check_plan`] and
    /// [`Task::check_values`]. Of bad values, at most `most`.
    pub fn misfits(&self, data: &dyn DataSet, most: usize) -> Vec<TrainError> {
        let mut found: Vec<TrainError> = Vec::new();
        found.extend(self.check_shape(data).err());
        let labels = self.check_labels(data).err();
        // Labels that don't fit at all are named once, and not for each example.
        let classes = labels.is_none().then(|| self.class_limit()).flatten();
        found.extend(labels);
        found.extend(self.check_plan(data.len(Split::Train)).err());
        match self.bad_values(data, most, classes) {
            Ok(bad) => found.extend(bad.into_iter().map(TrainError::Data)),
            Err(error) => found.push(error),
        }
        found
    }

    fn check_shape(&self, data: &dyn DataSet) -> Result<(), TrainError> {
        if data.shape() == self.model.input {
            return Ok(());
        }
        unfit(format!(
            "the examples have shape {:?}, but the task's model.input is {:?}: set it to the examples' shape",
            data.shape(),
            self.model.input
        ))
    }

    /// Checks that there are training examples, and that their labels fit the loss and the model's outputs.
    fn check_labels(&self, data: &dyn DataSet) -> Result<(), TrainError> {
        if data.len(Split::Train) == 0 {
            return unfit("there are no training examples".into());
        }
        // A model that can't be built is reported where it is built.
        let Ok(net) = Net::new(&self.model, &self.loss) else {
            return Ok(());
        };
        let first = data.batch(
            Split::Train,
            &[0],
            None,
            self.train.dtype.dtype(),
            &Device::Cpu,
        )?;
        self.check_targets(data, net.output_shape(), &first.targets)?;
        let outputs = match (self.loss.kind, net.output_shape()) {
            (LossKind::CrossEntropy, [k]) => Some(*k),
            (LossKind::BinaryCrossEntropy, [1]) => Some(2),
            _ => None,
        };
        if let (Some(outputs), Some(classes)) = (outputs, data.class_count())
            && classes > outputs
        {
            let widen = match self.loss.kind {
                LossKind::BinaryCrossEntropy => format!(
                    "write kind = \"cross-entropy\" in the [loss] table and give the last layer {classes} outputs"
                ),
                _ => format!("give the last layer {classes} outputs"),
            };
            return unfit(format!(
                "the examples have {classes} classes, but the model can tell only {outputs} apart: {widen}, or select \
                 classes with data.classes"
            ));
        }
        Ok(())
    }

    /// Checks that all steps on this number of training examples can be computed: there is at least one step, every
    /// batch is large enough for the model's batch norms, and every learning rate is finite.
    ///
    /// # Errors
    /// [`TrainError::Data`], with the keys to change.
    pub fn check_plan(&self, examples: u64) -> Result<(), TrainError> {
        let batches = Batches::new(&self.train, examples);
        if batches.steps_per_epoch() == 0 {
            return unfit(format!(
                "there is no batch to train on: train.drop_last leaves out an epoch's last batch if it is short, and \
                 {examples} training examples are fewer than train.batch = {}. Lower train.batch or set \
                 train.drop_last = false",
                self.train.batch
            ));
        }
        self.check_rates(&batches)?;
        let Ok(net) = Net::new(&self.model, &self.loss) else {
            return Ok(());
        };
        match (net.single_value_batch_norm(), batches.sizes().first()) {
            (Some(layer), Some(1)) => unfit(self.single_example_message(layer, examples)),
            _ => Ok(()),
        }
    }

    /// The message for a batch of one example: its cause, and the keys to change.
    fn single_example_message(&self, layer: &str, examples: u64) -> String {
        let train = &self.train;
        let needs = format!(
            "layer {layer}: a batch norm needs at least 2 examples at a time in training, but"
        );
        let batch = train.batch as u64;
        let at_once = train.micro_batch.filter(|&m| m < train.batch);
        if train.batch == 1 || examples == 1 {
            return format!(
                "{needs} every batch has 1 ({examples} training examples, train.batch = {batch}): raise train.batch{}",
                if examples == 1 {
                    " and train on more examples"
                } else {
                    ""
                }
            );
        }
        if let Some(micro) = at_once {
            return format!(
                "{needs} some micro-batches have 1 ({examples} training examples, train.batch = \
                 {batch}, train.micro_batch = {micro}): change train.micro_batch or train.batch, or leave a short last \
                 batch out (train.drop_last = true)"
            );
        }
        format!(
            "{needs} the last batch of each epoch has 1 ({examples} training examples in batches of {batch}): leave it \
             out (train.drop_last = true), cut epochs into nearly equal batches (train.batches = \"even\"), or change \
             train.batch"
        )
    }

    /// Checks the learning rates of the first step, the end of the warmup and the last step. The largest and the
    /// smallest rate are among them.
    fn check_rates(&self, batches: &Batches) -> Result<(), TrainError> {
        let last = batches.steps().saturating_sub(1);
        let most = match self.train.dtype {
            Precision::F32 => f64::from(f32::MAX),
            Precision::F64 => f64::MAX,
        };
        for step in [0, self.schedule.warmup().min(last), last] {
            let at = batches.position(step);
            let rate = self.schedule.rate(at);
            if !(0.0..=most).contains(&rate) {
                return unfit(format!(
                    "the learning rate of step {step} (epoch {}) is {rate}: lower schedule.learning_rate, \
                     schedule.factor or train.epochs",
                    at.epoch
                ));
            }
        }
        Ok(())
    }

    /// Checks all examples as the model gets them. Every value must be finite in the run's float type, every class must
    /// be smaller than the model's number of classes, and targets of the binary cross-entropy must be between 0 and 1.
    ///
    /// # Errors
    /// [`TrainError::Data`] for the first bad example.
    pub fn check_values(&self, data: &dyn DataSet) -> Result<(), TrainError> {
        match self
            .bad_values(data, 1, self.class_limit())?
            .into_iter()
            .next()
        {
            Some(problem) => unfit(problem),
            None => Ok(()),
        }
    }

    /// A message for each of the first `most` bad examples. Classes must be below `classes`, if it is given.
    fn bad_values(
        &self,
        data: &dyn DataSet,
        most: usize,
        classes: Option<usize>,
    ) -> Result<Vec<String>, TrainError> {
        let width = data.shape().iter().product::<usize>().max(1);
        let rows = (AT_ONCE / width).max(1) as u64;
        let dtype = self.train.dtype.dtype();
        let mut found = Vec::new();
        for split in Split::ALL {
            let mut start = 0;
            while start < data.len(split) && found.len() < most {
                let end = data.len(split).min(start + rows);
                let indices: Vec<u64> = (start..end).collect();
                let batch = data.batch(split, &indices, None, dtype, &Device::Cpu)?;
                let bad = self.bad_values_of(data, split, &batch, classes)?;
                found.extend(bad.into_iter().take(most - found.len()));
                start = end;
            }
        }
        Ok(found)
    }

    /// A message for each bad example of a batch.
    fn bad_values_of(
        &self,
        data: &dyn DataSet,
        split: Split,
        batch: &Batch,
        classes: Option<usize>,
    ) -> Result<Vec<String>, TrainError> {
        let bits = match self.train.dtype {
            Precision::F32 => 32,
            Precision::F64 => 64,
        };
        let named = |row: usize| {
            let index = batch.indices.get(row).copied().unwrap_or(0);
            let place = match data.origin_file(split, index) {
                Some((file, row)) => format!(" (row {row} of {file})"),
                None => String::new(),
            };
            format!("{} example {index}{place}", split.name())
        };
        let mut found = Vec::new();
        for (row, at, value) in bad_rows(&batch.inputs, |x| !x.is_finite())? {
            found.push(format!(
                "{}: value {at} of the inputs is {value} in {bits}-bit floats, expected a finite number. Check the \
                 row and data.divide_by, data.mean and data.sd{}",
                named(row),
                if bits == 32 {
                    ", or train with train.dtype = \"f64\""
                } else {
                    ""
                }
            ));
        }
        if batch.targets.dtype() == DType::U32 {
            found.extend(bad_classes(batch, classes, named)?);
            return Ok(found);
        }
        let within = self.loss.kind == LossKind::BinaryCrossEntropy;
        let bad = |x: f64| !x.is_finite() || within && !(0.0..=1.0).contains(&x);
        for (row, at, value) in bad_rows(&batch.targets, bad)? {
            let expected = if within {
                "a number in [0, 1] for the binary cross-entropy"
            } else {
                "a finite number"
            };
            found.push(format!(
                "{}: value {at} of the targets is {value}, expected {expected}",
                named(row)
            ));
        }
        Ok(found)
    }

    /// The number of classes that the model and its loss can tell apart. `None` for a loss without classes.
    fn class_limit(&self) -> Option<usize> {
        match self.loss.kind {
            LossKind::CrossEntropy => {
                let net = Net::new(&self.model, &self.loss).ok()?;
                Some(net.output_shape().first().copied().unwrap_or(0))
            }
            LossKind::BinaryCrossEntropy => Some(2),
            LossKind::MeanSquaredError => None,
        }
    }
}

/// A message for each example of a batch with a class that the model doesn't have. A user's own data set may not report
/// its number of classes.
fn bad_classes(
    batch: &Batch,
    limit: Option<usize>,
    named: impl Fn(usize) -> String,
) -> Result<Vec<String>, TrainError> {
    let Some(outputs) = limit else {
        return Ok(Vec::new());
    };
    let classes = batch.targets.flatten_all()?.to_vec1::<u32>()?;
    let bad = classes.iter().enumerate();
    let bad = bad.filter(|(_, class)| **class as usize >= outputs);
    let messages = bad.map(|(row, class)| {
        format!(
            "{} has class {class}, but the model can tell only {outputs} apart (0 to {}): give its last layer more outputs",
            named(row),
            outputs.saturating_sub(1)
        )
    });
    Ok(messages.collect())
}

/// The first bad value of each row that has one: the row, the position in the row, and the value.
fn bad_rows(
    tensor: &Tensor,
    bad: impl Fn(f64) -> bool,
) -> candle_core::Result<Vec<(usize, usize, f64)>> {
    let rows = tensor.dims().first().copied().unwrap_or(0).max(1);
    let width = (tensor.elem_count() / rows).max(1);
    let flat = tensor.flatten_all()?;
    Ok(match flat.dtype() {
        DType::F32 => by_row(&flat.to_vec1::<f32>()?, width, bad),
        _ => by_row(&flat.to_dtype(DType::F64)?.to_vec1::<f64>()?, width, bad),
    })
}

fn by_row<T: Copy + Into<f64>>(
    values: &[T],
    width: usize,
    bad: impl Fn(f64) -> bool,
) -> Vec<(usize, usize, f64)> {
    let rows = values.chunks(width).enumerate();
    rows.filter_map(|(row, values)| {
        let mut values = values.iter().map(|v| (*v).into()).enumerate();
        let (at, value) = values.find(|(_, v)| bad(*v))?;
        Some((row, at, value))
    })
    .collect()
}
