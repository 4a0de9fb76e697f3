//! The forward pass.

use candle_core::{Device, Result, Tensor};

use super::model::{Net, Node, Op};
use crate::objective::{Batch, Draws, Losses, Mode, Objective, Pass, TensorDef};
use crate::ops;
use crate::random::{Purpose, Stream, occurrences};
use crate::real::Real;
use crate::task::{LossKind, PenaltyIn};

impl Objective for Net {
    fn parameters(&self) -> &[TensorDef] {
        &self.parameters
    }

    fn buffers(&self) -> &[TensorDef] {
        &self.buffers
    }

    fn losses(&self, pass: &Pass<'_>) -> Result<Losses> {
        self.check(pass)?;
        let mut buffers = pass.buffers.to_vec();
        let outputs = self.chain(&self.nodes, &pass.batch.inputs, pass, &mut buffers)?;
        let mut per_example = self.per_example(&outputs, pass.batch)?;
        let mut shared = None;
        if pass.mode == Mode::Train {
            shared = self.shared_penalty(pass.parameters)?;
            if self.loss.penalty > 0.0 && self.loss.penalty_in == PenaltyIn::Examples {
                per_example = per_example.broadcast_add(&self.penalty(pass.parameters)?)?;
            }
        }
        Ok(Losses {
            per_example,
            terms: None,
            shared,
            buffers,
            outputs,
            stopped: Vec::new(),
        })
    }

    fn shared_penalty(&self, parameters: &[Tensor]) -> Result<Option<Tensor>> {
        let in_batch = self.loss.penalty > 0.0 && self.loss.penalty_in == PenaltyIn::Batch;
        in_batch.then(|| self.penalty(parameters)).transpose()
    }
}

impl Net {
    /// Output of the first `layers` layers for a batch, (B, …). For 0 layers this is the batch's inputs, and for all
    /// layers the model's outputs.
    ///
    /// # Errors
    /// If the pass doesn't fit the model, or a layer fails.
    pub fn hidden(&self, pass: &Pass<'_>, layers: usize) -> Result<Tensor> {
        self.check(pass)?;
        let nodes = self.nodes.get(..layers).unwrap_or(&self.nodes);
        let mut buffers = pass.buffers.to_vec();
        self.chain(nodes, &pass.batch.inputs, pass, &mut buffers)
    }

