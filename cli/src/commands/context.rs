//! Opens runs and parses the arguments that several verbs share.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_format::{Access, FormatError, MANIFEST, Storage, Trace};

use super::Usage;
use super::memory::Limit;
use crate::args::{NamesArgs, NamesBy};
use crate::own::OwnSource;
use crate::terminal::{field, say};
use hindcast_analyzer::output::apart;
use hindcast_analyzer::run::Processors;
use hindcast_analyzer::scores::NameKey;
use hindcast_analyzer::{Names, RecordedRun};
use hindcast_model::data::{Given, data_files};
use hindcast_model::task::Task;

/// The source of a run's model and data.
pub(crate) enum Models {
    /// The task that is recorded in the run.
    Recorded,
    /// The program that is running.
    Own(OwnSource),
}

impl Models {
    /// Opens a run with its model and data. Reading the trace may use at most `memory` bytes.
    pub(crate) fn open<'a>(
        &self,
        run: &Path,
        given: impl Into<Given<'a>>,
        memory: Option<Limit>,
    ) -> anyhow::Result<RecordedRun<'static>> {
        let given = given.into();
        if matches!(self, Models::Own(_)) && (given.labels.is_some() || given.truth.is_some()) {
            return Err(Usage(
                "--labels and --truth are for runs of tasks; this program loads its own labels, so give it the right ones there"
                    .into(),
            )
            .into());
        }
        let trace = open_trace_within(run, memory)?;
        let opened = match self {
            Models::Recorded => RecordedRun::of_trace(trace, run, given)?,
            Models::Own(model) => model.open(trace, run, given.folder)?,
        };
        if let Some(scale) = opened.data().target_scale() {
            say!("note: {}", scale.of_losses());
        }
        Ok(opened)
    }
}

/// Opens a trace, or says what to do if the folder contains none. Reading it may use at most `memory` bytes; by default, all
/// available memory.
pub(crate) fn open_trace_within(run: &Path, memory: Option<Limit>) -> anyhow::Result<Trace> {
    Trace::open_storage(storage(run, memory)).map_err(|e| unopened(run, e))
}

/// The folder of a run. Its readers have the keys that the command was given, and may use at most `memory` bytes; by default, all
/// available memory.
pub(crate) fn storage(run: &Path, memory: Option<Limit>) -> Arc<dyn Storage> {
    access(memory).folder(run)
}

/// How a command reads runs.
pub(crate) fn access(memory: Option<Limit>) -> Access {
    Access {
        memory: super::memory::limit(memory),
        keys: super::keys::given(),
    }
}

