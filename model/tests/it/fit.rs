//! Errors that are reported before the first step.

use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::task::{Task, TaskError};
use hindcast_model::train::{StepRecord, TrainError, Trainer};

use crate::task::with_layers;

const LINEAR: &str = "{ kind = 'linear', out = 3 }";

fn task(layers: &str, loss: &str, sets: &[(&str, &str)]) -> Task {
    let mut task = Task::from_toml(&with_layers("[2]", layers, loss)).unwrap();
    task.set_all(sets).unwrap();
    task
}

/// Examples with two features and these targets.
fn examples(targets: &Tensor) -> Box<dyn DataSet> {
    let n = targets.dims()[0];
    let inputs = Tensor::arange(0f32, 2.0 * n as f32, &Device::Cpu).unwrap();
    let inputs = inputs.affine(0.1, -0.2).unwrap().reshape((n, 2)).unwrap();
    from_tensors((&inputs, targets), None, None, &[], None).unwrap()
}

fn classes(n: usize) -> Tensor {
    let classes: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    Tensor::from_vec(classes, n, &Device::Cpu).unwrap()
}

fn floats(values: &[f32], width: usize) -> Tensor {
    Tensor::from_slice(values, (values.len() / width, width), &Device::Cpu).unwrap()
}

fn says(error: impl std::fmt::Display, pieces: &[&str]) {
    let text = error.to_string();
    for piece in pieces {
        assert!(text.contains(piece), "{text:?} doesn't say {piece:?}");
    }
}

fn ignore(_: &StepRecord<'_, f32>) -> Result<(), TrainError> {
    Ok(())
}

/// Trains an epoch, or returns the error. No error may occur after training has begun.
fn trained(task: &Task, data: &dyn DataSet) -> Result<u64, TrainError> {
    let net = Net::new(&task.model, &task.loss).unwrap();
    let mut trainer = Trainer::<f32>::new(task, &net, data, &Device::Cpu)?;
    task.check_values(data)?;
    trainer.rehearse()?;
    while trainer.step(ignore).expect("every step can be taken") {}
    Ok(trainer.next_step())
}

#[test]
fn labels_that_the_loss_does_not_take_are_refused_before_training() {
    let one_hot = examples(&floats(&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], 3));
    let cross_entropy = task(LINEAR, "cross-entropy", &[]);
    says(
        trained(&cross_entropy, one_hot.as_ref()).unwrap_err(),
        &[
            "one class per example",
            "3 numbers",
            "one-hot",
            "argmax(axis=1)",
        ],
    );
    let single = examples(&floats(&[0.0, 1.0, 2.0], 1));
    says(
        trained(&cross_entropy, single.as_ref()).unwrap_err(),
        &[
            "1 number per example",
            "target = \"class\" in the [data] table",
            "mean-squared-error",
        ],
    );
    let squared = task(LINEAR, "mean-squared-error", &[]);
    says(
        trained(&squared, single.as_ref()).unwrap_err(),
        &["gives 3 numbers", "labels hold 1 number"],
    );
    assert_eq!(trained(&squared, one_hot.as_ref()).unwrap(), 1);
    let binary = task("{ kind = 'linear', out = 1 }", "binary-cross-entropy", &[]);
    says(
        trained(&binary, single.as_ref()).unwrap_err(),
        &["train example 2", "is 2", "[0, 1]"],
    );
    let soft = examples(&floats(&[0.0, 1.0, 0.3], 1));
    assert_eq!(trained(&binary, soft.as_ref()).unwrap(), 1);
}

/// Trains a task on a table with these labels.
fn table(loss: &str, outputs: usize, data: &str, labels: &[&str]) -> Result<u64, TrainError> {
    let dir = tempfile::tempdir().unwrap();
    let rows = labels.iter().enumerate();
    let rows: String = rows.map(|(i, y)| format!("0.{i},{y}\n")).collect();
    std::fs::write(dir.path().join("a.csv"), format!("x,y\n{rows}")).unwrap();
    let layers = format!("{{ kind = 'linear', out = {outputs} }}");
    let spec = format!("source = 'csv'\ntrain_files = 'a.csv'\nlabel = 'y'\n{data}");
    let text = with_layers("[1]", &layers, loss).replace("source = 'digits'", &spec);
    let task = Task::from_toml(&text).unwrap();
    let data = task.load_data(Some(dir.path())).unwrap();
    trained(&task, data.as_ref())
}

