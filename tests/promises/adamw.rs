//! The three lines of the guide with AdamW: the optimizer tells its rule, a replay reproduces the steps, and a run that
//! was interrupted ends with the bits of an uninterrupted one.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{
    AdamW as CandleAdamW, Linear, Module, Optimizer, VarBuilder, VarMap, layer_norm, linear,
};
use hindcast_analyzer::check::{ReplayCheckOptions, replay_check};
use hindcast_analyzer::run::RecordedRun;
use hindcast_format::{Trace, verify};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_recorder::{AdamW, Builder, Keep, Recorded, Recorder};

use crate::common::{Tested, fine};

const EXAMPLES: u64 = 24;
const BATCH: u64 = 8;
const SEGMENT: u32 = 5;

struct Net {
    first: Linear,
    last: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Self {
            first: linear(4, 6, vb.pp("first"))?,
            last: linear(6, 3, vb.pp("last"))?,
        })
    }

    fn forward(&self, x: &Tensor, _: bool) -> candle_core::Result<Tensor> {
        self.last.forward(&self.first.forward(x)?.tanh()?)
    }
}

fn data() -> anyhow::Result<Box<dyn DataSet>> {
    let x: Vec<f32> = (0..EXAMPLES * 4)
        .map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0)
        .collect();
    let y: Vec<u32> = (0..EXAMPLES as u32).map(|i| i * 7 % 3).collect();
    let x = Tensor::from_vec(x, (EXAMPLES as usize, 4), &Device::Cpu)?;
    let y = Tensor::from_vec(y, EXAMPLES as usize, &Device::Cpu)?;
    Ok(from_tensors((&x, &y), None, None, &["a", "b", "c"], None)?)
}

/// A training program: it creates the run or resumes it, and its batches are functions of the step. It stops before
/// `until`, as if it were killed, or finishes there.
fn train<O: Optimizer + 'static>(
    path: &Path,
    choose: fn(Builder) -> Builder,
    wrap: impl FnOnce(&Recorder, Vec<Var>) -> candle_core::Result<Recorded<O>>,
    (until, finish): (u64, bool),
) -> Tested {
    let data = data()?;
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))?;
    start(&variables)?;
    let builder = choose(Recorder::builder(path).segment_steps(SEGMENT));
    let (run, at) = builder.create_or_resume(&variables)?;
    let mut adamw = wrap(&run, variables.all_vars())?;
    for step in at.step..until {
        let indices: Vec<u64> = (0..BATCH).map(|i| (step * BATCH + i) % EXAMPLES).collect();
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;
        let loss = ops::cross_entropy(&net.forward(&batch.inputs, true)?, &batch.targets)?;
        run.batch(step / 3, &indices)?;
        adamw.backward_step(&loss.mean_all()?)?;
    }
    if finish {
        run.finish()?;
    }
    Ok(())
}

/// The same initial values in every process.
fn start(variables: &VarMap) -> Tested {
    let vars = variables.data().lock().expect("no thread panicked");
    for (name, var) in vars.iter() {
        let values: Vec<f32> = (0..var.elem_count())
            .map(|i| ((i * 29 + name.len() * 13) % 41) as f32 / 40.0 - 0.5)
            .collect();
        var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu)?)?;
    }
    Ok(())
}

fn candles(run: &Recorder, vars: Vec<Var>) -> candle_core::Result<Recorded<CandleAdamW>> {
    Ok(run.wrap(CandleAdamW::new_lr(vars, 0.01)?))
}

fn ours(run: &Recorder, vars: Vec<Var>) -> candle_core::Result<Recorded<AdamW>> {
    Ok(run.wrap(AdamW::new_lr(vars, 0.01)?))
}

