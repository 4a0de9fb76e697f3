//! Creates a run and starts its threads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::{Builder as Thread, JoinHandle};

use candle_core::Tensor;
use hindcast_format::{RunWriter, Segmenter, State};

use crate::capture::Capture;
use crate::choices::Choices;
use crate::description::Description;
use crate::encode::Encoding;
use crate::error::RecorderError;
use crate::names::{Bound, Named};
use crate::options::Options;
use crate::policy::OnError;
use crate::recorder::Recorder;
use crate::reopen::{LostBefore, Reopening};
use crate::retention::Retention;
use crate::rows::RowBook;
use crate::shared::Shared;
use crate::snapshot::Copier;
use crate::stated_rule::StatedRule;
use crate::step_recorder::{Begin, StepRecorder};
use crate::tensors::Tensors;
use crate::write::Output;

/// Where the recording of a run starts.
pub(crate) struct Position {
    pub(crate) step: u64,
    pub(crate) update: u64,
    /// The buffers before the step's forward pass. `None` takes the values that the variables hold.
    pub(crate) buffers: Option<Vec<u8>>,
    /// The recorded state of the optimizer before the step, by name.
    pub(crate) optimizer: Option<BTreeMap<String, Tensor>>,
    /// The counter of the optimizer of each parameter before the step, where the trace tells it.
    pub(crate) counters: Vec<Option<u64>>,
    /// The rows that the run knows.
    pub(crate) rows: RowBook,
    /// Steps that the run lost before it was resumed.
    pub(crate) lost: Option<LostBefore>,
    /// Whether the run is new.
    pub(crate) created: bool,
}

/// Creates a run that records these variables.
pub(crate) fn create(options: Options, variables: Vec<Named>) -> Result<Recorder, RecorderError> {
    let bound = options.bind(variables)?;
    let rule = options.stated_rule()?;
    let info = options.info(&bound);
    let writer = RunWriter::create(Arc::clone(&options.storage), info, options.durability)
        .map_err(|error| RecorderError::open(&options.name, 0, error))?;
    let retention = Retention::new(options.kept());
    let at = Position {
        step: 0,
        update: 0,
        buffers: None,
        optimizer: None,
        counters: Vec::new(),
        rows: options.rows(),
        lost: None,
        created: true,
    };
    let started = start(&options, bound, rule, writer, retention, at);
    if started.is_err() {
        // If the folder can't be removed, it reads as a run without steps.
        let _ = RunWriter::discard_empty(&options.storage);
    }
    started
}

/// Starts the threads of a run that was opened for writing. `rule` is the result of [`Options::stated_rule`].
pub(crate) fn start(
    options: &Options,
    bound: Bound,
    rule: StatedRule,
    mut writer: RunWriter,
    retention: Retention,
    at: Position,
) -> Result<Recorder, RecorderError> {
    let Bound {
        layout,
        parameters,
        buffers,
        optimizer,
    } = bound;
    let copier = Copier::new(
        parameters
            .iter()
            .chain(&buffers)
            .map(|var| var.as_tensor().clone()),
    );
    let before = match at.buffers {
        Some(buffers) => buffers,
        None => {
            let mut state = State::zeros(&layout);
            copier.copy(state.bytes_mut()).map_err(|error| {
                options.setup(format!("the variables could not be copied: {error}"))
            })?;
            state.buffers().to_vec()
        }
    };
    let frame_bytes = layout.frame_bytes() as u64;
    let open = |error| RecorderError::open(&options.name, at.step, error);
    let info = Arc::new(writer.info().map_err(open)?.clone());
    let shared = Arc::new(Shared::new(
        options.name.clone(),
        Description::new(Arc::clone(&info), writer.is_described()),
        options.queue_limit(frame_bytes),
    ));
    let encoders = (0..options.encoders)
        .map(|_| {
            let encoder = writer.encoder()?;
            let info = Arc::clone(&info);
            Ok(Encoding { encoder, info })
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(open)?;
    if options.on_error == OnError::TrainOn {
        writer.hold_reserve();
    }
    let output = Output {
        writer,
        retention,
        reopening: Reopening {
            storage: Arc::clone(&options.storage),
            durability: options.durability,
            keep: options.kept(),
            trains_on: options.on_error == OnError::TrainOn,
        },
        lost_before: at.lost,
        created: at.created,
    };
    let threads = spawn(options, &shared, encoders, output)?;
    let choices = Choices {
        on_error: options.on_error,
        loss_values: options.loss_values,
        weight_decay: options.weight_decay,
        rule,
        rule_later: options.rule_later,
        examples: options.examples(),
    };
    let basis = options.basis(&layout);
    let tensors = Tensors {
        layout,
        parameters,
        copier,
        optimizer,
        told: BTreeMap::new(),
        claims: 0,
        claimed: BTreeSet::new(),
    };
    let segmenter = Segmenter::new(options.segments(frame_bytes));
    let capture = Capture::new(options.kept(), options.when_full, segmenter, before);
    let steps = StepRecorder::new(
        shared,
        choices,
        tensors,
        capture,
        basis,
        Begin {
            step: at.step,
            update: at.update,
            optimizer: at.optimizer,
            counters: at.counters,
        },
        at.rows,
    );
    Ok(Recorder::start(steps, threads))
}

fn spawn(
    options: &Options,
    shared: &Arc<Shared>,
    encoders: Vec<Encoding>,
    output: Output,
) -> Result<Vec<JoinHandle<()>>, RecorderError> {
    let mut threads: Vec<JoinHandle<()>> = Vec::with_capacity(encoders.len() + 1);
    let mut encoders = encoders.into_iter();
    let own = Arc::clone(shared);
    let named = |name: &str| Thread::new().name(name.to_owned());
    let mut spawned = match (encoders.next(), encoders.len()) {
        // Encoding takes several times as long as writing, so one thread does both.
        (Some(only), 0) => named("hindcast-record")
            .spawn(move || crate::write::encode_and_write(&own, only, output))
            .map(|thread| threads.push(thread)),
        (first, _) => named("hindcast-write")
            .spawn(move || crate::write::run(&own, output))
            .and_then(|thread| {
                threads.push(thread);
                for encoder in first.into_iter().chain(encoders) {
                    let own = Arc::clone(shared);
                    let encode = move || crate::encode::run(&own, encoder);
                    threads.push(named("hindcast-encode").spawn(encode)?);
                }
                Ok(())
            }),
    };
    spawned = spawned.inspect_err(|_| {
        // The threads that did start end when their queues are closed.
        shared.work.close();
        shared.products.close();
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    });
    match spawned {
        Ok(()) => Ok(threads),
        Err(error) => Err(options.setup(format!(
            "a thread of the recorder could not be started: {error}; the limit on processes and threads (`ulimit -u`) may be reached"
        ))),
    }
}
