//! Training dynamics against numbers computed by hand, and against gradients one by one.

use std::ops::ControlFlow;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::estimators::dynamics::{
    Learning, Squares, StepDynamics, Written, walk, write_example_table, write_long_table,
};
use hindcast_analyzer::estimators::{Estimate, Question, choose};
use hindcast_analyzer::run::{RecordedEnd, RecordedStep, weights_of};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    AutodiffEngine, KernelEngine, MemoryRun, Query, RecordedRun, ReplayEngine, Window,
};
use hindcast_format::layout::{DType as Stored, Role, TensorSpec};
use hindcast_format::meta::{BatchWeights, GroupHyper, StepMeta};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::objective::{Mode, Objective};
use hindcast_model::task::{Layer, LossKind, LossSpec, ModelSpec};
use hindcast_model::update::UpdateRule;

use super::{Point, estimate, scores};
use crate::tiny::{Recipe, TRAIN, TinyData, TinyNet, engine, relative_error, train};

/// One number x per example, and the logits `(a x, b x)`.
fn net() -> Arc<Net> {
    let linear = Layer::Linear {
        out: 2,
        bias: false,
    };
    let model = ModelSpec {
        input: vec![1],
        layers: vec![linear],
    };
    Arc::new(Net::new(&model, &LossSpec::new(LossKind::CrossEntropy)).unwrap())
}

/// x and label of three training examples.
const EXAMPLES: [(f64, u32); 3] = [(1.0, 0), (2.0, 1), (1.0, 1)];

fn data() -> Box<dyn DataSet> {
    let (x, y): (Vec<f64>, Vec<u32>) = EXAMPLES.into_iter().unzip();
    let x = Tensor::from_vec(x, (3, 1), &Device::Cpu).unwrap();
    let y = Tensor::from_vec(y, 3, &Device::Cpu).unwrap();
    from_tensors((&x, &y), Some((&x, &y)), None, &[], None).unwrap()
}

/// Epoch, learning rate, parameters (a, b) and batch of each step. No optimizer made these steps: any parameters will do.
const STEPS: [(u64, f64, [f64; 2], [u64; 2]); 6] = [
    (0, 0.5, [0.0, 0.0], [0, 1]),
    (0, 0.25, [1.0, 0.0], [2, 0]),
    (1, 0.5, [0.0, 1.0], [0, 1]),
    (1, 0.25, [0.0, 2.0], [2, 1]),
    (2, 0.5, [3.0, 0.0], [0, 1]),
    (2, 0.25, [0.0, 1.0], [2, 2]),
];

/// The margins of the examples at their occurrences, by hand.
const MARGINS: [[f64; 4]; 3] = [
    [0.0, 1.0, -1.0, 3.0],
    [0.0, 2.0, 4.0, -6.0],
    [-1.0, 2.0, 1.0, 1.0],
];

/// The learning rates at the examples' occurrences.
const RATES: [[f64; 4]; 3] = [
    [0.5, 0.25, 0.5, 0.5],
    [0.5, 0.5, 0.25, 0.5],
    [0.25, 0.25, 0.25, 0.25],
];

fn recorded(net: &Net) -> MemoryRun {
    let parameters = net.parameters().iter().map(|d| TensorSpec {
        name: d.name.clone(),
        role: Role::Parameter,
        dtype: Stored::F64,
        shape: d.shape.clone(),
        group: 0,
    });
    let steps = (0..).zip(STEPS).map(|(step, (epoch, rate, theta, batch))| {
        let meta = StepMeta {
            step,
            epoch,
            groups: vec![GroupHyper {
                learning_rate: rate,
                weight_decay: 0.0,
            }],
            indices: batch.to_vec(),
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: step,
            trained: vec![true],
            scalars: Vec::new(),
            extensions: Vec::new(),
        };
        RecordedStep {
            meta,
            parameters: theta.to_vec().into(),
            buffers_after: Vec::<f64>::new().into(),
            key: None,
        }
    });
    MemoryRun {
        parameters: parameters.collect(),
        steps: steps.collect(),
        end: Some(RecordedEnd {
            step: 6,
            parameters: vec![0.0, 1.0],
            buffers: Vec::new(),
            optimizer: None,
        }),
        ..MemoryRun::default()
    }
}

