//! Opens recorded runs with their models and data, and chooses the engine that replays them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device};
use hindcast_format::Trace;
use hindcast_format::layout::DType as Stored;
use hindcast_model::data::{DataSet, Given, NewRows, load_given, load_new_rows};
use hindcast_model::net::Net;
use hindcast_model::objective::Objective;
use hindcast_model::task::{Precision, Task};
use hindcast_model::train::EVALUATION_ROWS;
use hindcast_model::update::UpdateRule;

use crate::check::check_data;
use crate::counterfactual::Arithmetic;
use crate::engine::SplitEngine;
use crate::engine::team::TeamEngine;
use crate::error::{NoKernels, Unsupported};
use crate::ranks::Ranks;
use crate::run::LABELS_NOTE;
use crate::run::frozen::check_frozen;
use crate::run::recorded::{Held, Opened};
use crate::run::source::StepSource;
use crate::run::trace::of_trace_parts;
use crate::sweep::pass_bytes;
use crate::{
    AnalysisError, AutodiffEngine, EngineKind, KernelEngine, RecordedRun, ReplayEngine, Result,
};

/// Bytes of the graph of an own model's pass over a part of a split, such as the validation examples of a query. The pass has
/// fewer examples at once if their graph is larger.
const PASS_BYTES: u64 = 2 << 30;

/// The parts that an analysis of an own model's run requires in addition to the trace.
pub struct OwnModelParts {
    /// The model with its loss.
    pub objective: Arc<dyn Objective>,
    /// The training examples, in the order to which the recorded indices refer.
    pub data: Box<dyn DataSet>,
    /// The update rule, for runs that didn't record theirs.
    pub rule: Option<UpdateRule>,
    /// Whether the model's derivatives are checked before they are used.
    pub check: bool,
}

impl RecordedRun<'static> {
    /// Opens the run of a task and loads its data from `data_dir`. The data must be the data that the run was trained
    /// on. The digits data is built in and needs no folder.
    ///
    /// # Errors
    /// If the folder contains no trace, the trace contains no Task, or the data is missing or differs from the
    /// recorded data. Also as [`RecordedRun::new`].
    pub fn open(run: &Path, data_dir: Option<&Path>) -> Result<Self> {
        Self::of_trace(Trace::open(run)?, run, data_dir)
    }

    /// As [`RecordedRun::open`], for a trace that is already open. `given` is the data folder, or a folder with files of
    /// labels.
    ///
    /// # Errors
    /// As [`RecordedRun::open`].
    pub fn of_trace<'a>(trace: Trace, run: &Path, given: impl Into<Given<'a>>) -> Result<Self> {
        let task = task_of(&trace, run)?;
        let given: Given<'_> = given.into();
        let data = load_data(&task, given, trace.info().seed)?;
        of_task(run, trace, task, data, given.labels.is_some())
    }

    /// Opens the run of a task with data that is already loaded.
    ///
    /// # Errors
    /// As [`RecordedRun::open`].
    pub fn with_data(run: &Path, data: Box<dyn DataSet>) -> Result<Self> {
        let trace = Trace::open(run)?;
        let task = task_of(&trace, run)?;
        of_task(run, trace, task, data, false)
    }

    /// Opens a run of the own model that `model` describes.
    ///
    /// # Errors
    /// If the trace contains a task, or the data or a frozen tensor in `model` differs from the recorded one. Also as
    /// [`RecordedRun::new`].
    pub fn open_own(trace: Trace, run: &Path, model: OwnModelParts) -> Result<Self> {
        if trace.info().task.is_some() {
            return Err(AnalysisError::HasTask {
                run: run.to_owned(),
            });
        }
        check_frozen(&trace, model.objective.as_ref(), run)?;
        check_identity(&trace, model.data.as_ref(), run, false)?;
        let opened = Opened {
            unchecked: Arc::new(AtomicBool::new(model.check)),
            ..Opened::default()
        };
        together(trace, model.objective, model.data, model.rule, opened)
    }
}

fn of_task(
    run: &Path,
    trace: Trace,
    task: Task,
    data: Box<dyn DataSet>,
    labels_given: bool,
) -> Result<RecordedRun<'static>> {
    check_identity(&trace, data.as_ref(), run, labels_given)?;
    let net = Net::new(&task.model, &task.loss).map_err(|source| AnalysisError::Task {
        run: run.to_owned(),
        what: "describes a model that can't be built",
        source: Box::new(source),
    })?;
    let (net, rule) = (Arc::new(net), Some(task.optimizer.clone()));
    let objective = Arc::clone(&net) as Arc<dyn Objective>;
    let opened = Opened {
        task: Some(Arc::new(task)),
        net: Some(net),
        ..Opened::default()
    };
    together(trace, objective, data, rule, opened)
}

