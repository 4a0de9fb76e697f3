//! Task files: what they can contain, and the errors for what they can't.

use hindcast_model::net::Net;
use hindcast_model::objective::Objective;
use hindcast_model::task::{Layer, Task, TaskError};
use hindcast_model::update::UpdateRule;

/// A small Task with the given layers.
pub fn with_layers(input: &str, layers: &str, loss: &str) -> String {
    format!(
        "name = 'test'\n[data]\nsource = 'digits'\n[model]\ninput = {input}\nlayers = [{layers}]\n[loss]\nkind = '{loss}'\n\
         [schedule]\nkind = 'constant'\nlearning_rate = 0.1\n[train]\nepochs = 1\nbatch = 4\n"
    )
}

fn error(text: &str) -> String {
    Task::from_toml(text).unwrap_err().to_string()
}

#[test]
fn built_in_tasks_round_trip_through_toml() {
    let builtins = Task::builtins();
    let names: Vec<_> = builtins.iter().map(|b| b.name).collect();
    assert_eq!(
        names,
        [
            "digits",
            "mnist-cnn",
            "mnist-dnn",
            "mnist-logreg",
            "adult-logreg",
            "adult-dnn",
            "news-logreg",
            "news-dnn",
            "cifar10-cnn"
        ]
    );
    for builtin in builtins {
        let task = Task::from_toml(builtin.text).unwrap();
        assert_eq!(task.name, builtin.name);
        assert!(!builtin.description.is_empty());
        let text = task.to_toml().unwrap();
        assert_eq!(Task::from_toml(&text).unwrap(), task, "{text}");
    }
}

#[test]
fn the_papers_models_have_the_papers_sizes() {
    let values = |name| {
        let task = Task::builtin(name).unwrap();
        Net::new(&task.model, &task.loss)
            .unwrap()
            .parameter_values()
    };
    assert_eq!(values("mnist-cnn"), 13_750);
    assert_eq!(values("mnist-dnn"), 784 * 8 + 8 + 8 * 8 + 8 + 8 + 1);
    assert_eq!(values("mnist-logreg"), 785);
    assert_eq!(values("adult-dnn"), 62 * 8 + 8 + 8 * 8 + 8 + 8 + 1);
    assert_eq!(values("adult-logreg"), 63);
    assert_eq!(values("news-dnn"), 4752 * 8 + 8 + 8 * 8 + 8 + 8 + 1);
    assert_eq!(values("news-logreg"), 4753);
    assert_eq!(values("cifar10-cnn"), 307_498 + 448);
}

#[test]
fn tensors_are_named_in_the_order_of_the_layers() {
    for builtin in Task::builtins() {
        let task = Task::builtin(builtin.name).unwrap();
        let net = Net::new(&task.model, &task.loss).unwrap();
        for defs in [net.parameters(), net.buffers()] {
            let names: Vec<_> = defs.iter().map(|d| d.name.clone()).collect();
            let mut sorted = names.clone();
            sorted.sort();
            assert_eq!(names, sorted);
        }
    }
    let text = with_layers(
        "[2, 6, 6]",
        "{ kind = 'residual', layers = [{ kind = 'conv2d', out = 4, kernel = 3, padding = 1 }, { kind = 'batch_norm' }], \
         projection = [{ kind = 'conv2d', out = 4, kernel = 1, bias = false }] }, { kind = 'flatten' }, { kind = 'linear', out = 3 }",
        "cross-entropy",
    );
    let task = Task::from_toml(&text).unwrap();
    let net = Net::new(&task.model, &task.loss).unwrap();
    let names: Vec<_> = net.parameters().iter().map(|d| d.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "0.residual.0.conv2d.bias",
            "0.residual.0.conv2d.weight",
            "0.residual.1.batch_norm.bias",
            "0.residual.1.batch_norm.weight",
            "0.residual.projection.0.conv2d.weight",
            "2.linear.bias",
            "2.linear.weight",
        ]
    );
    let names: Vec<_> = net.buffers().iter().map(|d| d.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "0.residual.1.batch_norm.running_mean",
            "0.residual.1.batch_norm.running_var"
        ]
    );
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_a_suggestion() {
    let text = with_layers("[3]", "{ kind = 'linear', out = 2 }", "cross-entropy");
    let e = error(&text.replace("epochs", "epocs"));
    assert!(e.contains("unknown field `epocs`"), "{e}");
    assert!(e.contains("line 13"), "{e}");
    assert!(e.ends_with("did you mean `epochs`?"), "{e}");
    let e = error(&text.replace("'linear'", "'linaer'"));
    assert!(
        e.contains("`linaer`") && e.ends_with("did you mean `linear`?"),
        "{e}"
    );
    let e = error(&text.replace("out = 2", "out = 2, bais = false"));
    assert!(
        e.contains("unknown field `bais`") && e.ends_with("did you mean `bias`?"),
        "{e}"
    );
    let e = error(&text.replace("kind = 'linear', out = 2", "kind = 'relu', p = 2"));
    assert!(e.contains("unknown field `p`"), "{e}");
    let e = error(&text.replace("'cross-entropy'", "'crossentropy'"));
    assert!(e.ends_with("did you mean `cross-entropy`?"), "{e}");
    let e = error(&text.replace("batch = 4\n", ""));
    assert!(e.contains("missing field `batch`"), "{e}");
    let e = error(&text.replace("batch = 4", "batch = 'four'"));
    assert!(e.contains("invalid type: string \"four\""), "{e}");
}

