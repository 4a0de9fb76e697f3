//! A digest of all that the result of a check depends on, by which a changed model is noticed.

use std::sync::Arc;

use candle_core::Device;
use hindcast_model::objective::{Mode, TensorDef};

use super::differences::Noise;
use super::directions::{natural, parts};
use super::point::End;
use super::report::CheckOptions;
use crate::engine::{AutodiffEngine, ReplayEngine, StepInput};
use crate::error::Result;
use crate::run::recorded::RecordedRun;

/// Changes when the check changes.
const CHECK: &str = concat!("hindcast ", env!("CARGO_PKG_VERSION"), " derivatives 2");

/// A digest of a run, a model and the check's options, in hexadecimal. Two checks with the same signature have the same
/// result. `None` if the run has no head digest.
///
/// A model has no name, so the digest covers the bits of what a check looks at: losses, gradients and new buffers in evaluation
/// and in training mode, and the products of a training step with a random direction, at the end of the run in its float type. A model with another
/// operation, derivative, constant or loss has another signature. It takes about a third of the check's time.
///
/// # Errors
/// As [`check_run`](super::check_run).
pub fn signature(run: &RecordedRun<'_>, options: &CheckOptions) -> Result<Option<String>> {
    let head = run.head();
    if head.is_empty() {
        return Ok(None);
    }
    let dtype = run.dtype();
    let end = End::of(run, options, dtype)?;
    let (point, objective) = (end.point(), run.objective());
    let mut engine = AutodiffEngine::new(Arc::clone(objective), dtype, &Device::Cpu)?;
    let rows = point.batch.indices.len();
    let weights = vec![1.0 / rows as f64; rows];
    let input = |mode| StepInput {
        parameters: point.parameters.into(),
        buffers: point.buffers.into(),
        micro_batches: std::slice::from_ref(point.batch),
        weights: &weights,
        mode,
        draws: point.draws,
    };
    let mut hasher = blake3::Hasher::new();
    let (examples, directions) = (options.examples, options.directions);
    let settings = format!(
        "{CHECK}\n{head}\n{examples} {directions} {:e}\n",
        options.tolerance
    );
    hasher.update(settings.as_bytes());
    for defs in [objective.parameters(), objective.buffers()] {
        hasher.update(&(defs.len() as u64).to_le_bytes());
        defs.iter().for_each(|def| layout(&mut hasher, def));
    }
    // Training alone may add terms, and a term with a cut gradient shows in the losses only.
    for mode in [Mode::Evaluate, Mode::Train] {
        let got = engine.gradient(&input(mode))?;
        values(&mut hasher, &[got.loss]);
        for part in [
            &got.per_example,
            &got.parameters,
            &got.buffers,
            &got.buffers_after,
        ] {
            values(&mut hasher, part);
        }
    }
    let mut parts = parts(objective.as_ref());
    parts.truncate(objective.parameters().len());
    let mut noise = Noise::new(17);
    let s = natural(&mut noise, point.parameters, &parts);
    let rho = noise.vector(point.buffers.len(), 1.0);
    let got = engine.products(&input(Mode::Train), &[&s], &[rho])?;
    for vectors in [&got.products, &got.hessian, &got.buffer_adjoints] {
        vectors.iter().for_each(|v| values(&mut hasher, v));
    }
    Ok(Some(hasher.finalize().to_hex().to_string()))
}

fn layout(hasher: &mut blake3::Hasher, def: &TensorDef) {
    hasher.update(&(def.name.len() as u64).to_le_bytes());
    hasher.update(def.name.as_bytes());
    hasher.update(&(def.shape.len() as u64).to_le_bytes());
    for n in &def.shape {
        hasher.update(&(*n as u64).to_le_bytes());
    }
}

fn values(hasher: &mut blake3::Hasher, values: &[f64]) {
    hasher.update(&(values.len() as u64).to_le_bytes());
    for x in values {
        hasher.update(&x.to_bits().to_le_bytes());
    }
}
