//! Creates a run and starts its threads.

use std::sync::Arc;
use std::thread::{Builder as Thread, JoinHandle};

use hindcast_format::layout::Layout;
use hindcast_format::{Extension, Keyed, RunWriter, Segmenter};

use crate::capture::Capture;
use crate::choices::Choices;
use crate::description::Description;
use crate::encode::Encoding;
use crate::error::RecorderError;
use crate::options::Options;
use crate::policy::OnError;
use crate::provenance;
use crate::recording::Recording;
use crate::reopen::{LostBefore, Reopening};
use crate::retention::Retention;
use crate::rows::RowBook;
use crate::shared::Shared;
use crate::stated_rule::StatedRule;
use crate::threads::Threads;
use crate::write::Output;

/// Where the recording of a run starts.
pub(crate) struct Position {
    pub(crate) step: u64,
    /// The optimizer's counter before the step.
    pub(crate) update: u64,
    /// The buffers before the step's forward pass.
    pub(crate) buffers: Vec<u8>,
    /// The rows that the run knows.
    pub(crate) rows: RowBook,
    /// Steps that the run lost before it was resumed.
    pub(crate) lost: Option<LostBefore>,
    /// Whether the run is new.
    pub(crate) created: bool,
}

/// Creates a run with this layout. `buffers` are those before its first step.
pub(crate) fn create(
    options: &Options,
    layout: Layout,
    buffers: Vec<u8>,
) -> Result<(Recording, Threads), RecorderError> {
    options.check_notes()?;
    let rule = options.stated_rule()?;
    let info = options.info(&layout);
    let storage = Keyed::own(&options.storage, &info);
    let writer = RunWriter::create(Arc::clone(&storage), info, options.durability)
        .map_err(|error| RecorderError::open(&options.name, 0, error))?;
    let retention = Retention::new(options.kept());
    let at = Position {
        step: 0,
        update: 0,
        buffers,
        rows: options.rows(),
        lost: None,
        created: true,
    };
    let started = start(options, layout, rule, writer, retention, at);
    if started.is_err() {
        // If the folder can't be removed, it reads as a run without steps.
        let _ = RunWriter::discard_empty(&storage);
    }
    started
}

/// Starts the threads of a run that was opened for writing. `rule` is the result of [`Options::stated_rule`].
pub(crate) fn start(
    options: &Options,
    layout: Layout,
    rule: StatedRule,
    mut writer: RunWriter,
    retention: Retention,
    at: Position,
) -> Result<(Recording, Threads), RecorderError> {
    let frame_bytes = layout.frame_bytes() as u64;
    let open = |error| RecorderError::open(&options.name, at.step, error);
    let info = Arc::new(writer.info().map_err(open)?.clone());
    // A new run says it in its description.
    let session = (!at.created).then(|| {
        let notes = provenance::notes(options.command_line);
        Extension::of_session(&notes.into_iter().collect())
    });
    let shared = Arc::new(Shared::new(
        options.name.clone(),
        Description::new(Arc::clone(&info), writer.is_described()),
        session,
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
            storage: Keyed::own(&options.storage, &info),
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
    let segmenter = Segmenter::new(options.segments(frame_bytes));
    let capture = Capture::new(
        options.kept(),
        options.when_full,
        segmenter,
        at.buffers,
        options.queue_bytes.is_none(),
    );
    let recording = Recording::new(
        Arc::clone(&shared),
        choices,
        layout,
        capture,
        basis,
        at.rows,
        (at.step, at.update),
    );
    Ok((recording, Threads::new(threads, shared)))
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