/// Input shape, layers, and part of the message.
const MISFITS: &[(&str, &str, &str)] = &[
    (
        "[1, 28, 28]",
        "{ kind = 'conv2d', out = 2, kernel = 5 }, { kind = 'linear', out = 2 }",
        "model.layers[1]: layer 1 (linear) expects a vector [features], got input shape [2, 24, 24]; \
             put { kind = \"flatten\" } before it",
    ),
    (
        "[8]",
        "{ kind = 'conv2d', out = 2, kernel = 5 }",
        "model.layers[0]: layer 0 (conv2d) expects an image [channels, height, width], got input shape [8]",
    ),
    (
        "[1, 4, 4]",
        "{ kind = 'relu' }, { kind = 'max_pool2d', kernel = [2, 5] }",
        "layer 1 (max_pool2d) expects at least 5 pixels for its kernel, got input shape [1, 4, 4]",
    ),
    (
        "[1, 4, 4]",
        "{ kind = 'max_pool2d', kernel = 3, padding = 2 }",
        "layer 0 (max_pool2d) expects a padding of at most half the kernel 3×3, not 2×2",
    ),
    (
        "[1, 4, 4]",
        "{ kind = 'conv2d', out = 0, kernel = 1 }",
        "expects out = 1 or more, not 0",
    ),
    (
        "[1, 4, 4]",
        "{ kind = 'conv2d', out = 1, kernel = 1, stride = 0 }",
        "expects a kernel and a stride of at least 1",
    ),
    (
        "[1, 4, 4]",
        "{ kind = 'conv_transpose2d', out = 1, kernel = 2, stride = 2, output_padding = 2 }",
        "layer 0 (conv_transpose2d) expects an output_padding below the stride 2, not 2",
    ),
    (
        "[1, 1, 1]",
        "{ kind = 'conv_transpose2d', out = 1, kernel = 2, padding = 1 }",
        "expects a padding that leaves at least 1 pixel, not 1",
    ),
    (
        "[4]",
        "{ kind = 'dropout', p = 1.0 }",
        "layer 0 (dropout) expects a probability p in [0, 1), not 1",
    ),
    (
        "[4]",
        "{ kind = 'batch_norm', momentum = 0.0 }",
        "layer 0 (batch_norm) expects a momentum in (0, 1], not 0",
    ),
    (
        "[4]",
        "{ kind = 'relu' }, { kind = 'residual', layers = [{ kind = 'linear', out = 3 }] }",
        "model.layers[1]: layer 1 (residual) expects its layers' output [3] and its shortcut's [4] to have one shape",
    ),
    (
        "[4]",
        "{ kind = 'residual', layers = [{ kind = 'tanh' }, { kind = 'conv2d', out = 1, kernel = 1 }] }",
        "model.layers[0].layers[1]: layer 1 (conv2d) expects an image",
    ),
    (
        "[4]",
        "{ kind = 'linear', out = 9000000000000000000 }, { kind = 'linear', out = 9000000000000000000 }",
        "make it smaller",
    ),
    (
        "[4, 0, 1]",
        "{ kind = 'flatten' }",
        "model.input = [4, 0, 1]: expected [features] or [channels, height, width], none of them 0",
    ),
    (
        "[4]",
        "{ kind = 'relu' }",
        "expected at least one layer with parameters",
    ),
    (
        "[4]",
        "{ kind = 'linear', out = 1 }",
        "loss.kind = \"cross-entropy\": expected a model whose output is [classes] with at least 2 classes, got [1]",
    ),
];