fn together(
    trace: Trace,
    objective: Arc<dyn Objective>,
    data: Box<dyn DataSet>,
    rule: Option<UpdateRule>,
    opened: Opened,
) -> Result<RecordedRun<'static>> {
    let trace = Arc::new(trace);
    let source = Held::Shared(Arc::clone(&trace) as Arc<dyn StepSource>);
    let data = Held::Shared(Arc::from(data));
    let run = of_trace_parts(&trace, source, objective, data, rule)?;
    let trace = Some(trace);
    Ok(run.with_opened(Opened { trace, ..opened }))
}

impl RecordedRun<'_> {
    /// Whether an own model's derivatives are still to be checked, by [`check_run`](crate::check::check_run). `false` on later
    /// calls, and for runs of tasks, whose models are covered by this project's tests.
    pub fn take_due_check(&self) -> bool {
        self.opened().unchecked.swap(false, Ordering::SeqCst)
    }

    /// The Task that was trained. `None` for an own model.
    pub fn task(&self) -> Option<&Task> {
        self.opened().task.as_deref()
    }

    /// The Task's model. `None` for an own model.
    pub fn net(&self) -> Option<&Arc<Net>> {
        self.opened().net.as_ref()
    }

    /// Reads rows of the user's own as the run's data is read, to predict them. `given` is the run's data folder. `files` has one
    /// path, or two for inputs and labels in separate files.
    ///
    /// # Errors
    /// If the run has no task, or the rows don't fit it ([`load_new_rows`]).
    pub fn new_rows<'a>(
        &self,
        run: &Path,
        given: impl Into<Given<'a>>,
        files: &[PathBuf],
    ) -> Result<NewRows> {
        let (Some(task), Some(trace)) = (self.task(), self.trace()) else {
            return Err(AnalysisError::NoTask {
                run: run.to_owned(),
            });
        };
        let seed = trace.info().seed;
        load_new_rows(&task.data, given.into(), seed, files, self.data()).map_err(|source| {
            AnalysisError::Data {
                source: Box::new(source),
            }
        })
    }

    /// The trace that the run was opened from. `None` if the steps come from another source.
    pub fn trace(&self) -> Option<&Trace> {
        self.opened().trace.as_deref()
    }

    /// Chooses the replay engine: `asked` if given. The default is the kernels for a task's model on the CPU, and
    /// autodiff otherwise.
    ///
    /// # Errors
    /// If `asked` is the kernels, and the model is an own model or `device` is not the CPU.
    pub fn engine_kind(&self, asked: Option<EngineKind>, device: &Device) -> Result<EngineKind> {
        match (asked, self.net().is_some(), device.is_cpu()) {
            (Some(EngineKind::Autodiff), ..) => Ok(EngineKind::Autodiff),
            (Some(EngineKind::Kernels), false, _) => {
                Err(AnalysisError::NoKernels(NoKernels::OwnModel))
            }
            (Some(EngineKind::Kernels), _, false) => {
                Err(AnalysisError::NoKernels(NoKernels::Device))
            }
            (_, true, true) => Ok(EngineKind::Kernels),
            (None, ..) => Ok(EngineKind::Autodiff),
        }
    }

    /// Creates a replay engine on `device` that computes in `dtype`, by default the recorded float type. See
    /// [`RecordedRun::engine_kind`] for the choice of the engine.
    ///
    /// # Errors
    /// If the engine is not available, or can't compute second derivatives of this model on this device.
    pub fn engine(
        &self,
        asked: Option<EngineKind>,
        dtype: Option<DType>,
        device: Device,
    ) -> Result<Box<dyn ReplayEngine>> {
        let kind = self.engine_kind(asked, &device)?;
        let dtype = dtype.unwrap_or(self.dtype());
        match (kind, self.net()) {
            (EngineKind::Kernels, Some(net)) => {
                Ok(Box::new(KernelEngine::new(Arc::clone(net), dtype)?))
            }
            _ => self.autodiff(dtype, &device),
        }
    }

    /// As [`RecordedRun::engine`], with the work of each step divided among ranks. On rank 0 the engine is used like any other;
    /// the other ranks give theirs to [`serve`](crate::engine::team::serve).
    ///
    /// With the kernels, results have the same bits as without ranks. With autodiff, their last digits depend on the number of
    /// ranks, as they depend on the number of threads.
    ///
    /// # Errors
    /// As [`RecordedRun::engine`]; if the device isn't the CPU; if a rank is gone.
    pub fn engine_over(
        &self,
        asked: Option<EngineKind>,
        dtype: Option<DType>,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<TeamEngine> {
        if !device.is_cpu() {
            return Err(AnalysisError::Unsupported(Unsupported::RanksAndDevice));
        }
        let kind = self.engine_kind(asked, device)?;
        let dtype = dtype.unwrap_or(self.dtype());
        match (kind, self.net()) {
            (EngineKind::Kernels, Some(net)) => TeamEngine::kernels(Arc::clone(net), dtype, ranks),
            _ => {
                let (threads, rows) = (rayon::current_num_threads(), self.rows_at_once(dtype));
                TeamEngine::autodiff(self.objective(), dtype, threads, rows, ranks)
            }
        }
    }

    /// Number of examples of a forward pass, by the memory that one takes.
    fn rows_at_once(&self, dtype: DType) -> usize {
        // A model that can't be run is reported by its first step.
        let rows = match pass_bytes(self, dtype).unwrap_or(0) {
            0 => EVALUATION_ROWS,
            bytes => usize::try_from(PASS_BYTES / bytes).unwrap_or(EVALUATION_ROWS),
        };
        rows.clamp(1, EVALUATION_ROWS)
    }

    fn autodiff(&self, dtype: DType, device: &Device) -> Result<Box<dyn ReplayEngine>> {
        let rows = self.rows_at_once(dtype);
        let objective = self.objective();
        if !device.is_cpu() {
            let engine = AutodiffEngine::new(Arc::clone(objective), dtype, device)?;
            return Ok(Box::new(engine.with_rows_at_once(rows)));
        }
        let threads = rayon::current_num_threads();
        Ok(Box::new(SplitEngine::new(objective, dtype, threads, rows)?))
    }

    /// The arithmetic that trains counterfactual runs if engine `asked` is chosen. See [`RecordedRun::engine_kind`].
    ///
    /// # Errors
    /// As [`RecordedRun::engine_kind`].
    pub fn arithmetic(&self, asked: Option<EngineKind>, device: &Device) -> Result<Arithmetic> {
        Ok(match (self.engine_kind(asked, device)?, self.net()) {
            (EngineKind::Kernels, Some(net)) => Arithmetic::Kernels(Arc::clone(net)),
            _ => Arithmetic::Recorded,
        })
    }

    /// The trace's head digest in hexadecimal. Empty if there is no trace or its manifest is lost.
    pub fn head(&self) -> String {
        self.trace()
            .and_then(Trace::head_digest)
            .map(|d| hindcast_format::hex(&d))
            .unwrap_or_default()
    }
}