fn sgd() -> UpdateRule {
    UpdateRule::from_toml("kind = \"sgd\"").unwrap()
}

/// Scores of the three examples by both engines, which have to agree.
fn by(name: &str, window: &Window) -> Estimate {
    let (net, data) = (net(), data());
    let recorded = recorded(&net);
    let run = RecordedRun::new(&recorded, net.clone(), data.as_ref(), sgd(), 0).unwrap();
    let queries = vec![Query::default()];
    let question = Question::new(&run, &queries, window);
    let ask = |engine: &mut dyn ReplayEngine| {
        let chosen = choose(name, &[]).unwrap();
        let go_on = &mut |_: Stage| ControlFlow::Continue(());
        chosen.estimator.estimate(&question, engine, go_on).unwrap()
    };
    let autodiff = ask(&mut AutodiffEngine::new(net.clone(), DType::F64, &Device::Cpu).unwrap());
    let kernels = ask(&mut KernelEngine::new(net.clone(), DType::F64).unwrap());
    let error = relative_error(
        &kernels.queries[0].influence,
        &autodiff.queries[0].influence,
    );
    assert!(error < 1e-12, "{name}: {error:e}");
    kernels
}

fn close(got: &[f64], wanted: [f64; 3]) {
    let near = got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12);
    assert!(near && got.len() == 3, "{got:?}, not {wanted:?}");
}

#[test]
fn margins_losses_and_gradients_are_those_computed_by_hand() {
    let mean = |f: fn(f64) -> f64| MARGINS.map(|m| m.into_iter().map(f).sum::<f64>() / 4.0);
    close(&scores(&by("margin", &Window::All), 0), [0.75, 0.0, 0.75]);
    // With two classes, ℓ = ln(1 + e^−margin).
    let loss = mean(|m| -(-m).exp().ln_1p());
    close(&scores(&by("mean-loss", &Window::All), 0), loss);
    // The gradient in (a, b) is ±x(1 − p), and each weight is ½.
    let mut wanted = [0.0; 3];
    for (j, wanted) in wanted.iter_mut().enumerate() {
        for (margin, rate) in MARGINS[j].into_iter().zip(RATES[j]) {
            let wrong = 1.0 / (1.0 + margin.exp());
            *wanted -= rate * 0.5 * 2.0 * (EXAMPLES[j].0 * wrong).powi(2);
        }
    }
    close(&scores(&by("self-influence", &Window::All), 0), wanted);
}

#[test]
fn forgetting_counts_epochs_back_from_the_end_of_the_window() {
    let whole = by("forgetting", &Window::All);
    // The first is wrong in epoch 1 only, the second in the last, and the third was never wrong once it was right.
    close(&scores(&whole, 0), [1.0, 0.0, 3.0]);
    assert_eq!(
        whole.notes,
        ["0 examples were never right (−1), 2 were forgotten, 1 were learned and kept"]
    );
    // In the last step only the third is used; in the two steps before, the first and the second are.
    let late = by("forgetting", &Window::Steps(5..6));
    let found: Vec<Option<f64>> = late.scores(0).collect();
    assert_eq!(found, [None, None, Some(1.0)]);
    let one = by("forgetting", &Window::Steps(4..5));
    let found: Vec<Option<f64>> = one.scores(0).collect();
    assert_eq!(found, [Some(1.0), Some(-1.0), None]);
}