/// Refuses to write a result over a file or a folder that the data of a run's task is read from. A run that can't be opened
/// refuses nothing here: its error follows.
pub(crate) fn spare_data(
    run: &Path,
    data: Option<&Path>,
    outputs: &[(&str, Option<&Path>)],
) -> anyhow::Result<()> {
    let given = outputs
        .iter()
        .filter_map(|(name, path)| Some((name, (*path)?)));
    let there: Vec<_> = given.filter(|(_, path)| path.exists()).collect();
    if there.is_empty() {
        return Ok(());
    }
    let task = open_trace_within(run, None)
        .ok()
        .and_then(|trace| trace.info().task.as_deref().map(Task::from_toml));
    let Some(Ok(task)) = task else { return Ok(()) };
    let files = data_files(&task.data, data);
    let files = files
        .iter()
        .map(|file| ("a data file of the task", Some(file.as_path())));
    let inputs: Vec<_> = files.chain([("the data folder", data)]).collect();
    for (name, path) in there {
        apart(path, &inputs).with_context(|| format!("{name}: cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Prints a warning for each damage of a trace that can still be read.
pub(crate) fn warn(trace: &Trace) {
    for problem in trace.problems() {
        say!(
            "warning: {}; `hindcast verify` checks everything",
            field(problem)
        );
    }
}

/// [`warn_or_refuse`] for an opened run.
pub(crate) fn warn_or_refuse_run(run: &RecordedRun<'_>, path: &Path) -> anyhow::Result<()> {
    run.trace()
        .map_or(Ok(()), |trace| warn_or_refuse(trace, path))
}

/// Like [`warn`], but refuses a run of which a whole segment is missing or cut off, because other segments show that it held more
/// steps than can be read. For verbs that need the steps up to the end of training.
pub(crate) fn warn_or_refuse(trace: &Trace, run: &Path) -> anyhow::Result<()> {
    warn(trace);
    match trace.ends_early() {
        None => Ok(()),
        Some(damage) => Err(FormatError::Corrupt(Box::new(damage.clone()))).with_context(|| {
            format!(
                "{}: the run recorded more steps than this damage leaves, so it would look like another, shorter training",
                run.display()
            )
        }),
    }
}

/// Says if a run that is going to be retrained was recorded on another kind of processor.
pub(crate) fn say_if_recorded_elsewhere(run: &RecordedRun<'_>) {
    if let Some(both) = Processors::of(run).filter(|both| !both.agree()) {
        say!(
            "note: the run was recorded on {}, and this is {}: retraining rounds in another way",
            field(both.recorded),
            field(both.here)
        );
    }
}

/// Describes why a run can't be opened. A damage error names only a file, so the message names the run first.
pub(crate) fn unopened(run: &Path, error: FormatError) -> anyhow::Error {
    match error {
        FormatError::NotARun { .. } => match left_over_folder(run) {
            Some(left) => anyhow::anyhow!(
                "{error}; {left} next to it was left by a recorder that was killed while it created the run: nothing was recorded in it, so remove it and record again"
            ),
            None => match runs_within(run).as_slice() {
                [] => error.into(),
                [one] => anyhow::anyhow!("{error}; it contains a run: {one}"),
                [first, .., last] => anyhow::anyhow!(
                    "{error}; it contains runs ({first} … {last}): name one of them, or several for verbs that rank over runs"
                ),
            },
        },
        e if e.is_damage() || matches!(e, FormatError::NewerVersion { .. }) => {
            anyhow::Error::from(e).context(run.display().to_string())
        }
        e => e.into(),
    }
}

/// The runs in a folder, such as those of `record --seeds`.
fn runs_within(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let runs = entries.filter(|entry| entry.path().join(MANIFEST).is_file());
    let mut names: Vec<String> = runs.map(|run| run.path().display().to_string()).collect();
    names.sort();
    names
}

/// The temporary folder of a recorder that was killed while it created this run.
fn left_over_folder(run: &Path) -> Option<String> {
    let name = run.file_name()?.to_string_lossy().into_owned();
    let parent = match run.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut left = std::fs::read_dir(parent).ok()?.filter_map(|entry| {
        let entry = entry.ok()?.file_name().to_string_lossy().into_owned();
        entry.starts_with(&format!(".{name}.new-")).then_some(entry)
    });
    left.next()
}

/// Parses `cpu`, `cuda` or `cuda:1`.
pub(crate) fn device(text: &str) -> anyhow::Result<Device> {
    let ordinal = match text {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => match text.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(n) => n,
            None => {
                return Err(Usage(format!(
                    "--device: expected cpu, cuda or cuda:N, got {text:?}"
                ))
                .into());
            }
        },
    };
    Device::new_cuda(ordinal).with_context(|| {
        if cfg!(feature = "cuda") {
            format!("--device {text}: this CUDA device can't be used")
        } else {
            format!("--device {text}: this build has no CUDA support; build with `--features cuda`")
        }
    })
}

/// Parses `--memory`.
pub(crate) fn memory(text: Option<&str>) -> anyhow::Result<Option<Limit>> {
    Ok(text
        .map(|text| text.parse().map_err(|e| Usage(format!("--memory: {e}"))))
        .transpose()?)
}

/// Reads the file of `--names`.
pub(crate) fn names(args: &NamesArgs) -> anyhow::Result<Option<Names>> {
    let by = args.names_by.map(|by| match by {
        NamesBy::Row => NameKey::Row,
        NamesBy::Index => NameKey::Index,
    });
    let Some(path) = &args.names else {
        return Ok(None);
    };
    let names = Names::read(path, by, args.name_column.as_deref()).context("--names")?;
    Ok(Some(names))
}
