//! The command line of a program that has its own model.

mod source;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

pub(crate) use source::OwnSource;

/// A program that analyses the runs of one model: `hindcast` with its own model and data.
///
/// It has the verbs info, verify, influence, scores, dynamics, spikes, counterfactual, report, export, recover and checkpoint, with the flags,
/// messages and exit codes of `hindcast`. [`run_with`] is the short form.
pub struct OwnProgram(OwnSource);

impl OwnProgram {
    /// A program for the runs of `objective`. `data` loads the examples from the folder given by `--data`, if any. They must
    /// be the training's examples in the same order, because the training loop recorded their indices.
    pub fn new(
        objective: impl Objective + 'static,
        data: impl Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync + 'static,
    ) -> Self {
        Self(OwnSource {
            objective: Arc::new(objective),
            load: Box::new(data),
            rule: None,
            check: true,
        })
    }

    /// Sets the update rule for runs that didn't record one (with the recorder's `rule`).
    #[must_use]
    pub fn rule(mut self, rule: UpdateRule) -> Self {
        self.0.rule = Some(rule);
        self
    }

    /// Runs the command line of this process.
    pub fn run(self) -> ExitCode {
        crate::commands::own::main(self.0, std::env::args_os())
    }

    /// Runs a command line whose first word is the program's name.
    pub fn run_args<T: Into<OsString> + Clone>(
        self,
        words: impl IntoIterator<Item = T>,
    ) -> ExitCode {
        crate::commands::own::main(self.0, words.into_iter().map(Into::into))
    }
}

/// Runs the command line of this process on the runs of one model. The `main` of an analysis program returns the result.
///
/// ```no_run
/// # use std::path::Path;
/// # use std::process::ExitCode;
/// # use candle_core::{DType, Device, Result, Tensor};
/// # use candle_nn::{Linear, Module, ModuleT, VarBuilder, linear};
/// # use hindcast::run_with;
/// # use hindcast_model::data::{DataSet, from_tensors};
/// # use hindcast_model::{ops, own::{BatchNorm, OwnModel, batch_norm}};
/// # fn load_my_examples(_: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
/// #     let x = Tensor::zeros((9, 784), DType::F32, &Device::Cpu)?;
/// #     let y = Tensor::zeros(9, DType::U32, &Device::Cpu)?;
/// #     Ok(from_tensors((&x, &y), None, None, &[], None)?)
/// # }
/// struct Net { first: Linear, norm: BatchNorm, second: Linear }
///
/// impl Net {
///     fn new(vb: VarBuilder) -> Result<Self> {
///         Ok(Self {
///             first: linear(784, 64, vb.pp("first"))?,
///             norm: batch_norm(64, 1e-5, vb.pp("norm"))?,        // hindcast_model::own's
///             second: linear(64, 10, vb.pp("second"))?,
///         })
///     }
///     fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
///         self.second.forward(&self.norm.forward_t(&self.first.forward(x)?, train)?.relu()?)
///     }
/// }
///
/// fn main() -> ExitCode {
///     let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy).expect("the model builds");
///     run_with(model, |folder| load_my_examples(folder))         // in the order of training
/// }
/// ```
pub fn run_with(
    objective: impl Objective + 'static,
    data: impl Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync + 'static,
) -> ExitCode {
    OwnProgram::new(objective, data).run()
}