#[test]
fn labels_are_not_trained_on_as_other_numbers() {
    let numbers = ["10", "20", "35"];
    for data in ["", "target = 'class'"] {
        says(
            table("mean-squared-error", 1, data, &numbers).unwrap_err(),
            &[
                "\"10\" would be trained on as the number 0",
                "classes: 10, 20, 35",
                "target = \"value\" in the [data] table.",
                "kind = \"cross-entropy\" in the [loss] table and give the last layer 3 outputs",
            ],
        );
    }
    let value = "target = 'value'";
    assert_eq!(table("mean-squared-error", 1, value, &numbers).unwrap(), 1);
    assert_eq!(table("cross-entropy", 3, "", &numbers).unwrap(), 1);
    // Two numbers are refused like three. A class whose name is its number is that number.
    says(
        table("mean-squared-error", 1, "", &["3", "7"]).unwrap_err(),
        &["\"3\" would be trained on as the number 0"],
    );
    says(
        table("mean-squared-error", 1, "", &["0", "1", "3"]).unwrap_err(),
        &["\"3\" would be trained on as the number 2"],
    );
    for labels in [&["2", "0.0", "1"][..], &["no", "yes"]] {
        assert_eq!(table("mean-squared-error", 1, "", labels).unwrap(), 1);
    }
    let error = table("mean-squared-error", 1, "", &["cat", "dog", "eel"]).unwrap_err();
    says(&error, &["\"cat\" would be trained on as the number 0"]);
    assert!(!error.to_string().contains("target = "), "{error}");
}

#[test]
fn classes_of_another_source_are_not_trained_on_as_their_positions() {
    let loads = |data: &str, loss: &str, outputs: usize| {
        let layers =
            format!("{{ kind = 'flatten' }}, {{ kind = 'linear', out = {outputs}, bias = false }}");
        let text = with_layers("[1, 28, 28]", &layers, loss);
        let text = text.replace("source = 'digits'", &format!("source = 'digits'\n{data}"));
        let task = Task::from_toml(&text)?;
        let data = task.load_data(None).unwrap();
        Ok::<_, TaskError>(task.check_data(data.as_ref()).map_err(|e| e.to_string()))
    };
    let sizes = "train = 20\nvalidation = 0\ntest = 0\n";
    let digits = |more: &str| format!("{sizes}{more}");
    let squared = |data: &str| loads(&digits(data), "mean-squared-error", 1).unwrap();
    squared("").unwrap();
    squared("target = 'value'").unwrap();
    let words = "class_names = ['o', 'i', 'z', 'e', 'h', 's', 'b', 'l', 'x', 'q']\n";
    for target in ["", "target = 'value'"] {
        let message = squared(&format!("{words}{target}")).unwrap_err();
        says(&message, &["\"o\" would be trained on as the number 0"]);
        assert_eq!(message.contains(", remove data.target"), !target.is_empty());
    }
}

#[test]
fn shares_are_not_trained_on_as_classes() {
    let soft = ["0.2", "0.9"];
    says(
        table("binary-cross-entropy", 1, "", &soft).unwrap_err(),
        &[
            "between 0 and 1 (0.2, 0.9)",
            "target = \"value\" in the [data] table",
            "target = \"class\"",
        ],
    );
    says(
        table("binary-cross-entropy", 1, "", &["0", "0.5", "1"]).unwrap_err(),
        &["target = \"value\" in the [data] table"],
    );
    for target in ["value", "class"] {
        let data = format!("target = '{target}'");
        assert_eq!(table("binary-cross-entropy", 1, &data, &soft).unwrap(), 1);
    }
    for labels in [["0", "1"], ["1", "7"], ["0.0", "1.0"], ["no", "yes"]] {
        assert_eq!(table("binary-cross-entropy", 1, "", &labels).unwrap(), 1);
    }
    says(
        table("binary-cross-entropy", 1, "", &["1", "2", "3"]).unwrap_err(),
        &["3 classes", "2 apart", "cross-entropy", "3 outputs"],
    );
    says(
        table("binary-cross-entropy", 2, "", &["0", "1"]).unwrap_err(),
        &["output has shape [2]", "one output", "cross-entropy"],
    );
}

