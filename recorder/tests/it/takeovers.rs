//! Optimizers that are replaced, wrapped late, or mixed: keyframes hold the state of the one that trains each parameter, and
//! what a trace can't express is refused.

use std::sync::Arc;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use candle_nn::{AdamW as CandleAdamW, Optimizer, ParamsAdamW};
use hindcast_format::{MemStorage, Trace};
use hindcast_recorder::{
    AdamW, Builder, Describe, Keep, Recorded, Recorder, RecorderError, StateVariable, UpdateRule,
};

use crate::common::*;

const LR: f64 = 0.05;

fn ours(vars: &[&Var]) -> AdamW {
    AdamW::new_lr(vars.iter().copied().cloned().collect(), LR).unwrap()
}

fn candles(vars: &[&Var]) -> CandleAdamW {
    CandleAdamW::new_lr(vars.iter().copied().cloned().collect(), LR).unwrap()
}

fn step<O: Optimizer + 'static>(
    run: &Recorder,
    optimizer: &mut Recorded<O>,
    net: &Linear,
    step: u64,
) -> Result<(), RecorderError> {
    run.batch(0, &indices(step))?;
    let stepped = optimizer.backward_step(&net.loss(&indices(step)).unwrap());
    if stepped.is_err() {
        run.skip_batch();
    }
    stepped
}

fn refused(result: Result<(), RecorderError>, parts: &[&str]) {
    let error = result.unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{error}");
    }
}

fn counters(trace: &Trace) -> Vec<u64> {
    let counter = |step| trace.meta(step).unwrap().optimizer_step;
    trace.span().map(counter).collect()
}

/// The moments (first of b and w, then second) before step `to` of an AdamW that began at step `from` and trained both
/// parameters, from the gradients at the recorded parameters.
fn moments(trace: &Trace, from: u64, to: u64) -> Vec<u8> {
    let net = Linear::new();
    let (mut first, mut second) = (vec![0.0f32; 4], vec![0.0f32; 4]);
    for step in from..to {
        let state = trace.read(step).unwrap().state;
        for (var, bytes) in [(&net.b, &state.bytes()[..4]), (&net.w, &state.bytes()[4..])] {
            let values = bytes.chunks_exact(4);
            let values: Vec<f32> = values
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect();
            let value = Tensor::from_vec(values, var.dims(), var.device()).unwrap();
            var.set(&value).unwrap();
        }
        let gradients = net.loss(&indices(step)).unwrap().backward().unwrap();
        let flat = [&net.b, &net.w].into_iter().flat_map(|var| {
            let gradient = gradients.get(var).unwrap().flatten_all().unwrap();
            gradient.to_vec1::<f32>().unwrap()
        });
        for ((m, n), g) in first.iter_mut().zip(&mut second).zip(flat) {
            *m = *m * 0.9 + g * (1.0 - 0.9f64) as f32;
            *n = *n * 0.999 + g * g * (1.0 - 0.999f64) as f32;
        }
    }
    let all = first.iter().chain(&second);
    all.flat_map(|value| value.to_le_bytes()).collect()
}

/// Trains up to `until`. A new AdamW takes over at step 6: wrapped again, or put in the place of the first.
fn replaced(storage: &Arc<MemStorage>, again: bool, until: u64) -> (Linear, Recorder) {
    let net = Linear::new();
    let builder = on(storage).segment_steps(4);
    let (run, at) = builder.create_or_resume(&net.map).unwrap();
    let mut optimizer = run.wrap(ours(&[&net.w, &net.b]));
    for t in at.step..until {
        if t == 6 && again {
            optimizer = run.wrap(ours(&[&net.w, &net.b]));
        } else if t == 6 {
            *optimizer.optimizer_mut() = ours(&[&net.w, &net.b]);
        }
        step(&run, &mut optimizer, &net, t).unwrap();
    }
    (net, run)
}

