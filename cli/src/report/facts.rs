//! The facts about a run that a page shows, and its recorded losses.

use hindcast_format::{DataIdentity, FormatError, Trace, hex};

use crate::contents::{
    Contents, NO_HEAD, about_never_trained, in_a_line, never_trained, notes, status,
    training_examples,
};
use crate::words::{bytes, grouped, plural};

/// Largest number of points of a training curve. The losses of a longer run are averaged over stretches of steps.
const STRETCHES: usize = 240;

/// A run in words and numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Facts {
    pub task: String,
    pub head: String,
    /// The numbers at the top: value, description.
    pub headline: Vec<(String, String)>,
    /// All other facts: name, value.
    pub list: Vec<(String, String)>,
    /// Descriptions of what is damaged or missing.
    pub problems: Vec<String>,
}

impl Facts {
    /// Reads the facts from a trace.
    pub fn of(trace: &Trace) -> Facts {
        let contents = Contents::of(trace);
        let mut problems: Vec<String> = trace.problems().iter().map(ToString::to_string).collect();
        let mut noted = |e: FormatError| problems.push(e.to_string());
        let epochs = trace.epochs().map_err(&mut noted).ok();
        if !problems.is_empty() {
            // The listed steps of a damaged run may not be readable, so they are counted by reading.
            match trace.readable(0..u64::MAX) {
                Ok(readable) if readable.steps < contents.steps => problems.push(format!(
                    "{} of the {} recorded steps can be read",
                    readable.steps, contents.steps
                )),
                Ok(_) => {}
                Err(e) => problems.push(e.to_string()),
            }
        }
        Facts {
            headline: headline(trace, &contents, epochs.map(|epochs| epochs.len() as u64)),
            list: list(trace, &contents),
            task: contents.task,
            head: contents.head.unwrap_or_default(),
            problems,
        }
    }
}

/// `epochs` is `None` if damage hides how many there are.
fn headline(trace: &Trace, contents: &Contents, epochs: Option<u64>) -> Vec<(String, String)> {
    let mut out = vec![
        (grouped(contents.steps), "steps recorded".to_owned()),
        match epochs {
            Some(n) => (grouped(n), plural(n, "epoch", "epochs").to_owned()),
            None => ("unknown".to_owned(), "number of epochs".to_owned()),
        },
        (grouped(contents.parameters), "parameters".to_owned()),
    ];
    if let Some(examples) = training_examples(trace.info()) {
        out.push((grouped(examples), "training examples".to_owned()));
    }
    out.push((
        bytes(contents.stored_bytes),
        format!(
            "in segments, {:.0} % of the raw bytes",
            100.0 * contents.ratio()
        ),
    ));
    out
}

fn list(trace: &Trace, contents: &Contents) -> Vec<(String, String)> {
    let (info, layout, span) = (trace.info(), trace.layout(), trace.span());
    let holds = match contents.gaps {
        0 => format!("steps {} to {}", span.start, span.end),
        n => format!(
            "{} of the steps {} to {}, {} more without their tensors",
            grouped(contents.steps),
            span.start,
            span.end,
            grouped(n)
        ),
    };
    let tensors = format!(
        "{} of parameters, {} of buffers, {} of optimizer state",
        layout.parameters().len(),
        layout.buffers().len(),
        layout.optimizer_state().len()
    );
    let rule = info
        .rule
        .as_deref()
        .map_or("not recorded".to_owned(), in_a_line);
    let mut out: Vec<(String, String)> = [
        ("Recorded", format!("{} by {}", info.created, info.writer)),
        ("Status", status(trace.status()).to_owned()),
        ("Holds", holds),
        ("Kept", info.keep.clone()),
        ("Tensors", tensors),
        ("Update rule", rule),
        ("Seed", info.seed.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let untrained = about_never_trained(&never_trained(trace), layout.parameters().len());
    out.extend(untrained.map(|text| ("Never trained".to_owned(), text)));
    match &info.data {
        DataIdentity::None => {
            out.push(("Data".to_owned(), "no fingerprint was recorded".to_owned()));
        }
        DataIdentity::Fingerprint { splits } => {
            out.extend(splits.iter().filter(|s| s.examples > 0).map(|split| {
                let examples = grouped(split.examples);
                (
                    format!("Data, {}", split.name),
                    format!("{examples} examples, fingerprint {}", hex(&split.root)),
                )
            }));
        }
    }
    out.extend(notes(info).map(|(key, text)| (format!("Note, {key}"), text.clone())));
    let head = contents.head.as_deref().unwrap_or(NO_HEAD);
    out.push(("Head digest".to_owned(), head.to_owned()));
    out
}

/// The recorded losses, averaged over stretches of steps.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Curve {
    /// Oldest first.
    pub stretches: Vec<Stretch>,
    /// Epoch, its last recorded step, mean loss over its recorded steps.
    pub epochs: Vec<(u64, u64, f64)>,
    /// Number of steps whose loss is known, and of those whose loss isn't finite.
    pub known: usize,
    pub not_finite: usize,
}

/// Consecutive steps, averaged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    pub step: f64,
    pub mean: f64,
    pub least: f64,
    pub largest: f64,
}

