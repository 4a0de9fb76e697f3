//! Operations of a model's matrix products, counted from its layers.

use hindcast_model::net::{Net, Node, Op};
use hindcast_model::objective::Objective;

/// Floating-point operations of the matrix products of a forward pass (a multiplication and an addition are two) for one
/// example. Activations, pooling, normalisation and the update aren't counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flops {
    /// Of all layers.
    pub forward: f64,
    /// Of those whose input doesn't depend on parameters, so that nothing flows back through it.
    pub first: f64,
    /// Of those whose input's own cotangent a replay step reads, not only its tangents: below the first layer with parameters
    /// nobody does as long as everything in between is linear in pieces.
    pub curved: f64,
}

impl Flops {
    /// Counts a model's.
    pub fn of(net: &Net) -> Self {
        let mut out = Flops::default();
        let shape = |i: usize| net.parameters().get(i).map_or(&[][..], |def| &def.shape);
        let start = Place {
            moves: false,
            curved: false,
        };
        chain(net.nodes(), start, &shape, &mut out);
        out
    }

    /// Of a training step, or a gradient: forward 1, back to the inputs 1, weight gradients 1.
    pub fn step(&self) -> f64 {
        3.0 * self.forward - self.first
    }

    /// Of a replay step for `queries` directions by the R-operator: 1 that they share and 6 a query, 1 more where the input's own
    /// cotangent is read; where nothing flows back, 1 and 2.
    pub fn replay(&self, queries: usize) -> f64 {
        let q = queries as f64;
        self.forward * (1.0 + 6.0 * q) - self.first * 4.0 * q + self.curved
    }
}

/// What holds for the values that a layer reads.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// They depend on parameters.
    moves: bool,
    /// Their own cotangent is read on the way back with tangents.
    curved: bool,
}

/// Adds a chain's layers up; gives what holds for what comes out.
fn chain<'a>(
    nodes: &[Node],
    mut at: Place,
    shape: &impl Fn(usize) -> &'a [usize],
    out: &mut Flops,
) -> Place {
    let product = |shape: &[usize]| shape.iter().product::<usize>() as f64;
    // Height times width.
    let area = |shape: &[usize]| product(shape.get(1..).unwrap_or_default());
    for node in nodes {
        let work = match &node.op {
            Op::Linear { weight, .. } => 2.0 * product(shape(*weight)),
            // Each weight once for every place of the output, or of the input where that is the smaller image.
            Op::Conv2d { weight, .. } => 2.0 * product(shape(*weight)) * area(&node.output),
            Op::ConvTranspose2d { weight, .. } => 2.0 * product(shape(*weight)) * area(&node.input),
            Op::Residual { body, projection } => {
                let one = chain(body, at, shape, out);
                let other = chain(projection, at, shape, out);
                at = Place {
                    moves: one.moves || other.moves,
                    curved: one.curved || other.curved,
                };
                continue;
            }
            Op::BatchNorm { .. } => {
                at = Place {
                    moves: true,
                    curved: true,
                };
                continue;
            }
            Op::Tanh | Op::Sigmoid | Op::Gelu => {
                at.curved |= at.moves;
                continue;
            }
            _ => continue,
        };
        out.forward += work;
        if !at.moves {
            out.first += work;
        } else if at.curved {
            out.curved += work;
        }
        // The weight's second derivative reads what comes back to a layer whose input has a tangent.
        at = Place {
            moves: true,
            curved: at.moves,
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_model::task::Task;

    #[test]
    fn the_mnist_cnn_is_counted_as_by_hand() {
        let task = Task::builtin("mnist-cnn").unwrap();
        let flops = Flops::of(&Net::new(&task.model, &task.loss).unwrap());
        // 20 filters of 1x5x5 at 24x24 places, 20 of 20x5x5 at 8x8, 320 to 10.
        let first = 2.0 * 20.0 * 25.0 * 576.0;
        let rest = 2.0 * (20.0 * 500.0 * 64.0 + 3200.0);
        assert_eq!(
            flops,
            Flops {
                forward: first + rest,
                first,
                // The second convolution comes straight after the first, the linear layer after one that has tangents.
                curved: 2.0 * 3200.0,
            }
        );
        assert_eq!(flops.step(), 2.0 * first + 3.0 * rest);
        assert_eq!(flops.replay(1), 3.0 * first + 7.0 * rest + 6400.0);
        assert_eq!(flops.replay(4), 9.0 * first + 25.0 * rest + 6400.0);
    }

    #[test]
    fn both_paths_of_a_residual_at_the_beginning_come_first() {
        let task = Task::from_toml(
            "name = \"r\"\n[data]\nsource = \"digits\"\n[model]\ninput = [1, 28, 28]\nlayers = [{ kind = \"residual\", \
             layers = [{ kind = \"conv2d\", out = 4, kernel = 3, padding = 1 }], \
             projection = [{ kind = \"conv2d\", out = 4, kernel = 1 }] }, { kind = \"flatten\" }, { kind = \"linear\", out = 10 }]\n\
             [loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\n[schedule]\nkind = \"constant\"\nlearning_rate = 0.1\n\
             [train]\nepochs = 1\nbatch = 4\n",
        )
        .unwrap();
        let flops = Flops::of(&Net::new(&task.model, &task.loss).unwrap());
        let first = 2.0 * 784.0 * (36.0 + 4.0);
        assert_eq!(flops.first, first);
        assert_eq!(flops.forward, first + 2.0 * 4.0 * 784.0 * 10.0);
    }
}