fn task_of(trace: &Trace, run: &Path) -> Result<Task> {
    let Some(text) = &trace.info().task else {
        return Err(AnalysisError::NoTask {
            run: run.to_owned(),
        });
    };
    let task = Task::from_toml(text).map_err(|source| AnalysisError::Task {
        run: run.to_owned(),
        what: "cannot be read",
        source: Box::new(source),
    })?;
    // Checked before the data is loaded: with another seed, the data may differ, and the error would then blame the data.
    check_task(trace, &task, run)?;
    Ok(task)
}

/// Loads a task's data. `given` is the data folder (an `Option<&Path>`), or a folder with files of labels. If the data needs
/// files and there is no folder, the error names the data.
///
/// # Errors
/// If the data is missing or malformed, or no threads can be started.
pub fn load_data<'a>(
    task: &Task,
    given: impl Into<Given<'a>>,
    seed: u64,
) -> Result<Box<dyn DataSet>> {
    crate::workers::start()?;
    let loaded = load_given(&task.data, Some(&task.augment), given.into(), seed);
    loaded.map_err(|source| AnalysisError::LoadData {
        task: task.name.clone(),
        source: Box::new(source),
    })
}

/// Checks that the recorded task agrees with the rest of the trace. If they differ, the true setting is unknown.
fn check_task(trace: &Trace, task: &Task, run: &Path) -> Result<()> {
    let differ = |what, of_task, recorded| AnalysisError::Contradiction {
        run: run.to_owned(),
        what,
        of_task,
        recorded,
    };
    let seed = trace.info().seed;
    if task.train.seed != seed {
        return Err(differ(
            "the seed",
            task.train.seed.to_string(),
            seed.to_string(),
        ));
    }
    let wanted = match task.train.dtype {
        Precision::F32 => Stored::F32,
        Precision::F64 => Stored::F64,
    };
    let parameters = trace.layout().parameters();
    if let Some(other) = parameters.iter().find(|spec| spec.dtype != wanted) {
        let recorded = format!("{} (`{}`)", other.dtype, other.name);
        return Err(differ("the parameters' type", wanted.to_string(), recorded));
    }
    Ok(())
}

/// Checks that the data is what the run was trained on. With other data the scores would be meaningless.
fn check_identity(trace: &Trace, data: &dyn DataSet, run: &Path, labels_given: bool) -> Result<()> {
    let differing = check_data(&trace.info().data, data).unwrap_or_default();
    if differing.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = differing
        .iter()
        .map(|d| {
            let rows = crate::run::rows::differing(&trace.info().notes, &d.split, data);
            let rows = rows.map_or(String::new(), |rows| format!("; {rows}"));
            format!("{}: {}{rows}", d.split, d.problem)
        })
        .collect();
    Err(AnalysisError::OtherData {
        run: run.to_owned(),
        differing: list.join("; "),
        labels: trace.info().notes.get(LABELS_NOTE).cloned(),
        labels_given,
    })
}