#[test]
fn class_weights_need_classes() {
    let data = "target = 'value'\n";
    let weighted = "binary-cross-entropy'\nclass_weights = [1.0, 2.0]\n#'";
    says(
        table(weighted, 1, data, &["0", "1"]).unwrap_err(),
        &["loss.class_weights", "target = \"class\""],
    );
    assert_eq!(table(weighted, 1, "", &["0", "1"]).unwrap(), 1);
}

#[test]
fn values_that_the_runs_floats_cannot_hold_are_named_by_example() {
    let task = task(LINEAR, "cross-entropy", &[]);
    let with = |value: f64| {
        let inputs = Tensor::new(&[[0.0, 1.0], [2.0, value]], &Device::Cpu).unwrap();
        from_tensors((&inputs, &classes(2)), None, None, &[], None).unwrap()
    };
    says(
        task.check_values(with(1e300).as_ref()).unwrap_err(),
        &[
            "train example 1",
            "value 1 of the inputs",
            "inf",
            "32-bit",
            "f64",
        ],
    );
    says(
        task.check_values(with(f64::NAN).as_ref()).unwrap_err(),
        &["train example 1", "NaN"],
    );
    task.check_values(with(1e30).as_ref()).unwrap();
    let mut wide = task.clone();
    wide.set("train.dtype", "f64").unwrap();
    wide.check_values(with(1e300).as_ref()).unwrap();
    // The other splits are checked, too.
    let good = Tensor::zeros((2, 2), DType::F64, &Device::Cpu).unwrap();
    let bad = Tensor::new(&[[0.0, f64::INFINITY]], &Device::Cpu).unwrap();
    let (two, one) = (classes(2), classes(1));
    let data = from_tensors((&good, &two), None, Some((&bad, &one)), &[], None).unwrap();
    says(
        task.check_values(data.as_ref()).unwrap_err(),
        &["test example 0"],
    );
}

#[test]
fn a_plan_without_a_batch_is_refused() {
    let sets = [("train.batch", "64"), ("train.drop_last", "true")];
    let task = task(LINEAR, "cross-entropy", &sets);
    let few = trained(&task, examples(&classes(14)).as_ref()).unwrap_err();
    says(
        few,
        &[
            "no batch to train on",
            "14 training examples",
            "train.batch = 64",
        ],
    );
    assert_eq!(trained(&task, examples(&classes(64)).as_ref()).unwrap(), 1);
}

