//! How a run was trained, as a page's facts say it: learning rate, batch size, layers, loss and target.

use hindcast_analyzer::curves::HistoryRow;
use hindcast_model::task::{Layer, LossSpec, Reduction, Task};
use toml::Value;

/// The facts: name, value. `task` is the recorded task's text; a run of another loop has none, and its layers and its loss aren't
/// known.
pub(super) fn settings(task: Option<&str>, steps: &[HistoryRow]) -> Vec<(String, String)> {
    let task = task.and_then(|text| Task::from_toml(text).ok());
    let task = task.as_ref();
    let scaled = task.filter(|task| task.data.standardise_target);
    let facts = [
        ("Learning rate", learning_rate(steps)),
        ("Batch size", batch_size(steps)),
        ("Layers", task.map(layers)),
        ("Loss", task.map(|task| loss(&task.loss))),
        (
            "Target",
            scaled.map(|_| {
                "standardised; losses and influences are those of the standardised target"
                    .to_owned()
            }),
        ),
    ];
    facts
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn learning_rate(steps: &[HistoryRow]) -> Option<String> {
    let (first, last) = (steps.first()?, steps.last()?);
    let groups = first.learning_rates.len();
    let rates = steps.iter().filter_map(|step| step.learning_rates.first());
    let one = *first.learning_rates.first()?;
    let end = *last.learning_rates.first()?;
    let most = rates.clone().copied().fold(one, f64::max);
    let number = |rate: f64| {
        let rounded: f64 = format!("{rate:.2e}").parse().unwrap_or(rate);
        rounded.to_string()
    };
    let mut text = if rates.clone().all(|rate| *rate == one) {
        number(one)
    } else {
        format!(
            "{} at the first step, {} at the last",
            number(one),
            number(end)
        )
    };
    if most > one.max(end) {
        text += &format!(", {} at most", number(most));
    }
    if groups > 1 {
        text += &format!(" (the first of {groups} groups of parameters)");
    }
    Some(text)
}

fn batch_size(steps: &[HistoryRow]) -> Option<String> {
    let sizes = steps.iter().map(|step| step.batch_size);
    let (least, most) = (sizes.clone().min()?, sizes.max()?);
    match (least, most) {
        (_, 0) => None,
        (least, most) if least == most => Some(format!("{most} examples")),
        (least, most) => Some(format!("{least} to {most} examples")),
    }
}

/// The layers' kinds with their numbers of outputs.
fn layers(task: &Task) -> String {
    let of = |layer: &Layer| match Value::try_from(layer) {
        Ok(Value::Table(table)) => {
            let kind = table.get("kind").and_then(Value::as_str).unwrap_or("layer");
            let out = table.get("out").and_then(Value::as_integer);
            out.map_or(kind.to_owned(), |out| format!("{kind} {out}"))
        }
        _ => "layer".to_owned(),
    };
    let layers: Vec<String> = task.model.layers.iter().map(of).collect();
    let shape: Vec<String> = task.model.input.iter().map(ToString::to_string).collect();
    format!("input {} → {}", shape.join(" × "), layers.join(" → "))
}

fn loss(loss: &LossSpec) -> String {
    let reduction = match loss.reduction {
        Reduction::Mean => "mean over the batch",
        Reduction::Sum => "sum over the batch",
    };
    let mut text = format!("{}, {reduction}", loss.kind.name());
    if loss.penalty > 0.0 {
        text += &format!(", penalty {}", loss.penalty);
    }
    if !loss.class_weights.is_empty() {
        text += ", with class weights";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, batch_size: u64) -> HistoryRow {
        HistoryRow {
            step: 0,
            epoch: 0,
            learning_rates: vec![rate],
            batch_size,
            loss: None,
            scalars: Vec::new(),
            gradient_norm: None,
            parameter_norm: None,
            update_norm: None,
            held_out_loss: None,
            held_out_error: None,
        }
    }

    #[test]
    fn a_training_is_said_by_its_steps_and_its_task() {
        let digits = Task::builtin("digits").unwrap().to_toml().unwrap();
        let steps = [step(0.01, 32), step(0.1, 32), step(0.001, 8)];
        let all = settings(Some(&digits), &steps);
        let of = |name: &str| {
            let found = all.iter().find(|(key, _)| key == name);
            found.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        assert_eq!(
            of("Learning rate"),
            "0.01 at the first step, 0.001 at the last, 0.1 at most"
        );
        assert_eq!(of("Batch size"), "8 to 32 examples");
        assert!(of("Layers").starts_with("input "), "{all:?}");
        assert!(of("Layers").ends_with("linear 10"), "{all:?}");
        assert!(of("Loss").starts_with("cross-entropy, mean over the batch"));
        assert!(of("Target").is_empty());
        // Another loop's run says what its steps have.
        let names: Vec<String> = settings(None, &steps[..1])
            .into_iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(names, ["Learning rate", "Batch size"]);
        assert!(settings(None, &[]).is_empty());
    }
}
