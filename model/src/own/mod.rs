//! Makes an [`Objective`] from a user's own candle model.
//!
//! A candle model is built from a `VarBuilder` and run by a forward function. [`OwnModel`] builds it again in each pass,
//! with a `VarBuilder` that returns the tensors of the pass. The losses are therefore twice differentiable functions of the
//! recorded parameters. Building the model costs one look-up per tensor. No tensor is copied.
//!
//! ```
//! use candle_core::{DType, Device, Result, Tensor};
//! use candle_nn::{Linear, Module, ModuleT, VarBuilder, VarMap, linear};
//! use hindcast_model::objective::Objective;
//! use hindcast_model::own::{BatchNorm, OwnModel, batch_norm};
//! use hindcast_model::ops;
//!
//! struct Net { first: Linear, norm: BatchNorm, second: Linear }
//!
//! impl Net {
//!     fn new(vb: VarBuilder) -> Result<Self> {
//!         Ok(Self {
//!             first: linear(4, 8, vb.pp("first"))?,
//!             norm: batch_norm(8, 1e-5, vb.pp("norm"))?, // instead of candle_nn's
//!             second: linear(8, 3, vb.pp("second"))?,
//!         })
//!     }
//!     fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
//!         self.second.forward(&self.norm.forward_t(&self.first.forward(x)?, train)?.relu()?)
//!     }
//! }
//!
//! // Training uses the model as before.
//! let variables = VarMap::new();
//! let net = Net::new(VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
//! net.forward(&Tensor::randn(0f32, 1.0, (5, 4), &Device::Cpu)?, true)?;
//! // An analysis uses the same two functions, and the loss of each example.
//! let objective = OwnModel::new(Net::new, Net::forward, ops::cross_entropy)?;
//! assert_eq!(objective.parameters()[0].name, "first.bias");
//! assert_eq!(objective.buffers()[0].name, "norm.running_mean");
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Running statistics
//!
//! The buffers that a forward pass changes must be differentiable, too, because a sweep propagates the adjoint of the
//! running statistics through each step (docs/math.md). candle_nn's `BatchNorm` overwrites its statistics without a graph,
//! and detaches them when it reads them. [`batch_norm`] replaces it. It has the same names, the same options and, on the
//! CPU, the same bits, so a run that was trained with candle_nn's layer can be analysed with this one. A user's own layer
//! keeps its statistics in a [`Buffer`]. Buffers that are changed in any other way are detected. Their values are correct,
//! which is sufficient for `verify --replay` and `counterfactual`. A sweep refuses them by name.
//!
//! # Random numbers
//!
//! A forward pass that draws numbers must draw the same ones in a replay. [`Dropout`] and [`randn_like`] do, if the training
//! loop runs the forward pass inside [`with_draws`]. [`seeded`] draws initial weights from a seed.
//!
//! # Stop-gradients
//!
//! A loss whose gradient treats a part of it as a constant (the target of Q-learning, an averaged teacher) says so with
//! [`stop_gradient`], in training and in the model. A bare `detach()` can't be followed by a sweep, and is refused.
//!
//! # Operations
//!
//! Some operations of candle have wrong or missing first or second derivatives. The layers here have candle_nn's names,
//! constructors and, on the CPU, the bits of its forward pass, and their derivatives are correct: [`LayerNorm`], [`RmsNorm`],
//! [`ops`], [`rotary_emb`], [`loss`], [`gather`]. Those of [`crate::ops`] are correct, too.
//! `hindcast_analyzer` checks an objective against finite differences in float64 and names a wrong operation.

mod backend;
mod batch_norm;
mod buffer;
mod cast;
mod constants;
mod conv;
mod draws;
mod index;
mod linear;
pub mod loss;
mod norm;
pub mod ops;
mod pool;
pub mod rotary_emb;
mod seeded;
mod stop;
mod upsample;
mod value;

