//! Opens recorded runs with their models and data, and chooses the engine that replays them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Device};
use hindcast_format::Trace;
use hindcast_format::layout::DType as Stored;
use hindcast_model::data::{DataSet, load};
use hindcast_model::net::Net;
use hindcast_model::objective::Objective;
use hindcast_model::task::{Precision, Task};
use hindcast_model::update::UpdateRule;

use crate::check::{CheckOptions, CheckReport, check_data};
use crate::counterfactual::Arithmetic;
use crate::error::NoKernels;
use crate::run::recorded::{Held, Opened};
use crate::run::source::StepSource;
use crate::run::trace::of_trace_parts;
use crate::{
    AnalysisError, AutodiffEngine, EngineKind, KernelEngine, RecordedRun, ReplayEngine, Result,
    check_run,
};

/// What an analysis of an own model's run needs in addition to the trace.
pub struct OwnModelParts {
    /// The model with its loss.
    pub objective: Arc<dyn Objective>,
    /// The examples that it was trained on, in the order whose indices were recorded.
    pub data: Box<dyn DataSet>,
    /// The update rule, for runs that didn't record theirs.
    pub rule: Option<UpdateRule>,
    /// Whether the model's derivatives are checked before they are used.
    pub check: bool,
}

impl RecordedRun<'static> {
    /// Opens the run of a task and loads its data from `data_dir` (digits need none), which must be the data that it was
    /// trained on.
    ///
    /// # Errors
    /// Where the folder holds no trace, the trace no Task, or the data is missing or another; and as [`RecordedRun::new`].
    pub fn open(run: &Path, data_dir: Option<&Path>) -> Result<Self> {
        Self::of_trace(Trace::open(run)?, run, data_dir)
    }

    /// As [`RecordedRun::open`], for a trace that is already open.
    ///
    /// # Errors
    /// As [`RecordedRun::open`].
    pub fn of_trace(trace: Trace, run: &Path, data_dir: Option<&Path>) -> Result<Self> {
        let task = task_of(&trace, run)?;
        let data = load_data(&task, data_dir, trace.info().seed)?;
        of_task(run, trace, task, data)
    }

    /// Opens the run of a task of which the data is already loaded.
    ///
    /// # Errors
    /// As [`RecordedRun::open`].
    pub fn with_data(run: &Path, data: Box<dyn DataSet>) -> Result<Self> {
        let trace = Trace::open(run)?;
        let task = task_of(&trace, run)?;
        of_task(run, trace, task, data)
    }

    /// Opens a run of an own model, which `model` describes.
    ///
    /// # Errors
    /// Where the run carries a task, or `model` brings other data than it was trained on; and as [`RecordedRun::new`].
    pub fn open_own(trace: Trace, run: &Path, model: OwnModelParts) -> Result<Self> {
        if trace.info().task.is_some() {
            return Err(AnalysisError::HasTask {
                run: run.to_owned(),
            });
        }
        check_identity(&trace, model.data.as_ref(), run)?;
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
) -> Result<RecordedRun<'static>> {
    check_identity(&trace, data.as_ref(), run)?;
    let net = Net::new(&task.model, &task.loss).map_err(|source| AnalysisError::Task {
        run: run.to_owned(),
        what: "does not build",
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
    /// Checks an own model's derivatives, the first time that this is called; the models of tasks are tested.
    ///
    /// # Errors
    /// Where the model can't be run. A wrong derivative is a finding of the report.
    pub fn check(&self) -> Result<Option<CheckReport>> {
        if !self.opened().unchecked.swap(false, Ordering::SeqCst) {
            return Ok(None);
        }
        check_run(self, &CheckOptions::default()).map(Some)
    }

    /// The Task that was trained; nothing for an own model.
    pub fn task(&self) -> Option<&Task> {
        self.opened().task.as_deref()
    }

    /// The Task's model; nothing for an own model.
    pub fn net(&self) -> Option<&Arc<Net>> {
        self.opened().net.as_ref()
    }

    /// The trace that the run was opened from; nothing for steps from elsewhere.
    pub fn trace(&self) -> Option<&Trace> {
        self.opened().trace.as_deref()
    }

    /// Which engine replays: the one that is asked for, else the kernels where the model is a task's and `device` the CPU.
    ///
    /// # Errors
    /// Where the kernels are asked for and can't be had.
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

    /// A replay engine in float type `dtype` (the recorded one unless given) on `device`; see [`RecordedRun::engine_kind`].
    ///
    /// # Errors
    /// Where the engine cannot be had, or cannot differentiate twice here.
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
            _ => {
                let objective = Arc::clone(self.objective());
                Ok(Box::new(AutodiffEngine::new(objective, dtype, &device)?))
            }
        }
    }

    /// By what a counterfactual run is trained where this engine is asked for; see [`RecordedRun::engine_kind`].
    ///
    /// # Errors
    /// As [`RecordedRun::engine_kind`].
    pub fn arithmetic(&self, asked: Option<EngineKind>, device: &Device) -> Result<Arithmetic> {
        Ok(match (self.engine_kind(asked, device)?, self.net()) {
            (EngineKind::Kernels, Some(net)) => Arithmetic::Kernels(Arc::clone(net)),
            _ => Arithmetic::Recorded,
        })
    }

    /// Digest that the trace ends in, as hexadecimal text; empty where there is no trace or its manifest is lost.
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
    // Checked before the data. Another seed may draw other data, and the message would then blame the data.
    check_task(trace, &task, run)?;
    Ok(task)
}

/// Loads a task's data; a source that needs files says so by name when there is no folder.
///
/// # Errors
/// Where the data is missing or malformed, or no threads can be started.
pub fn load_data(task: &Task, dir: Option<&Path>, seed: u64) -> Result<Box<dyn DataSet>> {
    crate::workers::start()?;
    load(&task.data, Some(&task.augment), dir, seed).map_err(|source| AnalysisError::LoadData {
        task: task.name.clone(),
        source: Box::new(source),
    })
}

/// The recorded task and the rest of the trace must agree. Otherwise it is unknown which of two settings was used.
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

/// The data must be what the run was trained on: an analysis of other data answers another question.
fn check_identity(trace: &Trace, data: &dyn DataSet, run: &Path) -> Result<()> {
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
    })
}