#[test]
fn the_walk_shows_each_step_and_learning_sums_it_up() {
    let (net, data) = (net(), data());
    let recorded = recorded(&net);
    let run = RecordedRun::new(&recorded, net.clone(), data.as_ref(), sgd(), 0).unwrap();
    let mut engine = KernelEngine::new(net.clone(), DType::F64).unwrap();
    let mut learning = Learning::new(3);
    let mut seen = Vec::new();
    let mut see = |step: &StepDynamics<'_>| {
        let labels = step.labels.as_ref().unwrap();
        seen.push((step.meta.step, labels[1].margin, step.squares[1]));
        learning.see(step)
    };
    let go_on = &mut |_: Stage| ControlFlow::Continue(());
    walk(&run, &mut engine, &(2..5), Squares::Plain, &mut see, go_on).unwrap();
    let wanted = [(2, 2.0), (3, 4.0), (4, -6.0)];
    for ((step, margin, square), wanted) in seen.into_iter().zip(wanted) {
        assert_eq!((step, margin), wanted);
        let wrong = 1.0 / (1.0 + margin.exp());
        assert!((square - 8.0 * wrong * wrong).abs() < 1e-12);
    }
    let all: Vec<_> = learning.examples().collect();
    assert_eq!(
        all.iter().map(|e| e.occurrences).collect::<Vec<_>>(),
        [2, 3, 1]
    );
    let second = all[1].label.unwrap();
    assert_eq!((second.forgotten, second.epochs_since_forgotten), (1, 0));
    let p = |margin: f64| 1.0 / (1.0 + (-margin).exp());
    assert!((second.probability - (p(2.0) + p(4.0) + p(-6.0)) / 3.0).abs() < 1e-12);
}

#[test]
fn a_walk_stops_when_it_is_told_to() {
    let (net, data) = (net(), data());
    let recorded = recorded(&net);
    let run = RecordedRun::new(&recorded, net.clone(), data.as_ref(), sgd(), 0).unwrap();
    let mut engine = KernelEngine::new(net.clone(), DType::F64).unwrap();
    let stop = &mut |stage: Stage| match stage.done {
        0 | 1 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let mut steps = 0;
    let mut see = |_: &StepDynamics<'_>| {
        steps += 1;
        Ok(())
    };
    let stopped = walk(&run, &mut engine, &(0..6), Squares::None, &mut see, stop);
    assert!(stopped.unwrap_err().to_string().contains("cancelled"));
    assert_eq!(steps, 2);
}

#[test]
fn statistics_of_the_batch_and_rates_of_tensors_count_in_self_influence() {
    let rule = UpdateRule::from_toml("kind = \"sgd\"\nmomentum = 0.5").unwrap();
    let (recipe, net) = (Recipe::new(rule, 0.3), TinyNet::new(0.03));
    let recorded = train(&recipe, &net, None);
    let run = RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    let (mut influence, mut losses) = (vec![0.0; TRAIN], vec![(0.0, 0.0); TRAIN]);
    for step in &recorded.steps {
        let rate = step.meta.groups[0].learning_rate;
        let buffers = match step.meta.step as usize {
            0 => &step.key.as_ref().unwrap().buffers_before,
            t => &recorded.steps[t - 1].buffers_after,
        };
        let point = Point {
            parameters: step.parameters.as_slice(),
            buffers: buffers.as_slice(),
            mode: Mode::Train,
            batches: run.batches(&step.meta, DType::F64, &Device::Cpu).unwrap(),
        };
        let weights = weights_of(&step.meta).unwrap();
        let terms = point.each(&mut engine(&net)).into_iter().zip(&weights);
        for (&j, (g, w)) in step.meta.indices.iter().zip(terms) {
            // The first two values are never trained, and the last four aren't in step 2.
            let trained = if step.meta.step == 2 { 2..14 } else { 2..18 };
            let square: f64 = g[trained].iter().map(|x| x * x).sum();
            influence[j as usize] -= rate * w * square;
        }
        let input = hindcast_analyzer::StepInput {
            parameters: point.parameters,
            buffers: point.buffers,
            micro_batches: &point.batches,
            weights: &weights,
            mode: Mode::Train,
            draws: run.draws(step.meta.step),
        };
        let found = engine(&net).gradient(&input).unwrap().per_example;
        for (&j, loss) in step.meta.indices.iter().zip(found) {
            let (sum, n) = &mut losses[j as usize];
            (*sum, *n) = (*sum - loss, *n + 1.0);
        }
    }
    let mean: Vec<f64> = losses.iter().map(|(sum, n)| sum / n).collect();
    for (name, wanted) in [("self-influence", influence), ("mean-loss", mean)] {
        let got = estimate(name, &[], &recipe, &net, &recorded, &Window::All).unwrap();
        let error = relative_error(&scores(&got, 1), &wanted);
        assert!(error < 1e-12, "{name}: {error:e}");
        // Another rule than plain SGD moves the parameters differently, which is said.
        assert_eq!(got.notes.is_empty(), name == "mean-loss", "{:?}", got.notes);
    }
    // The targets are the numbers 1 and −1, not classes.
    for name in ["margin", "forgetting"] {
        let refused = estimate(name, &[], &recipe, &net, &recorded, &Window::All).unwrap_err();
        assert!(refused.to_string().contains("aren't classes"), "{refused}");
    }
}