pub use batch_norm::{BatchNorm, batch_norm};
pub use buffer::Buffer;
pub use candle_nn::{Conv1dConfig, ConvTranspose1dConfig, LayerNormConfig};
pub use cast::{cast, rounded, without_rounding};
pub use conv::{
    Conv1d, ConvTranspose1d, conv_transpose1d, conv_transpose1d_no_bias, conv1d, conv1d_no_bias,
};
pub use draws::{Dropout, randn_like, with_draws};
pub use index::{gather, scatter_add};
pub use linear::{Linear, linear, linear_b, linear_no_bias};
pub use norm::{LayerNorm, RmsNorm, layer_norm, layer_norm_no_bias, rms_norm};
pub use pool::{avg_pool2d, avg_pool2d_with_stride, max_pool2d, max_pool2d_with_stride};
pub use seeded::seeded;
pub use stop::{stop_gradient, with_constants};
pub use upsample::{
    upsample_bilinear2d, upsample_bilinear2d_with_scale, upsample_nearest1d, upsample_nearest2d,
};

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::objective::{Batch, Losses, Mode, Objective, Pass, TensorDef};
use backend::{Collect, Given};
use buffer::Scope;
use constants::Constants;
use stop::Stops;

type Forward = Box<dyn Fn(VarBuilder<'static>, &Pass<'_>) -> Result<Tensor> + Send + Sync>;
type RowLosses = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;
type Penalty = Box<dyn Fn(&HashMap<String, Tensor>) -> Result<Tensor> + Send + Sync>;

/// A candle model with a loss, as an [`Objective`].
pub struct OwnModel {
    all: Vec<TensorDef>,
    parameters: Vec<TensorDef>,
    buffers: Vec<TensorDef>,
    run: Forward,
    loss: RowLosses,
    penalty: Option<Penalty>,
    /// Tensors that are not trained.
    frozen: Vec<(String, Tensor)>,
    constants: Constants,
    /// The type that training rounds the parameters and the inputs to.
    rounded: Option<DType>,
}

impl OwnModel {
    /// An objective from three functions. `build` makes the model from a `VarBuilder`. `forward(&model, inputs, train)` runs
    /// it. `loss(outputs, targets)` returns the loss of each row, (B,), or the terms of each row's loss, (B, P), whose sum
    /// over P is the loss. Both must be twice differentiable. Suitable losses are [`ops::cross_entropy`](crate::ops::cross_entropy),
    /// [`ops::binary_cross_entropy_with_logits`](crate::ops::binary_cross_entropy_with_logits) and
    /// [`ops::mean_squared_error`](crate::ops::mean_squared_error). candle_nn's losses are not: they are means, and its cross
    /// entropy has no second derivative.
    ///
    /// This function builds the model once, to learn the names and shapes of its tensors. Tensors whose names end in
    /// `running_mean` or `running_var` are buffers, as in a recording.
    ///
    /// # Errors
    /// If `build` fails, or requests a name with two shapes.
    pub fn new<M: 'static>(
        build: impl Fn(VarBuilder<'static>) -> Result<M> + Send + Sync + 'static,
        forward: impl Fn(&M, &Tensor, bool) -> Result<Tensor> + Send + Sync + 'static,
        loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::with_pass(
            build,
            move |model, pass| forward(model, &pass.batch.inputs, pass.mode == Mode::Train),
            loss,
        )
    }