#[test]
fn keyframes_hold_the_moments_of_the_optimizer_that_takes_over() {
    for again in [true, false] {
        let storage = Arc::new(MemStorage::new());
        let (net, run) = replaced(&storage, again, 16);
        run.finish().unwrap();
        let whole = open(&storage);
        assert_eq!(
            counters(&whole),
            [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
        );
        for (key, from) in [(4, 0), (8, 6), (12, 6)] {
            let held = whole.read(key).unwrap().key.unwrap();
            assert_eq!(held.optimizer(), moments(&whole, from, key), "step {key}");
        }
        let (_, key) = whole.final_state().unwrap().unwrap();
        assert_eq!(key.optimizer(), moments(&whole, 6, 16));
        // A resumed run continues with them.
        let storage = Arc::new(MemStorage::new());
        drop(replaced(&storage, again, 14));
        let (resumed, run) = replaced(&storage, again, 16);
        run.finish().unwrap();
        assert_eq!(states(&open(&storage)), states(&whole));
        assert_eq!(resumed.bytes(), net.bytes());
    }
}

#[test]
fn an_optimizer_that_is_wrapped_again_goes_on_counting() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    let mut optimizer = run.wrap(ours(&[&net.w, &net.b]));
    for t in 0..10 {
        if t == 3 {
            optimizer = run.wrap(optimizer.into_inner());
        }
        // Access alone changes nothing.
        optimizer.optimizer_mut().set_learning_rate(LR);
        step(&run, &mut optimizer, &net, t).unwrap();
    }
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(counters(&trace), (0..10).collect::<Vec<_>>());
    assert_eq!(
        trace.read(8).unwrap().key.unwrap().optimizer(),
        moments(&trace, 0, 8)
    );
}

/// Two steps of the optimizer of w, then one of that of b. The second is wrapped at its first turn, or at the beginning.
fn in_turns(storage: &Arc<MemStorage>, late: bool, until: u64) -> (Recorder, u64) {
    let net = Linear::new();
    let builder = on(storage).segment_steps(4);
    let (run, at) = builder.create_or_resume(&net.map).unwrap();
    let mut first = run.wrap(ours(&[&net.w]));
    let mut second = (!late).then(|| run.wrap(ours(&[&net.b])));
    for t in at.step..until {
        if t > 4 && t % 3 == 2 {
            let second = second.get_or_insert_with(|| run.wrap(ours(&[&net.b])));
            step(&run, second, &net, t).unwrap();
        } else {
            step(&run, &mut first, &net, t).unwrap();
        }
    }
    (run, at.step)
}

type Recording = (Vec<(u64, Vec<u8>)>, Vec<u64>, Vec<Vec<u8>>);

/// States, counters, and the moments of the keyframes and of the end.
fn recording(storage: &Arc<MemStorage>) -> Recording {
    let trace = open(storage);
    let keys = [4, 8, 12, 16, 20].map(|step| trace.read(step).unwrap().key.unwrap());
    let (_, last) = trace.final_state().unwrap().unwrap();
    let moments = keys.iter().chain([&last]);
    let moments = moments.map(|key| key.optimizer().to_vec()).collect();
    (states(&trace), counters(&trace), moments)
}

#[test]
fn an_optimizer_may_be_wrapped_at_its_first_turn_also_in_a_resumed_run() {
    let early = Arc::new(MemStorage::new());
    in_turns(&early, false, 24).0.finish().unwrap();
    let expected = recording(&early);
    let late = Arc::new(MemStorage::new());
    in_turns(&late, true, 24).0.finish().unwrap();
    assert_eq!(recording(&late), expected);
    for until in [7, 10, 13, 18, 22] {
        let storage = Arc::new(MemStorage::new());
        drop(in_turns(&storage, true, until));
        let (run, from) = in_turns(&storage, true, 24);
        assert_eq!(from, (until - 1) / 4 * 4);
        run.finish().unwrap();
        assert_eq!(recording(&storage), expected, "interrupted after {until}");
    }
}

