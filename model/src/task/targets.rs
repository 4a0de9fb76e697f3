//! Checks that the targets of a data set fit the loss. Targets are classes or numbers.

use candle_core::{DType, Tensor};

use super::loss::LossKind;
use super::spec::Task;
use crate::data::{DataSet, Source, Target, all_numbers, is_share, listed, same_number};
use crate::train::{TrainError, unfit};

impl Task {
    /// Checks the targets of one example against the loss and the output shape of the model.
    pub(super) fn check_targets(
        &self,
        data: &dyn DataSet,
        output: &[usize],
        targets: &Tensor,
    ) -> Result<(), TrainError> {
        let classes = targets.dtype() == DType::U32;
        if !classes && !self.loss.class_weights.is_empty() {
            return unfit(
                "loss.class_weights has a weight for each class, but the targets are numbers, not classes: remove \
                 loss.class_weights, or write target = \"class\" in the [data] table"
                    .into(),
            );
        }
        if self.data.standardise_target && self.loss.kind != LossKind::MeanSquaredError {
            return unfit(format!(
                "data.standardise_target is for numbers with the mean-squared-error loss, but loss.kind is {:?}: remove \
                 data.standardise_target",
                self.loss.kind.name()
            ));
        }
        match self.loss.kind {
            LossKind::CrossEntropy => check_cross_entropy(output, targets),
            LossKind::BinaryCrossEntropy if classes => self.check_binary_classes(data, output),
            LossKind::BinaryCrossEntropy => self.check_width(output, targets),
            LossKind::MeanSquaredError => {
                let numbers = classes || self.data.target == Some(Target::Value);
                match renamed(data.class_names()).filter(|_| numbers) {
                    Some((name, number)) => unfit(self.class_is_not_its_number(data, name, number)),
                    None => self.check_width(output, targets),
                }
            }
        }
    }

    /// The error message for a class whose name isn't its number.
    fn class_is_not_its_number(&self, data: &dyn DataSet, name: &str, number: usize) -> String {
        let names = data.class_names();
        let mut remedies = Vec::new();
        if all_numbers(names) {
            let by_file = matches!(
                self.data.source,
                Source::Csv | Source::Npy | Source::Safetensors
            );
            let value = "write target = \"value\" in the [data] table";
            remedies.push(if by_file {
                format!("To train on the labels as numbers, {value}.")
            } else {
                format!(
                    "To train on the labels as numbers, {value} and remove data.classes and data.class_names."
                )
            });
        }
        let kept = match self.data.target {
            Some(Target::Value) => ", remove data.target",
            _ => "",
        };
        remedies.push(format!(
            "To tell the classes apart, write kind = \"cross-entropy\" in the [loss] table{kept} and give the last layer \
             {} outputs.",
            names.len()
        ));
        format!(
            "loss.kind = \"mean-squared-error\" compares the model's outputs with numbers, but the targets are classes: \
             the label {name:?} would be trained on as the number {number} (classes: {}). {}",
            listed(names),
            remedies.join(" ")
        )
    }

    /// Checks that the model has one output, and that the classes aren't numbers between 0 and 1.
    fn check_binary_classes(&self, data: &dyn DataSet, output: &[usize]) -> Result<(), TrainError> {
        let names = data.class_names();
        let shares = self.data.target.is_none()
            && names.iter().all(|name| is_share(name).is_some())
            && names.iter().any(|name| is_share(name) == Some(true));
        if shares {
            return unfit(format!(
                "the labels are numbers between 0 and 1 ({}), which the binary cross-entropy loss can use directly, but \
                 without data.target they are classes, numbered 0, 1, … in their order. Write target = \"value\" in the \
                 [data] table to train on the numbers, or target = \"class\" if they are the names of two classes",
                listed(names)
            ));
        }
        if output != [1] {
            return unfit(format!(
                "the binary cross-entropy loss tells two classes apart by one output per example, but the model's output \
                 has shape {output:?}. Give the last layer one output, or write kind = \"cross-entropy\" in the [loss] \
                 table, which takes one output per class"
            ));
        }
        Ok(())
    }

    /// Checks that there is one target per output.
    fn check_width(&self, output: &[usize], targets: &Tensor) -> Result<(), TrainError> {
        let values = targets.elem_count();
        let outputs: usize = output.iter().product();
        if values != outputs {
            return unfit(format!(
                "the {} loss compares each of the model's outputs with a number, but the model gives {} per example \
                 and the labels hold {}: set the number of outputs of the last layer to {values}",
                self.loss.kind.name(),
                counted(outputs),
                counted(values)
            ));
        }
        Ok(())
    }
}

/// The first class whose name isn't its number. Two classes with words as names are allowed as the numbers 0 and 1.
fn renamed(names: &[String]) -> Option<(&str, usize)> {
    if names.len() == 2
        && names
            .iter()
            .all(|name| !all_numbers(std::slice::from_ref(name)))
    {
        return None;
    }
    let mut numbered = names.iter().map(String::as_str).zip(0..);
    numbered.find(|(name, number)| !same_number(name, &number.to_string()))
}

fn check_cross_entropy(output: &[usize], targets: &Tensor) -> Result<(), TrainError> {
    if targets.dtype() == DType::U32 && targets.dims() == [1] {
        return Ok(());
    }
    let values = targets.elem_count();
    let advice = if values == 1 {
        "If they are class numbers, write target = \"class\" in the [data] table. To predict a number, write kind = \
         \"mean-squared-error\" in the [loss] table"
    } else if values == output.iter().product::<usize>() {
        "If they are one-hot, save class numbers instead (numpy: labels.argmax(axis=1))"
    } else {
        "Save class numbers instead"
    };
    unfit(format!(
        "the cross-entropy loss takes one class per example, a whole number from 0, but the labels are {} per example. {advice}",
        counted(values)
    ))
}

fn counted(values: usize) -> String {
    match values {
        1 => "1 number".to_owned(),
        n => format!("{n} numbers"),
    }
}