    /// As [`OwnModel::new`], for a forward function that needs other fields of the pass, such as the indices of the examples
    /// or the key of the random numbers ([`random`](crate::random)). [`Dropout`] and [`randn_like`] don't need it.
    ///
    /// # Errors
    /// As [`OwnModel::new`].
    pub fn with_pass<M: 'static>(
        build: impl Fn(VarBuilder<'static>) -> Result<M> + Send + Sync + 'static,
        forward: impl Fn(&M, &Pass<'_>) -> Result<Tensor> + Send + Sync + 'static,
        loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Self> {
        let collect = Collect::default();
        let found = collect.found();
        build(VarBuilder::from_backend(
            Box::new(collect),
            DType::F32,
            Device::Cpu,
        ))
        .map_err(|e| e.context("building the model to learn its tensors"))?;
        let all = found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
            .map(|(name, shape)| TensorDef {
                name: name.clone(),
                shape: shape.clone(),
            })
            .collect();
        Ok(OwnModel {
            all,
            parameters: Vec::new(),
            buffers: Vec::new(),
            run: Box::new(move |vb, pass| forward(&build(vb)?, pass)),
            loss: Box::new(loss),
            penalty: None,
            frozen: Vec::new(),
            constants: Constants::default(),
            rounded: None,
        }
        .buffers_where(|_| false))
    }

    /// Sets which tensors are buffers, in addition to running means and variances. Use the same condition as for the
    /// recorder's `buffers`.
    #[must_use]
    pub fn buffers_where(mut self, is_buffer: impl Fn(&str) -> bool) -> Self {
        (self.buffers, self.parameters) = self.all.iter().cloned().partition(|def| {
            def.name.ends_with("running_mean")
                || def.name.ends_with("running_var")
                || is_buffer(&def.name)
        });
        self.without_frozen()
    }

    /// Gives the values of tensors that are not trained, such as the base under an adapter or a head. They are constants of
    /// the analysis: the run doesn't record them, and they have no derivative. An analysis compares them with the digests
    /// that the recorder's `frozen` or `frozen_tensors` recorded, and refuses others.
    ///
    /// A tensor that the model requests from its `VarBuilder` gets this value, in the type and on the device of the pass. A
    /// name that the model doesn't request is only compared, for models that hold such a tensor themselves.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_nn::{Linear, Module, VarBuilder, linear};
    /// use hindcast_model::{objective::Objective, ops, own::OwnModel};
    ///
    /// # let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    /// // Usually candle_core::safetensors::load("base.safetensors", &Device::Cpu)?
    /// let base = HashMap::from([("base.weight".to_owned(), zeros(&[8, 4])?), ("base.bias".to_owned(), zeros(&[8])?)]);
    /// let model = OwnModel::new(
    ///     |vb: VarBuilder<'static>| Ok((linear(4, 8, vb.pp("base"))?, linear(8, 3, vb.pp("head"))?)),
    ///     |(base, head): &(Linear, Linear), x, _train| head.forward(&base.forward(x)?.relu()?),
    ///     ops::cross_entropy,
    /// )?
    /// .frozen(base);
    /// assert_eq!(model.parameters().len(), 2);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn frozen(mut self, tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        for (name, tensor) in tensors {
            self.frozen.retain(|(other, _)| *other != name);
            self.frozen.push((name, tensor.detach()));
        }
        self.frozen.sort_by(|a, b| a.0.cmp(&b.0));
        self.without_frozen()
    }

    fn without_frozen(mut self) -> Self {
        let frozen = |def: &TensorDef| self.frozen.iter().any(|(name, _)| *name == def.name);
        self.parameters.retain(|def| !frozen(def));
        self.buffers.retain(|def| !frozen(def));
        self
    }

    /// Says that training rounded the float32 parameters and the inputs to this type, bf16 or f16, before each forward pass, as
    /// with [`rounded`]. A replay of recorded steps and a retraining do the same. Derivatives, and the values of queries, are
    /// computed without this rounding. Use [`cast`] for casts in the forward pass and the loss.
    ///
    /// A model with buffers is refused in its first pass.
    #[must_use]
    pub fn rounded_to(mut self, dtype: DType) -> Self {
        self.rounded = Some(dtype);
        self
    }

    /// The pass's inputs and parameters as the model gets them.
    fn given(&self, pass: &Pass<'_>) -> Result<(Batch, Vec<Tensor>)> {
        let (batch, parameters) = (pass.batch.clone(), pass.parameters.to_vec());
        let Some(dtype) = self.rounded.filter(|_| cast::rounds()) else {
            return Ok((batch, parameters));
        };
        if !self.buffers.is_empty() {
            candle_core::bail!(
                "rounded_to: models with buffers ({}, …) are not supported: keep running statistics out of the model, or train in \
                 one type",
                self.buffers[0].name
            );
        }
        let inputs = if batch.inputs.dtype().is_float() {
            batch.inputs.to_dtype(dtype)?
        } else {
            batch.inputs.clone()
        };
        let parameters = parameters.iter().map(|t| t.to_dtype(dtype));
        Ok((
            Batch { inputs, ..batch },
            parameters.collect::<Result<_>>()?,
        ))
    }

