//! A sweep as `influence`, `counterfactual` and `demo` do it: announced, shown, interruptible, and taken up again.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use hindcast_model::net::{Net, Node, Op};

use super::context::device;
use super::interrupt::{Interrupts, told};
use super::memory::{self, Limit};
use super::progress::{self, Bar, bytes};
use crate::cli::Precision;
use crate::sweep::largest_batch;
use crate::{
    EngineKind, Query, RecordedRun, ReplayEngine, ScoreTable, Subject, SweepCheckpoint, SweepCost,
    SweepIdentity, SweepOptions, SweepState, TableOrigin, Window, resume, sweep,
};

/// How a sweep is computed.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    pub precision: Precision,
    /// The default of the subject where none is asked for.
    pub engine: Option<EngineKind>,
    pub device: Option<&'a str>,
    pub per_epoch: bool,
    /// Where it is saved while it runs.
    pub checkpoints: Option<Checkpoints>,
    pub memory: Option<Limit>,
    /// Whether nothing is said beforehand.
    pub quiet: bool,
}

/// Where and how often a sweep is saved.
pub(crate) struct Checkpoints {
    pub path: PathBuf,
    pub every: Duration,
    /// Go on from what is there.
    pub resume: bool,
}

impl Checkpoints {
    /// The checkpoint of the sweep that writes this table.
    pub fn path_of(table: &Path) -> PathBuf {
        let mut name = table.as_os_str().to_owned();
        name.push(".sweep.safetensors");
        PathBuf::from(name)
    }
}

/// Sweeps and makes the table.
pub(crate) fn score(
    subject: &Subject,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
) -> anyhow::Result<(SweepState, ScoreTable)> {
    let run = subject.recorded()?;
    let device_name = settings.device.unwrap_or("cpu");
    let device = device(device_name)?;
    let options = SweepOptions {
        window: window.resolve(run.source())?,
        per_epoch: settings.per_epoch,
    };
    let kind = subject.engine_kind(settings.engine, &device)?;
    let precision = format!("{:?}", settings.precision).to_lowercase();
    let origin = TableOrigin {
        run_digest: subject.head(),
        engine: format!("{}, {precision} precision, {device_name}", kind.name()),
    };
    let dtype = settings.precision.dtype().unwrap_or(run.dtype());
    let saving = match &settings.checkpoints {
        None => None,
        Some(checkpoints) => Some(Saving {
            identity: SweepIdentity::of(
                &run,
                queries,
                &options,
                &origin.run_digest,
                &origin.engine,
            )?,
            checkpoints,
            at: Instant::now(),
            pause: checkpoints.every,
            warned: false,
        }),
    };
    let begun = match &saving {
        None => None,
        Some(saving) => saving.earlier()?,
    };
    trust(subject, settings.quiet)?;
    let mut engine = subject.engine(Some(kind), Some(dtype), device)?;
    let engine = engine.as_mut();
    announce(subject, &run, queries.len(), &options, engine, settings)?;
    let interrupts = Interrupts::listen();
    let steps = run.source().end()?.step - options.window.start;
    let mut watch = Watch {
        bar: progress::bar(steps, "sweeping", "steps"),
        interrupts,
        saving,
        time: progress::Estimate::silent(),
        saved: Ok(false),
    };
    let swept = match begun {
        Some(state) => {
            watch.begin(state.progress().0, settings.quiet);
            resume(&run, engine, state, options.per_epoch, &mut |state| {
                watch.step(state)
            })
        }
        None => {
            let gradients = queries
                .iter()
                .map(|q| q.gradient(run.source(), engine, run.data()))
                .collect::<Result<Vec<_>, _>>()?;
            watch.begin(0, settings.quiet);
            sweep(&run, engine, &gradients, &options, &mut |state| {
                watch.step(state)
            })
        }
    };
    let state = swept.map_err(|e| watch.explain(e.into()))?;
    drop(watch);
    let table = state.table(&run, &origin);
    Ok((state, table))
}

/// An own model is checked before its derivatives are believed.
fn trust(subject: &Subject, quiet: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    match subject.check()? {
        None => {}
        Some(report) if !report.passed() => bail!("{report}"),
        Some(_) if quiet => {}
        Some(report) => eprintln!("{report}; {}", progress::duration(begun.elapsed())),
    }
    Ok(())
}

