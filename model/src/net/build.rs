//! Builds a net: names, shapes and initial values of its tensors.

use super::model::{Net, Node, Op, Start};
use crate::objective::TensorDef;
use crate::task::shape::{Misfit, output_shape, values};
use crate::task::{Layer, LossSpec, ModelSpec, TaskError};

/// Largest number of parameters. A larger number in a Task is a mistake or an attack.
const MAX_PARAMETERS: usize = 1 << 34;
/// Largest number of layers, including those inside residuals. Derivatives of a chain of layers are computed by
/// recursion, one call per layer, on a stack of a few megabytes.
const MAX_LAYERS: usize = 4096;
/// Largest nesting depth of residuals.
const MAX_DEPTH: usize = 32;

impl Net {
    /// Builds a net from the `[model]` and `[loss]` tables of a Task.
    ///
    /// # Errors
    /// [`TaskError::Layer`] for the first layer that doesn't fit its input shape. [`TaskError::Value`] for a
    /// `model.input` that is not `[features]` or `[channels, height, width]`, or a model without parameters.
    pub fn new(model: &ModelSpec, loss: &LossSpec) -> Result<Self, TaskError> {
        if !matches!(model.input.len(), 1 | 3) || model.input.contains(&0) {
            return Err(TaskError::value(
                "model.input",
                format!("{:?}", model.input),
                "[features] or [channels, height, width], none of them 0",
            ));
        }
        let mut builder = Builder::default();
        let (nodes, output) = builder.chain(&model.layers, &model.input, "model.layers", "", 0)?;
        if builder.parameters.is_empty() {
            return Err(TaskError::value(
                "model.layers",
                format!("{} layers without parameters", model.layers.len()),
                "at least one layer with parameters",
            ));
        }
        Ok(Self {
            nodes,
            parameters: builder.parameters,
            starts: builder.starts,
            buffers: builder.buffers,
            buffer_starts: builder.buffer_starts,
            input: model.input.clone(),
            output,
            loss: loss.clone(),
        })
    }
}

#[derive(Default)]
struct Builder {
    parameters: Vec<TensorDef>,
    starts: Vec<Start>,
    buffers: Vec<TensorDef>,
    buffer_starts: Vec<f64>,
    dropouts: u32,
    layers: usize,
    total: usize,
}

impl Builder {
    /// Builds a list of layers. `place` is the path of the list in the Task, `prefix` the beginning of the layers' names.
    fn chain(
        &mut self,
        layers: &[Layer],
        input: &[usize],
        place: &str,
        prefix: &str,
        depth: usize,
    ) -> Result<(Vec<Node>, Vec<usize>), TaskError> {
        let digits = layers.len().saturating_sub(1).to_string().len();
        let mut shape = input.to_vec();
        let mut nodes = Vec::with_capacity(layers.len());
        for (number, layer) in layers.iter().enumerate() {
            let place = format!("{place}[{number}]");
            let path = format!("{prefix}{number:0digits$}.{}", layer.kind());
            let error = |misfit: Misfit| TaskError::Layer {
                place: place.clone(),
                number,
                kind: layer.kind(),
                expected: misfit.expected,
                got: shape.clone(),
                advice: misfit.advice,
            };
            self.layers += 1;
            if self.layers > MAX_LAYERS {
                return Err(error(Misfit {
                    expected: format!(
                        "the model to have at most {MAX_LAYERS} layers, including those inside residuals"
                    ),
                    advice: "use fewer layers",
                }));
            }
            let mut output = output_shape(layer, &shape).map_err(error)?;
            values(&output).map_err(error)?;
            let op = if let Layer::Residual { layers, projection } = layer {
                if depth == MAX_DEPTH {
                    return Err(error(Misfit {
                        expected: format!("at most {MAX_DEPTH} residuals inside one another"),
                        advice: "nest them less deeply",
                    }));
                }
                let inner = format!("{path}.");
                let (body, out) = self.chain(
                    layers,
                    &shape,
                    &format!("{place}.layers"),
                    &inner,
                    depth + 1,
                )?;
                let (projection, shortcut) = self.chain(
                    projection,
                    &shape,
                    &format!("{place}.projection"),
                    &format!("{inner}projection."),
                    depth + 1,
                )?;
                if out != shortcut {
                    return Err(error(Misfit {
                        expected: format!(
                            "its layers' output {out:?} and its shortcut's {shortcut:?} to have one shape"
                        ),
                        advice: "give it a projection, or layers that keep the shape",
                    }));
                }
                output = out;
                Op::Residual { body, projection }
            } else {
                self.op(layer, &path, &shape).map_err(error)?
            };
            nodes.push(Node {
                path,
                op,
                input: std::mem::replace(&mut shape, output.clone()),
                output,
            });
        }
        Ok((nodes, shape))
    }

