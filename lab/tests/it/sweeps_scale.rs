//! The time of a sweep is proportional to its steps: a step of a long run takes as long as a step of a short run.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::sweep::{SweepTimes, begin, resume_timed};
use hindcast_analyzer::{AutodiffEngine, Query, RecordedRun, SweepOptions};
use hindcast_format::{MemStorage, Trace};
use hindcast_lab::record_task;
use hindcast_model::net::Net;
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;

/// Records this many steps. Returns a function that sweeps them all and gives the milliseconds per step.
fn sweeper(steps: u64) -> impl FnMut() -> f64 {
    // 200 examples in batches of 20: ten steps per epoch.
    let task = Task::from_toml(&format!(
        "name = \"long\"\n[data]\nsource = \"digits\"\ntrain = 200\nvalidation = 50\n[model]\ninput = [1, 28, 28]\n\
         layers = [{{ kind = \"flatten\" }}, {{ kind = \"linear\", out = 8 }}, {{ kind = \"tanh\" }}, \
         {{ kind = \"linear\", out = 10 }}]\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = 0.001\n[train]\nepochs = {}\nbatch = 20\n",
        steps / 10
    ))
    .unwrap();
    let data = task.load_data(None).unwrap();
    let storage = Arc::new(MemStorage::new());
    let builder = Recorder::builder_on(storage.clone(), "a long run");
    record_task(
        &task,
        data.as_ref(),
        &Device::Cpu,
        builder,
        &mut |_, _, _| {},
    )
    .unwrap();
    let trace = Trace::open_storage(storage).unwrap();
    let net = Arc::new(Net::new(&task.model, &task.loss).unwrap());
    move || {
        let run = RecordedRun::from_trace(&trace, net.clone(), data.as_ref(), None).unwrap();
        let mut engine = AutodiffEngine::new(net.clone(), DType::F32, &Device::Cpu).unwrap();
        let query = Query::default()
            .gradient(&trace, &mut engine, data.as_ref())
            .unwrap();
        let options = SweepOptions::new(0..steps);
        let state = begin(&run, &engine, &[query], &options).unwrap();
        let mut times = SweepTimes::default();
        let mut keep_going = |_: &_| ControlFlow::Continue(());
        let swept =
            resume_timed(&run, &mut engine, state, false, &mut keep_going, &mut times).unwrap();
        assert!(swept.is_done());
        assert_eq!(swept.queries[0].growth.len() as u64, steps + 1);
        1e3 * times.total().as_secs_f64() / steps as f64
    }
}

#[test]
#[ignore = "a timing, for an idle machine: cargo test --release -p hindcast-lab --test it sweeps_scale -- --ignored --nocapture"]
fn a_step_of_a_long_run_takes_as_long_as_a_step_of_a_short_run() {
    let (mut short, mut long) = (sweeper(1_000), sweeper(10_000));
    let (mut of_short, mut of_long) = (Vec::new(), Vec::new());
    // Short runs before and after the long one, so that both see the same load of the machine.
    for _ in 0..5 {
        of_short.extend((0..5).map(|_| short()));
        of_long.push(long());
        of_short.extend((0..5).map(|_| short()));
    }
    let median = |ms: &mut Vec<f64>| {
        ms.sort_by(f64::total_cmp);
        (ms[ms.len() / 2], ms[0])
    };
    let (short, least_short) = median(&mut of_short);
    let (long, least_long) = median(&mut of_long);
    println!(
        "ms per step: {short:.4} (minimum {least_short:.4}) of 1,000, {long:.4} (minimum {least_long:.4}) of 10,000: ratio {:.3}",
        long / short
    );
    assert!((long / short - 1.0).abs() < 0.1, "{short} and {long}");
}
