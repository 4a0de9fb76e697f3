//! Predictions against probabilities that were computed by hand from the recorded parameters.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, linear};
use hindcast_analyzer::comparison::losses;
use hindcast_analyzer::curves::{HeldOut, HeldOutPoints, History, HistoryRow};
use hindcast_analyzer::predictions::{Confusion, Predictions, Told, Untold, predict_split};
use hindcast_analyzer::run::{RecordedEnd, RecordedStep};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{AnalysisError, AutodiffEngine, MemoryRun, QueryPoint, RecordedRun};
use hindcast_format::layout::{DType as Stored, Role, TensorSpec};
use hindcast_format::meta::{BatchWeights, StepMeta};
use hindcast_model::data::from_tensors;
use hindcast_model::objective::{Objective, Split};
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_model::update::UpdateRule;

/// Inputs (4, 2), the same for training and validation.
const X: [[f64; 2]; 4] = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 2.0]];

/// Bias and weights of a linear layer before step 0, before step 1 and at the end.
fn models(outputs: usize) -> Vec<Vec<f64>> {
    let value = |k: usize, i: usize| ((3 * i + 5 * k + k * i) % 7) as f64 / 4.0 - 0.75;
    let all = |k| (0..3 * outputs).map(|i| value(k, i)).collect();
    (0..3).map(all).collect()
}

/// The layer's outputs for a row, in the order of the flat parameters: bias (outputs), weight (outputs, 2).
fn outputs(theta: &[f64], x: &[f64; 2]) -> Vec<f64> {
    let n = theta.len() / 3;
    let output = |o: usize| theta[o] + theta[n + 2 * o] * x[0] + theta[n + 2 * o + 1] * x[1];
    (0..n).map(output).collect()
}

/// A recorded run whose parameters are those of [`models`].
fn steps(objective: &OwnModel, outputs: usize) -> MemoryRun {
    let spec = |def: &hindcast_model::objective::TensorDef| TensorSpec {
        name: def.name.clone(),
        role: Role::Parameter,
        dtype: Stored::F64,
        shape: def.shape.clone(),
        group: 0,
    };
    let models = models(outputs);
    let step = |t: u64| RecordedStep {
        meta: StepMeta {
            step: t,
            epoch: 0,
            groups: Vec::new(),
            indices: vec![0],
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: t,
            trained: Vec::new(),
            scalars: Vec::new(),
            extensions: Vec::new(),
        },
        parameters: models[t as usize].clone().into(),
        buffers_after: Default::default(),
        key: None,
    };
    MemoryRun {
        parameters: objective.parameters().iter().map(spec).collect(),
        steps: (0..2).map(step).collect(),
        end: Some(RecordedEnd {
            step: 2,
            parameters: models[2].clone(),
            buffers: Vec::new(),
            optimizer: None,
        }),
        ..MemoryRun::default()
    }
}

