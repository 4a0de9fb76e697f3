//! Runs of the recorder's own AdamW: keyframes hold its moments, and a resumed run continues to the same bits.

use std::sync::Arc;

use candle_core::Var;
use candle_core::backprop::GradStore;
use candle_nn::{AdamW as CandleAdamW, Optimizer, ParamsAdamW};
use hindcast_format::{MemStorage, Trace};
use hindcast_recorder::{
    AdamW, Builder, Describe, Recorded, Recorder, RecorderError, StateVariable, UpdateRule,
};

use crate::common::*;

const STEPS: u64 = 40;
const SEGMENT: u32 = 6;

/// A program that may be killed: it creates or resumes the run, and trains up to `until`. Returns the net with the
/// recorder.
fn program<O: Optimizer + 'static>(
    storage: &Arc<MemStorage>,
    choose: impl FnOnce(Builder) -> Builder,
    wrap: impl FnOnce(&Recorder, &Linear) -> Recorded<O>,
    until: u64,
) -> Result<(Linear, Recorder, u64), RecorderError> {
    let net = Linear::new();
    let builder = choose(on(storage).segment_steps(SEGMENT));
    let (run, at) = builder.create_or_resume(&net.map)?;
    let mut optimizer = wrap(&run, &net);
    for step in at.step..until {
        optimizer.set_learning_rate(0.05 / (1.0 + step as f64));
        run.batch(step / 10, &indices(step))?;
        optimizer.backward_step(&net.loss(&indices(step)).unwrap())?;
    }
    Ok((net, run, at.step))
}

fn ours(run: &Recorder, net: &Linear) -> Recorded<AdamW> {
    run.wrap(AdamW::new_lr(net.map.all_vars(), 0.05).unwrap())
}

fn candles(run: &Recorder, net: &Linear) -> Recorded<CandleAdamW> {
    run.wrap(CandleAdamW::new_lr(net.map.all_vars(), 0.05).unwrap())
}

fn as_it_is(builder: Builder) -> Builder {
    builder
}

/// What a kill -9 leaves at this moment.
fn killed(storage: &MemStorage) -> Arc<MemStorage> {
    Arc::new(MemStorage::from_files(storage.files()))
}

/// The states by step, the optimizer's counters, the final parameters and the final moments.
type Content = (Vec<(u64, Vec<u8>)>, Vec<u64>, Vec<u8>, Vec<u8>);

/// Everything of a finished run that must not depend on interruptions, apart from where keyframes are.
fn content(trace: &Trace) -> Content {
    let counters = trace
        .span()
        .map(|step| trace.meta(step).unwrap().optimizer_step);
    let (last, key) = trace.final_state().unwrap().unwrap();
    (
        states(trace),
        counters.collect(),
        last.bytes().to_vec(),
        key.optimizer().to_vec(),
    )
}

/// A whole run, and the moments before each of its steps, computed by candle's arithmetic in the recorder's type.
fn uninterrupted() -> Trace {
    let storage = Arc::new(MemStorage::new());
    let (_, run, _) = program(&storage, as_it_is, ours, STEPS).unwrap();
    run.finish().unwrap();
    open(&storage)
}

#[test]
fn keyframes_hold_the_moments() {
    let trace = uninterrupted();
    let specs = trace.layout().optimizer_state();
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["moment1.b", "moment1.w", "moment2.b", "moment2.w"]);
    // The first moments before step 6, from the gradients at the recorded parameters.
    let net = Linear::new();
    let (mut first, mut second) = (vec![0.0f32; 4], vec![0.0f32; 4]);
    for step in 0..u64::from(SEGMENT) {
        let state = trace.read(step).unwrap().state;
        for (var, bytes) in [(&net.b, &state.bytes()[..4]), (&net.w, &state.bytes()[4..])] {
            let values: Vec<f32> = bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            var.set(&candle_core::Tensor::from_vec(values, var.dims(), var.device()).unwrap())
                .unwrap();
        }
        let gradients = net.loss(&indices(step)).unwrap().backward().unwrap();
        let flat: Vec<f32> = [&net.b, &net.w]
            .iter()
            .flat_map(|var| {
                let gradient = gradients.get(var).unwrap().flatten_all().unwrap();
                gradient.to_vec1::<f32>().unwrap()
            })
            .collect();
        for ((m, n), g) in first.iter_mut().zip(&mut second).zip(flat) {
            *m = *m * 0.9 + g * (1.0 - 0.9f64) as f32;
            *n = *n * 0.999 + g * g * (1.0 - 0.999f64) as f32;
        }
    }
    let key = trace.read(u64::from(SEGMENT)).unwrap().key.unwrap();
    let expected: Vec<u8> = first
        .iter()
        .chain(&second)
        .flat_map(|value| value.to_le_bytes())
        .collect();
    assert_eq!(key.optimizer(), expected);
    assert!(trace.verify().unwrap().findings.is_empty());
}

