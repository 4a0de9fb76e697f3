//! Counts the operations of a model's matrix products from its layers.

use hindcast_model::net::{Net, Node, Op};
use hindcast_model::objective::Objective;

/// Floating-point operations of the matrix products of a forward pass for one example. A multiplication and an addition
/// count as two. Activations, pooling, normalisation and the update aren't counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Flops {
    /// In all layers.
    pub forward: f64,
    /// In layers whose input doesn't depend on parameters, so that their backward pass needs no gradient of the input.
    pub first: f64,
    /// In layers for which a replay step needs the cotangent of the input itself, not only of its tangents. There are
    /// none after the first layer with parameters as long as everything after it is piecewise linear.
    pub curved: f64,
}

impl Flops {
    /// Counts the operations of a model.
    pub fn of(net: &Net) -> Self {
        let mut out = Flops::default();
        let shape = |i: usize| net.parameters().get(i).map_or(&[][..], |def| &def.shape);
        let start = Place {
            depends: false,
            curved: false,
        };
        chain(net.nodes(), start, &shape, &mut out);
        out
    }

    /// Operations of a training step or a gradient. In units of a forward pass: 1 for the forward pass, 1 for the
    /// gradients of the inputs, 1 for the gradients of the weights.
    pub fn step(&self) -> f64 {
        3.0 * self.forward - self.first
    }

    /// Operations of a replay step for `queries` directions by the R-operator. In units of a forward pass: 1 shared and
    /// 6 per query, and 1 more in layers that need the cotangent of the input itself. In layers without a gradient of
    /// the input: 1 shared and 2 per query.
    pub fn replay(&self, queries: usize) -> f64 {
        let q = queries as f64;
        self.forward * (1.0 + 6.0 * q) - self.first * 4.0 * q + self.curved
    }
}

/// Properties of the values that a layer reads.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Whether they depend on parameters.
    depends: bool,
    /// Whether the backward pass with tangents needs their own cotangent.
    curved: bool,
}

/// Adds up the layers of a chain. Returns the properties of its output.
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
            // Each weight is used once per position of the output, or, transposed, of the input.
            Op::Conv2d { weight, .. } => 2.0 * product(shape(*weight)) * area(&node.output),
            Op::ConvTranspose2d { weight, .. } => 2.0 * product(shape(*weight)) * area(&node.input),
            Op::Residual { body, projection } => {
                let one = chain(body, at, shape, out);
                let other = chain(projection, at, shape, out);
                at = Place {
                    depends: one.depends || other.depends,
                    curved: one.curved || other.curved,
                };
                continue;
            }
            Op::BatchNorm { .. } => {
                at = Place {
                    depends: true,
                    curved: true,
                };
                continue;
            }
            Op::Tanh | Op::Sigmoid | Op::Gelu => {
                at.curved |= at.depends;
                continue;
            }
            _ => continue,
        };
        out.forward += work;
        if !at.depends {
            out.first += work;
        } else if at.curved {
            out.curved += work;
        }
        // The weight's second derivative needs the cotangent of a layer's output if the layer's input has a tangent.
        at = Place {
            depends: true,
            curved: at.depends,
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
    fn both_paths_of_a_residual_block_count_as_first_layers() {
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
