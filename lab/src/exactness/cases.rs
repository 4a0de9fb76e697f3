//! The cases of the matrix.

use hindcast_analyzer::QueryPoint;

/// A row to be measured.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub kind: &'static str,
    pub name: String,
    /// TOML of `[model] layers`.
    pub layers: String,
    pub loss: &'static str,
    /// The rest of the `[loss]` table.
    pub loss_keys: String,
    /// TOML of `[optimizer]`.
    pub optimizer: String,
    pub learning_rate: f64,
    pub circumstance: Circumstance,
    /// The model that the query is asked about.
    pub at: QueryPoint,
    /// Relative change of a weight for the differences.
    pub step: f64,
    /// Factor by which a deviation from the recorded run fades per step; 1 for none.
    pub discount: f64,
}

/// How a row's steps differ from plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Circumstance {
    Plain,
    BatchNorm,
    Dropout,
    Augmentation,
    ShortBatch,
    Duplicate,
    Weights,
    MicroBatches,
    /// The output layer has its own learning rate and weight decay.
    Groups,
    /// Every other step leaves out the first layer's weights.
    Partial,
    /// The scores are those of a window in the middle of the run.
    Window,
}

impl Circumstance {
    fn name(self) -> &'static str {
        match self {
            Circumstance::Plain => "plain",
            Circumstance::BatchNorm => "batch-norm",
            Circumstance::Dropout => "dropout",
            Circumstance::Augmentation => "augmentation",
            Circumstance::ShortBatch => "short-batch",
            Circumstance::Duplicate => "duplicate",
            Circumstance::Weights => "weights",
            Circumstance::MicroBatches => "micro-batches",
            Circumstance::Groups => "groups",
            Circumstance::Partial => "partial",
            Circumstance::Window => "window",
        }
    }

    /// Layers that the circumstance inserts between body and head.
    fn between(self) -> &'static str {
        match self {
            Circumstance::BatchNorm => "{ kind = \"batch_norm\", momentum = 0.3 },",
            Circumstance::Dropout => "{ kind = \"dropout\", p = 0.3 },",
            _ => "",
        }
    }
}

/// Relative change of a weight for the differences.
const STEP: f64 = 1e-4;

/// The same for Muon, whose iteration multiplies small singular values of the momentum by up to 485. So the differences'
/// own error, which grows with the square of the change, is larger.
const STEP_MUON: f64 = 2e-5;

/// A body for each layer, for images of 1 × 6 × 6. The head flattens its input and ends in a linear layer.
const LAYERS: [(&str, &str); 13] = [
    (
        "linear",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 5 },",
    ),
    (
        "flatten",
        "{ kind = \"avg_pool2d\", kernel = 2 }, { kind = \"flatten\" },",
    ),
    (
        "conv2d",
        "{ kind = \"conv2d\", out = 2, kernel = [3, 2], stride = [2, 1], padding = 1 }, { kind = \"tanh\" },",
    ),
    (
        "conv_transpose2d",
        "{ kind = \"avg_pool2d\", kernel = 2 }, { kind = \"conv_transpose2d\", out = 2, kernel = 3, stride = 2, padding = 1, output_padding = 1 }, { kind = \"tanh\" },",
    ),
    (
        "relu",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 6 }, { kind = \"relu\" },",
    ),
    (
        "tanh",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 5 }, { kind = \"tanh\" },",
    ),
    (
        "sigmoid",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 5 }, { kind = \"sigmoid\" },",
    ),
    (
        "gelu",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 5 }, { kind = \"gelu\" },",
    ),
    (
        "max_pool2d",
        "{ kind = \"conv2d\", out = 2, kernel = 3 }, { kind = \"tanh\" }, { kind = \"max_pool2d\", kernel = 3, stride = 2, padding = 1 },",
    ),
    (
        "avg_pool2d",
        "{ kind = \"conv2d\", out = 2, kernel = 3 }, { kind = \"tanh\" }, { kind = \"avg_pool2d\", kernel = 2, stride = 1 },",
    ),
    (
        "batch_norm",
        "{ kind = \"conv2d\", out = 2, kernel = 3, stride = 2 }, { kind = \"batch_norm\" }, { kind = \"tanh\" },",
    ),
    (
        "dropout",
        "{ kind = \"flatten\" }, { kind = \"linear\", out = 6 }, { kind = \"tanh\" }, { kind = \"dropout\", p = 0.4 },",
    ),
    (
        "residual",
        "{ kind = \"residual\", layers = [{ kind = \"conv2d\", out = 2, kernel = 3, padding = 1 }, { kind = \"tanh\" }], projection = [{ kind = \"conv2d\", out = 2, kernel = 1 }] }, { kind = \"avg_pool2d\", kernel = 2 },",
    ),
];