/// Recomputes all steps and asks for the recorded bits. Returns the counters of the optimizer.
fn replay(path: &Path) -> anyhow::Result<Vec<u64>> {
    let (trace, data) = (Trace::open(path)?, data()?);
    let model = Arc::new(OwnModel::new(Net::new, Net::forward, ops::cross_entropy)?);
    // The program that analyses gives no rule: the trace has it.
    let run = RecordedRun::from_trace(&trace, model, data.as_ref(), None)?;
    assert_eq!(
        run.rule().describe(),
        "AdamW, beta 0.9 and 0.999, eps 1e-8, weight decay 0.01"
    );
    let options = ReplayCheckOptions {
        samples: 0,
        ..ReplayCheckOptions::new(&run)
    };
    let report = replay_check(&run, &options, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })?;
    assert_eq!(
        report.steps.len() as u64,
        trace.span().end,
        "{}",
        report.note
    );
    assert!(report.passed() && report.bit_identical(), "{report:#?}");
    let counter = |step| Ok(trace.meta(step)?.optimizer_step);
    trace.span().map(counter).collect()
}

/// The parameters at the end.
fn end(path: &Path) -> anyhow::Result<Vec<u8>> {
    let end = Trace::open(path)?.final_state()?;
    Ok(end.expect("the run is finished").0.parameters().to_vec())
}

#[test]
fn three_lines_with_candles_adamw_are_reproduced_by_a_replay() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    train(&path, |b| b, candles, (12, true))?;
    assert_eq!(replay(&path)?, (0..12).collect::<Vec<_>>());
    Ok(())
}

/// Both types train the same bits, and a run of ours continues to them after any interruptions.
#[test]
fn a_run_that_was_interrupted_ten_times_ends_with_the_bits_of_an_uninterrupted_one() -> Tested {
    let dir = tempfile::tempdir()?;
    let whole = dir.path().join("whole");
    train(&whole, |b| b, candles, (40, true))?;
    let path = dir.path().join("interrupted");
    for until in [1, 3, 9, 8, 17, 20, 26, 31, 32, 39] {
        train(&path, |b| b, ours, (until, false))?;
    }
    train(&path, |b| b, ours, (40, true))?;
    assert_eq!(end(&path)?, end(&whole)?);
    assert_eq!(replay(&path)?, (0..40).collect::<Vec<_>>());
    assert!(verify(&path)?.is_ok());
    Ok(())
}

/// The trace says where moments began at zero again, and a replay follows it.
#[test]
fn a_replay_follows_an_optimizer_that_restarted() -> Tested {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("run");
    train(&path, |b| b, candles, (7, false))?;
    train(&path, Builder::restart_optimizer, candles, (15, true))?;
    // The state after step 6 was not recorded, so step 6 is taken again.
    let expected: Vec<u64> = (0..6).chain(0..9).collect();
    assert_eq!(replay(&path)?, expected);
    Ok(())
}

/// Two optimizers over the layers of one model, together in each step or in turns, interrupted and resumed.
fn two(path: &Path, together: bool, (until, finish): (u64, bool)) -> Tested {
    let data = data()?;
    let variables = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F32,
        &Device::Cpu,
    ))?;
    start(&variables)?;
    let builder = Recorder::builder(path).segment_steps(SEGMENT);
    let (run, at) = builder.create_or_resume(&variables)?;
    let part = |prefix: &str, lr: f64| -> candle_core::Result<Recorded<AdamW>> {
        let vars = variables.data().lock().expect("no thread panicked");
        let held = vars.iter().filter(|(name, _)| name.starts_with(prefix));
        let held = held.map(|(_, var)| var.clone()).collect();
        Ok(run.wrap(AdamW::new_lr(held, lr)?))
    };
    let (mut first, mut last) = (part("first", 0.01)?, part("last", 0.03)?);
    for step in at.step..until {
        let indices: Vec<u64> = (0..BATCH).map(|i| (step * BATCH + i) % EXAMPLES).collect();
        let batch = data.batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)?;
        let loss = ops::cross_entropy(&net.forward(&batch.inputs, true)?, &batch.targets)?;
        let loss = loss.mean_all()?;
        run.batch(step / 3, &indices)?;
        if together {
            run.backward_step(&loss, &mut [&mut first, &mut last])?;
        } else if step % 2 == 0 {
            first.backward_step(&loss)?;
        } else {
            last.backward_step(&loss)?;
        }
    }
    if finish {
        run.finish()?;
    }
    Ok(())
}

