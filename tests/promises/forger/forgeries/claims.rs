//! Forged statements about the training: losses, rates, epochs, counts, seeds, dates and data.

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::super::meta::{Trained, Weights};
use super::super::recordings::{EPOCH, KEYFRAME, Recordings, STEPS};
use super::super::run::{Run, Step};

/// The base run with every step changed.
fn each(runs: &Recordings, change: impl FnMut(&mut Step)) -> Run {
    let mut run = runs.base.clone();
    run.steps.iter_mut().for_each(change);
    run
}

pub fn losses(runs: &Recordings) -> anyhow::Result<Run> {
    Ok(each(runs, |step| {
        step.meta.loss = step.meta.loss.map(|loss| loss / 2.0);
    }))
}

pub fn last_losses(runs: &Recordings) -> anyhow::Result<Run> {
    Ok(each(runs, |step| {
        if step.at >= STEPS - EPOCH {
            step.meta.loss = step.meta.loss.map(|loss| loss / 2.0);
        }
    }))
}

/// A loss as rounding on another processor might change it.
pub fn rounded_loss(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let loss = &mut run.step(150)?.meta.loss;
    *loss = Some(loss.context("a loss")? * (1.0 - 1e-5));
    Ok(run)
}

pub fn weights(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let meta = &mut run.step(150)?.meta;
    let count = meta.batch().len();
    meta.weights = Weights::Each(vec![(1.0 + 1e-6) / count as f64; count]);
    Ok(run)
}

pub fn second_group(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = each(runs, |step| step.meta.groups.push(step.meta.groups[0]));
    let tensors = run.description["layout"].as_array_mut().context("layout")?;
    let mut parameters = tensors.iter_mut().filter(|t| t["role"] == "parameter");
    parameters.next_back().context("a parameter")?["group"] = json!(1);
    Ok(run)
}

pub fn untrained(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let tensors = run.description["layout"].as_array().context("layout")?;
    let parameters = tensors.iter().filter(|t| t["role"] == "parameter");
    let names: Vec<&str> = parameters.filter_map(|t| t["name"].as_str()).collect();
    let bias = names.iter().position(|name| name.ends_with("bias"));
    let bias = bias.context("a bias")?;
    ensure!(names.len() <= 8, "{names:?} need more than one byte");
    let flags = (0..names.len()).filter(|&at| at != bias);
    let flags = flags.map(|at| 1u8 << at).sum();
    let count = names.len() as u32;
    for step in &mut run.steps {
        step.meta.trained = Trained::Flags(count, vec![flags]);
    }
    Ok(run)
}

/// Doubles the first learning rate in the text of the task.
fn double_rate(run: &mut Run, rate: &str) -> anyhow::Result<()> {
    let doubled = 2.0 * rate.parse::<f64>()?;
    run.edit_task(
        &format!("\nlearning_rate = {rate}\n"),
        &format!("\nlearning_rate = {doubled}\n"),
    )
}

pub fn schedule(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    double_rate(&mut run, runs.rule.rate)?;
    Ok(run)
}

pub fn rates(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = each(runs, |step| {
        for (rate, _) in &mut step.meta.groups {
            *rate *= 2.0;
        }
    });
    double_rate(&mut run, runs.rule.rate)?;
    Ok(run)
}

pub fn epochs_shifted(runs: &Recordings) -> anyhow::Result<Run> {
    Ok(each(runs, |step| step.meta.epoch += 1))
}

pub fn fewer_epochs(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.edit_task("epochs = 5", "epochs = 4")?;
    Ok(run)
}

pub fn optimizer_steps(runs: &Recordings) -> anyhow::Result<Run> {
    Ok(each(runs, |step| step.meta.optimizer_step += 5))
}

pub fn optimizer_restart(runs: &Recordings) -> anyhow::Result<Run> {
    Ok(each(runs, |step| {
        if step.at >= 200 {
            step.meta.optimizer_step = step.at - 200;
        }
    }))
}

pub fn task_decay(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    let real = if runs.rule.name == "adamw" {
        "0.01"
    } else {
        "0.0"
    };
    run.edit_task(&format!("weight_decay = {real}\n"), "weight_decay = 0.2\n")?;
    Ok(run)
}

/// Replaces the seed of the training in the text of the task. The data has a seed of its own.
fn task_seed(run: &mut Run, from: u64, to: u64) -> anyhow::Result<()> {
    run.edit_task(
        &format!("batch = 4\nseed = {from}\n"),
        &format!("batch = 4\nseed = {to}\n"),
    )
}

pub fn seed(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    task_seed(&mut run, 0, 7)?;
    run.description["seed"] = json!(7);
    Ok(run)
}

pub fn seeds_differ(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.description["seed"] = json!(7);
    Ok(run)
}

pub fn initial_weights(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.elsewhere.clone();
    task_seed(&mut run, 1, 0)?;
    run.description["seed"] = json!(0);
    Ok(run)
}

pub fn created_later(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.description["created"] = json!("2099-01-01T00:00:00Z");
    Ok(run)
}

pub fn cut_earlier(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.forks = json!([{
        "at_step": KEYFRAME,
        "end_step": KEYFRAME + 10,
        "time": "2001-01-01T00:00:00Z",
        "superseded": [],
    }]);
    for step in run.steps.iter_mut().filter(|s| s.at >= KEYFRAME) {
        step.cuts = 1;
    }
    Ok(run)
}

pub fn fingerprint(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    take_data(&mut run, &runs.other_data);
    Ok(run)
}

pub fn other_data(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    take_data(&mut run, &runs.other_data);
    run.edit_task("test = 20\nseed = 0\n", "test = 20\nseed = 1\n")?;
    Ok(run)
}

/// Takes the fingerprint of another run's data, and the notes about its rows.
fn take_data(run: &mut Run, from: &Run) {
    for part in ["data", "notes"] {
        run.description[part] = from.description[part].clone();
    }
}

pub fn labels(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = runs.base.clone();
    run.edit_task("test = 20\n", "test = 20\nflipped = 0.0\n")?;
    Ok(run)
}

pub fn labels_with_fingerprint(runs: &Recordings) -> anyhow::Result<Run> {
    let mut run = labels(runs)?;
    take_data(&mut run, &runs.clean);
    Ok(run)
}
