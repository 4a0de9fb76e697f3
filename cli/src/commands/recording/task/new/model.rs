//! A model and a training that suit the examples.

use super::draft::{Inputs, aligned, line};

/// What is known about the examples.
pub(super) struct Facts<'a> {
    pub(super) inputs: Inputs,
    /// Shape of one example.
    pub(super) shape: &'a [usize],
    /// Number of classes. `None` for labels that are numbers.
    pub(super) classes: Option<usize>,
    /// Number of values per label.
    pub(super) values: usize,
    /// Number of training examples.
    pub(super) train: u64,
}

/// The tables `[model]`, `[loss]`, `[optimizer]`, `[schedule]` and `[train]` of a task.
pub(super) fn tables(facts: &Facts<'_>) -> String {
    let outputs = facts.classes.map_or(facts.values, |classes| classes.max(2));
    let (layers, why) = layers(facts, outputs);
    let (rate, batch, epochs) = training(facts);
    let (loss, about) = match facts.classes {
        Some(_) => ("cross-entropy", "one of several classes"),
        None => ("mean-squared-error", "a number to predict"),
    };
    let layers: String = layers.iter().map(|layer| format!("  {layer},\n")).collect();
    let shape: Vec<String> = facts.shape.iter().map(ToString::to_string).collect();
    let input = if facts.shape.len() == 3 {
        "channels, height, width of an example"
    } else {
        "features of an example"
    };
    let schedule = aligned(&[
        line(
            "kind",
            "linear",
            "falls to 0, so that the last steps converge",
        ),
        line("learning_rate", rate, "halve it if the loss grows or jumps"),
    ]);
    let train = aligned(&[
        line("epochs", epochs, "passes over the training examples"),
        line("batch", batch, "examples per step"),
        line(
            "seed",
            0,
            "another number: other initial weights and another order",
        ),
    ]);
    format!(
        "# {why}
[model]
input = [{}]   # {input}
layers = [
{layers}]

[loss]
kind = \"{loss}\"   # {about}

[optimizer]
kind = \"sgd\"

[schedule]
{schedule}
[train]
{train}",
        shape.join(", ")
    )
}

fn layers(facts: &Facts<'_>, outputs: usize) -> (Vec<String>, &'static str) {
    let linear = |out: usize| format!("{{ kind = \"linear\", out = {out} }}");
    let kind = |kind: &str| format!("{{ kind = \"{kind}\" }}");
    match (facts.inputs, facts.shape) {
        (Inputs::Images, &[_, height, width]) if height.min(width) < 10 => (
            vec![kind("flatten"), linear(64), kind("tanh"), linear(outputs)],
            "A net with one hidden layer, because the images are small.",
        ),
        (Inputs::Images, &[_, height, width]) => {
            let mut layers = convolutions(height.min(width));
            layers.extend([kind("flatten"), linear(outputs)]);
            (
                layers,
                "A small convolutional net. Pooling makes it see a shape in any place, and batch norm makes it learn from few images.",
            )
        }
        (Inputs::Characters, &[_, _, length]) => (
            vec![
                format!(
                    "{{ kind = \"conv2d\", out = 32, kernel = [1, {}] }}",
                    length.min(3)
                ),
                kind("tanh"),
                kind("flatten"),
                linear(outputs),
            ],
            "A convolution over neighbouring characters.",
        ),
        (Inputs::Columns, _) if facts.classes.is_some() => (
            vec![linear(32), kind("tanh"), linear(outputs)],
            "A net with one hidden layer. Without it (only the last layer), the model is a logistic regression.",
        ),
        (Inputs::Columns, _) => (
            vec![linear(outputs)],
            "A linear regression. A hidden layer before it makes it a net.",
        ),
        (_, shape) => {
            let mut layers = Vec::new();
            if shape.len() == 3 {
                layers.push(kind("flatten"));
            }
            layers.push(linear(outputs));
            (
                layers,
                "A linear model, which is usual for such inputs. A hidden layer before it makes it a net.",
            )
        }
    }
}

/// Convolutions with pooling, for images whose shorter side has `side` pixels, at least 10.
fn convolutions(mut side: usize) -> Vec<String> {
    /// Largest side on which every position is convolved. On larger images that takes too long.
    const EVERY: usize = 48;
    /// Side of what the last pooling leaves.
    const LEFT: usize = 4;
    let conv = |out: usize, kernel: usize, stride: usize| {
        let padding = kernel / 2;
        format!(
            "{{ kind = \"conv2d\", out = {out}, kernel = {kernel}, stride = {stride}, padding = {padding} }}"
        )
    };
    let pool =
        |kind: &str, kernel: usize| format!("{{ kind = \"{kind}_pool2d\", kernel = {kernel} }}");
    let then = || ["batch_norm", "relu"].map(|kind| format!("{{ kind = \"{kind}\" }}"));
    let mut layers = Vec::new();
    while side > EVERY {
        layers.push(conv(16, 5, 2));
        layers.extend(then());
        side = side.div_ceil(2);
    }
    layers.push(conv(16, 5, 1));
    layers.extend(then());
    layers.push(pool("max", 2));
    layers.push(conv(32, 3, 1));
    layers.extend(then());
    let last = side / 2 / LEFT;
    if last > 1 {
        layers.push(pool("avg", last));
    }
    layers
}

/// Learning rate, batch and number of epochs.
fn training(facts: &Facts<'_>) -> (f64, i64, i64) {
    /// Number of steps that are usually enough for such models.
    const STEPS: u64 = 2000;
    let batch = match facts.train {
        0..500 => 16,
        500..20_000 => 32,
        _ => 64,
    };
    let features: usize = facts.shape.iter().product();
    let rate = match (facts.inputs, facts.classes) {
        // The largest stable rate of a linear regression falls with the number of standardised features.
        (Inputs::Columns | Inputs::Vectors, None) => round(0.5 / (features as f64 + 1.0).min(1e6)),
        (Inputs::Columns, Some(_)) => 0.1,
        (Inputs::Vectors, Some(_)) => round((5.0 / features.max(1) as f64).min(0.1)),
        (Inputs::Words, _) => 1.0,
        (Inputs::Images, _) => 0.05,
        (Inputs::Characters, _) => 0.5,
    };
    let per_epoch = facts.train.div_ceil(batch).max(1);
    let epochs = STEPS.div_ceil(per_epoch).clamp(5, 50);
    (rate, batch.cast_signed(), epochs.cast_signed())
}

/// A number with one significant digit.
fn round(x: f64) -> f64 {
    format!("{x:.0e}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use hindcast_model::net::Net;
    use hindcast_model::task::Task;

    use super::*;

    #[test]
    fn images_of_any_size_get_a_net_that_fits() {
        for [height, width] in [
            [1, 1],
            [9, 40],
            [10, 10],
            [11, 13],
            [28, 28],
            [48, 48],
            [49, 200],
            [64, 64],
        ] {
            let facts = Facts {
                inputs: Inputs::Images,
                shape: &[3, height, width],
                classes: Some(3),
                values: 1,
                train: 300,
            };
            let tables = tables(&facts);
            let text = format!("name = \"x\"\n[data]\nsource = \"digits\"\n{tables}");
            let task = Task::from_toml(&text).unwrap();
            let net = Net::new(&task.model, &task.loss);
            net.unwrap_or_else(|e| panic!("{height} × {width}: {e}\n{tables}"));
            assert_eq!(
                tables.contains("batch_norm"),
                height.min(width) >= 10,
                "{tables}"
            );
        }
    }
}