/// The predictions for the validation split.
fn predicted(objective: OwnModel, width: usize, targets: &Tensor, at: &str) -> Predictions {
    let x = Tensor::new(&X, &Device::Cpu).unwrap();
    let held_out = (&x, targets);
    let names = ["ant", "bee", "cat"];
    let names = if targets.dtype() == DType::U32 {
        &names[..]
    } else {
        &[]
    };
    let data = from_tensors((&x, targets), Some(held_out), None, names, None).unwrap();
    let steps = steps(&objective, width);
    let objective: Arc<dyn Objective> = Arc::new(objective);
    let rule = UpdateRule::sgd();
    let run = RecordedRun::new(&steps, objective.clone(), data.as_ref(), rule, 0).unwrap();
    let mut engine = AutodiffEngine::new(objective, DType::F64, &Device::Cpu).unwrap();
    let at: QueryPoint = at.parse().unwrap();
    let mut calls = 0;
    let found = predict_split(&run, &mut engine, &at, Split::Validation, &mut |_| {
        calls += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(calls, 1);
    found.unwrap()
}

fn layer(outputs: usize, loss: fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> OwnModel {
    let forward = |net: &Linear, x: &Tensor, _| net.forward(x);
    OwnModel::new(move |vb| linear(2, outputs, vb), forward, loss).unwrap()
}

#[test]
fn classes_have_the_softmax_of_the_outputs_at_every_model() {
    let labels = [0_u32, 2, 1, 2];
    let targets = Tensor::new(&labels, &Device::Cpu).unwrap();
    let all = models(3);
    let mean: Vec<f64> = (0..9).map(|i| (all[1][i] + all[2][i]) / 2.0).collect();
    for (at, theta) in [
        ("final", &all[2]),
        ("step:0", &all[0]),
        ("step:1", &all[1]),
        ("mean:2-steps", &mean),
    ] {
        let found = predicted(layer(3, ops::cross_entropy), 3, &targets, at);
        assert_eq!((found.at.as_str(), found.untold), (at, None));
        let (mut wrong, mut sum) = (Vec::new(), 0.0);
        for (i, row) in found.rows.iter().enumerate() {
            let z = outputs(theta, &X[i]);
            let total: f64 = z.iter().map(|z| z.exp()).sum();
            let p: Vec<f64> = z.iter().map(|z| z.exp() / total).collect();
            let best = (0..3)
                .max_by(|a, b| z[*a].total_cmp(&z[*b]).then(b.cmp(a)))
                .unwrap();
            let y = labels[i] as usize;
            let Told::Class {
                label,
                predicted,
                probabilities,
            } = &row.told
            else {
                panic!("{at}: {row:?}")
            };
            assert_eq!((row.index, *label, *predicted), (i as u64, y, best), "{at}");
            for (found, p) in probabilities.iter().zip(&p) {
                assert!((found - p).abs() < 1e-14, "{at}: {found} {p}");
            }
            assert!((row.loss + p[y].ln()).abs() < 1e-13, "{at}");
            assert!((row.told.probability().unwrap() - p[best]).abs() < 1e-14);
            assert!((row.told.label_probability().unwrap() - p[y]).abs() < 1e-14);
            sum -= p[y].ln();
            if best != y {
                wrong.push((p[best], i as u64));
            }
        }
        assert!((found.mean_loss() - sum / 4.0).abs() < 1e-13);
        assert_eq!(found.errors(), Some(wrong.len()));
        wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
        let order: Vec<u64> = found.wrong().iter().map(|p| p.index).collect();
        assert_eq!(order, wrong.iter().map(|w| w.1).collect::<Vec<_>>(), "{at}");
    }
}

#[test]
fn a_single_output_is_the_logit_of_class_one() {
    let loss = |z: &Tensor, y: &Tensor| {
        let y = y.to_dtype(z.dtype())?.reshape(z.shape())?;
        ops::binary_cross_entropy_with_logits(z, &y)
    };
    let targets = Tensor::new(&[0_u32, 1, 1, 0], &Device::Cpu).unwrap();
    let found = predicted(layer(1, loss), 1, &targets, "final");
    for (row, x) in found.rows.iter().zip(&X) {
        let z = outputs(&models(1)[2], x)[0];
        let Told::Class {
            predicted,
            probabilities,
            ..
        } = &row.told
        else {
            panic!("{row:?}")
        };
        assert_eq!(*predicted, usize::from(z > 0.0));
        let p = 1.0 / (1.0 + (-z).exp());
        assert!((probabilities[1] - p).abs() < 1e-14 && (probabilities[0] + p - 1.0).abs() < 1e-14);
    }
}

#[test]
fn values_are_the_outputs_and_have_no_probability() {
    let y = [[0.5, 1.0], [0.0, 0.25], [2.0, -1.0], [1.0, 1.0]];
    let targets = Tensor::new(&y, &Device::Cpu).unwrap();
    let found = predicted(layer(2, ops::mean_squared_error), 2, &targets, "final");
    let mut squares = 0.0;
    for (row, (x, y)) in found.rows.iter().zip(X.iter().zip(&y)) {
        let z = outputs(&models(2)[2], x);
        let Told::Values { label, predicted } = &row.told else {
            panic!("{row:?}")
        };
        assert_eq!(label, y);
        let own: f64 = z.iter().zip(y).map(|(z, y)| (z - y) * (z - y)).sum();
        squares += own;
        assert!((row.loss - own / 2.0).abs() < 1e-13);
        assert!(predicted.iter().zip(&z).all(|(p, z)| (p - z).abs() < 1e-14));
        assert_eq!((row.told.probability(), row.told.is_wrong()), (None, None));
    }
    assert!((found.root_mean_square().unwrap() - (squares / 8.0_f64).sqrt()).abs() < 1e-13);
    assert!(found.wrong().is_empty());
    assert_eq!(found.errors(), None);
}

#[test]
fn outputs_that_are_losses_or_of_another_shape_tell_no_prediction() {
    let targets = Tensor::new(&[0_u32, 2, 1, 2], &Device::Cpu).unwrap();
    // Four outputs for labels of which the model's loss uses something else.
    let squares = |z: &Tensor, _: &Tensor| z.sqr()?.sum(1);
    let own = OwnModel::new(
        |vb| linear(2, 1, vb),
        |net: &Linear, x: &Tensor, _| net.forward(x)?.sqr()?.squeeze(1),
        |loss: &Tensor, _: &Tensor| Ok(loss.clone()),
    );
    let found = predicted(own.unwrap(), 1, &targets, "final");
    assert_eq!(found.untold, Some(Untold::Losses));
    assert!(found.rows.iter().all(|row| row.told == Told::Nothing));
    let found = predicted(layer(2, squares), 2, &targets, "final");
    assert_eq!(found.untold, Some(Untold::Shape));
}

#[test]
fn mistakes_are_counted_by_label_and_predicted_class() {
    let targets = Tensor::new(&[0_u32, 2, 1, 2], &Device::Cpu).unwrap();
    let x = Tensor::new(&X, &Device::Cpu).unwrap();
    let names = ["ant", "bee", "cat"];
    let data = from_tensors((&x, &targets), None, None, &names, None).unwrap();
    let mut found = predicted(layer(3, ops::cross_entropy), 3, &targets, "final");
    let told = |label, predicted| Told::Class {
        label,
        predicted,
        probabilities: vec![0.2, 0.3, 0.5],
    };
    for (row, (label, predicted)) in found.rows.iter_mut().zip([(0, 0), (2, 1), (1, 0), (2, 1)]) {
        row.told = told(label, predicted);
    }
    let confusion = Confusion::of(&found, data.as_ref()).unwrap();
    assert_eq!(confusion.classes, names);
    assert_eq!(confusion.counts, [[1, 0, 0], [1, 0, 0], [0, 2, 0]]);
    assert_eq!(confusion.mistakes(), [("cat", "bee", 2), ("bee", "ant", 1)]);
    found.rows[0].told = Told::Nothing;
    assert_eq!(Confusion::of(&found, data.as_ref()), None);
}

/// A model's examples may fit into one forward pass. The caller is asked after each of them, and the last one of a model isn't the
/// last one of all.
#[test]
fn losses_along_a_run_stop_between_two_models() {
    let x = Tensor::new(&X, &Device::Cpu).unwrap();
    let targets = Tensor::new(&[0_u32, 2, 1, 2], &Device::Cpu).unwrap();
    let both = (&x, &targets);
    let data = from_tensors(both, Some(both), None, &[], None).unwrap();
    let loss = |z: &Tensor, y: &Tensor| ops::cross_entropy(z, y);
    let objective = layer(3, loss);
    let steps = steps(&objective, 3);
    let objective: Arc<dyn Objective> = Arc::new(objective);
    let rule = UpdateRule::sgd();
    let run = RecordedRun::new(&steps, objective.clone(), data.as_ref(), rule, 0).unwrap();
    let mut engine = AutodiffEngine::new(objective, DType::F64, &Device::Cpu).unwrap();
    let row = |step: u64| HistoryRow {
        step,
        epoch: 0,
        learning_rates: Vec::new(),
        batch_size: 1,
        loss: None,
        scalars: Vec::new(),
        gradient_norm: None,
        parameter_norm: None,
        update_norm: None,
        held_out_loss: None,
        held_out_error: None,
    };
    let asked = HeldOut {
        split: Split::Validation,
        points: HeldOutPoints::Every(1),
        most_models: None,
        most_examples: None,
    };
    for (stop_at, measured) in [(4, 1), (8, 2)] {
        let mut history = History {
            rows: vec![row(0), row(1)],
            ..History::default()
        };
        let mut observer = |stage: Stage| {
            if stage.done >= stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let done = asked.measure(&mut history, &run, &mut engine, &mut observer);
        assert_eq!(
            matches!(done, Err(AnalysisError::Cancelled { step: 4 })),
            stop_at == 4
        );
        let known = history.rows.iter().filter(|r| r.held_out_loss.is_some());
        assert_eq!(known.count(), measured);
        // Two splits at two models.
        let points = [QueryPoint::Final, QueryPoint::Step(1)];
        let done = losses(&run, &mut engine, &points, &mut observer);
        assert!(
            matches!(done, Err(AnalysisError::Cancelled { step }) if step == stop_at),
            "{done:?}"
        );
    }
}