/// Killed at any moment, and once more after the resume.
#[test]
fn a_killed_run_continues_to_the_bits_of_an_uninterrupted_one() {
    let expected = content(&uninterrupted());
    for (first, second) in [
        (1, 3),
        (5, 6),
        (6, 7),
        (7, 30),
        (11, 12),
        (13, 14),
        (17, 29),
        (23, 35),
        (30, 31),
        (38, 39),
    ] {
        let storage = Arc::new(MemStorage::new());
        let (_, run, _) = program(&storage, as_it_is, ours, first).unwrap();
        run.drain().unwrap();
        let storage = killed(&storage);
        drop(run);
        let (_, run, from) = program(&storage, as_it_is, ours, second).unwrap();
        assert_eq!(from, (first - 1) / u64::from(SEGMENT) * u64::from(SEGMENT));
        // This one is dropped, as by an early `?`.
        drop(run);
        let (net, run, from) = program(&storage, as_it_is, ours, STEPS).unwrap();
        assert!(from <= second);
        run.finish().unwrap();
        let trace = open(&storage);
        assert_eq!(
            content(&trace),
            expected,
            "killed after {first} and {second} steps"
        );
        assert_eq!(net.bytes(), expected.2);
        assert!(trace.verify().unwrap().findings.is_empty());
    }
}

/// Started again and again, and dead each time before its first step.
#[test]
fn starts_that_record_nothing_take_nothing_away() {
    let storage = Arc::new(MemStorage::new());
    let (_, run, _) = program(&storage, as_it_is, ours, 23).unwrap();
    run.drain().unwrap();
    let mut storage = killed(&storage);
    drop(run);
    let before = states(&open(&storage));
    assert_eq!(before.len(), 23);
    for start in 0..4 {
        let (_, run, from) = program(&storage, as_it_is, ours, 0).unwrap();
        assert_eq!(from, 18, "start {start}");
        if start % 2 == 0 {
            storage = killed(&storage);
        }
        drop(run);
        assert_eq!(states(&open(&storage)), before, "start {start}");
    }
    // A program with another optimizer is refused at its first step.
    assert!(program(&storage, as_it_is, candles, 23).is_err());
    assert_eq!(states(&open(&storage)), before);
    let (_, run, _) = program(&storage, as_it_is, ours, STEPS).unwrap();
    run.finish().unwrap();
    assert_eq!(content(&open(&storage)), content(&uninterrupted()));
}

#[test]
fn candles_adamw_is_refused_in_a_resumed_run_unless_it_restarts() {
    let storage = Arc::new(MemStorage::new());
    let (_, run, _) = program(&storage, as_it_is, candles, 9).unwrap();
    drop(run);
    // The state after step 8 was not recorded, so step 8 is taken again.
    let attempt = killed(&storage);
    let refused = program(&attempt, as_it_is, candles, STEPS).err().unwrap();
    let error = refused.to_string();
    for part in [
        "step 8 of the run: the optimizer AdamW keeps its state",
        "use hindcast_recorder::AdamW",
        "restart_optimizer()",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The trace doesn't have the moments for ours, either.
    let error = program(&killed(&storage), as_it_is, ours, STEPS)
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.contains("doesn't have the state of the optimizer AdamW before step 8"),
        "{error}"
    );
    let (_, run, from) = program(&storage, Builder::restart_optimizer, candles, 12).unwrap();
    assert_eq!(from, 8);
    run.finish().unwrap();
    let trace = open(&storage);
    let counters: Vec<u64> = trace
        .span()
        .map(|step| trace.meta(step).unwrap().optimizer_step)
        .collect();
    assert_eq!(counters, [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]);
}

#[test]
fn a_run_of_ours_is_not_continued_with_candles() {
    let storage = Arc::new(MemStorage::new());
    drop(program(&storage, as_it_is, ours, 9).unwrap());
    let error = program(&killed(&storage), as_it_is, candles, STEPS)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("use hindcast_recorder::AdamW"), "{error}");
    // A restart sets moments and counter to zero.
    let (_, run, from) = program(&storage, Builder::restart_optimizer, ours, 8).unwrap();
    assert_eq!(from, 6);
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(trace.read(6).unwrap().key.unwrap().optimizer(), [0; 32]);
    assert_eq!(trace.meta(6).unwrap().optimizer_step, 0);
}

