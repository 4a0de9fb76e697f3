//! Forged tensors.

use anyhow::{Context as _, ensure};
use hindcast_tests::noise::Noise;

use super::super::recordings::{KEYFRAME, Recordings, STEPS};
use super::super::run::{Run, change_floats, floats};

/// The first step that a forgery may change.
pub const FROM: u64 = 3;

/// Replaces elements by noise of about their size. Second moments stay positive, because signs are kept.
pub fn randomise(bytes: &mut [u8], noise: &mut Noise) {
    change_floats(bytes, |_, x| {
        let size = 0.1 + noise.float().abs();
        if x == 0.0 {
            0.1 * size
        } else {
            x.signum() * 0.1 * size
        }
    });
}

pub fn noise(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let mut noise = Noise(1);
    for step in run.steps.iter_mut().filter(|s| s.at >= FROM) {
        randomise(step.state.as_mut().context("a state")?, &mut noise);
    }
    randomise(&mut run.end()?.state, &mut noise);
    run.match_buffers()?;
    Ok(run)
}

pub fn noise_with_moments(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = self::noise(runs)?;
    let mut noise = Noise(2);
    let late = run.steps.iter_mut().filter(|s| s.at >= FROM);
    for key in late.filter_map(|s| s.key.as_mut()) {
        randomise(key, &mut noise);
    }
    randomise(&mut run.end()?.key, &mut noise);
    run.match_buffers()?;
    Ok(run)
}

pub fn splice(runs: &Recordings) -> anyhow::Result<Run> {
    spliced(runs, STEPS / 2)
}

pub fn splice_at_keyframe(runs: &Recordings) -> anyhow::Result<Run> {
    spliced(runs, KEYFRAME)
}

/// Another run from step `from` on.
fn spliced(runs: &Recordings, from: u64) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.steps.retain(|s| s.at < from);
    let rest = runs.other.steps.iter().filter(|s| s.at >= from);
    run.steps.extend(rest.cloned());
    run.end = runs.other.end.clone();
    run.match_buffers()?;
    Ok(run)
}

pub fn nudge(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.tiny.clone();
    let parameters = run.layout()?.parameters;
    let at = 100;
    let parameters_of = |run: &mut Run, at| -> anyhow::Result<Vec<f32>> {
        let state = run.step(at)?.state.as_ref().context("a state")?;
        Ok(floats(&state[..parameters]))
    };
    let (now, next) = (
        parameters_of(&mut run, at)?,
        parameters_of(&mut run, at + 1)?,
    );
    let state = run.step(at)?.state.as_mut().context("a state")?;
    change_floats(&mut state[..parameters], |at, x| {
        if at % 2 == 0 {
            x * (1.0 + 1e-5)
        } else {
            x * (1.0 - 1e-5)
        }
    });
    let nudged = parameters_of(&mut run, at)?;
    let (nudge, update) = (distance(&now, &nudged), distance(&now, &next));
    ensure!(nudge > 3.0 * update, "nudge {nudge}, update {update}");
    Ok(run)
}

pub fn small_nudges(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let parameters = run.layout()?.parameters;
    for at in (FROM..STEPS - 1).step_by(5) {
        let next = run.step(at + 1)?.state.as_ref().context("a state")?;
        let next = floats(&next[..parameters]);
        let state = run.step(at)?.state.as_mut().context("a state")?;
        change_floats(&mut state[..parameters], |i, x| x + 0.02 * (next[i] - x));
    }
    Ok(run)
}

/// Euclidean distance.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let squares = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2));
    squares.sum::<f64>().sqrt()
}

pub fn final_state(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.end = runs.other.end.clone();
    Ok(run)
}

pub fn moments(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let buffers = run.layout()?.buffers;
    let key = run.step(KEYFRAME)?.key.as_mut().context("a keyframe")?;
    change_floats(&mut key[buffers..], |_, x| 2.0 * x);
    Ok(run)
}

pub fn final_moments(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let buffers = run.layout()?.buffers;
    change_floats(&mut run.end()?.key[buffers..], |_, x| 2.0 * x);
    Ok(run)
}

pub fn buffers(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let parameters = run.layout()?.parameters;
    let mut noise = Noise(3);
    for step in &mut run.steps {
        let state = step.state.as_mut().context("a state")?;
        randomise(&mut state[parameters..], &mut noise);
    }
    randomise(&mut run.end()?.state[parameters..], &mut noise);
    run.match_buffers()?;
    Ok(run)
}

pub fn final_buffers(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let parameters = run.layout()?.parameters;
    randomise(&mut run.end()?.state[parameters..], &mut Noise(4));
    run.match_buffers()?;
    Ok(run)
}

pub fn key_buffers(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let buffers = run.layout()?.buffers;
    let key = run.step(KEYFRAME)?.key.as_mut().context("a keyframe")?;
    randomise(&mut key[..buffers], &mut Noise(5));
    Ok(run)
}
