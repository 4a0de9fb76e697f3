//! A data set of token sequences, built step by step.

use super::own::Pairs;
use super::tokens::Tokens;
use super::{DataError, DataSet, Vocabulary};

/// Token sequences from a program's own tensors, with what [`from_tensors`](super::from_tensors) doesn't take: the texts of
/// the tokens.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use hindcast_model::data::{Sequences, Vocabulary};
/// use hindcast_model::objective::Split;
///
/// let chars = Vocabulary::chars("abc ".chars());
/// let inputs = Tensor::new(&[[0u32, 1, 3], [2, 0, 0]], &Device::Cpu)?;
/// let targets = Tensor::new(&[[1i64, 3, 2], [0, -100, -100]], &Device::Cpu)?; // −100 is padding
/// let data = Sequences::new((&inputs, &targets)).vocabulary(chars).build()?;
/// assert_eq!(data.label(Split::Train, 0), "b c");
/// assert_eq!(data.text(Split::Train, 0).as_deref(), Some("ab "));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sequences<'a> {
    parts: [Option<Pairs<'a>>; 3],
    classes: Vec<&'a str>,
    vocabulary: Option<Vocabulary>,
}

impl<'a> Sequences<'a> {
    /// The training sequences: inputs (N, T) of type u32 or i64, and targets of the same N examples: (N,) classes, (N, T)
    /// tokens, or (N, k) floats. Inputs (N, C, T) hold the ids in their first channel and other integers per token in the
    /// others, such as an attention mask or the number of a segment.
    pub fn new(train: Pairs<'a>) -> Self {
        Self {
            parts: [Some(train), None, None],
            classes: Vec::new(),
            vocabulary: None,
        }
    }

    /// The validation sequences.
    #[must_use]
    pub fn validation(mut self, pairs: Pairs<'a>) -> Self {
        self.parts[1] = Some(pairs);
        self
    }

    /// The test sequences.
    #[must_use]
    pub fn test(mut self, pairs: Pairs<'a>) -> Self {
        self.parts[2] = Some(pairs);
        self
    }

    /// Names of the classes, for targets that are classes.
    #[must_use]
    pub fn classes(mut self, names: &[&'a str]) -> Self {
        self.classes = names.to_vec();
        self
    }

    /// The texts of the tokens. Labels that are tokens, and inputs, are then shown as text.
    #[must_use]
    pub fn vocabulary(mut self, vocabulary: Vocabulary) -> Self {
        self.vocabulary = Some(vocabulary);
        self
    }

    /// Checks and converts the tensors.
    ///
    /// # Errors
    /// [`DataError::Malformed`] if types or shapes of tensors don't fit together, [`DataError::Class`] for a class without a
    /// name.
    pub fn build(self) -> Result<Box<dyn DataSet>, DataError> {
        Ok(Box::new(Tokens::new(
            self.parts,
            &self.classes,
            self.vocabulary,
        )?))
    }
}
