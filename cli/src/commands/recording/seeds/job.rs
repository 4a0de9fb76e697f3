//! The runs of `record --seeds`, and what an earlier command left of them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use candle_core::Device;
use hindcast_format::{FormatError, Status, hex};
use hindcast_model::data::Given;
use hindcast_model::task::Task;
use hindcast_recorder::Keep;

use crate::args::Record;
use crate::commands::Usage;
use crate::commands::context::{memory, open_trace_within};
use crate::commands::recording::policies::Policies;
use crate::commands::recording::{labels, resume};
use hindcast_analyzer::run::LABELS_NOTE;
use hindcast_analyzer::shards::Shard;
use hindcast_lab::check_resumable;

/// The command line of `record --seeds`, without the seeds.
pub(in crate::commands::recording) struct Plan<'a> {
    pub args: &'a Record,
    /// The folder of the runs.
    pub runs: &'a Path,
    pub policies: &'a Policies,
    pub keep: Keep,
    pub device: &'a Device,
    /// The part of the seeds that this process trains; `None` for all.
    pub shard: Option<Shard>,
}

impl<'a> Plan<'a> {
    /// The places of the data.
    pub fn given(&self) -> Given<'a> {
        let args = self.args;
        args.own.given(args.data.as_deref())
    }
}

/// One run of the plan.
pub(super) struct Job {
    pub seed: u64,
    pub task: Task,
    pub run: PathBuf,
    pub found: Found,
}

/// What an earlier command left in a run's folder.
pub(super) enum Found {
    Nothing,
    /// A run with this number of steps, which can be resumed.
    Part(u64),
    Whole {
        steps: u64,
        head: Option<String>,
    },
}

impl Job {
    /// The run of one seed, after checking that what is in its folder belongs to it.
    pub fn find(plan: &Plan<'_>, task: &Task, split: u64, seed: u64) -> anyhow::Result<Self> {
        let mut task = task.clone();
        task.set_all(&[
            ("data.seed", &split.to_string()),
            ("train.seed", &seed.to_string()),
        ])
        .map_err(|e| Usage(format!("--seeds: {e}")))?;
        let run = plan.runs.join(format!("seed-{seed}"));
        // Reports a wrong --note before anything is trained.
        let _ = plan.policies.builder(plan.args, &task, &run, plan.keep)?;
        let found = Self::look(plan, &run, &task)?;
        Ok(Job {
            seed,
            task,
            run,
            found,
        })
    }

    fn look(plan: &Plan<'_>, run: &Path, task: &Task) -> anyhow::Result<Found> {
        let empty = std::fs::read_dir(run).is_ok_and(|mut entries| entries.next().is_none());
        if empty || !run.exists() {
            hindcast_analyzer::output::outside_of_runs(run)
                .with_context(|| format!("cannot write {}", run.display()))?;
            return Ok(Found::Nothing);
        }
        let trace = open_trace_within(run, memory(plan.args.memory.as_deref())?)?;
        let info = trace.info();
        let keep = (
            format!("--keep {}", info.keep),
            format!("--keep {}", plan.keep),
        );
        let other = resume::difference(info.task.as_deref(), task, run)?;
        let labels = (
            labels::said(info.notes.get(LABELS_NOTE)),
            labels::said(labels::note(task, plan.given())?.as_ref()),
        );
        let differ = |(was, is): (String, String)| (was != is).then_some((was, is));
        if let Some((was, is)) = other.or(differ(keep)).or(differ(labels)) {
            bail!(
                "{} is a run of another command: it was recorded with `{was}`, but this command gives `{is}`; name another folder with --out",
                run.display()
            );
        }
        if trace.status() != Status::Finished {
            check_resumable(&trace, run)?;
            return Ok(Found::Part(trace.span().end));
        }
        if let Some(problem) = trace.problems().first() {
            let error = match problem {
                FormatError::Corrupt(corruption) => FormatError::Corrupt(corruption.clone()).into(),
                other => anyhow::anyhow!("{other}"),
            };
            return Err(error.context(format!(
                "{} is damaged; remove it to train this seed again",
                run.display()
            )));
        }
        Ok(Found::Whole {
            steps: trace.final_step().unwrap_or(trace.span().end),
            head: trace.head_digest().as_ref().map(|head| hex(head)),
        })
    }

    pub fn is_whole(&self) -> bool {
        matches!(self.found, Found::Whole { .. })
    }

    /// Number of steps that are already recorded.
    pub fn recorded(&self) -> u64 {
        match self.found {
            Found::Nothing => 0,
            Found::Part(steps) | Found::Whole { steps, .. } => steps,
        }
    }
}
