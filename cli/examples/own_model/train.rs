//! The training loop: candle_nn's SGD, and three calls of the recorder.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Optimizer, SGD, VarBuilder, VarMap};
use hindcast_analyzer::run::row_digests;
use hindcast_format::{Status, Trace};
use hindcast_model::batches::shuffled;
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::random::{Purpose, Stream};
use hindcast_recorder::Recorder;

use super::net::Net;

const SEED: u64 = 7;
const EPOCHS: u64 = 5;
const BATCH: usize = 32;
const LEARNING_RATE: f64 = 0.02;

/// `own_model train RUN [--data DIR] [--rows]`
pub fn command(words: &[OsString]) -> ExitCode {
    let (words, rows) = match words {
        [words @ .., last] if last == "--rows" => (words, true),
        words => (words, false),
    };
    let result = match words {
        [run] => train(Path::new(run), None, rows),
        [run, flag, folder] if flag == "--data" => {
            train(Path::new(run), Some(PathBuf::from(folder)), rows)
        }
        _ => {
            eprintln!("usage: own_model train RUN [--data DIR] [--rows]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("own_model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Trains, or resumes where an earlier process was killed. With `rows`, the run identifies the examples by the batches' tensors, as
/// for a loader that gives no indices, and stores them.
fn train(path: &Path, folder: Option<PathBuf>, rows: bool) -> anyhow::Result<()> {
    if let Ok(trace) = Trace::open(path)
        && trace.status() == Status::Finished
    {
        println!("{} is finished", path.display());
        return Ok(());
    }
    let data = super::data::load(folder.as_deref())?;
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))?;
    initialise(&variables)?;

    let mut builder = Recorder::builder(path);
    if !rows {
        for (key, text) in row_digests(data.as_ref()) {
            builder = builder.note(key, text); // so that an analysis with other data can name the rows that differ
        }
        builder = builder.fingerprint(data.fingerprint());
    }
    let (run, at) = builder
        .seed(SEED)
        .objective("own_model")
        .create_or_resume(&variables)?;
    if at.end > 0 {
        println!("{} resumes at step {}", path.display(), at.step);
    }
    if rows {
        let all: Vec<u64> = (0..data.len(Split::Validation)).collect();
        let held = data.batch(Split::Validation, &all, None, DType::F32, &Device::Cpu)?;
        run.validation_of(&[&held.inputs, &held.targets])?;
    }
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), LEARNING_RATE)?);
    let per_epoch = data.len(Split::Train) / BATCH as u64;
    for step in at.step..EPOCHS * per_epoch {
        let epoch = step / per_epoch;
        // The batches are a function of the step, so that a resumed run has the same ones as an uninterrupted run.
        let indices = shuffled(SEED, data.len(Split::Train), BATCH, step);
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;
        let logits = net.forward(&batch.inputs, true)?;
        let loss = ops::cross_entropy(&logits, &batch.targets)?.mean_all()?;
        if rows {
            run.batch_of(epoch, &[&batch.inputs, &batch.targets])?;
        } else {
            run.batch(epoch, &indices)?;
        }
        sgd.backward_step(&loss)?;
    }
    println!("{}", run.finish()?);
    Ok(())
}

/// Initial weights, uniform in ±1/√fan_in. candle's generator can't be seeded, and a killed run must start with the same ones again. This
/// draws them by hand; `hindcast_model::own::seeded` draws those that each layer asks for. The batch norms keep candle's initial values.
fn initialise(variables: &VarMap) -> anyhow::Result<()> {
    let Ok(vars) = variables.data().lock() else {
        bail!("the variables are locked by a thread that panicked");
    };
    let mut names: Vec<&String> = vars.keys().filter(|n| !n.starts_with("norm")).collect();
    names.sort();
    for (i, name) in names.into_iter().enumerate() {
        let var = &vars[name];
        let weight = vars
            .get(&name.replace("bias", "weight"))
            .with_context(|| format!("{name} has no weight of the same layer"))?;
        let fan_in: usize = weight.dims().iter().skip(1).product();
        let bound = 1.0 / (fan_in as f64).sqrt();
        let mut stream = Stream::of_run(SEED, Purpose::Init(i as u32));
        let values: Vec<f32> = (0..var.elem_count())
            .map(|_| stream.uniform_in(-bound, bound) as f32)
            .collect();
        var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
    }
    Ok(())
}