    /// ½α‖θ‖² over all parameters.
    fn penalty(&self, parameters: &[Tensor]) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for parameter in parameters {
            let square = parameter.sqr()?.sum_all()?;
            sum = Some(match sum {
                None => square,
                Some(sum) => sum.add(&square)?,
            });
        }
        match sum {
            Some(sum) => sum.affine(0.5 * self.loss.penalty, 0.0),
            None => candle_core::bail!("the model has no parameters to penalise"),
        }
    }

    fn per_example(&self, outputs: &Tensor, batch: &Batch) -> Result<Tensor> {
        let targets = &batch.targets;
        match self.loss.kind {
            LossKind::CrossEntropy => ops::cross_entropy(outputs, targets),
            LossKind::BinaryCrossEntropy => {
                let targets = targets.to_dtype(outputs.dtype())?;
                ops::binary_cross_entropy_with_logits(outputs, &shaped(&targets, outputs)?)
            }
            LossKind::MeanSquaredError => {
                let targets = targets.to_dtype(outputs.dtype())?;
                ops::mean_squared_error(outputs, &shaped(&targets, outputs)?)
            }
        }
    }

    fn chain(
        &self,
        nodes: &[Node],
        input: &Tensor,
        pass: &Pass<'_>,
        buffers: &mut [Tensor],
    ) -> Result<Tensor> {
        let mut x = input.clone();
        let mut rest = nodes;
        while let Some((node, after)) = rest.split_first() {
            let mut used = 0;
            let following = |i: usize| after.get(i).map(|next| &next.op);
            // Neighbouring layers for which there is a fused operation run as one, with the same values and
            // derivatives.
            let next = match (&node.op, following(0), following(1)) {
                (
                    &Op::Conv2d {
                        weight,
                        bias,
                        stride,
                        padding,
                    },
                    Some(Op::Relu),
                    Some(&Op::MaxPool2d {
                        kernel,
                        stride: pool_stride,
                        padding: pool_padding,
                    }),
                ) => {
                    used = 2;
                    ops::conv2d_relu_max_pool2d(
                        &x,
                        &pass.parameters[weight],
                        bias.map(|b| &pass.parameters[b]),
                        stride,
                        padding,
                        kernel,
                        pool_stride,
                        pool_padding,
                    )
                }
                (
                    &Op::Conv2d {
                        weight,
                        bias,
                        stride,
                        padding,
                    },
                    Some(Op::Relu),
                    _,
                ) => {
                    used = 1;
                    let bias = bias.map(|b| &pass.parameters[b]);
                    ops::conv2d_relu(&x, &pass.parameters[weight], bias, stride, padding)
                }
                (
                    Op::Relu,
                    Some(&Op::MaxPool2d {
                        kernel,
                        stride,
                        padding,
                    }),
                    _,
                ) => {
                    used = 1;
                    ops::relu_max_pool2d(&x, kernel, stride, padding)
                }
                // A ReLU before a pooling is fused with the pooling instead.
                (Op::BatchNorm { .. }, Some(Op::Relu), after)
                    if !matches!(after, Some(Op::MaxPool2d { .. })) =>
                {
                    used = 1;
                    self.batch_norm(&node.op, &x, pass, buffers, true)
                }
                (op, _, _) => self.apply(op, &x, pass, buffers),
            };
            x = next.map_err(|e| e.context(format!("layer {}", node.path)))?;
            rest = after.get(used..).unwrap_or_default();
        }
        Ok(x)
    }

    fn apply(
        &self,
        op: &Op,
        x: &Tensor,
        pass: &Pass<'_>,
        buffers: &mut [Tensor],
    ) -> Result<Tensor> {
        let p = |i: usize| &pass.parameters[i];
        match *op {
            Op::Linear { weight, bias } => ops::linear(x, p(weight), bias.map(p)),
            Op::Conv2d {
                weight,
                bias,
                stride,
                padding,
            } => ops::conv2d(x, p(weight), bias.map(p), stride, padding),
            Op::ConvTranspose2d {
                weight,
                bias,
                stride,
                padding,
                output_padding,
            } => ops::conv_transpose2d(x, p(weight), bias.map(p), stride, padding, output_padding),
            Op::Relu => ops::relu(x),
            Op::Tanh => ops::tanh(x),
            Op::Sigmoid => ops::sigmoid(x),
            Op::Gelu => ops::gelu(x),
            Op::MaxPool2d {
                kernel,
                stride,
                padding,
            } => ops::max_pool2d(x, kernel, stride, padding),
            Op::AvgPool2d { kernel, stride } => ops::avg_pool2d(x, kernel, stride),
            Op::BatchNorm { .. } => self.batch_norm(op, x, pass, buffers, false),
            Op::Dropout { p, stream } => {
                if pass.mode == Mode::Evaluate || p == 0.0 {
                    return Ok(x.clone());
                }
                x.mul(&mask_like(x, &pass.batch.indices, pass.draws, p, stream)?)
            }
            Op::Flatten => ops::flatten(x),
            Op::Residual {
                ref body,
                ref projection,
            } => {
                let path = self.chain(body, x, pass, buffers)?;
                path.add(&self.chain(projection, x, pass, buffers)?)
            }
        }
    }

    /// A batch norm, followed by a ReLU if `relu` is set. In training it updates its running statistics.
    fn batch_norm(
        &self,
        op: &Op,
        x: &Tensor,
        pass: &Pass<'_>,
        buffers: &mut [Tensor],
        relu: bool,
    ) -> Result<Tensor> {
        let &Op::BatchNorm {
            weight,
            bias,
            mean,
            variance,
            momentum,
            eps,
        } = op
        else {
            candle_core::bail!("not a batch norm");
        };
        let how = ops::Normalising {
            momentum,
            eps,
            train: pass.mode == Mode::Train,
            relu,
        };
        let (y, new_mean, new_variance) = ops::normalised(
            x,
            [&pass.parameters[weight], &pass.parameters[bias]],
            [&buffers[mean], &buffers[variance]],
            how,
        )?;
        buffers[mean] = new_mean;
        buffers[variance] = new_variance;
        Ok(y)
    }

    /// Checks the number and the shapes of the pass's tensors, so that an error names them and not a layer.
    fn check(&self, pass: &Pass<'_>) -> Result<()> {
        let lists = [
            ("parameter", &self.parameters, pass.parameters),
            ("buffer", &self.buffers, pass.buffers),
        ];
        for (what, defs, tensors) in lists {
            if defs.len() != tensors.len() {
                candle_core::bail!(
                    "expected {} {what}s, as the model has, got {}",
                    defs.len(),
                    tensors.len()
                );
            }
            for (def, tensor) in defs.iter().zip(tensors) {
                if def.shape != tensor.dims() {
                    candle_core::bail!(
                        "{what} {}: expected shape {:?}, got {:?}",
                        def.name,
                        def.shape,
                        tensor.dims()
                    );
                }
            }
        }
        let rows = pass.batch.indices.len();
        if pass.batch.inputs.dims().split_first() != Some((&rows, &self.input)) {
            candle_core::bail!(
                "the model takes inputs of shape {:?} for each of the batch's {rows} indices, got a tensor of shape {:?}; \
                 make model.input of the task equal to the shape of the examples",
                self.input,
                pass.batch.inputs.dims()
            );
        }
        Ok(())
    }
}