/// Says what will be done and what it takes, and refuses what cannot fit.
fn announce(
    subject: &Subject,
    run: &RecordedRun<'_>,
    queries: usize,
    options: &SweepOptions,
    engine: &dyn ReplayEngine,
    settings: &Settings<'_>,
) -> anyhow::Result<()> {
    let per_example = values_per_example(subject);
    let width = engine.dtype().size_in_bytes();
    let mut cost = SweepCost::of(run, options, queries, width, per_example)?;
    if let Some(examples) = largest_batch(run)?
        && let Some(bytes) = engine.pass_bytes(examples as usize, queries)
    {
        cost.batch = Some(bytes);
    }
    let batch = cost
        .batch
        .map_or(String::new(), |b| format!(", {} for its batch", bytes(b)));
    let there = memory::check(
        "this sweep",
        cost.certain(),
        cost.about(),
        settings.memory,
        "ask fewer queries at once, leave out --per-epoch, or use a machine with more",
    )?;
    if !settings.quiet {
        eprintln!(
            "to sweep: {} steps, back from {} to {}; {} examples, {} {}",
            cost.steps,
            options.window.start + cost.steps,
            options.window.start,
            cost.examples,
            cost.queries,
            if cost.queries == 1 {
                "query"
            } else {
                "queries"
            },
        );
        eprintln!(
            "memory: about {} beside the data ({} of state, {} for a step{batch}){}{there}",
            bytes(cost.about()),
            bytes(cost.state),
            bytes(cost.step),
            if there.is_empty() { "" } else { "; " },
        );
    }
    Ok(())
}

/// Values that the model's layers put out for one example.
fn values_per_example(subject: &Subject) -> Option<u64> {
    fn of(nodes: &[Node]) -> u64 {
        nodes
            .iter()
            .map(|node| {
                let inner = match &node.op {
                    Op::Residual { body, projection } => of(body) + of(projection),
                    _ => 0,
                };
                inner + node.output.iter().product::<usize>() as u64
            })
            .sum()
    }
    let net = Net::new(subject.task()?).ok()?;
    Some(of(net.nodes()) + net.input_shape().iter().product::<usize>() as u64)
}

/// Looks after a sweep from step to step.
struct Watch<'a> {
    bar: Bar,
    interrupts: Interrupts,
    saving: Option<Saving<'a>>,
    time: progress::Estimate,
    /// Whether an interrupted sweep was saved.
    saved: anyhow::Result<bool>,
}

impl Watch<'_> {
    /// The first step comes now; `done` steps were swept earlier.
    fn begin(&mut self, done: u64, quiet: bool) {
        self.bar.begin_at(done);
        if !quiet {
            self.time = progress::Estimate::from(done);
        }
    }

    fn step(&mut self, state: &SweepState) -> ControlFlow<()> {
        let (done, total) = state.progress();
        self.bar.at(done, total);
        if state.is_done() {
            return ControlFlow::Continue(());
        }
        if self.interrupts.asked() {
            if let Some(saving) = &mut self.saving {
                self.saved = saving.save(state).map(|()| true);
            }
            return ControlFlow::Break(());
        }
        self.time.after(done, total, &self.bar);
        if let Some(saving) = &mut self.saving
            && saving.at.elapsed() >= saving.pause
            && let Err(error) = saving.save(state)
            && !std::mem::replace(&mut saving.warned, true)
        {
            self.bar.say(&format!(
                "hindcast: the sweep goes on, but could not be saved: {error:#}"
            ));
        }
        ControlFlow::Continue(())
    }

    fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        let saved = std::mem::replace(&mut self.saved, Ok(false));
        // Before it is cleared: a bar that is finished says that everything is done.
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        self.bar.finish_and_clear();
        told(error, || match (saved, &self.saving) {
            (Ok(true), Some(saving)) => format!(
                "{done} of {total} steps are swept and kept in {}; the same command with --resume goes on from there",
                saving.checkpoints.path.display()
            ),
            (Err(e), _) => {
                format!("{done} of {total} steps were swept, and could not be saved: {e:#}")
            }
            _ => format!("{done} of {total} steps were swept; nothing was written"),
        })
    }
}

/// Saves a sweep now and then.
struct Saving<'a> {
    identity: SweepIdentity,
    checkpoints: &'a Checkpoints,
    at: Instant,
    pause: Duration,
    warned: bool,
}

impl Saving<'_> {
    /// What an earlier sweep left, if it is to be taken up.
    fn earlier(&self) -> anyhow::Result<Option<SweepState>> {
        let path = &self.checkpoints.path;
        if !path.exists() {
            if self.checkpoints.resume {
                eprintln!(
                    "{}: no interrupted sweep is there; sweeping from the beginning",
                    path.display()
                );
            }
            return Ok(None);
        }
        if !self.checkpoints.resume {
            bail!(
                "{} holds an interrupted sweep: go on from it with --resume, or remove it to begin anew",
                path.display()
            );
        }
        let checkpoint = SweepCheckpoint::read(path)?;
        if checkpoint.is_foreign() {
            eprintln!(
                "{} was written by {}: the last bits of the scores may be others",
                path.display(),
                checkpoint.writer
            );
        }
        let state = checkpoint.state_of(path, &self.identity)?;
        let (done, total) = state.progress();
        eprintln!("{}: going on after {done} of {total} steps", path.display());
        Ok(Some(state))
    }

    fn save(&mut self, state: &SweepState) -> anyhow::Result<()> {
        let begun = Instant::now();
        SweepCheckpoint::write(&self.checkpoints.path, &self.identity, state)?;
        // Saving takes at most a twentieth of the time, however large the state and slow the disk.
        self.pause = match self.checkpoints.every {
            Duration::ZERO => Duration::ZERO,
            every => every.max(20 * begun.elapsed()),
        };
        self.at = Instant::now();
        Ok(())
    }
}
