//! Several optimizers over parts of one model: in one step together, or in turns.

use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::{AdamW as CandleAdamW, Optimizer, ParamsAdamW, SGD};
use hindcast_format::MemStorage;
use hindcast_recorder::{AdamW, GroupHyper, Recorded, Recorder, RecorderError};

use crate::common::*;

fn params(lr: f64, weight_decay: f64) -> ParamsAdamW {
    ParamsAdamW {
        lr,
        weight_decay,
        ..ParamsAdamW::default()
    }
}

fn adamw(run: &Recorder, var: &Var, params: ParamsAdamW) -> Recorded<AdamW> {
    run.wrap(AdamW::new(vec![var.clone()], params).unwrap())
}

fn group(learning_rate: f64, weight_decay: f64) -> GroupHyper {
    GroupHyper {
        learning_rate,
        weight_decay,
    }
}

#[test]
fn optimizers_that_step_together_have_their_own_rates_and_decays() {
    let (storage, builder) = in_memory();
    let (net, plain) = (Linear::new(), Linear::new());
    let run = builder.segment_steps(4).create(&net.map).unwrap();
    let mut slow = adamw(&run, &net.w, params(0.01, 0.3));
    let mut fast = adamw(&run, &net.b, params(0.1, 0.0));
    let candles = |var: &Var, params| CandleAdamW::new(vec![var.clone()], params).unwrap();
    let mut others = [
        candles(&plain.w, params(0.01, 0.3)),
        candles(&plain.b, params(0.1, 0.0)),
    ];
    let mut seen = Vec::new();
    for step in 0..10 {
        if step == 6 {
            fast.set_learning_rate(0.05);
            others[1].set_learning_rate(0.05);
        }
        let batch = indices(step);
        run.batch(0, &batch).unwrap();
        seen.push(net.bytes());
        let loss = net.loss(&batch).unwrap();
        run.backward_step(&loss, &mut [&mut slow, &mut fast])
            .unwrap();
        let gradients = plain.loss(&batch).unwrap().backward().unwrap();
        for other in &mut others {
            other.step(&gradients).unwrap();
        }
        assert_eq!(net.bytes(), plain.bytes(), "after step {step}");
    }
    run.finish().unwrap();
    let trace = open(&storage);
    assert_eq!(states(&trace), (0..).zip(seen).collect::<Vec<_>>());
    // The optimizer that was wrapped first has the first group. Parameter 0 is b.
    let groups: Vec<u16> = trace
        .layout()
        .parameters()
        .iter()
        .map(|spec| spec.group)
        .collect();
    assert_eq!(groups, [1, 0]);
    for step in 0..10 {
        let meta = trace.meta(step).unwrap();
        let rate = if step < 6 { 0.1 } else { 0.05 };
        assert_eq!(meta.groups, [group(0.01, 0.3), group(rate, 0.0)]);
        assert_eq!(
            (meta.trained, meta.optimizer_step),
            (vec![true, true], step)
        );
    }
    assert_eq!(trace.layout().optimizer_state().len(), 4);
    assert!(trace.verify().unwrap().findings.is_empty());
}

/// Whether the step is the second optimizer's, whose first turn is late.
fn is_turn_of_second(step: u64) -> bool {
    step > 4 && step % 3 == 2
}

/// Trains in turns: two steps of one optimizer, then one of the other. Stops before `until`.
fn in_turns(storage: &Arc<MemStorage>, until: u64) -> (Linear, Recorder, u64) {
    let net = Linear::new();
    let builder = on(storage).segment_steps(4);
    let (run, at) = builder.create_or_resume(&net.map).unwrap();
    let mut first = adamw(&run, &net.w, params(0.01, 0.3));
    let mut second = adamw(&run, &net.b, params(0.1, 0.0));
    for step in at.step..until {
        let batch = indices(step);
        run.batch(0, &batch).unwrap();
        let loss = net.loss(&batch).unwrap();
        if is_turn_of_second(step) {
            second.backward_step(&loss).unwrap();
        } else {
            first.backward_step(&loss).unwrap();
        }
    }
    (net, run, at.step)
}

#[test]
fn optimizers_that_take_turns_count_separately_also_in_a_resumed_run() {
    let whole = Arc::new(MemStorage::new());
    let (_, run, _) = in_turns(&whole, 24);
    run.finish().unwrap();
    let whole = open(&whole);
    let counters = |trace: &hindcast_format::Trace| -> Vec<u64> {
        let counter = |step| trace.meta(step).unwrap().optimizer_step;
        trace.span().map(counter).collect()
    };
    assert_eq!(counters(&whole)[..9], [0, 1, 2, 3, 4, 0, 5, 6, 1]);
    for step in 0..24 {
        let meta = whole.meta(step).unwrap();
        assert_eq!(
            meta.trained,
            if is_turn_of_second(step) {
                [true, false]
            } else {
                [false, true]
            }
        );
    }
    for until in [1, 3, 6, 10, 17, 23] {
        let storage = Arc::new(MemStorage::new());
        drop(in_turns(&storage, until));
        let (net, run, from) = in_turns(&storage, 24);
        assert_eq!(from, (until - 1) / 4 * 4);
        run.finish().unwrap();
        let trace = open(&storage);
        assert_eq!(
            counters(&trace),
            counters(&whole),
            "interrupted after {until}"
        );
        assert_eq!(states(&trace), states(&whole));
        let (last, key) = trace.final_state().unwrap().unwrap();
        let (expected, expected_key) = whole.final_state().unwrap().unwrap();
        assert_eq!(
            (last.bytes(), key.optimizer()),
            (expected.bytes(), expected_key.optimizer())
        );
        assert_eq!(net.bytes(), expected.bytes());
    }
}