impl Curve {
    /// Reads the losses of all recorded steps. Also returns descriptions of what can't be read, which is left out.
    pub fn of(trace: &Trace) -> (Curve, Vec<String>) {
        let mut problems = Vec::new();
        let mut losses = Vec::new();
        let ranges = match trace.ranges() {
            Ok(ranges) => ranges,
            Err(e) => {
                problems.push(e.to_string());
                Vec::new()
            }
        };
        for range in ranges {
            for meta in trace.metas(range) {
                match meta {
                    Ok(meta) => {
                        if let Some(loss) = meta.loss {
                            losses.push((meta.step, meta.epoch, loss));
                        }
                    }
                    Err(e) => problems.push(e.to_string()),
                }
            }
        }
        (Curve::from_losses(&losses), problems)
    }

    /// Averages losses, which are given as (step, epoch, loss) in the order of the steps.
    fn from_losses(losses: &[(u64, u64, f64)]) -> Curve {
        let finite: Vec<_> = losses.iter().copied().filter(|l| l.2.is_finite()).collect();
        let length = finite.len().div_ceil(STRETCHES).max(1);
        let stretches = finite
            .chunks(length)
            .map(|chunk| {
                let n = chunk.len() as f64;
                let of = || chunk.iter().map(|l| l.2);
                Stretch {
                    step: chunk.iter().map(|l| l.0 as f64).sum::<f64>() / n,
                    mean: of().sum::<f64>() / n,
                    least: of().fold(f64::INFINITY, f64::min),
                    largest: of().fold(f64::NEG_INFINITY, f64::max),
                }
            })
            .collect();
        let epochs = finite
            .chunk_by(|a, b| a.1 == b.1)
            .map(|chunk| {
                let sum: f64 = chunk.iter().map(|l| l.2).sum();
                let (step, epoch, _) = chunk[chunk.len() - 1];
                (epoch, step, sum / chunk.len() as f64)
            })
            .collect();
        Curve {
            stretches,
            epochs,
            known: losses.len(),
            not_finite: losses.len() - finite.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_averaged_over_stretches_and_by_epoch() {
        let losses: Vec<_> = (0..1000)
            .map(|t| (t, t / 500, if t < 500 { 2.0 } else { 1.0 }))
            .collect();
        let curve = Curve::from_losses(&losses);
        assert_eq!(curve.stretches.len(), 200);
        assert_eq!(curve.epochs, [(0, 499, 2.0), (1, 999, 1.0)]);
        let first = curve.stretches[0];
        assert_eq!(
            (first.step, first.mean, first.least, first.largest),
            (2.0, 2.0, 2.0, 2.0)
        );
    }

    #[test]
    fn losses_that_are_not_finite_are_counted_and_not_drawn() {
        let curve = Curve::from_losses(&[(0, 0, 1.0), (1, 0, f64::NAN), (2, 0, 3.0)]);
        assert_eq!((curve.known, curve.not_finite), (3, 1));
        assert_eq!(curve.epochs, [(0, 2, 2.0)]);
        assert_eq!(Curve::from_losses(&[]), Curve::default());
    }
}
