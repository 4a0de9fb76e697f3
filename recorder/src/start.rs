//! Starting a run's threads.

use std::sync::Arc;
use std::thread::{Builder as Thread, JoinHandle};

use hindcast_format::{Encoder, FormatError, RunInfo, RunWriter, Segmenter, State};

use crate::builder::Builder;
use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::inner::{Choices, Inner, Tensors};
use crate::mend::{LostBefore, Mending};
use crate::names::Bound;
use crate::policy::OnError;
use crate::pool::Pool;
use crate::recorder::Recorder;
use crate::retention::Retention;
use crate::shared::Shared;
use crate::snapshot::Plan;
use crate::write::Output;

/// Where a run goes on.
pub(crate) struct Position {
    pub(crate) step: u64,
    pub(crate) update: u64,
    /// r before the step's forward pass; `None` takes what the variables hold.
    pub(crate) buffers: Option<Vec<u8>>,
    /// Steps that the run lost before it was resumed.
    pub(crate) lost: Option<LostBefore>,
    /// Whether it begins now.
    pub(crate) created: bool,
}

pub(crate) fn create(
    builder: Builder,
    bound: Bound,
    info: RunInfo,
    estimate: Estimate,
) -> Result<Recorder, RecorderError> {
    let writer = RunWriter::create(Arc::clone(&builder.storage), info, builder.durability)
        .map_err(|error| failed(&builder.name, 0, error))?;
    let retention = Retention::new(builder.kept());
    let started = start(
        &builder,
        bound,
        estimate,
        writer,
        retention,
        Position {
            step: 0,
            update: 0,
            buffers: None,
            lost: None,
            created: true,
        },
    );
    if started.is_err() {
        // What can't be removed is a run without steps, and says so.
        let _ = RunWriter::discard_empty(&builder.storage);
    }
    started
}

pub(crate) fn failed(run: &str, step: u64, error: FormatError) -> RecorderError {
    RecorderError::Open {
        run: run.to_owned(),
        step,
        source: Arc::new(error),
    }
}

pub(crate) fn start(
    builder: &Builder,
    bound: Bound,
    estimate: Estimate,
    writer: RunWriter,
    retention: Retention,
    at: Position,
) -> Result<Recorder, RecorderError> {
    let rule = builder.rule_says()?;
    let Bound {
        layout,
        parameters,
        buffers,
        optimizer,
    } = bound;
    let plan = Plan::new(
        parameters
            .iter()
            .chain(&buffers)
            .map(|var| var.as_tensor().clone()),
    );
    let before = match at.buffers {
        Some(buffers) => buffers,
        None => {
            let mut state = State::zeros(&layout);
            plan.copy(state.bytes_mut()).map_err(|error| {
                builder.setup(format!("the variables could not be copied: {error}"))
            })?;
            state.buffers().to_vec()
        }
    };
    let queue_bytes = builder.queue_limit(layout.frame_bytes() as u64);
    let shared = Arc::new(Shared::new(
        builder.name.clone(),
        Pool::new(layout.clone()),
        queue_bytes,
    ));
    let encoders = (0..builder.encoders)
        .map(|_| writer.encoder())
        .collect::<Result<Vec<_>, _>>();
    let encoders = encoders.map_err(|error| failed(&builder.name, at.step, error))?;
    let mut writer = writer;
    if builder.on_error == OnError::TrainOn {
        writer.hold_reserve();
    }
    let output = Output {
        writer,
        retention,
        mending: Mending {
            storage: Arc::clone(&builder.storage),
            durability: builder.durability,
            keep: builder.kept(),
            trains_on: builder.on_error == OnError::TrainOn,
        },
        lost_before: at.lost,
        created: at.created,
    };
    let threads = spawn(builder, &shared, encoders, output)?;
    let segmenter = Segmenter::new(builder.segments(layout.frame_bytes() as u64));
    let choices = Choices {
        keep: builder.kept(),
        when_full: builder.when_full,
        on_error: builder.on_error,
        loss_values: builder.loss_values,
        weight_decay: builder.weight_decay,
        rule,
        examples: builder.examples(),
    };
    let tensors = Tensors {
        layout: layout.clone(),
        parameters,
        plan,
        optimizer,
    };
    let inner = Inner::new(
        shared,
        choices,
        tensors,
        segmenter,
        (at.step, at.update),
        before,
    );
    Ok(Recorder::start(inner, layout, estimate, threads))
}

fn spawn(
    builder: &Builder,
    shared: &Arc<Shared>,
    encoders: Vec<Encoder>,
    output: Output,
) -> Result<Vec<JoinHandle<()>>, RecorderError> {
    let mut threads: Vec<JoinHandle<()>> = Vec::with_capacity(encoders.len() + 1);
    let mut encoders = encoders.into_iter();
    let own = Arc::clone(shared);
    let named = |name: &str| Thread::new().name(name.to_owned());
    let mut spawned = match (encoders.next(), encoders.len()) {
        // Two threads would only hand frames over to each other: encoding takes several times as long as writing.
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
        // Those that did start end with their queues.
        shared.work.close();
        shared.products.close();
        for thread in threads.drain(..) {
            let _ = thread.join();
        }
    });
    match spawned {
        Ok(()) => Ok(threads),
        Err(error) => Err(builder.setup(format!(
            "a thread of the recorder could not be started: {error}; the limit on processes and threads (`ulimit -u`) may be reached"
        ))),
    }
}