/// The rows of the long table of the six steps, by hand: step, epoch, example, loss, margin, probability.
fn rows() -> Vec<(u64, u64, u64, f64, f64, f64)> {
    let mut uses = [0; 3];
    let mut out = Vec::new();
    for (step, (epoch, _, _, batch)) in (0..).zip(STEPS) {
        for example in batch {
            let margin = MARGINS[example as usize][uses[example as usize]];
            uses[example as usize] += 1;
            let (loss, p) = ((-margin).exp().ln_1p(), 1.0 / (1.0 + (-margin).exp()));
            out.push((step, epoch, example, loss, margin, p));
        }
    }
    out
}

fn written(path: &std::path::Path) -> hindcast_analyzer::Result<Written> {
    table(path, false)
}

/// The table of uses, or the one of examples.
fn table(path: &std::path::Path, per_example: bool) -> hindcast_analyzer::Result<Written> {
    let (net, data) = (net(), data());
    let recorded = recorded(&net);
    let run = RecordedRun::new(&recorded, net.clone(), data.as_ref(), sgd(), 0).unwrap();
    let mut engine = KernelEngine::new(net.clone(), DType::F64).unwrap();
    let go_on = &mut |_: Stage| ControlFlow::Continue(());
    if per_example {
        write_example_table(&run, &mut engine, &(0..6), path, go_on)
    } else {
        write_long_table(&run, &mut engine, &(0..6), path, go_on)
    }
}

#[test]
fn the_long_table_has_the_rows_computed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.csv");
    // Its own kind of file is replaced.
    for _ in 0..2 {
        assert_eq!(written(&path).unwrap().rows, 12);
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some("step,epoch,example,loss,margin,probability")
    );
    for (line, wanted) in lines.zip(rows()) {
        let cells: Vec<f64> = line.split(',').map(|x| x.parse().unwrap()).collect();
        let (step, epoch, example, loss, margin, p) = wanted;
        assert_eq!(cells[..3], [step as f64, epoch as f64, example as f64]);
        for (got, wanted) in cells[3..].iter().zip([loss, margin, p]) {
            assert!((got - wanted).abs() < 1e-12, "{line}: {wanted}");
        }
    }
    assert_eq!(text.lines().count(), 13);
    let refused = written(&folder.path().join("d.txt")).unwrap_err();
    assert!(refused.to_string().contains(".csv"), "{refused}");
}

/// Mean loss, margin, probability and self-influence of each example, and how often and how long ago it was forgotten, by hand.
fn sums() -> Vec<([f64; 4], [i64; 2])> {
    let forgotten = [[1, 1], [1, 0], [0, 3]];
    let of = |j: usize| {
        let mean = |f: &dyn Fn(f64) -> f64| MARGINS[j].iter().map(|m| f(*m)).sum::<f64>() / 4.0;
        let right = |m: f64| 1.0 / (1.0 + (-m).exp());
        let terms = MARGINS[j].into_iter().zip(RATES[j]);
        // Two parameters, each with the gradient ±x(1 − p), and the weight ½.
        let own =
            terms.map(|(m, rate)| rate * 0.5 * 2.0 * (EXAMPLES[j].0 * (1.0 - right(m))).powi(2));
        let means = [
            mean(&|m| (-m).exp().ln_1p()),
            mean(&|m| m),
            mean(&right),
            own.sum(),
        ];
        (means, forgotten[j])
    };
    (0..3).map(of).collect()
}

