//! Own models: an [`Objective`] out of a candle model that was written for training.
//!
//! Such a model is built over a `VarBuilder` and run by a forward function. [`OwnModel`] builds it again in every pass, over a
//! `VarBuilder` that hands out the pass's own tensors, so that losses are functions of the recorded parameters and can be
//! differentiated in them, twice. Building costs a look-up a tensor; nothing is copied.
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
//!             norm: batch_norm(8, 1e-5, vb.pp("norm"))?, // in the place of candle_nn's
//!             second: linear(8, 3, vb.pp("second"))?,
//!         })
//!     }
//!     fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
//!         self.second.forward(&self.norm.forward_t(&self.first.forward(x)?, train)?.relu()?)
//!     }
//! }
//!
//! // In training: the model as ever.
//! let variables = VarMap::new();
//! let net = Net::new(VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
//! net.forward(&Tensor::randn(0f32, 1.0, (5, 4), &Device::Cpu)?, true)?;
//! // In an analysis: the same two functions, and each example's loss.
//! let objective = OwnModel::new(Net::new, Net::forward, ops::cross_entropy)?;
//! assert_eq!(objective.parameters()[0].name, "first.bias");
//! assert_eq!(objective.buffers()[0].name, "norm.running_mean");
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! # Running statistics
//!
//! What a forward pass changes besides its result has to be differentiable, too: a sweep carries the statistics' adjoint through every step
//! (docs/math.md). candle_nn's `BatchNorm` writes its new statistics over the old ones, without a graph, and cuts the
//! graph where it reads them. [`batch_norm`] takes its place: the same names, the same options and, on the CPU, the same bits, so a run
//! that was trained with candle_nn's is analysed with this one. A layer of one's own keeps its statistics in a
//! [`Buffer`]. Buffers that were changed in any other way are noticed: their values are right, which is all that `verify --replay` and
//! `counterfactual` need, and a sweep refuses them by name.
//!
//! # Operations
//!
//! Not every operation of candle has right first and second derivatives; those of [`ops`](crate::ops) have. `hindcast_analyzer` checks an
//! objective against differences in float64 and names the operation that is wrong.

mod backend;
mod batch_norm;
mod buffer;

pub use batch_norm::{BatchNorm, batch_norm};
pub use buffer::Buffer;

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;

use crate::objective::{Losses, Mode, Objective, Pass, TensorDef};
use backend::{Collect, Given};
use buffer::Scope;

type Forward = Box<dyn Fn(VarBuilder<'static>, &Pass<'_>) -> Result<Tensor> + Send + Sync>;
type RowLosses = Box<dyn Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync>;
type Penalty = Box<dyn Fn(&HashMap<String, Tensor>) -> Result<Tensor> + Send + Sync>;

/// An ordinary candle model with a loss, as an [`Objective`].
pub struct OwnModel {
    all: Vec<TensorDef>,
    parameters: Vec<TensorDef>,
    buffers: Vec<TensorDef>,
    run: Forward,
    loss: RowLosses,
    penalty: Option<Penalty>,
}

impl OwnModel {
    /// A model that `build` makes over a `VarBuilder`, that `forward(&model, inputs, train)` runs, and whose `loss(outputs, targets)`
    /// gives the loss of every row, (B,), twice differentiable: [`ops::cross_entropy`](crate::ops::cross_entropy),
    /// [`ops::binary_cross_entropy_with_logits`](crate::ops::binary_cross_entropy_with_logits),
    /// [`ops::mean_squared_error`](crate::ops::mean_squared_error), or one's own. (candle_nn's losses are means, and its cross
    /// entropy has no second derivative.)
    ///
    /// The model is built once here, to learn its tensors' names and shapes. Those whose names end in `running_mean` or
    /// `running_var` are buffers, as in a recording.
    ///
    /// # Errors
    /// Where `build` fails, or asks for one name in two shapes.
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

    /// As [`OwnModel::new`], for a forward function that needs more of the pass than inputs and mode: the key of its random
    /// draws ([`random`](crate::random)), or the examples' indices.
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
        }
        .buffers_where(|_| false))
    }

    /// Which tensors are buffers besides running means and variances: what was given to the recorder's `buffers`.
    #[must_use]
    pub fn buffers_where(mut self, is_buffer: impl Fn(&str) -> bool) -> Self {
        (self.buffers, self.parameters) = self.all.iter().cloned().partition(|def| {
            def.name.ends_with("running_mean")
                || def.name.ends_with("running_var")
                || is_buffer(&def.name)
        });
        self
    }

    /// A scalar of the parameters (by name) that training adds once to the batch loss, whatever the examples' weights: an L2 penalty
    /// in the loss, say. Decay in the optimizer doesn't belong here: it is recorded with each step.
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

    fn losses(&self, pass: &Pass<'_>) -> Result<Losses> {
        named("parameter", &self.parameters, pass.parameters)?;
        named("buffer", &self.buffers, pass.buffers)?;
        let inputs = &pass.batch.inputs;
        let dtype = pass
            .parameters
            .first()
            .map_or(inputs.dtype(), Tensor::dtype);
        // Layers read and write these copies; what belongs to them in the graph is kept in the scope.
        let scope = Scope::enter(pass.buffers)?;
        let tensors = self
            .parameters
            .iter()
            .zip(pass.parameters)
            .chain(self.buffers.iter().zip(scope.handed_out()))
            .map(|(def, tensor)| (def.name.clone(), tensor.clone()))
            .collect();
        let vb = VarBuilder::from_backend(
            Box::new(Given::new(tensors)),
            dtype,
            inputs.device().clone(),
        );
        let outputs = (self.run)(vb, pass)?;
        let buffers = scope.leave()?;
        let per_example = (self.loss)(&outputs, &pass.batch.targets)?;
        let shared = match pass.mode {
            Mode::Train => self.shared_penalty(pass.parameters)?,
            Mode::Evaluate => None,
        };
        Ok(Losses {
            per_example,
            shared,
            buffers,
            outputs,
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

/// There must be a tensor of the right shape for every name.
fn named(what: &str, defs: &[TensorDef], tensors: &[Tensor]) -> Result<()> {
    if defs.len() != tensors.len() {
        candle_core::bail!(
            "the model has {} {what}s, but {} were given",
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
