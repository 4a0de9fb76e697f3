//! Wrapped optimizers and own updates. What the recorder finds out by comparing variables with a recorded state is the
//! same, and it waits for a copy only where it compares.

use candle_core::backprop::GradStore;
use candle_nn::{Optimizer, SGD};

use super::*;
use crate::AdamW;

/// `y = x w + b`, and a variable that has a gradient and that the optimizer doesn't hold.
struct Linear {
    map: VarMap,
    trained: Vec<Var>,
    frozen: Var,
}

impl Linear {
    fn new() -> Self {
        let var =
            |values: &[f32]| Var::from_tensor(&Tensor::new(values, &Device::Cpu).unwrap()).unwrap();
        let (w, b, frozen) = (var(&[0.3, -0.2, 0.1]), var(&[0.0]), var(&[1.0, -1.0]));
        let map = VarMap::new();
        map.data().lock().unwrap().extend([
            ("w".to_owned(), w.clone()),
            ("b".to_owned(), b.clone()),
            ("frozen".to_owned(), frozen.clone()),
        ]);
        Self {
            map,
            trained: vec![w, b],
            frozen,
        }
    }

    fn loss(&self, step: u64) -> Tensor {
        let x: Vec<f32> = (0..3)
            .map(|i| ((step * 3 + i) * 7 % 11) as f32 / 5.0 - 1.0)
            .collect();
        let x = Tensor::new(x, &Device::Cpu).unwrap();
        let [w, b] = [0, 1].map(|i| self.trained[i].as_tensor());
        let y = ((x * w).unwrap().sum_all().unwrap() - 1.0).unwrap();
        let y = (y + b.sum_all().unwrap()).unwrap();
        let y = (y + self.frozen.as_tensor().sqr().unwrap().sum_all().unwrap()).unwrap();
        y.sqr().unwrap()
    }
}

/// Gradient descent in a type that the recorder doesn't know, so that it compares the variables.
struct Own(Vec<Var>);

impl Optimizer for Own {
    type Config = ();

    fn new(vars: Vec<Var>, (): ()) -> candle_core::Result<Self> {
        Ok(Self(vars))
    }

    fn step(&mut self, gradients: &GradStore) -> candle_core::Result<()> {
        for var in &self.0 {
            if let Some(gradient) = gradients.get(var) {
                var.set(&(var.as_tensor() - (gradient * 0.01)?)?)?;
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        0.01
    }

    fn set_learning_rate(&mut self, _: f64) {}
}

fn take_steps<O: Optimizer + 'static>(run: &Recorder, net: &Linear, optimizer: O, steps: u64) {
    let mut optimizer = run.wrap(optimizer);
    for step in 0..steps {
        run.batch(0, &[step]).unwrap();
        optimizer.backward_step(&net.loss(step)).unwrap();
    }
}

/// Records the steps of an optimizer on the CPU's path and through a device.
fn same_with<O: Optimizer + 'static>(rule: UpdateRule, make: impl Fn(Vec<Var>) -> O) {
    let choose = |builder: Builder| builder.rule(rule).segment_steps(4);
    let take = |run: &Recorder, net: &Linear| {
        take_steps(run, net, make(net.trained.clone()), 10);
    };
    let net = Linear::new();
    let files = new_run(&net.map, choose);
    let (expected, _) = record(&files, None, &net.map, choose, |run| take(run, &net));
    for ends in [Ends::AtOnce, Ends::Shuffled] {
        let net = Linear::new();
        let fake = Fake::new(ends);
        let (got, statistics) = record(&files, Some(&fake), &net.map, choose, |run| {
            take(run, &net);
        });
        assert!(segments(&got) == segments(&expected));
        assert!(fake.see(|copies| copies.begun) > 10, "{statistics}");
    }
}

#[test]
fn wrapped_optimizers_give_the_bytes_of_the_cpu_path() {
    let sgd = || UpdateRule::from(UpdateRule::sgd());
    same_with(sgd(), |vars| SGD::new(vars, 0.01).unwrap());
    same_with(sgd(), |vars| Own::new(vars, ()).unwrap());
}

#[test]
fn adams_moments_are_in_the_keyframes_as_on_the_cpu_path() {
    let states = [None, Some(Fake::new(Ends::Shuffled))].map(|fake| {
        let net = Linear::new();
        let storage = Arc::new(MemStorage::new());
        let mut builder = on(&storage, fake.as_ref()).segment_steps(3);
        builder.options.rule = None;
        let run = builder.create(&net.map).unwrap();
        let adam = AdamW::new_lr(net.trained.clone(), 0.01).unwrap();
        take_steps(&run, &net, adam, 8);
        run.finish().unwrap();
        let trace = open(&storage);
        let read = |step| {
            let frame = trace.read(step).unwrap();
            let key = frame.key.map(|key| key.optimizer().to_vec());
            (frame.state.bytes().to_vec(), key)
        };
        (0..8).map(read).collect::<Vec<_>>()
    });
    assert!(states[0].iter().any(|(_, key)| key.is_some()));
    assert_eq!(states[0], states[1]);
}

/// Once every parameter has been seen to change, nothing waits for the copies any more.
#[test]
fn comparisons_wait_only_until_every_parameter_has_changed() {
    let net = Linear::new();
    let fake = Fake::new(Ends::AtOnce);
    let (_, builder) = in_memory(&fake);
    let run = builder
        .exclude(|name| name == "frozen")
        .create(&net.map)
        .unwrap();
    let mut own = run.wrap(Own(net.trained.clone()));
    let mut step = |step| {
        run.batch(0, &[step]).unwrap();
        own.backward_step(&net.loss(step)).unwrap();
    };
    step(0);
    run.drain().unwrap();
    fake.set(Ends::Held);
    step(1);
    step(2);
    assert_eq!(run.statistics().stalls, 0);
    fake.set(Ends::AtOnce);
    run.finish().unwrap();
}

/// A loop that computes its own updates is told that one did not happen, as on the CPU's path.
#[test]
fn own_updates_are_compared_with_the_copied_values() {
    let errors = [None, Some(Fake::new(Ends::Shuffled))].map(|fake| {
        let net = Linear::new();
        let storage = Arc::new(MemStorage::new());
        let run = on(&storage, fake.as_ref()).create(&net.map).unwrap();
        let mut own = Own(net.trained.clone());
        let mut step = |step: u64| {
            let gradients = net.loss(step).backward().unwrap();
            let indices = [step];
            let info = StepInfo::new(BatchInfo::new(0, &indices), 0.01).gradients(&gradients);
            run.step(&info)?;
            own.step(&gradients).unwrap();
            Ok::<(), RecorderError>(())
        };
        step(0).unwrap();
        step(1).unwrap_err().to_string()
    });
    assert!(errors[0].contains("\"frozen\""), "{}", errors[0]);
    assert_eq!(errors[0], errors[1]);
}
