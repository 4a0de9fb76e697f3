//! A sweep as `influence`, `counterfactual` and `demo` do it: announced, shown, interruptible, and taken up again.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::trust;
use crate::args::{CheckArgs, Precision};
use crate::clean::{field, say};
use crate::commands::context::device;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::memory;
use crate::commands::memory::Limit;
use crate::commands::progress;
use crate::commands::progress::{Bar, bytes};
use hindcast_analyzer::estimators::{HessianTerm, WithHessian};
use hindcast_analyzer::{
    EngineKind, Query, QuerySweep, RecordedRun, ReplayEngine, ScoreTable, Subject, SweepCheckpoint,
    SweepCost, SweepIdentity, SweepOptions, SweepState, SweepTimes, TableOrigin, Window, begin,
    resume_timed,
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
    /// What becomes of the Hessian's term.
    pub hessian: HessianTerm,
    /// Options of the check of recorded steps; `None` if the caller has checked or recorded them itself.
    pub check: Option<CheckArgs>,
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

/// What came of a sweep.
pub(crate) struct Swept {
    /// All queries' results. Where there were several passes, without the sensitivities that they ended with.
    pub state: SweepState,
    pub table: ScoreTable,
    pub times: SweepTimes,
    /// How often the steps were walked.
    pub passes: u64,
}

/// Sweeps and makes the table.
pub(crate) fn score(
    subject: &Subject,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
) -> anyhow::Result<Swept> {
    let run = subject.recorded()?;
    let device_name = settings.device.unwrap_or("cpu");
    let device = device(device_name)?;
    let options = SweepOptions {
        window: window.resolve(run.source())?,
        per_epoch: settings.per_epoch,
    };
    let kind = subject.engine_kind(settings.engine, &device)?;
    let origin = origin(subject, kind, settings).with_files(queries)?;
    // Scores of another rule are other scores: such a sweep doesn't go on from this one's checkpoint.
    let identity = match settings.hessian {
        HessianTerm::Full => origin.engine.clone(),
        term => format!("{}, {}", origin.engine, term.method()),
    };
    let dtype = settings.precision.dtype().unwrap_or(run.dtype());
    let saving = match &settings.checkpoints {
        None => None,
        Some(checkpoints) => Some(Saving {
            identity: SweepIdentity::of(&run, queries, &options, &origin.run_digest, &identity)?,
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
    trust::derivatives(subject, settings.quiet)?;
    let end = run.source().end()?;
    let mut engine = subject.engine(Some(kind), Some(dtype), device)?;
    let engine = &mut WithHessian::new(engine.as_mut(), settings.hessian);
    let cost = cost(subject, &run, queries.len(), &options, engine)?;
    let a_pass = announce(&cost, &options, settings)?;
    let unverified = match &settings.check {
        Some(check) => trust::steps(
            subject,
            &run,
            options.window.start..end.step,
            check,
            settings.memory,
            settings.quiet,
        )?,
        None => None,
    };
    let (finished, mut under_way) = match begun {
        None => (Vec::new(), None),
        Some(checkpoint) => (checkpoint.finished, Some(checkpoint.state)),
    };
    let taken_up = under_way.as_ref().map_or(0, |state| state.queries.len());
    let to_come = queries.len() - finished.len() - taken_up;
    let mut watch = Watch {
        bar: progress::bar(cost.steps, "sweeping", "steps"),
        interrupts: Interrupts::listen(),
        saving,
        time: progress::Estimate::silent(),
        saved: Ok(false),
        finished,
        passes: u64::from(taken_up > 0) + to_come.div_ceil(a_pass) as u64,
        pass: 0,
    };
    let (passes, mut times) = (watch.passes, SweepTimes::default());
    watch.begin(
        under_way.as_ref().map_or(0, |state| state.progress().0),
        settings.quiet,
    );
    let mut state = loop {
        let state = match under_way.take() {
            Some(state) => state,
            None => {
                let rest = &queries[watch.finished.len()..];
                let gradients = rest[..a_pass.min(rest.len())]
                    .iter()
                    .map(|q| {
                        q.gradient_at(
                            run.source(),
                            engine,
                            run.data(),
                            &end.parameters,
                            &end.buffers,
                        )
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                begin(&run, engine, &gradients, &options)?
            }
        };
        let swept = resume_timed(
            &run,
            engine,
            state,
            options.per_epoch,
            &mut |state| watch.step(state),
            &mut times,
        );
        let mut state = swept.map_err(|e| watch.explain(e.into()))?;
        if watch.finished.len() + state.queries.len() == queries.len() {
            break state;
        }
        watch.finish_pass(&mut state);
    };
    // All queries in the order in which they were asked.
    let mut all = std::mem::take(&mut watch.finished);
    all.append(&mut state.queries);
    state.queries = all;
    drop(watch);
    let mut table = state.table(&run, &origin);
    settings
        .hessian
        .method()
        .clone_into(&mut table.metadata.method);
    table.metadata.notes.extend(unverified);
    Ok(Swept {
        state,
        table,
        times,
        passes,
    })
}

/// What a table says of its origin.
pub(super) fn origin(subject: &Subject, kind: EngineKind, settings: &Settings<'_>) -> TableOrigin {
    let precision = format!("{:?}", settings.precision).to_lowercase();
    let device = settings.device.unwrap_or("cpu");
    TableOrigin {
        run_digest: subject.head(),
        engine: format!("{}, {precision} precision, {device}", kind.name()),
        ..TableOrigin::default()
    }
}

/// What the sweep takes, with this engine.
fn cost(
    subject: &Subject,
    run: &RecordedRun<'_>,
    queries: usize,
    options: &SweepOptions,
    engine: &dyn ReplayEngine,
) -> anyhow::Result<SweepCost> {
    let width = engine.dtype().size_in_bytes();
    let cost = SweepCost::of(
        run,
        options,
        queries,
        width,
        trust::values_per_example(subject),
    )?;
    Ok(cost.with_passes(|examples, queries| engine.pass_bytes(examples, queries)))
}

/// Says what will be done and what it takes, and refuses what cannot fit. Gives the number of queries that are swept at
/// once: all of them where the memory is enough, else as many as it is enough for.
fn announce(
    cost: &SweepCost,
    options: &SweepOptions,
    settings: &Settings<'_>,
) -> anyhow::Result<usize> {
    let at_once = match memory::limit(settings.memory) {
        Some(limit) => cost.queries_within(limit),
        None => cost.queries,
    };
    let pass = cost.in_passes_of(at_once);
    let batch = pass
        .batch
        .map_or(String::new(), |b| format!(", {} for its batch", bytes(b)));
    let there = memory::check(
        "this sweep",
        pass.certain(),
        pass.about(),
        settings.memory,
        &format!(
            "the largest batch has {} examples; ask fewer queries, leave out --per-epoch, or use a machine with more",
            cost.largest_batch
        ),
    )?;
    if !settings.quiet {
        let passes = match cost.queries.div_ceil(at_once) {
            0 | 1 => String::new(),
            n => format!(
                ", in {n} passes over the steps with {at_once} {} each, since the memory isn't enough for all at once",
                if at_once == 1 { "query" } else { "queries" }
            ),
        };
        say!(
            "to sweep: {} steps, back from {} to {}; {} examples, {} {}{passes}",
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
        say!(
            "memory: about {} beside the data ({} of state, {} for a step{batch}; {} for the table at the end){}{there}",
            bytes(pass.about()),
            bytes(pass.state),
            bytes(pass.step),
            bytes(pass.table),
            if there.is_empty() { "" } else { "; " },
        );
    }
    Ok(usize::try_from(at_once).unwrap_or(usize::MAX))
}

/// Looks after a sweep from step to step.
struct Watch<'a> {
    bar: Bar,
    interrupts: Interrupts,
    saving: Option<Saving<'a>>,
    time: progress::Estimate,
    /// Whether an interrupted sweep was saved.
    saved: anyhow::Result<bool>,
    /// Queries of the passes that are over.
    finished: Vec<QuerySweep>,
    /// How many passes there are, and how many of them are over.
    passes: u64,
    pass: u64,
}

impl Watch<'_> {
    /// The first step comes now; `done` steps were swept earlier.
    fn begin(&mut self, done: u64, quiet: bool) {
        self.bar.begin_at(done);
        if !quiet {
            self.time = progress::Estimate::from(done);
        }
    }

    /// A pass is over, and another comes: of its queries the results are kept.
    fn finish_pass(&mut self, state: &mut SweepState) {
        for mut query in state.queries.drain(..) {
            query.parameters = Vec::new();
            query.optimizer = Vec::new();
            query.buffers = Vec::new();
            self.finished.push(query);
        }
        self.pass += 1;
    }

    fn step(&mut self, state: &SweepState) -> ControlFlow<()> {
        let (done, a_pass) = state.progress();
        let (done, total) = (self.pass * a_pass + done, self.passes * a_pass);
        self.bar.at(done, total);
        if done == total {
            return ControlFlow::Continue(());
        }
        if self.interrupts.asked() {
            if let Some(saving) = &mut self.saving {
                self.saved = saving.save(&self.finished, state).map(|()| true);
            }
            return ControlFlow::Break(());
        }
        self.time.after(done, total, &self.bar);
        if let Some(saving) = &mut self.saving
            && saving.at.elapsed() >= saving.pause
            && let Err(error) = saving.save(&self.finished, state)
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
    fn earlier(&self) -> anyhow::Result<Option<SweepCheckpoint>> {
        let path = &self.checkpoints.path;
        if !path.exists() {
            if self.checkpoints.resume {
                say!(
                    "{}: no interrupted sweep is there; sweeping from the beginning",
                    field(path.display())
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
            say!(
                "{} was written by {}: the last bits of the scores may be others",
                field(path.display()),
                field(&checkpoint.writer)
            );
        }
        checkpoint.is_of(path, &self.identity)?;
        let (done, total) = checkpoint.state.progress();
        let of_pass = match checkpoint.finished.len() {
            0 if checkpoint.state.queries.len() == self.identity.queries.len() => String::new(),
            n => format!(
                " of a pass for {} queries; {n} of {} are answered",
                checkpoint.state.queries.len(),
                self.identity.queries.len()
            ),
        };
        say!(
            "{}: going on after {done} of {total} steps{of_pass}",
            field(path.display())
        );
        Ok(Some(checkpoint))
    }

    fn save(&mut self, finished: &[QuerySweep], state: &SweepState) -> anyhow::Result<()> {
        let begun = Instant::now();
        SweepCheckpoint::write_pass(&self.checkpoints.path, &self.identity, finished, state)?;
        // Saving takes at most a twentieth of the time, however large the state and slow the disk.
        self.pause = match self.checkpoints.every {
            Duration::ZERO => Duration::ZERO,
            every => every.max(20 * begun.elapsed()),
        };
        self.at = Instant::now();
        Ok(())
    }
}
