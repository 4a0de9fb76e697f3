//! Forged batches.

use anyhow::Context as _;
use hindcast_tests::noise::Noise;

use super::super::recordings::Recordings;
use super::super::run::Run;

/// Training examples of a run.
const EXAMPLES: u64 = 256;

pub fn replaced_at_small_rate(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.small.clone();
    let mut noise = Noise(9);
    for step in &mut run.steps {
        let real = step.meta.batch();
        let mut batch: Vec<u64> = Vec::new();
        while batch.len() < real.len() {
            let example = noise.below(EXAMPLES);
            if !real.contains(&example) && !batch.contains(&example) {
                batch.push(example);
            }
        }
        step.meta.set_batch(&batch);
    }
    Ok(run)
}

pub fn one_index(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let step = run.step(150)?;
    let mut batch = step.meta.batch();
    let other = (0..EXAMPLES).find(|i| !batch.contains(i));
    batch[1] = other.context("an example outside the batch")?;
    step.meta.set_batch(&batch);
    Ok(run)
}

pub fn without_tensors(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = super::holes::honest_gaps(runs)?;
    let gap = run.steps.iter_mut().find(|s| s.state.is_none());
    let step = gap.context("a step without tensors")?;
    let mut batch = step.meta.batch();
    batch.reverse();
    step.meta.set_batch(&batch);
    Ok(run)
}

pub fn order(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.sequential.clone();
    run.edit_task("order = \"sequential\"", "order = \"shuffle\"")?;
    Ok(run)
}