#[test]
fn optimizers_that_tell_their_state_and_others_are_not_mixed() {
    let net = Linear::new();
    // Candle's would have moments of zero in the keyframes.
    let run = in_memory().1.create(&net.map).unwrap();
    let mut told = run.wrap(ours(&[&net.w]));
    let mut untold = run.wrap(candles(&[&net.b])).updates([&net.b]);
    run.batch(0, &[1, 2]).unwrap();
    let loss = net.loss(&[1, 2]).unwrap();
    let parts = ["keeps its state to itself", "use hindcast_recorder::AdamW"];
    refused(
        run.backward_step(&loss, &mut [&mut told, &mut untold]),
        &parts,
    );
    run.skip_batch();
    refused(step(&run, &mut untold, &net, 0), &parts);
    step(&run, &mut told, &net, 0).unwrap();
    refused(step(&run, &mut untold, &net, 1), &parts);
    drop(run);

    // Keyframes can't get the state of ours after the first step.
    let run = in_memory().1.create(&net.map).unwrap();
    let mut untold = run.wrap(candles(&[&net.b])).updates([&net.b]);
    step(&run, &mut untold, &net, 0).unwrap();
    let mut told = run.wrap(ours(&[&net.w]));
    refused(
        step(&run, &mut told, &net, 1),
        &["keyframes don't hold it", "before the first step"],
    );
    step(&run, &mut untold, &net, 1).unwrap();
}

#[test]
fn a_change_of_optimizers_that_a_trace_cannot_express_is_refused() {
    let net = Linear::new();
    let both = || ours(&[&net.w, &net.b]);
    let run = in_memory().1.create(&net.map).unwrap();
    let (mut first, mut second) = (run.wrap(both()), run.wrap(both()));
    step(&run, &mut first, &net, 0).unwrap();
    step(&run, &mut first, &net, 1).unwrap();
    step(&run, &mut second, &net, 2).unwrap();
    refused(
        step(&run, &mut first, &net, 3),
        &[
            "another optimizer that trained the same parameters",
            "one wrapped optimizer per parameter",
        ],
    );
    step(&run, &mut second, &net, 3).unwrap();
    // One that has moments of steps that the run doesn't have.
    let mut used = both();
    used.backward_step(&net.loss(&[1]).unwrap()).unwrap();
    let mut used = run.wrap(used);
    refused(step(&run, &mut used, &net, 4), &["same parameters"]);
    drop(run);

    let run = in_memory().1.create(&net.map).unwrap();
    let mut first = run.wrap(ours(&[&net.w]));
    step(&run, &mut first, &net, 0).unwrap();
    let mut used = ours(&[&net.b]);
    used.backward_step(&net.loss(&[1]).unwrap()).unwrap();
    let mut used = run.wrap(used);
    refused(
        step(&run, &mut used, &net, 1),
        &["has done updates that the run doesn't have (its counter is 1)"],
    );
}

/// Candle's AdamW doesn't tell its counter, so a new one can't be told from the one before.
#[test]
fn candles_adamw_is_wrapped_before_the_first_step_or_lists_new_parameters() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut first = run.wrap(candles(&[&net.w])).updates([&net.w]);
    step(&run, &mut first, &net, 0).unwrap();
    step(&run, &mut first, &net, 1).unwrap();
    let mut second = run.wrap(candles(&[&net.b])).updates([&net.b]);
    step(&run, &mut second, &net, 2).unwrap();
    step(&run, &mut first, &net, 3).unwrap();
    step(&run, &mut second, &net, 4).unwrap();
    let mut again = run.wrap(candles(&[&net.w])).updates([&net.w]);
    let parts = [
        "the optimizer AdamW",
        "doesn't tell",
        "hindcast_recorder::AdamW",
    ];
    refused(step(&run, &mut again, &net, 5), &parts);
    let mut unlisted = run.wrap(candles(&[&net.w]));
    refused(step(&run, &mut unlisted, &net, 5), &parts);
    run.finish().unwrap();
    assert_eq!(counters(&open(&storage)), [0, 1, 0, 2, 1]);
}

