//! Tests of Hindcast's promises that involve several crates.

mod adamw;
mod beside;
mod common;
mod copies;
mod forger;
mod full_disk;
mod kill;
mod memory;
mod mutations;
mod oracle;
mod overlaid;
mod random;
mod repeat;
mod rules;
mod schedulers;
mod slow_storage;
mod unsafe_places;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss::mse};
use hindcast_format::{Status, Trace, verify};
use hindcast_recorder::Recorder;

type Tested = Result<(), anyhow::Error>;

/// Records `steps` steps of a linear model in `path`. Returns the parameters before each step, by name.
fn train(path: &std::path::Path, steps: u64, finish: bool) -> Result<Vec<Vec<f64>>, anyhow::Error> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let model = linear(4, 2, vb)?;
    let x = Tensor::randn(0f32, 1., (8, 4), &Device::Cpu)?;
    let y = Tensor::randn(0f32, 1., (8, 2), &Device::Cpu)?;
    let run = Recorder::builder(path).create(&variables)?;
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1)?);
    let mut seen = Vec::new();
    for step in 0..steps {
        let mut now: Vec<f64> = Vec::new();
        for part in [model.bias().expect("linear has a bias"), model.weight()] {
            let values = part.flatten_all()?.to_vec1::<f32>()?;
            now.extend(values.into_iter().map(f64::from));
        }
        seen.push(now);
        run.batch(step / 5, &[0, 1, 2, 3, 4, 5, 6, 7])?;
        sgd.backward_step(&mse(&model.forward(&x)?, &y)?)?;
    }
    if finish {
        run.finish()?;
    }
    Ok(seen)
}

fn read_back(path: &std::path::Path, seen: &[Vec<f64>]) -> Tested {
    assert!(verify(path)?.is_ok());
    let trace = Trace::open(path)?;
    let mut steps = trace.reverse(0..seen.len() as u64);
    let mut left = seen.len();
    while let Some(step) = steps.next()? {
        left -= 1;
        let mut parameters = Vec::new();
        step.state.parameters_f64(&mut parameters);
        assert_eq!(parameters, seen[left], "step {}", step.meta.step);
    }
    assert_eq!(left, 0, "steps were lost");
    Ok(())
}

#[test]
fn the_trace_gives_back_the_parameters_that_the_loop_had() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    let seen = train(&path, 40, true)?;
    read_back(&path, &seen)?;
    assert_eq!(Trace::open(&path)?.status(), Status::Finished);
    Ok(())
}

/// A recorder that is dropped, by an early `?` or a panic, keeps every step and marks the run as unfinished.
#[test]
fn a_run_that_was_not_finished_keeps_every_step_and_is_unfinished() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    let seen = train(&path, 17, false)?;
    read_back(&path, &seen)?;
    assert_eq!(Trace::open(&path)?.status(), Status::Unfinished);
    Ok(())
}