const LOSSES: [&str; 3] = [
    "cross-entropy",
    "binary-cross-entropy",
    "mean-squared-error",
];

const REDUCTIONS: [&str; 2] = ["mean", "sum"];

const CIRCUMSTANCES: [Circumstance; 7] = [
    Circumstance::Plain,
    Circumstance::BatchNorm,
    Circumstance::Dropout,
    Circumstance::Augmentation,
    Circumstance::ShortBatch,
    Circumstance::Duplicate,
    Circumstance::Weights,
];

/// Update rules, each with a learning rate at which a few steps are far from chaotic.
const OPTIMIZERS: [(&str, &str, f64); 22] = [
    ("sgd", "kind = \"sgd\"", 0.3),
    ("sgd decay", "kind = \"sgd\"\nweight_decay = 0.05", 0.3),
    (
        "momentum decay",
        "kind = \"sgd\"\nmomentum = 0.9\nweight_decay = 0.01",
        0.1,
    ),
    (
        "momentum dampening",
        "kind = \"sgd\"\nmomentum = 0.8\ndampening = 0.3",
        0.2,
    ),
    (
        "nesterov decay",
        "kind = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.01",
        0.1,
    ),
    ("sgd clipping", "kind = \"sgd\"\nclip_norm = 0.1", 0.3),
    (
        "nesterov clipping",
        "kind = \"sgd\"\nmomentum = 0.5\nnesterov = true\nclip_norm = 0.1",
        0.2,
    ),
    ("adam", "kind = \"adam\"\neps = 0.01", 0.01),
    (
        "adam decay",
        "kind = \"adam\"\neps = 0.01\nweight_decay = 0.1",
        0.01,
    ),
    (
        "adamw",
        "kind = \"adamw\"\neps = 0.01\nweight_decay = 0.1",
        0.01,
    ),
    (
        "adamw clipping",
        "kind = \"adamw\"\neps = 0.01\nclip_norm = 0.1",
        0.01,
    ),
    (
        "adam decay clipping",
        "kind = \"adam\"\neps = 0.01\nweight_decay = 0.1\nclip_norm = 0.1",
        0.01,
    ),
    (
        "rmsprop",
        "kind = \"rmsprop\"\nalpha = 0.9\neps = 0.02",
        0.005,
    ),
    (
        "rmsprop momentum decay",
        "kind = \"rmsprop\"\nalpha = 0.9\neps = 0.02\nmomentum = 0.8\nweight_decay = 0.1",
        0.005,
    ),
    (
        "rmsprop centred",
        "kind = \"rmsprop\"\nalpha = 0.9\neps = 0.05\ncentered = true\nweight_decay = 0.1",
        0.005,
    ),
    (
        "rmsprop centred momentum clipping",
        "kind = \"rmsprop\"\nalpha = 0.9\neps = 0.05\ncentered = true\nmomentum = 0.5\nclip_norm = 0.1",
        0.005,
    ),
    (
        "adagrad decay",
        "kind = \"adagrad\"\nlr_decay = 0.1\neps = 0.01\ninitial_accumulator_value = 0.001\nweight_decay = 0.1",
        0.02,
    ),
    (
        "adagrad clipping",
        "kind = \"adagrad\"\neps = 0.02\nclip_norm = 0.1",
        0.02,
    ),
    (
        "lamb decay",
        "kind = \"lamb\"\neps = 0.01\nweight_decay = 0.1",
        0.02,
    ),
    (
        "lamb decay clipping",
        "kind = \"lamb\"\neps = 0.01\nweight_decay = 0.1\nclip_norm = 0.1",
        0.02,
    ),
    (
        "muon decay",
        "kind = \"muon\"\neps = 0.01\nweight_decay = 0.1",
        0.01,
    ),
    (
        "muon clipping",
        "kind = \"muon\"\nmomentum = 0.8\nnesterov = false\neps = 0.01\nclip_norm = 0.1",
        0.01,
    ),
];

/// Averages of the four steps' models, and the circumstances of the optimizers' rows in which they are measured.
const POINTS: [(&str, &[Circumstance]); 2] = [
    (
        "mean:3-steps",
        &[
            Circumstance::Plain,
            Circumstance::BatchNorm,
            Circumstance::Window,
        ],
    ),
    ("ema:0.6", &[Circumstance::BatchNorm]),
];

