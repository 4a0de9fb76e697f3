//! The operation with a wrong derivative, in words.

use std::fmt;

use super::known::KnownOperation;

/// The operation at which a wrong derivative begins.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Fault {
    /// 1 or 2: the first derivative is wrong, or only the second.
    pub order: u8,
    /// Position among the operations that depend on parameters, from 1, in the order of the forward pass.
    pub operation: usize,
    /// Number of such operations.
    pub operations: usize,
    /// Shape of its result.
    pub shape: Vec<usize>,
    /// Parameters that it depends on.
    pub after: Vec<String>,
    /// Parameters that are used after it.
    pub before: Vec<String>,
    /// Parameters on which its result depends, although candle's graph doesn't lead to them.
    pub unreached: Vec<String>,
    /// The operation, if it is one of those known to be wrong.
    pub known: Option<KnownOperation>,
    /// candle's message, if the derivative doesn't exist at all.
    pub problem: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = match self.order {
            1 => "first",
            _ => "second",
        };
        if self.operations == 0 {
            f.write_str("candle's graph leads from the losses to no parameter")?;
        } else {
            write!(
                f,
                "the {order} derivative goes wrong at operation {} of {} of the forward pass, whose result has shape {:?}",
                self.operation, self.operations, self.shape
            )?;
        }
        if let Some(last) = self.after.last() {
            write!(f, "; it comes after {last}")?;
        }
        if let Some(first) = self.before.first() {
            write!(f, " and before {first}")?;
        }
        if let Some((first, more)) = self.unreached.split_first() {
            write!(f, "; its values depend on {first}")?;
            if !more.is_empty() {
                let tensors = if more.len() == 1 { "tensor" } else { "tensors" };
                write!(f, " and {} other {tensors}", more.len())?;
            }
            f.write_str(", and its gradient doesn't")?;
        }
        if let Some(problem) = &self.problem {
            write!(f, " (candle: {problem})")?;
        }
        match &self.known {
            Some(known) => write!(
                f,
                "\nit is {}: {}.\ncure: {}",
                known.name, known.why, known.cure
            ),
            None => f.write_str(
                "\nlook there for an operation whose derivative in candle is wrong, a custom operation whose `bwd` is wrong or computes with \
                 numbers instead of tensors, a detach(), candle's scatter or scatter_add, or values that were copied out of a tensor and into a new one.\ncure: \
                 hindcast_model::own has candle_nn's layers, own::gather and own::scatter_add, and hindcast_model::ops convolution, pooling, activations, normalisation and losses, that are right to the second \
                 derivative. A detach() in the loss (a target of Q-learning, an averaged teacher) becomes hindcast_model::own::stop_gradient, in training and in \
                 the model: its values are the same, so recorded runs can be analysed",
            ),
        }
    }
}
