//! What is allowed but rarely meant in a task's data and plan.

use std::fmt;

use super::spec::Task;
use crate::data::DataSet;
use crate::objective::Split;

/// Share of the training examples from which so many classes are doubted.
const MANY_CLASSES: f64 = 0.5;
/// Fewest classes that are too many: small data can have few examples of each class.
const FEWEST_CLASSES: usize = 20;

/// Something that can be trained and is rarely meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Doubt {
    /// All training examples have the same class.
    OneClass {
        /// Its name.
        name: String,
    },
    /// There are nearly as many classes as training examples.
    ManyClasses {
        /// Number of classes.
        classes: usize,
        /// Number of training examples.
        examples: u64,
    },
    /// A batch is larger than the training split.
    LargeBatch {
        /// `train.batch`.
        batch: u64,
        /// Number of training examples.
        examples: u64,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OneClass { name } => write!(
                f,
                "all training examples have the label {name:?}, so there is nothing to learn: check which column or file the labels come from"
            ),
            Self::ManyClasses { classes, examples } => write!(
                f,
                "the labels have {classes} classes for {examples} training examples: a column of identifiers or of numbers may have been taken as \
                 labels"
            ),
            Self::LargeBatch { batch, examples } => write!(
                f,
                "train.batch = {batch} is more than the {examples} training examples: every step uses all of them"
            ),
        }
    }
}

impl Task {
    /// What is rarely meant, although it can be trained.
    pub fn doubts(&self, data: &dyn DataSet) -> Vec<Doubt> {
        let examples = data.len(Split::Train);
        let mut doubts = Vec::new();
        if let Some(counts) = class_counts(data) {
            let used = counts.iter().filter(|count| **count > 0).count();
            let name = data
                .class_names()
                .iter()
                .zip(&counts)
                .find(|(_, count)| **count > 0);
            match (used, name) {
                (1, Some((name, _))) if examples > 1 => {
                    doubts.push(Doubt::OneClass { name: name.clone() });
                }
                _ if used >= FEWEST_CLASSES && used as f64 > MANY_CLASSES * examples as f64 => {
                    doubts.push(Doubt::ManyClasses {
                        classes: used,
                        examples,
                    });
                }
                _ => {}
            }
        }
        let batch = self.train.batch as u64;
        if batch > examples && examples > 0 {
            doubts.push(Doubt::LargeBatch { batch, examples });
        }
        doubts
    }
}

/// Number of training examples of each class. `None` if the labels aren't classes.
pub fn class_counts(data: &dyn DataSet) -> Option<Vec<u64>> {
    let mut counts = vec![0u64; data.class_count()?];
    for index in 0..data.len(Split::Train) {
        let class = data.class(Split::Train, index)?;
        *counts.get_mut(class)? += 1;
    }
    Some(counts)
}