/// The targets in the shape of the outputs, if the number of values is equal. The target of an image may be a vector.
fn shaped(targets: &Tensor, outputs: &Tensor) -> Result<Tensor> {
    if targets.dims() != outputs.dims() && targets.elem_count() == outputs.elem_count() {
        targets.reshape(outputs.dims())
    } else {
        Ok(targets.clone())
    }
}

/// The dropout mask of a batch, in the shape of `x`: for each value 0 with probability p, otherwise 1/(1 − p).
fn mask_like(x: &Tensor, indices: &[u64], draws: Draws, p: f64, stream: u32) -> Result<Tensor> {
    match x.dtype() {
        candle_core::DType::F32 => mask::<f32>(x.dims(), x.device(), indices, draws, p, stream),
        candle_core::DType::F64 => mask::<f64>(x.dims(), x.device(), indices, draws, p, stream),
        other => candle_core::bail!("dropout: expected f32 or f64, got {other:?}"),
    }
}

fn mask<T: Real>(
    dims: &[usize],
    device: &Device,
    indices: &[u64],
    draws: Draws,
    p: f64,
    layer: u32,
) -> Result<Tensor> {
    let row: usize = dims.iter().skip(1).product();
    let mut values = Vec::with_capacity(row * indices.len());
    for (&index, occurrence) in indices.iter().zip(occurrences(indices)) {
        values.extend(dropout_row::<T>(draws, index, occurrence, p, layer).take(row));
    }
    Tensor::from_vec(values, dims, device)
}

/// The dropout mask of one row: for each value 0 with probability `p`, otherwise 1/(1 − p). `occurrence` is the number of
/// earlier rows of the batch with the same example, and `layer` the number of the dropout layer.
pub fn dropout_row<T: Real>(
    draws: Draws,
    example: u64,
    occurrence: u64,
    p: f64,
    layer: u32,
) -> impl Iterator<Item = T> {
    let keep = T::of(1.0 / (1.0 - p));
    let mut stream = Stream::of_row(draws, example, occurrence, Purpose::Dropout(layer));
    std::iter::repeat_with(move || {
        if stream.bernoulli(p) {
            T::default()
        } else {
            keep
        }
    })
}
