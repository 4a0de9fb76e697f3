//! A query of your own: which training examples raise or lower the margin between two classes on one test example.
//! `cargo run --release -p hindcast-analyzer --example margin -- RUN DATA EXAMPLE CLASS OTHER`
//!
//! RUN is the recorded run of a task with the cross-entropy loss, DATA its data folder (`-` if the task generates its
//! data), and the margin is the output of CLASS minus that of OTHER. A sweep takes any query of which you have the
//! gradient at the end of training: this one comes from candle's backward pass.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context as _, ensure};
use candle_core::{DType, Device, Tensor, Var};
use hindcast_analyzer::{QueryGradient, RecordedRun, SweepOptions, Window, sweep};
use hindcast_model::objective::{Draws, Mode, Pass, Split, TensorDef};

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [run, data, example, class, other] = words.as_slice() else {
        anyhow::bail!("usage: margin RUN DATA EXAMPLE CLASS OTHER");
    };
    let data = (data != "-").then_some(Path::new(data));
    let run = RecordedRun::open(Path::new(run), data)?;
    let query = margin(&run, example.parse()?, class.parse()?, other.parse()?)?;
    println!("{} at the end of training: {:.4}", query.name, query.value);

    let mut engine = run.engine(None, None, Device::Cpu)?;
    let options = SweepOptions::new(Window::All.resolve(run.source())?);
    let queries = [query];
    let swept = sweep(&run, engine.as_mut(), &queries, &options, &mut |_| {
        ControlFlow::Continue(())
    })?;

    // An influence is the predicted change of the margin when the example is left out of training. An example that was
    // in no batch has none.
    let influence = &swept.queries[0].influence;
    let mut used: Vec<usize> = (0..influence.len())
        .filter(|&i| swept.occurrences[i] > 0)
        .collect();
    used.sort_by(|&a, &b| influence[a].total_cmp(&influence[b]));
    println!("training examples that support the margin most:");
    for &i in used.iter().take(10) {
        let label = run.data().label(Split::Train, i as u64);
        println!("{i:>8}  label {label:>4}  {:+.3e}", influence[i]);
    }
    Ok(())
}

/// Value and gradient of `output[class] - output[other]` on a test example, at the final parameters and buffers.
fn margin(
    run: &RecordedRun<'_>,
    example: u64,
    class: usize,
    other: usize,
) -> anyhow::Result<QueryGradient> {
    let size = run.data().len(Split::Test);
    ensure!(example < size, "the test split has {size} examples");
    let end = run.source().end()?;
    let objective = run.objective();
    let parameters = variables(objective.parameters(), &end.parameters)?;
    let buffers = variables(objective.buffers(), &end.buffers)?;
    let batch = run
        .data()
        .batch(Split::Test, &[example], None, DType::F64, &Device::Cpu)?;
    let pass = Pass {
        parameters: &tensors(&parameters),
        buffers: &tensors(&buffers),
        batch: &batch,
        mode: Mode::Evaluate,
        draws: Draws { seed: 0, step: 0 },
    };
    let outputs = objective.losses(&pass)?.outputs.flatten_all()?;
    let classes = outputs.elem_count();
    ensure!(
        class.max(other) < classes,
        "the model has {classes} classes"
    );
    let margin = (outputs.get(class)? - outputs.get(other)?)?;

    // candle has no gradient for a tensor that the margin doesn't depend on. It is zero.
    let gradients = margin.backward()?;
    let flat = |variables: &[Var]| -> anyhow::Result<Vec<f64>> {
        let mut out = Vec::new();
        for variable in variables {
            match gradients.get(variable) {
                Some(gradient) => out.extend(gradient.flatten_all()?.to_vec1::<f64>()?),
                None => out.resize(out.len() + variable.elem_count(), 0.0),
            }
        }
        Ok(out)
    };
    Ok(QueryGradient {
        name: format!("margin of class {class} over {other} on test:{example}"),
        value: margin.to_scalar()?,
        parameters: flat(&parameters)?,
        buffers: flat(&buffers)?,
    })
}

/// A flat vector as variables of the model's shapes, which candle differentiates by.
fn variables(defs: &[TensorDef], mut flat: &[f64]) -> anyhow::Result<Vec<Var>> {
    let mut out = Vec::new();
    for def in defs {
        let (values, rest) = flat
            .split_at_checked(def.shape.iter().product())
            .context("the trace has fewer values than the model")?;
        out.push(Var::from_slice(values, def.shape.as_slice(), &Device::Cpu)?);
        flat = rest;
    }
    Ok(out)
}

fn tensors(variables: &[Var]) -> Vec<Tensor> {
    variables.iter().map(|v| v.as_tensor().clone()).collect()
}