#[test]
fn a_layer_that_does_not_fit_is_named_with_what_it_expects_and_gets() {
    for (input, layers, expected) in MISFITS {
        let e = error(&with_layers(input, layers, "cross-entropy"));
        assert!(e.contains(expected), "{e}\n{expected}");
    }
}

#[test]
fn numbers_out_of_range_are_named() {
    let text = with_layers("[3]", "{ kind = 'linear', out = 2 }", "cross-entropy");
    let cases = [
        (
            "epochs = 1",
            "epochs = 0",
            "train.epochs = 0: expected 1 or more",
        ),
        (
            "batch = 4",
            "batch = 0",
            "train.batch = 0: expected 1 or more",
        ),
        (
            "learning_rate = 0.1",
            "learning_rate = -1",
            "schedule.learning_rate = -1: expected a number above 0",
        ),
        (
            "[schedule]",
            "penalty = -1\n[schedule]",
            "loss.penalty = -1: expected a number of at least 0",
        ),
        (
            "[schedule]",
            "class_weights = [1]\n[schedule]",
            "loss.class_weights = [1.0]: expected 2 numbers, one per class",
        ),
        (
            "[schedule]",
            "[optimizer]\nkind = 'sgd'\nnesterov = true\n[schedule]",
            "optimizer.momentum = 0: expected a number above 0 with nesterov = true",
        ),
        (
            "[schedule]",
            "[optimizer]\nkind = 'adam'\nbeta1 = 1\n[schedule]",
            "optimizer.beta1 = 1: expected a number in [0, 1)",
        ),
        (
            "batch = 4",
            "batch = 4\nbatches = 'even'\ndrop_last = true",
            "train.drop_last = true: expected false with batches = \"even\"",
        ),
    ];
    for (from, to, expected) in cases {
        let e = error(&text.replace(from, to));
        assert!(e.contains(expected), "{e}\n{expected}");
    }
}

#[test]
fn any_key_can_be_set() {
    let mut task = Task::builtin("mnist-cnn").unwrap();
    task.set_all(&[
        ("train.epochs", "1"),
        ("data.validation", "1000"),
        ("schedule.learning_rate", "1"),
        ("train.dtype", "f64"),
        ("model.layers.0.out", "7"),
        ("model.layers.2.stride", "[2, 2]"),
        ("data.mean", "[0.25]"),
        ("optimizer.clip_norm", "2.5"),
        ("augment.flip", "true"),
        ("name", "7"),
    ])
    .unwrap();
    assert_eq!(task.train.epochs, 1);
    assert_eq!(task.data.validation, Some(1000));
    assert_eq!(task.optimizer.clip_norm(), Some(2.5));
    assert_eq!(task.name, "7");
    assert!(task.augment.flip);
    assert!(matches!(task.model.layers[0], Layer::Conv2d { out: 7, .. }));
    let text = task.to_toml().unwrap();
    assert_eq!(Task::from_toml(&text).unwrap(), task);
}

#[test]
fn changing_a_kind_removes_the_keys_of_the_old_kind() {
    let mut task = Task::builtin("digits").unwrap();
    task.set("schedule.learning_rate", "0.25").unwrap();
    task.set_all(&[
        ("optimizer.kind", "adamw"),
        ("optimizer.weight_decay", "0.1"),
    ])
    .unwrap();
    assert!(
        matches!(task.optimizer, UpdateRule::AdamW { weight_decay, .. } if weight_decay == 0.1)
    );
    // Keys that both kinds have are kept, and a key can be set before the kind that has it.
    task.set_all(&[("schedule.every", "2"), ("schedule.kind", "step")])
        .unwrap();
    task.set("schedule.kind", "cosine").unwrap();
    let text = task.to_toml().unwrap();
    assert!(
        text.contains("kind = \"cosine\"\nlearning_rate = 0.25"),
        "{text}"
    );
    let e = task
        .set_all(&[("optimizer.kind", "sgd"), ("optimizer.beta1", "0.5")])
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("can't set optimizer.beta1: there is no such key"),
        "{e}"
    );
}