    fn op(&mut self, layer: &Layer, path: &str, input: &[usize]) -> Result<Op, Misfit> {
        let first = input.first().copied().unwrap_or(0);
        Ok(match layer {
            Layer::Linear { out, bias } => {
                let (weight, bias) = self.affine(path, vec![*out, first], first, *out, *bias)?;
                Op::Linear { weight, bias }
            }
            Layer::Conv2d {
                out,
                kernel,
                stride,
                padding,
                bias,
            } => {
                let shape = vec![*out, first, kernel.height, kernel.width];
                let fan_in = values(&shape[1..])?;
                let (weight, bias) = self.affine(path, shape, fan_in, *out, *bias)?;
                Op::Conv2d {
                    weight,
                    bias,
                    stride: stride.pair(),
                    padding: padding.pair(),
                }
            }
            Layer::ConvTranspose2d {
                out,
                kernel,
                stride,
                padding,
                output_padding,
                bias,
            } => {
                let shape = vec![first, *out, kernel.height, kernel.width];
                // PyTorch takes fan_in from the second dimension here, too, although that holds the outputs.
                let fan_in = values(&shape[1..])?;
                let (weight, bias) = self.affine(path, shape, fan_in, *out, *bias)?;
                Op::ConvTranspose2d {
                    weight,
                    bias,
                    stride: stride.pair(),
                    padding: padding.pair(),
                    output_padding: output_padding.pair(),
                }
            }
            Layer::BatchNorm { momentum, eps } => Op::BatchNorm {
                // The bias comes before the weight because tensors are in the order of their names.
                bias: self.parameter(path, "bias", vec![first], Start::Constant(0.0))?,
                weight: self.parameter(path, "weight", vec![first], Start::Constant(1.0))?,
                mean: self.buffer(path, "running_mean", first, 0.0),
                variance: self.buffer(path, "running_var", first, 1.0),
                momentum: *momentum,
                eps: *eps,
            },
            Layer::Dropout { p } => {
                self.dropouts += 1;
                Op::Dropout {
                    p: *p,
                    stream: self.dropouts - 1,
                }
            }
            Layer::MaxPool2d {
                kernel,
                stride,
                padding,
            } => Op::MaxPool2d {
                kernel: kernel.pair(),
                stride: stride.unwrap_or(*kernel).pair(),
                padding: padding.pair(),
            },
            Layer::AvgPool2d { kernel, stride } => Op::AvgPool2d {
                kernel: kernel.pair(),
                stride: stride.unwrap_or(*kernel).pair(),
            },
            Layer::Relu {} => Op::Relu,
            Layer::Tanh {} => Op::Tanh,
            Layer::Sigmoid {} => Op::Sigmoid,
            Layer::Gelu {} => Op::Gelu,
            Layer::Flatten {} | Layer::Residual { .. } => Op::Flatten,
        })
    }

    /// Adds weight and bias. The bias comes first because tensors are in the order of their names.
    fn affine(
        &mut self,
        path: &str,
        shape: Vec<usize>,
        fan_in: usize,
        out: usize,
        bias: bool,
    ) -> Result<(usize, Option<usize>), Misfit> {
        let start = Start::Uniform(1.0 / (fan_in.max(1) as f64).sqrt());
        let bias = if bias {
            Some(self.parameter(path, "bias", vec![out], start)?)
        } else {
            None
        };
        Ok((self.parameter(path, "weight", shape, start)?, bias))
    }

    fn parameter(
        &mut self,
        path: &str,
        name: &str,
        shape: Vec<usize>,
        start: Start,
    ) -> Result<usize, Misfit> {
        let size = values(&shape)?;
        self.total = self.total.saturating_add(size);
        if self.total > MAX_PARAMETERS {
            return Err(Misfit {
                expected: format!("the model to have at most {MAX_PARAMETERS} parameters"),
                advice: "make it smaller",
            });
        }
        self.parameters.push(TensorDef {
            name: format!("{path}.{name}"),
            shape,
        });
        self.starts.push(start);
        Ok(self.parameters.len() - 1)
    }

    fn buffer(&mut self, path: &str, name: &str, size: usize, start: f64) -> usize {
        self.buffers.push(TensorDef {
            name: format!("{path}.{name}"),
            shape: vec![size],
        });
        self.buffer_starts.push(start);
        self.buffers.len() - 1
    }
}
