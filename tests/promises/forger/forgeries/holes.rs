//! Runs that lack steps or tensors, for a bad reason and for a good one.

use anyhow::Context as _;
use hindcast_tests::noise::Noise;
use serde_json::json;

use super::super::recordings::{EPOCH, KEYFRAME, Recordings, STEPS};
use super::super::run::{End, Run};
use super::states::{FROM, randomise};

/// The step that is missing, or was lost.
const HOLE: u64 = 100;

/// Says in the counters that these steps were lost to a storage failure.
fn lost(run: &mut Run, from: u64, to: u64) {
    run.counters["lost"] = (to - from).into();
    run.counters["lost-from"] = from.into();
    run.counters["lost-to"] = to.into();
}

pub fn noise_between_holes(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at < FROM || s.at % 2 == 0);
    let mut noise = Noise(6);
    for step in run.steps.iter_mut().filter(|s| s.at >= FROM) {
        randomise(step.state.as_mut().context("a state")?, &mut noise);
    }
    randomise(&mut run.end()?.state, &mut noise);
    Ok(run)
}

pub fn noise_after_a_hole(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at != FROM);
    let mut noise = Noise(7);
    let between = run.steps.iter_mut();
    for step in between.filter(|s| s.at > FROM && s.at < KEYFRAME) {
        randomise(step.state.as_mut().context("a state")?, &mut noise);
    }
    Ok(run)
}

pub fn noise_in_gaps(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let mut noise = Noise(8);
    for step in run.steps.iter_mut().filter(|s| s.at >= FROM) {
        let mut state = step.state.take().context("a state")?;
        randomise(&mut state, &mut noise);
        step.meta.digest = Some(*blake3::hash(&state).as_bytes());
        step.key = None;
    }
    randomise(&mut run.end()?.state, &mut noise);
    run.match_buffers()?;
    Ok(run)
}

/// Another run from the step after the missing one on.
pub fn other_run(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at < HOLE);
    let rest = runs.other.steps.iter().filter(|s| s.at > HOLE);
    run.steps.extend(rest.cloned());
    run.end = runs.other.end.clone();
    Ok(run)
}

pub fn other_run_stated(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = other_run(runs)?;
    lost(&mut run, HOLE, HOLE + 1);
    Ok(run)
}

/// Halves the recorded losses of these steps.
fn halve_losses(run: &mut Run, of: impl Fn(u64) -> bool) {
    for step in run.steps.iter_mut().filter(|s| of(s.at)) {
        step.meta.loss = step.meta.loss.map(|loss| loss / 2.0);
    }
}

pub fn loss_before(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = honest_hole(runs)?;
    halve_losses(&mut run, |at| at == HOLE - 1);
    Ok(run)
}

pub fn loss_after(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = honest_hole(runs)?;
    halve_losses(&mut run, |at| at == HOLE + 10);
    Ok(run)
}

pub fn losses_between(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = honest_holes(runs)?;
    halve_losses(&mut run, |at| at >= FROM);
    Ok(run)
}

/// The running statistics after the last step before the hole are others.
pub fn statistics_before(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = honest_hole(runs)?;
    let parameters = run.layout()?.parameters;
    let state = run.step(HOLE - 1)?.state.as_mut().context("a state")?;
    randomise(&mut state[parameters..], &mut Noise(9));
    Ok(run)
}

pub fn final_state(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at != STEPS - 1);
    run.end = runs.other.end.clone();
    Ok(run)
}

pub fn last_epoch(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let mut last = run.step(KEYFRAME)?.clone();
    run.steps.retain(|s| s.at < KEYFRAME);
    run.end = Some(End {
        at: KEYFRAME,
        state: last.state.take().context("a state")?,
        key: last.key.take().context("a keyframe")?,
    });
    // The buffers of a final state are those after the last step.
    let layout = run.layout()?;
    let end = run.end()?;
    let before = end.key[..layout.buffers].to_vec();
    end.state[layout.parameters..].copy_from_slice(&before);
    run.counters["written"] = KEYFRAME.into();
    Ok(run)
}

pub fn pretrained(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.steady.clone();
    run.steps.retain(|s| s.at >= KEYFRAME);
    for step in &mut run.steps {
        step.at -= KEYFRAME;
        step.meta.epoch -= KEYFRAME / EPOCH;
        if !runs.rule.stateful {
            step.meta.optimizer_step -= KEYFRAME;
        }
    }
    run.end()?.at -= KEYFRAME;
    run.edit_task("epochs = 5", "epochs = 1")?;
    run.counters["written"] = json!(EPOCH);
    Ok(run)
}

pub fn honest_hole(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at != HOLE);
    lost(&mut run, HOLE, HOLE + 1);
    Ok(run)
}

pub fn honest_holes(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let all = run.steps.len();
    run.steps.retain(|s| s.at < FROM || s.at % 2 == 0);
    lost(&mut run, FROM, STEPS);
    run.counters["lost"] = (all - run.steps.len()).into();
    Ok(run)
}

pub fn honest_gaps(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let few = run.steps.iter_mut().filter(|s| s.at % 40 == 7);
    for step in few {
        let state = step.state.take().context("a state")?;
        step.meta.digest = Some(*blake3::hash(&state).as_bytes());
    }
    Ok(run)
}

pub fn honest_stop(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at < HOLE);
    run.end = None;
    run.counters["written"] = HOLE.into();
    Ok(run)
}