#[test]
fn the_table_of_examples_has_the_sums_computed_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.csv");
    // It replaces itself and the table of uses, which is of the same kind.
    written(&path).unwrap();
    for _ in 0..2 {
        let written = table(&path, true).unwrap();
        assert_eq!((written.rows, written.notes), (3, Vec::new()));
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines = text.lines();
    assert_eq!(
        lines.next(),
        Some(
            "index,row,label,occurrences,mean_loss,margin,probability,forgotten,epochs_since_forgotten,self_influence,file"
        )
    );
    for (j, (line, (wanted, forgotten))) in lines.zip(sums()).enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        let number = |at: usize| cells[at].parse::<f64>().unwrap();
        assert_eq!((number(0), number(3)), (j as f64, 4.0), "{line}");
        assert_eq!(cells[2], EXAMPLES[j].1.to_string());
        for (at, wanted) in [4, 5, 6, 9].into_iter().zip(wanted) {
            assert!((number(at) - wanted).abs() < 1e-12, "{line}: {wanted}");
        }
        assert_eq!([7, 8].map(|at| number(at) as i64), forgotten, "{line}");
    }
    assert_eq!(text.lines().count(), 4);
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_the_sums_per_example() {
    use arrow_array::Array as _;
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    for _ in 0..2 {
        assert_eq!(table(&path, true).unwrap().rows, 3);
    }
    let file = std::fs::File::open(&path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let batch = reader.build().unwrap().next().unwrap().unwrap();
    let column = |name: &str| batch.column_by_name(name).unwrap();
    for (j, (wanted, [forgotten, since])) in sums().into_iter().enumerate() {
        for (name, wanted) in ["mean_loss", "margin", "probability", "self_influence"]
            .into_iter()
            .zip(wanted)
        {
            let got = column(name).as_primitive::<Float64Type>().value(j);
            assert!((got - wanted).abs() < 1e-12, "{name}: {got} {wanted}");
        }
        let times = column("forgotten").as_primitive::<UInt64Type>();
        let epochs = column("epochs_since_forgotten").as_primitive::<Int64Type>();
        assert_eq!((times.value(j) as i64, epochs.value(j)), (forgotten, since));
        let label = column("label").as_string::<i32>().value(j);
        assert_eq!(label, EXAMPLES[j].1.to_string());
    }
    assert_eq!(column("index").len(), 3);
    // Another Parquet file is not replaced.
    std::fs::write(&path, b"PAR1 and something else").unwrap();
    let refused = table(&path, true).unwrap_err().to_string();
    assert!(
        refused.contains("isn't a table of training dynamics"),
        "{refused}"
    );
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_the_rows_of_the_csv_and_only_such_a_file_is_replaced() {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float64Type, UInt64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.parquet");
    for _ in 0..2 {
        assert_eq!(written(&path).unwrap().rows, 12);
    }
    let file = std::fs::File::open(&path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let mut got = Vec::new();
    for batch in reader.build().unwrap() {
        let batch = batch.unwrap();
        let whole = |c: usize| batch.column(c).as_primitive::<UInt64Type>().clone();
        let real = |c: usize| batch.column(c).as_primitive::<Float64Type>().clone();
        for i in 0..batch.num_rows() {
            let (step, epoch, example) = (whole(0), whole(1), whole(2));
            let numbers = [3, 4, 5].map(|c| real(c).value(i));
            got.push(([step.value(i), epoch.value(i), example.value(i)], numbers));
        }
    }
    assert_eq!(got.len(), 12);
    for ((whole, numbers), (step, epoch, example, loss, margin, p)) in got.into_iter().zip(rows()) {
        assert_eq!(whole, [step, epoch, example]);
        for (got, wanted) in numbers.iter().zip([loss, margin, p]) {
            assert!((got - wanted).abs() < 1e-12);
        }
    }
    std::fs::write(&path, b"PAR1 of somebody else PAR1").unwrap();
    let refused = written(&path).unwrap_err().to_string();
    assert!(
        refused.contains("isn't a table of training dynamics"),
        "{refused}"
    );
}
