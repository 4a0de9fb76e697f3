//! The command line of a program that has its own model.

mod source;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use hindcast_format::RunInfo;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

pub(crate) use source::OwnSource;

/// A program that analyses the runs of one model: `hindcast` with its own model and data.
///
/// It has the verbs info, verify, predict, influence, explain, scores, history, compare, dynamics, spikes, counterfactual, clean, report, export,
/// recover and checkpoint, with the flags, messages and exit codes of `hindcast`. [`run_with`] is the short form.
pub struct OwnProgram(OwnSource);

impl OwnProgram {
    /// A program for the runs of `objective`. `data` loads the examples from the folder given by `--data`, if any. They must
    /// be the training's examples in the same order, because the training loop recorded their indices. For a run that stores
    /// its training examples, `data` is asked for validation and test examples, unless the run stores these, too.
    pub fn new(
        objective: impl Objective + 'static,
        data: impl Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync + 'static,
    ) -> Self {
        let objective: Arc<dyn Objective> = Arc::new(objective);
        let data = Arc::new(data);
        Self(OwnSource::new(move |_, folder| {
            let (data, folder) = (Arc::clone(&data), folder.map(Path::to_owned));
            let load = move || data(folder.as_deref());
            Ok((Arc::clone(&objective), Some(Box::new(load))))
        }))
    }

    /// A program for the runs of `objective` that store their examples, because the training loop announced its batches with
    /// the recorder's `batch_of`. [`run_with_rows`] is the short form.
    pub fn with_rows(objective: impl Objective + 'static) -> Self {
        let objective: Arc<dyn Objective> = Arc::new(objective);
        Self(OwnSource::new(move |_, _| {
            Ok((Arc::clone(&objective), None))
        }))
    }

    /// A program for runs of models that differ in their configuration, such as width and depth. `open` makes the model of a
    /// run and loads its data, from what the run says about itself: the recorder's notes ([`RunInfo::notes`]), or the shapes
    /// of its tensors. Its second argument is the folder given by `--data`, if any.
    ///
    /// ```no_run
    /// # use std::process::ExitCode;
    /// # use anyhow::Context as _;
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::{Module, linear};
    /// # use hindcast::OwnProgram;
    /// # use hindcast_model::{data::from_tensors, ops, own::OwnModel};
    /// fn main() -> ExitCode {
    ///     OwnProgram::for_runs(|run, _folder| {
    ///         let width = run.notes.get("width").context("the run has no note `width`")?; // Builder::note("width", "64")
    ///         let width: usize = width.parse()?;
    ///         let build = move |vb| linear(width, 10, vb);
    ///         let model = OwnModel::new(build, |net, x, _train| net.forward(x), ops::cross_entropy)?;
    /// #       let x = Tensor::zeros((9, width), DType::F32, &Device::Cpu)?;
    /// #       let y = Tensor::zeros(9, DType::U32, &Device::Cpu)?;
    ///         Ok((model, from_tensors((&x, &y), None, None, &[], None)?))
    ///     })
    ///     .run()
    /// }
    /// ```
    pub fn for_runs<O: Objective + 'static>(
        open: impl Fn(&RunInfo, Option<&Path>) -> anyhow::Result<(O, Box<dyn DataSet>)>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(OwnSource::new(move |info, folder| {
            let (objective, data) = open(info, folder)?;
            let objective: Arc<dyn Objective> = Arc::new(objective);
            Ok((objective, Some(Box::new(move || Ok(data)))))
        }))
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

/// As [`run_with`], for runs that store their examples, because the training loop announced its batches with the recorder's
/// `batch_of`. The validation examples are those that it gave to `validation_of`.
///
/// ```no_run
/// # use std::process::ExitCode;
/// # use candle_nn::{Linear, Module, linear};
/// # use hindcast::run_with_rows;
/// # use hindcast_model::{ops, own::OwnModel};
/// fn main() -> ExitCode {
///     let model = OwnModel::new(
///         |vb| linear(784, 10, vb),
///         |net: &Linear, x, _train| net.forward(x),
///         ops::cross_entropy,
///     );
///     run_with_rows(model.expect("the model builds"))
/// }
/// ```
pub fn run_with_rows(objective: impl Objective + 'static) -> ExitCode {
    OwnProgram::with_rows(objective).run()
}
