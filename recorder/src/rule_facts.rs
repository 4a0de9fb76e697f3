//! What the recorder knows about each kind of update rule: the defaults of its settings, and the optimizer's state.

use toml::{Table, Value};

/// The settings of candle's `AdamW` that a program may leave out.
pub(crate) struct Usual {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

pub(crate) const ADAMW: Usual = Usual {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
};

/// The value of a setting that a rule leaves out. `None` if the recorder doesn't know the kind or the setting.
pub(crate) fn default_of(kind: &str, key: &str) -> Option<Value> {
    let usual = ADAMW;
    let number = match (kind, key) {
        ("sgd", "nesterov") | ("rmsprop", "centered") => return Some(Value::from(false)),
        ("muon", "nesterov") => return Some(Value::from(true)),
        ("sgd", "momentum" | "dampening") | ("rmsprop", "momentum") => 0.0,
        ("adagrad", "lr_decay" | "initial_accumulator_value") => 0.0,
        ("muon", "momentum") => 0.95,
        ("rmsprop", "alpha") | ("lion", "beta2") => 0.99,
        ("muon", "beta2") => 0.95,
        ("lion" | "muon", "beta1") => 0.9,
        ("adam" | "adamw" | "lamb", "beta1") => usual.beta1,
        ("adam" | "adamw" | "lamb", "beta2") => usual.beta2,
        ("adam" | "adamw" | "rmsprop" | "muon", "eps") => usual.eps,
        ("adagrad", "eps") => 1e-10,
        ("lamb", "eps") => 1e-6,
        ("adamw", "weight_decay") => usual.weight_decay,
        ("sgd" | "adam" | "rmsprop" | "adagrad" | "lamb" | "lion" | "muon", "weight_decay") => 0.0,
        _ => return None,
    };
    Some(Value::from(number))
}

/// The number that a rule states for a setting, or its default.
pub(crate) fn number_of(rule: &Table, key: &str) -> Option<f64> {
    let kind = rule.get("kind").and_then(Value::as_str)?;
    let value = rule.get(key).cloned().or_else(|| default_of(kind, key))?;
    number(&value)
}

/// The quantities of the optimizer's state, by their names in a trace. A trace has a tensor of each for every parameter.
/// `None` if the recorder doesn't know the kind of the rule.
pub(crate) fn slots(rule: &Table) -> Option<&'static [&'static str]> {
    let kind = rule.get("kind").and_then(Value::as_str)?;
    let momentum = number_of(rule, "momentum").is_some_and(|momentum| momentum != 0.0);
    let centered = rule.get("centered").and_then(Value::as_bool) == Some(true);
    Some(match kind {
        "sgd" if !momentum => &[],
        "sgd" | "lion" => &["momentum"],
        "adam" | "adamw" | "lamb" | "muon" => &["moment1", "moment2"],
        "rmsprop" => match (centered, momentum) {
            (false, false) => &["square"],
            (false, true) => &["momentum", "square"],
            (true, false) => &["mean", "square"],
            (true, true) => &["mean", "momentum", "square"],
        },
        "adagrad" => &["sum"],
        _ => return None,
    })
}

/// Whether an optimizer may leave this quantity of a parameter out: Muon's matrices have no second moment.
pub(crate) fn is_optional(rule: &Table, slot: &str) -> bool {
    rule.get("kind").and_then(Value::as_str) == Some("muon") && slot == "moment2"
}

/// A TOML number, with or without a decimal point.
pub(crate) fn number(value: &Value) -> Option<f64> {
    value
        .as_float()
        .or_else(|| value.as_integer().map(|number| number as f64))
}
