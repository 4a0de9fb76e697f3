//! The command line of a program that brings a model of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

type Load = Box<dyn Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync>;

/// A program that analyses the runs of one model: `hindcast` with a model and data of its own.
///
/// It has the verbs info, verify, influence, counterfactual, export and checkpoint, with the flags, messages and exit codes of
/// `hindcast`. [`run_with`] is the short way.
pub struct OwnProgram {
    objective: Arc<dyn Objective>,
    load: Load,
    rule: Option<UpdateRule>,
    check: bool,
}

impl OwnProgram {
    /// A program for the runs of `objective`. `data` loads the examples from the folder given by `--data`, if any: the same
    /// examples, in the same order, as were trained on, whose indices the loop recorded.
    pub fn new(
        objective: impl Objective + 'static,
        data: impl Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            objective: Arc::new(objective),
            load: Box::new(data),
            rule: None,
            check: true,
        }
    }

    /// The update rule of runs that didn't record theirs (with the recorder's `rule`).
    #[must_use]
    pub fn rule(mut self, rule: UpdateRule) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Runs the command line of this process.
    pub fn run(self) -> ExitCode {
        crate::commands::own::main(self, std::env::args_os())
    }

    /// Runs a command line, whose first word is the program's name.
    pub fn run_args<T: Into<OsString> + Clone>(
        self,
        words: impl IntoIterator<Item = T>,
    ) -> ExitCode {
        crate::commands::own::main(self, words.into_iter().map(Into::into))
    }

    pub(crate) fn objective(&self) -> Arc<dyn Objective> {
        Arc::clone(&self.objective)
    }

    pub(crate) fn load(&self, folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
        (self.load)(folder)
    }

    pub(crate) fn update_rule(&self) -> Option<&UpdateRule> {
        self.rule.as_ref()
    }

    pub(crate) fn checks(&self) -> bool {
        self.check
    }

    pub(crate) fn without_check(mut self) -> Self {
        self.check = false;
        self
    }
}

/// Runs the command line of this process on the runs of an own model: what the `main` of its analysis program returns.
///
/// ```no_run
/// # use candle_core::{DType, Device, Result, Tensor};
/// # use candle_nn::{Linear, Module, VarBuilder, linear};
/// # struct Net(Linear);
/// # impl Net {
/// #     fn new(vb: VarBuilder) -> Result<Self> { Ok(Net(linear(4, 3, vb)?)) }
/// #     fn forward(&self, x: &Tensor, _train: bool) -> Result<Tensor> { self.0.forward(x) }
/// # }
/// # fn examples() -> Result<(Tensor, Tensor)> {
/// #     Ok((Tensor::zeros((9, 4), DType::F32, &Device::Cpu)?, Tensor::zeros(9, DType::U32, &Device::Cpu)?))
/// # }
/// use hindcast_analyzer::cli::run_with;
/// use hindcast_model::{data::from_tensors, ops, own::OwnModel};
///
/// fn main() -> std::process::ExitCode {
///     let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy).expect("the model builds");
///     run_with(model, |_folder| {
///         let (x, y) = examples()?;
///         Ok(from_tensors((&x, &y), None, None, &[], None)?)
///     })
/// }
/// ```
pub fn run_with(
    objective: impl Objective + 'static,
    data: impl Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync + 'static,
) -> ExitCode {
    OwnProgram::new(objective, data).run()
}