#[test]
fn what_a_step_of_several_optimizers_cannot_say_is_refused_with_the_cure() {
    let net = Linear::new();
    let refused = |result: Result<(), RecorderError>, parts: &[&str]| {
        let error = result.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error}");
        }
    };
    let start = || in_memory().1.create(&net.map).unwrap();
    let loss = || net.loss(&[1, 2]).unwrap();
    let usual = || params(0.1, 0.0);

    let run = start();
    run.batch(0, &[1, 2]).unwrap();
    refused(
        run.backward_step(&loss(), &mut []),
        &["no optimizer was given"],
    );
    let candles = |var: &Var| {
        let candles = CandleAdamW::new(vec![var.clone()], usual()).unwrap();
        run.wrap(candles)
    };
    let (mut listed, mut other) = (candles(&net.w).updates([&net.w]), candles(&net.b));
    refused(
        run.backward_step(&loss(), &mut [&mut listed, &mut other]),
        &[
            "doesn't tell which variables it holds",
            "hindcast_recorder::AdamW",
            "updates(..)",
        ],
    );
    let mut first = adamw(&run, &net.w, usual());
    let mut other = other.updates([&net.b]);
    refused(
        run.backward_step(&loss(), &mut [&mut first, &mut other]),
        &["keeps its state to itself"],
    );
    // The batch stays announced, so that the step can be taken with valid values.
    let mut other = adamw(&run, &net.b, usual());
    run.backward_step(&loss(), &mut [&mut first, &mut other])
        .unwrap();

    let mut again = adamw(&run, &net.w, usual());
    run.batch(0, &[1, 2]).unwrap();
    refused(
        run.backward_step(&loss(), &mut [&mut first, &mut again]),
        &[
            "optimizer 1 of the list (AdamW) has done 1 update and optimizer 2 of the list (AdamW) has done 0 updates",
        ],
    );
    let elsewhere = start();
    let mut far = adamw(&elsewhere, &net.b, usual());
    refused(
        run.backward_step(&loss(), &mut [&mut first, &mut far]),
        &["wrapped by another recorder"],
    );
    let mut sgd = run.wrap(SGD::new(vec![net.b.clone()], 0.1).unwrap());
    refused(
        run.backward_step(&loss(), &mut [&mut first, &mut sgd]),
        &["kind = \"adamw\", and the optimizer SGD says kind = \"sgd\""],
    );

    let run = start();
    run.batch(0, &[1, 2]).unwrap();
    let mut first = adamw(&run, &net.w, usual());
    let mut twice = adamw(&run, &net.w, usual());
    refused(
        run.backward_step(&loss(), &mut [&mut first, &mut twice]),
        &["two optimizers of this step hold \"w\""],
    );

    // With groups that the builder named, the optimizers have to fit them.
    let one_group = |rate: f64| -> Result<(), RecorderError> {
        let two = in_memory().1.groups(|_| 1).create(&net.map).unwrap();
        let mut first = adamw(&two, &net.w, usual());
        let mut second = adamw(&two, &net.b, params(rate, 0.0));
        two.batch(0, &[1, 2]).unwrap();
        two.backward_step(&loss(), &mut [&mut first, &mut second])
    };
    one_group(0.1).unwrap();
    refused(
        one_group(0.2),
        &["different learning rates or decays", "Builder::groups"],
    );
}

#[test]
fn gradients_may_come_from_the_loop() {
    let (storage, builder) = in_memory();
    let net = Linear::new();
    let run = builder.create(&net.map).unwrap();
    let sgd = |var: &Var, rate| run.wrap(SGD::new(vec![var.clone()], rate).unwrap());
    let (mut a, mut b) = (sgd(&net.w, 0.1), sgd(&net.b, 0.2));
    for step in 0..4 {
        run.batch(0, &indices(step)).unwrap();
        let loss: Tensor = net.loss(&indices(step)).unwrap();
        let gradients = loss.backward().unwrap();
        // SGD has no state, so one of them may step alone in between.
        if step == 2 {
            b.step_with(&gradients, Some(&loss)).unwrap();
        } else {
            run.step_with(&gradients, Some(&loss), &mut [&mut a, &mut b])
                .unwrap();
        }
    }
    run.finish().unwrap();
    let trace = open(&storage);
    let trained = |step| trace.meta(step).unwrap().trained;
    assert_eq!(
        (trained(1), trained(2)),
        (vec![true, true], vec![true, false])
    );
    assert_eq!(
        trace.meta(3).unwrap().groups,
        [group(0.1, 0.0), group(0.2, 0.0)]
    );
    assert!(trace.meta(0).unwrap().loss.is_some());
}