    /// Sets a penalty, such as an L2 penalty: a scalar function of the parameters by name, which training adds once to the
    /// batch loss, independently of the examples' weights. Weight decay of the optimizer is not a penalty in this sense,
    /// because it is recorded with each step.
    #[must_use]
    pub fn penalty(
        mut self,
        penalty: impl Fn(&HashMap<String, Tensor>) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Self {
        self.penalty = Some(Box::new(penalty));
        self
    }
}

impl Objective for OwnModel {
    fn parameters(&self) -> &[TensorDef] {
        &self.parameters
    }

    fn buffers(&self) -> &[TensorDef] {
        &self.buffers
    }

    fn frozen(&self) -> &[(String, Tensor)] {
        &self.frozen
    }

    fn losses(&self, pass: &Pass<'_>) -> Result<Losses> {
        named("parameter", &self.parameters, pass.parameters)?;
        named("buffer", &self.buffers, pass.buffers)?;
        let (batch, parameters) = self.given(pass)?;
        let inputs = &batch.inputs;
        let dtype = parameters.first().map_or(inputs.dtype(), Tensor::dtype);
        // Layers get copies of the buffers. The scope maps each copy to its tensor in the graph.
        let scope = Scope::enter(pass.buffers)?;
        let stops = Stops::enter(pass.mode);
        let tensors = self
            .parameters
            .iter()
            .zip(&parameters)
            .chain(self.buffers.iter().zip(scope.handed_out()))
            .map(|(def, tensor)| (def.name.clone(), tensor.clone()))
            .chain(self.constants.at(&self.frozen, dtype, inputs.device())?)
            .collect();
        let vb = VarBuilder::from_backend(
            Box::new(Given::new(tensors)),
            dtype,
            inputs.device().clone(),
        );
        let outputs = with_draws(pass.draws, &batch.indices, || {
            (self.run)(
                vb,
                &Pass {
                    parameters: &parameters,
                    batch: &batch,
                    ..*pass
                },
            )
        })?;
        let buffers = scope.leave()?;
        let loss = (self.loss)(&outputs, &pass.batch.targets)?;
        let (per_example, terms) = match loss.rank() {
            2 => (loss.sum(1)?, Some(loss)),
            _ => (loss, None),
        };
        let shared = match pass.mode {
            Mode::Train => self.shared_penalty(pass.parameters)?,
            Mode::Evaluate => None,
        };
        Ok(Losses {
            per_example,
            terms,
            shared,
            buffers,
            outputs,
            stopped: stops.leave()?,
        })
    }

    fn shared_penalty(&self, parameters: &[Tensor]) -> Result<Option<Tensor>> {
        let Some(penalty) = &self.penalty else {
            return Ok(None);
        };
        let named = self
            .parameters
            .iter()
            .zip(parameters)
            .map(|(def, tensor)| (def.name.clone(), tensor.clone()))
            .collect();
        penalty(&named)?.reshape(()).map(Some)
    }
}

/// Checks that there is a tensor of the right shape for each name.
fn named(what: &str, defs: &[TensorDef], tensors: &[Tensor]) -> Result<()> {
    if defs.len() != tensors.len() {
        candle_core::bail!(
            "expected {} {what}s, as the model has, got {}",
            defs.len(),
            tensors.len()
        );
    }
    match defs.iter().zip(tensors).find(|(d, t)| d.shape != t.dims()) {
        None => Ok(()),
        Some((def, tensor)) => candle_core::bail!(
            "{what} {}: expected shape {:?}, got {:?}",
            def.name,
            def.shape,
            tensor.dims()
        ),
    }
}