/// The trace has the moments, but the steps that would tell their counter are gone.
#[test]
fn a_counter_that_the_trace_does_not_tell_is_refused() {
    let train = |storage: &Arc<MemStorage>, choose: fn(Builder) -> Builder, until: u64| {
        let net = Linear::new();
        let builder = choose(on(storage).segment_steps(4).keep(Keep::LastSteps(4)));
        let (run, at) = builder.create_or_resume(&net.map)?;
        let mut first = run.wrap(ours(&[&net.w]));
        let mut second = run.wrap(ours(&[&net.b]));
        for t in at.step..until {
            let is_second = t == 1 || t == 30;
            step(
                &run,
                if is_second { &mut second } else { &mut first },
                &net,
                t,
            )?;
        }
        run.finish()?;
        Ok::<_, RecorderError>(counters(&open(storage)))
    };
    let begun = || {
        let storage = Arc::new(MemStorage::new());
        let net = Linear::new();
        let run = on(&storage).segment_steps(4).keep(Keep::LastSteps(4));
        let run = run.create(&net.map).unwrap();
        let mut first = run.wrap(ours(&[&net.w]));
        let mut second = run.wrap(ours(&[&net.b]));
        for t in 0..25 {
            let optimizer = if t == 1 { &mut second } else { &mut first };
            step(&run, optimizer, &net, t).unwrap();
        }
        drop(run);
        storage
    };
    let storage = begun();
    assert!(open(&storage).meta(1).is_err(), "the step was dropped");
    let error = train(&storage, |builder| builder, 34)
        .unwrap_err()
        .to_string();
    for part in [
        "step 30",
        "not its number of updates",
        "restart_optimizer()",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The optimizer whose counter is known isn't concerned, and a restart begins with the counter 0.
    train(&begun(), |builder| builder, 30).unwrap();
    train(&begun(), Builder::restart_optimizer, 34).unwrap();
}

/// SGD with momentum that tells what the test wants.
struct Told {
    held: Vec<(Var, Var)>,
    slot: &'static str,
    /// Number of variables whose state it tells.
    tells: usize,
    updates: u64,
    sets: bool,
}

impl Told {
    fn of(net: &Linear) -> Self {
        let hold = |var: &Var| {
            (
                Var::from_tensor(&var.zeros_like().unwrap()).unwrap(),
                var.clone(),
            )
        };
        Self {
            held: [&net.w, &net.b].map(hold).into(),
            slot: "momentum",
            tells: 2,
            updates: 0,
            sets: true,
        }
    }
}

impl Optimizer for Told {
    type Config = ();

    fn new(_: Vec<Var>, _: ()) -> candle_core::Result<Self> {
        candle_core::bail!("the test makes it itself")
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        self.updates += 1;
        for (velocity, var) in &self.held {
            if let Some(gradient) = gradients.get(var) {
                velocity.set(&((velocity.as_tensor() * 0.9)? + gradient)?)?;
                var.set(&(var.as_tensor() - (velocity.as_tensor() * LR)?)?)?;
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        LR
    }

    fn set_learning_rate(&mut self, _: f64) {}
}

impl Describe for Told {
    fn rule(&self) -> UpdateRule {
        UpdateRule::sgd().momentum(0.9).into()
    }

    fn variables(&self) -> Option<Vec<Var>> {
        Some(self.held.iter().map(|(_, var)| var.clone()).collect())
    }

    fn state(&self) -> Option<Vec<StateVariable>> {
        let told = self.held.iter().take(self.tells);
        let state = |(velocity, var): &(Var, Var)| StateVariable::new(self.slot, var, velocity);
        Some(told.map(state).collect())
    }

    fn updates(&self) -> Option<u64> {
        Some(self.updates)
    }

    fn set_updates(&mut self, updates: u64) {
        if self.sets {
            self.updates = updates;
        }
    }
}

#[test]
fn a_state_that_an_analysis_would_not_find_is_refused_at_the_first_step() {
    let wrong_name = |told: &mut Told| told.slot = "velocity";
    let incomplete = |told: &mut Told| told.tells = 1;
    /// A change of what the optimizer tells, and words of the error.
    type Case<'a> = (fn(&mut Told), &'a [&'a str]);
    let cases: [Case<'_>; 2] = [
        (
            wrong_name,
            &["tells a state \"velocity\"", "has the state momentum"],
        ),
        (
            incomplete,
            &["no state \"momentum\" of \"b\"", "hold zeros"],
        ),
    ];
    for (change, parts) in cases {
        let (_, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        let mut told = Told::of(&net);
        change(&mut told);
        let mut told = run.wrap_described(told);
        refused(step(&run, &mut told, &net, 0), parts);
    }
}

#[test]
fn an_optimizer_whose_counter_cannot_be_set_is_refused_in_a_resumed_run() {
    let train = |storage: &Arc<MemStorage>, sets: bool, until: u64| {
        let net = Linear::new();
        let builder = on(storage).segment_steps(4);
        let (run, at) = builder.create_or_resume(&net.map)?;
        let told = Told {
            sets,
            ..Told::of(&net)
        };
        let mut told = run.wrap_described(told);
        for t in at.step..until {
            step(&run, &mut told, &net, t)?;
        }
        Ok::<_, RecorderError>(run)
    };
    let storage = Arc::new(MemStorage::new());
    drop(train(&storage, true, 6).unwrap());
    let error = train(&storage, false, 9).err().unwrap().to_string();
    for part in ["set_updates(4)", "Describe::updates says 0"] {
        assert!(error.contains(part), "{error}");
    }
    let run = train(&storage, true, 9).unwrap();
    run.finish().unwrap();
    assert_eq!(counters(&open(&storage)), (0..9).collect::<Vec<_>>());
}

/// A parameter that is cut off from the loss is missed when the optimizer that holds it steps.
#[test]
fn a_parameter_of_a_later_turn_without_a_gradient_is_named() {
    let (_, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let mut first = run.wrap(ours(&[&net.w]));
    let mut second = run.wrap(ours(&[&net.b]));
    for t in 0..6 {
        run.batch(0, &indices(t)).unwrap();
        let loss = net.w.sqr().unwrap().sum_all().unwrap();
        let optimizer = if t % 3 == 2 { &mut second } else { &mut first };
        optimizer.backward_step(&loss).unwrap();
    }
    let summary = run.finish().unwrap();
    assert_eq!(summary.statistics.without_gradient, ["b"]);
    // The same if the other optimizer is one of candle's, whose parameters were listed.
    let run = in_memory().1.create(&net.map).unwrap();
    let params = ParamsAdamW::default();
    let candle = CandleAdamW::new(vec![net.w.clone()], params).unwrap();
    let mut listed = run.wrap(candle).updates([&net.w]);
    step(&run, &mut listed, &net, 0).unwrap();
    let summary = run.finish().unwrap();
    assert!(summary.statistics.without_gradient.is_empty());
}

/// A schedule may set the constants of candle's AdamW, which doesn't tell whether it is still the same.
#[test]
fn candles_adamw_may_be_changed_in_a_run() {
    for listed in [false, true] {
        let (storage, builder) = in_memory();
        let net = Linear::new();
        let run = builder.create(&net.map).unwrap();
        let mut optimizer = run.wrap(candles(&[&net.w, &net.b]));
        if listed {
            optimizer = optimizer.updates([&net.w, &net.b]);
        }
        for t in 0..4 {
            let mut params = optimizer.optimizer().params().clone();
            params.weight_decay = 0.1 * t as f64;
            optimizer.optimizer_mut().set_params(params);
            step(&run, &mut optimizer, &net, t).unwrap();
        }
        run.finish().unwrap();
        let trace = open(&storage);
        assert_eq!(counters(&trace), [0, 1, 2, 3]);
        assert_eq!(trace.meta(3).unwrap().groups[0].weight_decay, 0.1 * 3.0);
    }
}