#[test]
fn two_optimizers_are_reproduced_by_a_replay_together_and_in_turns() -> Tested {
    let dir = tempfile::tempdir()?;
    for together in [true, false] {
        let path = |name: &str| dir.path().join(format!("{name}-{together}"));
        let (whole, parts) = (path("whole"), path("parts"));
        two(&whole, together, (22, true))?;
        two(&parts, together, (13, false))?;
        two(&parts, together, (22, true))?;
        assert_eq!(end(&parts)?, end(&whole)?);
        let counters = replay(&parts)?;
        assert_eq!(counters, replay(&whole)?);
        assert_eq!(counters[21], if together { 21 } else { 10 });
    }
    Ok(())
}

/// candle_nn's layer norm cuts the graph, so what comes before it isn't trained. The trace shows it, and `info` and
/// `verify` say it.
#[test]
fn tensors_that_no_step_trained_are_named_with_the_cure() -> Tested {
    let dir = tempfile::tempdir()?;
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let first = linear(4, 6, vb.pp("first"))?;
    let norm = layer_norm(6, 1e-5, vb.pp("norm"))?;
    let last = linear(6, 3, vb.pp("last"))?;
    let run = Recorder::builder(dir.path().join("cut")).create(&variables)?;
    let mut adamw = run.wrap(AdamW::new_lr(variables.all_vars(), 0.01)?);
    let batch = data()?.batch(Split::Train, &[0, 1, 2], None, DType::F32, &Device::Cpu)?;
    for _ in 0..3 {
        let logits = last.forward(&norm.forward(&first.forward(&batch.inputs)?)?)?;
        let loss = ops::cross_entropy(&logits, &batch.targets)?.mean_all()?;
        run.batch(0, &[0, 1, 2])?;
        adamw.backward_step(&loss)?;
    }
    run.finish()?;
    let said = "4 of the 6 parameter tensors were trained in no step (first.bias, first.weight, norm.bias and 1 more)";
    for verb in ["info", "verify"] {
        let text = fine(dir.path(), &[verb, "cut"]);
        assert!(
            text.contains(said) && text.contains("hindcast_model::own"),
            "{text}"
        );
    }
    let info = fine(dir.path(), &["info", "cut"]);
    assert!(
        info.contains("rule        kind = \"adamw\", beta1 = 0.9"),
        "{info}"
    );

    // A tensor that was trained in steps that the run no longer holds.
    let folder = dir.path().join("kept");
    let builder = Recorder::builder(&folder).segment_steps(2);
    let run = builder.keep(Keep::LastSteps(4)).create(&variables)?;
    let adamw = |var: &candle_core::Var| AdamW::new_lr(vec![var.clone()], 0.01);
    let data = variables.data().lock().expect("no thread panicked").clone();
    let mut early = run.wrap(adamw(&data["last.bias"])?);
    let mut late = run.wrap(adamw(&data["last.weight"])?);
    for step in 0..20 {
        let logits = last.forward(&norm.forward(&first.forward(&batch.inputs)?)?)?;
        let loss = ops::cross_entropy(&logits, &batch.targets)?.mean_all()?;
        run.batch(0, &[0, 1, 2])?;
        if step < 2 {
            early.backward_step(&loss)?;
        } else {
            late.backward_step(&loss)?;
        }
    }
    run.finish()?;
    let text = fine(dir.path(), &["info", "kept"]);
    assert!(
        text.contains("5 of the 6 parameter tensors were trained in none of the"),
        "{text}"
    );
    assert!(!text.contains("trained in no step"), "{text}");

    train(&dir.path().join("whole"), |b| b, ours, (3, true))?;
    for verb in ["info", "verify"] {
        let text = fine(dir.path(), &[verb, "whole"]);
        assert!(!text.contains("trained in no step"), "{text}");
    }
    Ok(())
}