/// The old kind's defaults are no choices of the task.
#[test]
fn a_new_kind_has_its_own_defaults() {
    let rule = |text: &str| UpdateRule::from_toml(text).unwrap();
    for kind in [
        "muon", "adamw", "adam", "rmsprop", "adagrad", "lamb", "lion",
    ] {
        let mut task = Task::builtin("digits").unwrap();
        task.set("optimizer.kind", kind).unwrap();
        assert_eq!(task.optimizer, rule(&format!("kind = '{kind}'")));
    }
    let UpdateRule::Muon {
        momentum: 0.95,
        nesterov: true,
        ..
    } = rule("kind = 'muon'")
    else {
        panic!("the documented defaults");
    };
    // What the task or the same call says stays.
    let mut task = Task::builtin("digits").unwrap();
    let said = [
        ("optimizer.momentum", "0.9"),
        ("optimizer.weight_decay", "5e-4"),
    ];
    task.set_all(&said).unwrap();
    task.set("optimizer.kind", "muon").unwrap();
    let expected = "kind = 'muon'\nmomentum = 0.9\nweight_decay = 5e-4";
    assert_eq!(task.optimizer, rule(expected));
    for order in [[0, 1, 2], [2, 0, 1]] {
        let mut task = Task::builtin("digits").unwrap();
        let said = [
            ("optimizer.momentum", "0"),
            ("optimizer.nesterov", "false"),
            ("optimizer.kind", "muon"),
        ];
        task.set_all(&order.map(|i| said[i])).unwrap();
        let expected = "kind = 'muon'\nmomentum = 0\nnesterov = false";
        assert_eq!(task.optimizer, rule(expected));
    }
    // A kind that is set to itself changes nothing, and neither does a key without a default.
    for (name, path) in [("digits", "optimizer.kind"), ("digits", "data.source")] {
        let before = Task::builtin(name).unwrap();
        let mut task = before.clone();
        let text = toml::Table::try_from(&task).unwrap();
        let (table, key) = path.split_once('.').unwrap();
        let kind = text[table][key].as_str().unwrap().to_owned();
        task.set(path, &kind).unwrap();
        assert_eq!(task, before, "{path}");
    }
}

#[test]
fn a_key_that_cannot_be_set_is_named_with_similar_keys() {
    let mut task = Task::builtin("digits").unwrap();
    task.set("train.epochs", "3").unwrap();
    let cases = [
        (
            "train.epocs",
            "1",
            "can't set train.epocs: there is no such key (did you mean \"epochs\"?); the keys here are epochs, batch, seed",
        ),
        (
            "trian.epochs",
            "1",
            "can't set trian.epochs: there is no table \"trian\" (did you mean \"train\"?)",
        ),
        (
            "train.epochs",
            "many",
            "can't set train.epochs: \"many\" is not a value of this key: got the text \"many\"",
        ),
        (
            "train.epochs",
            "-1",
            "can't set train.epochs: \"-1\" is not a value of this key: got the number `-1`",
        ),
        ("train.epochs", "0", "train.epochs = 0: expected 1 or more"),
        (
            "data.target",
            "value",
            "data.target = value: expected \"class\" with the cross-entropy loss",
        ),
        (
            "train.dtype",
            "f16",
            "can't set train.dtype: there is no \"f16\"",
        ),
        (
            "schedule.kind",
            "cosin",
            "there is no \"cosin\" (did you mean \"cosine\"?)",
        ),
        (
            "model.layers.9.out",
            "1",
            "expected a number below 6 in a list, got \"9\"",
        ),
        ("train.epochs.x", "1", "epochs is 3, which has no keys"),
        ("train.", "1", "expected names with dots between them"),
        (
            "model.layers.0.kernel",
            "64",
            "layer 0 (conv2d) expects at least 64 pixels",
        ),
    ];
    for (path, value, expected) in cases {
        let mut changed = task.clone();
        let e = changed.set(path, value).unwrap_err().to_string();
        assert!(e.contains(expected), "{e}\n{expected}");
        assert_eq!(changed, task, "a failed set changes nothing");
    }
}

#[test]
fn an_unknown_task_name_lists_the_known_ones() {
    let e = Task::builtin("mnist_cnn").unwrap_err();
    assert!(matches!(e, TaskError::Unknown { .. }));
    let text =
        "no built-in task \"mnist_cnn\" (did you mean \"mnist-cnn\"?); there are digits, mnist-cnn";
    assert!(e.to_string().starts_with(text), "{e}");
    let e = Task::from_file(std::path::Path::new("nowhere.toml"))
        .unwrap_err()
        .to_string();
    assert!(e.contains("nowhere.toml"), "{e}");
}