#[test]
fn parameters_that_the_optimizer_does_not_hold_have_moments_of_zero() {
    let only_w =
        |run: &Recorder, net: &Linear| run.wrap(AdamW::new_lr(vec![net.w.clone()], 0.05).unwrap());
    let storage = Arc::new(MemStorage::new());
    drop(program(&storage, as_it_is, only_w, 14).unwrap());
    let (_, run, from) = program(&storage, as_it_is, only_w, 20).unwrap();
    assert_eq!(from, 12);
    run.finish().unwrap();
    let trace = open(&storage);
    for step in [0, 6, 12, 18] {
        let key = trace.read(step).unwrap().key.unwrap();
        assert_eq!(
            (&key.optimizer()[..4], &key.optimizer()[16..20]),
            (&[0; 4][..], &[0; 4][..])
        );
        assert_eq!(key.optimizer()[4..16] == [0; 12], step == 0);
        assert_eq!(trace.meta(step).unwrap().trained, [false, true]);
    }
}

/// SGD with momentum of the user's own, whose velocities are variables.
struct Momentum {
    held: Vec<(Var, Var)>,
    rate: f64,
    updates: u64,
}

impl Optimizer for Momentum {
    type Config = f64;

    fn new(vars: Vec<Var>, rate: f64) -> candle_core::Result<Self> {
        let hold = |var: Var| Ok((Var::from_tensor(&var.zeros_like()?)?, var));
        Ok(Self {
            held: vars
                .into_iter()
                .map(hold)
                .collect::<candle_core::Result<_>>()?,
            rate,
            updates: 0,
        })
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.updates += 1;
        for (velocity, var) in &self.held {
            if let Some(gradient) = gradients.get(var) {
                velocity.set(&((velocity.as_tensor() * 0.9)? + gradient)?)?;
                var.set(&(var.as_tensor() - (velocity.as_tensor() * self.rate)?)?)?;
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.rate
    }

    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
}

impl Describe for Momentum {
    fn rule(&self) -> UpdateRule {
        UpdateRule::sgd().momentum(0.9).into()
    }

    fn state(&self) -> Option<Vec<StateVariable>> {
        let state = |(velocity, var): &(Var, Var)| StateVariable::new("momentum", var, velocity);
        Some(self.held.iter().map(state).collect())
    }
}

#[test]
fn an_optimizer_of_the_users_own_is_resumed_the_same_way() {
    let wrap = |run: &Recorder, net: &Linear| {
        run.wrap_described(Momentum::new(net.map.all_vars(), 0.05).unwrap())
    };
    let whole = Arc::new(MemStorage::new());
    let (_, run, _) = program(&whole, as_it_is, wrap, STEPS).unwrap();
    run.finish().unwrap();
    let storage = Arc::new(MemStorage::new());
    drop(program(&storage, as_it_is, wrap, 16).unwrap());
    let (_, run, from) = program(&storage, as_it_is, wrap, STEPS).unwrap();
    assert_eq!(from, 12);
    run.finish().unwrap();
    assert_eq!(content(&open(&storage)), content(&open(&whole)));
}

#[test]
fn encoders_follow_the_state_that_is_told_late() {
    for encoders in [1, 3] {
        let storage = Arc::new(MemStorage::new());
        let params = ParamsAdamW {
            lr: 0.05,
            ..ParamsAdamW::default()
        };
        let wrap = |run: &Recorder, net: &Linear| {
            assert!(run.layout().optimizer_state().is_empty());
            let wrapped = run.wrap(AdamW::new(net.map.all_vars(), params.clone()).unwrap());
            assert_eq!(run.layout().optimizer_state().len(), 4);
            assert_eq!(run.estimate().keyframe_extra, 32);
            wrapped
        };
        let (_, run, _) = program(&storage, |b| b.encoders(encoders), wrap, 13).unwrap();
        run.finish().unwrap();
        assert_eq!(kept(&open(&storage)), (0..13).collect::<Vec<_>>());
    }
    // A run that ends without a step has the final moments as well.
    let storage = Arc::new(MemStorage::new());
    let (_, run, _) = program(&storage, as_it_is, ours, 0).unwrap();
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(trace.final_state().unwrap().unwrap().1.optimizer(), [0; 32]);
}