/// For many sizes of data, batch and micro-batch and all ways to cut an epoch: a run is refused before its first step,
/// or it trains to its end.
#[test]
fn a_batch_norm_with_one_example_is_refused_before_the_first_step() {
    let layers = format!("{{ kind = 'linear', out = 4 }}, {{ kind = 'batch_norm' }}, {LINEAR}");
    let residual = format!(
        "{{ kind = 'linear', out = 4 }}, {{ kind = 'residual', layers = [{{ kind = 'batch_norm' }}] }}, {LINEAR}"
    );
    let (mut taken, mut refused) = (0, 0);
    for n in 1..9usize {
        let data = examples(&classes(n));
        for batch in 1..6usize {
            for cut in ["fixed", "even", "drop_last"] {
                for micro in [None, Some(2), Some(3)] {
                    let mut sets = vec![("train.batch", batch.to_string())];
                    match cut {
                        "drop_last" => sets.push(("train.drop_last", "true".into())),
                        cut => sets.push(("train.batches", cut.into())),
                    }
                    sets.extend(micro.map(|m: usize| ("train.micro_batch", m.to_string())));
                    let sets: Vec<(&str, &str)> =
                        sets.iter().map(|(k, v)| (*k, v.as_str())).collect();
                    let with = if n % 2 == 0 { &layers } else { &residual };
                    let task = task(with, "cross-entropy", &sets);
                    let single = hindcast_model::batches::Batches::new(&task.train, n as u64)
                        .sizes()
                        .contains(&1);
                    match trained(&task, data.as_ref()) {
                        Ok(_) => {
                            assert!(!single, "{n} {sets:?}");
                            taken += 1;
                        }
                        Err(error) => {
                            let text = error.to_string();
                            assert!(
                                single
                                    && text.contains("batch_norm: ")
                                    && text.contains("train.batch")
                                    || text.contains("no batch to train on"),
                                "{n} {sets:?}: {text}"
                            );
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} {refused}");
    let task = task(&layers, "cross-entropy", &[("train.batch", "5")]);
    says(
        trained(&task, examples(&classes(21)).as_ref()).unwrap_err(),
        &[
            "1.batch_norm",
            "21 training examples in batches of 5",
            "train.drop_last = true",
            "train.batches = \"even\"",
        ],
    );
    // An image has many values per channel, so one example is sufficient.
    let inputs = Tensor::rand(0f32, 1.0, (3, 1, 2, 2), &Device::Cpu).unwrap();
    let images = from_tensors((&inputs, &classes(3)), None, None, &[], None).unwrap();
    let layers = format!("{{ kind = 'batch_norm' }}, {{ kind = 'flatten' }}, {LINEAR}");
    let mut task = Task::from_toml(&with_layers("[1, 2, 2]", &layers, "cross-entropy")).unwrap();
    task.set("train.batch", "2").unwrap();
    assert_eq!(trained(&task, images.as_ref()).unwrap(), 2);
}

#[test]
fn a_learning_rate_that_becomes_infinite_is_refused() {
    let mut task = task(LINEAR, "cross-entropy", &[("train.epochs", "2000")]);
    let changes = [
        ("schedule.kind", "exponential"),
        ("schedule.factor", "2"),
        ("schedule.learning_rate", "0.1"),
    ];
    task.set_all(&changes).unwrap();
    says(
        trained(&task, examples(&classes(3)).as_ref()).unwrap_err(),
        &["step 1999", "epoch 1999", "inf", "schedule.factor"],
    );
    task.set("train.epochs", "20").unwrap();
    assert_eq!(trained(&task, examples(&classes(3)).as_ref()).unwrap(), 20);
    // The longest warmup never ends.
    let warmup = i64::MAX.to_string();
    task.set("schedule.warmup", &warmup).unwrap();
    assert_eq!(trained(&task, examples(&classes(3)).as_ref()).unwrap(), 20);
}

#[test]
fn a_model_of_too_many_layers_is_refused_and_the_largest_one_trains() {
    let layers = |n: usize| vec!["{ kind = 'linear', out = 3 }"; n].join(", ");
    let largest = task(&layers(4096), "cross-entropy", &[]);
    assert_eq!(trained_on_a_main_stack(&largest), 1);
    let error = Task::from_toml(&with_layers("[2]", &layers(4097), "cross-entropy"));
    let error = error.unwrap_err();
    assert!(
        matches!(error, TaskError::Layer { number: 4096, .. }),
        "{error}"
    );
    says(error, &["at most 4096 layers"]);
    // Layers inside residuals count.
    let residual = format!(
        "{{ kind = 'residual', layers = [{}] }}, {LINEAR}",
        layers(4095)
    );
    let error = Task::from_toml(&with_layers("[3]", &residual, "cross-entropy"));
    says(
        error.unwrap_err(),
        &["model.layers[1]", "at most 4096 layers"],
    );
}

/// Trains on a stack of the size of a program's main thread.
fn trained_on_a_main_stack(task: &Task) -> u64 {
    let data = examples(&classes(3));
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(8 << 20);
        let work = || trained(task, data.as_ref()).unwrap();
        thread.spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

#[test]
fn deep_nesting_is_refused() {
    let nested = |n: usize| {
        format!(
            "{}{LINEAR}{}",
            "{ kind = 'residual', layers = [".repeat(n),
            "] }".repeat(n)
        )
    };
    for n in [100, 100_000] {
        let error = Task::from_toml(&with_layers("[3]", &nested(n), "cross-entropy"));
        says(error.unwrap_err(), &["nested too deeply"]);
    }
    let error = Task::from_toml(&with_layers("[3]", &nested(33), "cross-entropy"));
    says(error.unwrap_err(), &["at most 32 residuals"]);
    let dotted = format!("a{} = 1", ".a".repeat(100_000));
    says(
        Task::from_toml(&dotted).unwrap_err(),
        &["nested too deeply"],
    );
    let mut task = task(LINEAR, "cross-entropy", &[]);
    let path = format!("model{}", ".a".repeat(100_000));
    says(task.set(&path, "1").unwrap_err(), &["100001 names"]);
}
