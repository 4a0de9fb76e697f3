//! The double backward pass: first and second derivatives of a step's loss, on the calling thread.

use std::ops::Range;

use candle_core::{DType, Device, Tensor, Var, backprop::GradStore};
use hindcast_model::objective::{Batch, Draws, Losses, Mode, Objective, Pass, TensorDef};
use hindcast_model::ops::second_order;

use super::{
    ForwardPass, Products, StepGradient, StepInput, check_adjoints, check_factors, check_step,
    flat, slices, square, stop,
};
use crate::error::{AnalysisError, Doing, Result, Unsupported};

/// The settings that are the same for all micro-batches of a step.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub objective: &'a dyn Objective,
    pub dtype: DType,
    pub device: &'a Device,
    /// Whether the step's loss contains its shared part. It doesn't if other rows of the step are computed elsewhere, with it.
    pub with_shared: bool,
}

/// The losses of a forward pass, with the variables with respect to which they can be differentiated.
struct Graph {
    parameters: Vec<Var>,
    buffers: Vec<Var>,
    /// A weight per example, (B,), or per term of an example's loss, (B, P).
    weights: Var,
    losses: Losses,
}

impl Context<'_> {
    /// Loss and gradient of a step, by one backward pass per micro-batch.
    pub fn gradient(&self, input: &StepInput<'_>) -> Result<StepGradient> {
        check_step(self.objective, input)?;
        let parameters = flat::variables(
            input.parameters,
            self.objective.parameters(),
            self.dtype,
            self.device,
        )?;
        let mut out = StepGradient {
            loss: 0.0,
            parameters: vec![0.0; input.parameters.len()],
            buffers: Vec::new(),
            per_example: Vec::with_capacity(input.examples()),
            buffers_after: input.buffers.to_vec(),
        };
        let several = input.micro_batches.len() > 1;
        let mut offset = 0;
        for (k, batch) in input.micro_batches.iter().enumerate() {
            let end = offset + batch.indices.len();
            let weights = &input.weights[offset..end];
            offset = end;
            let before = std::mem::take(&mut out.buffers_after);
            let pass = self.forward(
                &parameters,
                &before,
                batch,
                weights,
                input.mode,
                input.draws,
            )?;
            let loss = pass.batch_loss(self.with_shared && k == 0)?;
            let grads = last_backward(&loss)?;
            (|| {
                out.loss += loss.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                let of = |k: usize| grads.get(&pass.parameters[k]);
                flat::add(&mut out.parameters, self.objective.parameters(), of, 1.0)?;
                // Only evaluation reads the running statistics, and there no micro-batch updates them. So all
                // micro-batches read the same statistics, and the derivative is the sum over micro-batches.
                let mut adjoint = Vec::with_capacity(before.len());
                for (var, def) in pass.buffers.iter().zip(self.objective.buffers()) {
                    flat::append(&mut adjoint, grads.get(var), def)?;
                }
                if several && !out.buffers.is_empty() {
                    for (sum, x) in out.buffers.iter_mut().zip(adjoint) {
                        *sum += x;
                    }
                } else {
                    out.buffers = adjoint;
                }
                out.per_example
                    .extend(flat::values(&pass.losses.per_example)?);
                for t in &pass.losses.buffers {
                    out.buffers_after.extend(flat::values(t)?);
                }
                candle_core::Result::Ok(())
            })()
            .doing(|| "reading a gradient back".to_owned())?;
        }
        Ok(out)
    }

    /// Losses and outputs of a step's examples.
    pub fn losses(&self, input: &StepInput<'_>) -> Result<ForwardPass> {
        let mut out = ForwardPass {
            losses: Vec::with_capacity(input.examples()),
            outputs: Vec::new(),
        };
        self.each_pass(input, |pass| {
            let outputs = &pass.losses.outputs;
            (|| {
                out.losses.extend(flat::values(&pass.losses.per_example)?);
                if outputs.rank() <= 2 {
                    out.outputs.extend(flat::values(outputs)?);
                }
                candle_core::Result::Ok(())
            })()
            .doing(|| "reading losses back".to_owned())
        })?;
        Ok(out)
    }

    /// `Σ_k f_k ‖g_{j,k}‖²`, by one backward pass per example.
    pub fn squares(&self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        let defs = self.objective.parameters();
        check_factors(self.objective, factors)?;
        let mut out = Vec::with_capacity(input.examples());
        self.each_pass(input, |pass| {
            for j in 0..pass.losses.per_example.elem_count() {
                let own = pass.losses.per_example.get(j);
                let grads = last_backward(&own.doing(|| "choosing a loss".to_owned())?)?;
                let mut gradient = Vec::with_capacity(input.parameters.len());
                (|| {
                    for (var, def) in pass.parameters.iter().zip(defs) {
                        flat::append(&mut gradient, grads.get(var), def)?;
                    }
                    candle_core::Result::Ok(())
                })()
                .doing(|| "reading a gradient back".to_owned())?;
                out.push(square(&gradient, defs, factors));
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Calls `see` with the forward pass of each micro-batch, in order.
    fn each_pass(
        &self,
        input: &StepInput<'_>,
        mut see: impl FnMut(&Graph) -> Result<()>,
    ) -> Result<()> {
        check_step(self.objective, input)?;
        let parameters = flat::variables(
            input.parameters,
            self.objective.parameters(),
            self.dtype,
            self.device,
        )?;
        let mut before = input.buffers.to_vec();
        let mut rest = input.weights;
        for batch in input.micro_batches {
            let (weights, after) = rest.split_at(batch.indices.len());
            rest = after;
            let pass = self.forward(
                &parameters,
                &before,
                batch,
                weights,
                input.mode,
                input.draws,
            )?;
            see(&pass)?;
            before.clear();
            for t in &pass.losses.buffers {
                before.extend(flat::values(t).doing(|| "reading the buffers back".to_owned())?);
            }
        }
        Ok(())
    }

    /// Products with each direction, by one double backward pass per micro-batch and direction, last micro-batch first.
    pub fn products(
        &self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        check_step(self.objective, input)?;
        check_adjoints(self.objective, directions, buffer_adjoints)?;
        let parameters = flat::variables(
            input.parameters,
            self.objective.parameters(),
            self.dtype,
            self.device,
        )?;
        let starts = self.buffers_before_each(&parameters, input)?;
        let mut out = no_products(input, directions.len(), buffer_adjoints);
        let mut end = input.examples();
        for (k, (batch, before)) in input.micro_batches.iter().zip(&starts).enumerate().rev() {
            let start = end - batch.indices.len();
            let weights = &input.weights[start..end];
            let pass =
                self.forward(&parameters, before, batch, weights, input.mode, input.draws)?;
            let grads = self.differentiable(&pass, self.with_shared && k == 0)?;
            self.all_directions((&pass, &grads), start..end, directions, &mut out)?;
            end = start;
        }
        Ok(out)
    }

    /// As [`products`](Self::products) of a step with one micro-batch, whose directions come from its gradient.
    pub fn products_after(
        &self,
        input: &StepInput<'_>,
        directions: impl FnOnce(Vec<f64>) -> Result<Vec<Vec<f64>>>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        check_step(self.objective, input)?;
        let defs = self.objective.parameters();
        let parameters = flat::variables(input.parameters, defs, self.dtype, self.device)?;
        let before = input.buffers.to_vec();
        let pass = self.forward(
            &parameters,
            &before,
            &input.micro_batches[0],
            input.weights,
            input.mode,
            input.draws,
        )?;
        let grads = self.differentiable(&pass, self.with_shared)?;
        let mut gradient = vec![0.0; input.parameters.len()];
        flat::add(&mut gradient, defs, |k| grads.get(&pass.parameters[k]), 1.0)
            .doing(|| "reading a gradient back".to_owned())?;
        let directions = directions(gradient)?;
        let directions = slices(&directions);
        check_adjoints(self.objective, &directions, buffer_adjoints)?;
        let mut out = no_products(input, directions.len(), buffer_adjoints);
        self.all_directions((&pass, &grads), 0..input.examples(), &directions, &mut out)?;
        Ok(out)
    }

    /// The gradients of a pass's loss, which can be differentiated again.
    fn differentiable(&self, pass: &Graph, with_shared: bool) -> Result<GradStore> {
        self.buffers_differentiable(pass)?;
        backward(&pass.batch_loss(with_shared)?)
    }

    /// Adds the products of a pass over `examples` to `out`, and turns the adjoints of its buffers into those before it.
    fn all_directions(
        &self,
        (pass, grads): (&Graph, &GradStore),
        examples: Range<usize>,
        directions: &[&[f64]],
        out: &mut Products,
    ) -> Result<()> {
        out.stopped |= !pass.losses.stopped.is_empty();
        for (q, s) in directions.iter().enumerate() {
            let rho = std::mem::take(&mut out.buffer_adjoints[q]);
            let hessian = &mut out.hessian[q];
            let (products, rho) = self.one_direction(pass, grads, (s, &rho), hessian)?;
            match pass.terms() {
                None => out.products[q][examples.clone()].copy_from_slice(&products),
                Some(terms) => {
                    let all = out.products[q].len();
                    out.terms.resize(directions.len(), vec![Vec::new(); all]);
                    for (j, terms) in examples.clone().zip(products.chunks(terms.max(1))) {
                        out.products[q][j] = terms.iter().sum();
                        out.terms[q][j] = terms.to_vec();
                    }
                }
            }
            out.buffer_adjoints[q] = rho;
        }
        Ok(())
    }

    /// Fails if a buffer changed outside of candle's graph. Such a buffer has no adjoint, so its share would be missing
    /// from the scores without notice.
    fn buffers_differentiable(&self, pass: &Graph) -> Result<()> {
        let defs = self.objective.buffers();
        for ((after, before), def) in pass.losses.buffers.iter().zip(&pass.buffers).zip(defs) {
            let cut = !after.track_op()
                && (|| Ok(flat::values(after)? != flat::values(before)?))()
                    .doing(|| format!("comparing the buffer {}", def.name))?;
            if cut {
                return Err(AnalysisError::Unsupported(Unsupported::OverwrittenBuffer {
                    buffer: def.name.clone(),
                }));
            }
        }
        Ok(())
    }

    /// Derivatives of `<s, ∇f> + <ρ, r_out>` with respect to the weights and the buffers. Adds that with respect to the
    /// parameters to `hessian`.
    fn one_direction(
        &self,
        pass: &Graph,
        grads: &GradStore,
        (s, rho): (&[f64], &[f64]),
        hessian: &mut [f64],
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let scale = flat::power_of_two_scale(&[s, rho]);
        let (parameters, buffers) = (self.objective.parameters(), self.objective.buffers());
        let scalar = (|| {
            let s = flat::tensors(s, parameters, scale, self.dtype, self.device)?;
            let rho = flat::tensors(rho, buffers, scale, self.dtype, self.device)?;
            let mut sum = Tensor::zeros((), self.dtype, self.device)?;
            for (var, s) in pass.parameters.iter().zip(&s) {
                if let Some(g) = grads.get(var) {
                    sum = (sum + (g * s)?.sum_all()?)?;
                }
            }
            for (after, rho) in pass.losses.buffers.iter().zip(&rho) {
                sum = (sum + (after * rho)?.sum_all()?)?;
            }
            candle_core::Result::Ok(sum)
        })()
        .doing(|| "multiplying the gradient with a direction".to_owned())?;
        let second = last_backward(&scalar)?;
        let through = stop::through(&second, &pass.losses.stopped)
            .doing(|| "differentiating through a stop-gradient".to_owned())?;
        let add = |to: &mut [f64], vars: &[Var], defs: &[TensorDef]| {
            for store in std::iter::once(&second).chain(&through) {
                flat::add(to, defs, |k| store.get(&vars[k]), 1.0 / scale)?;
            }
            candle_core::Result::Ok(())
        };
        (|| {
            let products = match second.get(&pass.weights) {
                Some(t) => flat::values(t)?.iter().map(|x| x / scale).collect(),
                None => vec![0.0; pass.weights.elem_count()],
            };
            add(hessian, &pass.parameters, parameters)?;
            let mut before = vec![0.0; rho.len()];
            add(&mut before, &pass.buffers, buffers)?;
            Ok((products, before))
        })()
        .doing(|| "reading a Hessian-vector product back".to_owned())
    }

    /// r before each micro-batch. Runs forward passes only if the model has buffers and the step has several micro-batches.
    fn buffers_before_each(
        &self,
        parameters: &[Var],
        input: &StepInput<'_>,
    ) -> Result<Vec<Vec<f64>>> {
        let mut starts = vec![input.buffers.to_vec()];
        if self.objective.buffers().is_empty() {
            starts.resize(input.micro_batches.len(), Vec::new());
            return Ok(starts);
        }
        for batch in &input.micro_batches[..input.micro_batches.len() - 1] {
            let before = starts.last().cloned().unwrap_or_default();
            let weights = vec![0.0; batch.indices.len()];
            let pass = self.forward(
                parameters,
                &before,
                batch,
                &weights,
                input.mode,
                input.draws,
            )?;
            let mut after = Vec::with_capacity(before.len());
            for t in &pass.losses.buffers {
                after.extend(flat::values(t).doing(|| "reading the buffers back".to_owned())?);
            }
            starts.push(after);
        }
        Ok(starts)
    }

    fn forward(
        &self,
        parameters: &[Var],
        buffers: &[f64],
        batch: &Batch,
        weights: &[f64],
        mode: Mode,
        draws: Draws,
    ) -> Result<Graph> {
        let buffers = flat::variables(buffers, self.objective.buffers(), self.dtype, self.device)?;
        let losses = {
            let parameters: Vec<Tensor> =
                parameters.iter().map(|v| v.as_tensor().clone()).collect();
            let buffers: Vec<Tensor> = buffers.iter().map(|v| v.as_tensor().clone()).collect();
            self.objective
                .losses(&Pass {
                    parameters: &parameters,
                    buffers: &buffers,
                    batch,
                    mode,
                    draws,
                })
                .doing(|| format!("running the model on a batch of {}", batch.indices.len()))?
        };
        let shape = losses.per_example.dims();
        if shape != [batch.indices.len()] {
            return Err(AnalysisError::Mismatch {
                what: "the objective's per-example losses".to_owned(),
                expected: format!("[{}]", batch.indices.len()),
                got: format!("{shape:?}"),
                hint: "an Objective returns the loss of each example; candle_nn's losses are means, so an own model uses \
                       hindcast_model::ops::cross_entropy, binary_cross_entropy_with_logits or mean_squared_error"
                    .to_owned(),
            });
        }
        if losses.buffers.len() != self.objective.buffers().len() {
            return Err(AnalysisError::Mismatch {
                what: "the objective's buffers after the pass".to_owned(),
                expected: self.objective.buffers().len().to_string(),
                got: losses.buffers.len().to_string(),
                hint: "an Objective returns every buffer, changed or not".to_owned(),
            });
        }
        Ok(Graph {
            weights: self.weights(weights, losses.terms.as_ref())?,
            parameters: parameters.to_vec(),
            buffers,
            losses,
        })
    }

    /// The weights as variables, (B,). With terms (B, P), an example's weight is repeated for each of its terms.
    fn weights(&self, weights: &[f64], terms: Option<&Tensor>) -> Result<Var> {
        let b = weights.len();
        let p = match terms.map(Tensor::dims) {
            None => None,
            Some(&[rows, p]) if rows == b => Some(p),
            Some(shape) => {
                return Err(AnalysisError::Mismatch {
                    what: "the terms of the objective's losses".to_owned(),
                    expected: format!("({b}, terms)"),
                    got: format!("{shape:?}"),
                    hint: "their sum over the second dimension is the loss of each example"
                        .to_owned(),
                });
            }
        };
        (|| {
            let weights = Tensor::new(weights, self.device)?.to_dtype(self.dtype)?;
            match p {
                None => Var::from_tensor(&weights),
                Some(p) => Var::from_tensor(&weights.unsqueeze(1)?.repeat((1, p))?),
            }
        })()
        .doing(|| "putting the weights on the device".to_owned())
    }
}

/// Products of zero, with the adjoints of the buffers after the step.
fn no_products(input: &StepInput<'_>, directions: usize, buffer_adjoints: &[Vec<f64>]) -> Products {
    Products {
        products: vec![vec![0.0; input.examples()]; directions],
        terms: Vec::new(),
        hessian: vec![vec![0.0; input.parameters.len()]; directions],
        buffer_adjoints: buffer_adjoints.to_vec(),
        stopped: false,
    }
}

impl Graph {
    /// P, the number of terms of an example's loss; `None` if the objective doesn't say them.
    fn terms(&self) -> Option<usize> {
        self.losses.terms.as_ref()?.dims().get(1).copied()
    }

    /// `Σ_j w_j ℓ_j`, plus the loss's shared part if `with_shared`. A step counts the shared part once, in its first
    /// micro-batch.
    fn batch_loss(&self, with_shared: bool) -> Result<Tensor> {
        (|| {
            let losses = match &self.losses.terms {
                Some(terms) => terms,
                None => &self.losses.per_example,
            };
            let sum = (self.weights.as_tensor() * losses)?.sum_all()?;
            match &self.losses.shared {
                Some(shared) if with_shared => sum + shared.reshape(())?,
                _ => Ok(sum),
            }
        })()
        .doing(|| "weighting the losses".to_owned())
    }
}

/// What the errors of backward passes say was being done. The check of derivatives recognises them by it.
pub(crate) const DIFFERENTIATING: &str = "differentiating";

/// A backward pass whose gradients can be differentiated again.
fn backward(scalar: &Tensor) -> Result<GradStore> {
    scalar.backward().doing(|| DIFFERENTIATING.to_owned())
}

/// A backward pass whose gradients can't, which needs less memory.
fn last_backward(scalar: &Tensor) -> Result<GradStore> {
    second_order::last_backward(scalar).doing(|| DIFFERENTIATING.to_owned())
}