/// The discount of the rows that have one.
const DISCOUNT: f64 = 0.7;

/// The models that a discounted sweep is asked about.
const DISCOUNTED_POINTS: [&str; 2] = ["final", "mean:3-steps"];

/// Additional keys of the loss table.
const PENALTIES: [(&str, &str); 3] = [
    ("penalty-in-examples", "penalty = 0.05"),
    ("penalty-in-batch", "penalty = 0.05\npenalty_in = \"batch\""),
    ("class-weights", "class_weights = [1.0, 2.5, 0.5]"),
];

fn outputs(loss: &str) -> usize {
    match loss {
        "cross-entropy" => 3,
        "binary-cross-entropy" => 1,
        _ => 2,
    }
}

fn layers(body: &str, loss: &str, circumstance: Circumstance) -> String {
    let flatten = if body.contains("flatten") {
        ""
    } else {
        "{ kind = \"flatten\" },"
    };
    format!(
        "[{body} {} {flatten} {{ kind = \"linear\", out = {} }}]",
        circumstance.between(),
        outputs(loss)
    )
}

/// All rows.
pub(super) fn all() -> Vec<Case> {
    let mut out = Vec::new();
    let plain = |name: String, body: &str, loss: &'static str, circumstance| Case {
        kind: "layer",
        name,
        layers: layers(body, loss, circumstance),
        loss,
        loss_keys: String::new(),
        optimizer: "kind = \"sgd\"".to_owned(),
        // Squared errors are steep: at larger rates, the third-order error of the differences dominates.
        learning_rate: if loss == "mean-squared-error" {
            0.05
        } else {
            0.2
        },
        circumstance,
        at: QueryPoint::Final,
        step: STEP,
        discount: 1.0,
    };
    for (layer, body) in LAYERS {
        for loss in LOSSES {
            for reduction in REDUCTIONS {
                for circumstance in CIRCUMSTANCES {
                    let name = format!("layer {layer} {loss} {reduction} {}", circumstance.name());
                    let mut case = plain(name, body, loss, circumstance);
                    case.loss_keys = format!("reduction = \"{reduction}\"");
                    if reduction == "sum" {
                        case.learning_rate /= 4.0;
                    }
                    out.push(case);
                }
            }
        }
    }
    let tanh = LAYERS[5].1;
    for (name, keys) in PENALTIES {
        for reduction in REDUCTIONS {
            let mut case = plain(
                format!("layer tanh cross-entropy {reduction} {name}"),
                tanh,
                "cross-entropy",
                Circumstance::Plain,
            );
            case.loss_keys = format!("reduction = \"{reduction}\"\n{keys}");
            case.learning_rate = 0.05;
            out.push(case);
        }
    }
    for (rule, optimizer, learning_rate) in OPTIMIZERS {
        for circumstance in [
            Circumstance::Plain,
            Circumstance::BatchNorm,
            Circumstance::MicroBatches,
            Circumstance::Groups,
            Circumstance::Partial,
            Circumstance::Window,
        ] {
            let name = format!("optimizer {rule} {}", circumstance.name());
            let mut case = plain(name, tanh, "cross-entropy", circumstance);
            case.kind = "optimizer";
            case.optimizer = optimizer.to_owned();
            case.learning_rate = learning_rate;
            if rule.starts_with("muon") {
                case.step = STEP_MUON;
            }
            if !matches!(circumstance, Circumstance::Groups | Circumstance::Partial) {
                out.extend(variants(&case));
            }
            out.push(case);
        }
    }
    out
}

/// The rows of averages of the models and of discounted sweeps, for the row of an optimizer.
fn variants(case: &Case) -> Vec<Case> {
    let of = case.name.trim_start_matches("optimizer ");
    let variant = |kind, prefix: &str, at: &str, discount| Case {
        kind,
        name: format!("{prefix} {at} {of}"),
        at: at.parse().unwrap_or_default(),
        discount,
        ..case.clone()
    };
    let averaged = POINTS
        .iter()
        .filter(|(_, circumstances)| circumstances.contains(&case.circumstance))
        .map(|(at, _)| variant("query point", "query-point", at, 1.0));
    let discounted = DISCOUNTED_POINTS
        .iter()
        .map(|at| variant("discount", &format!("discount {DISCOUNT}"), at, DISCOUNT));
    averaged.chain(discounted).collect()
}
