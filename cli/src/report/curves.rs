//! Plots of losses by step.

use super::plot::{Axis, Ink, Key, Mark, Plot};
use crate::words::counted;
use hindcast_analyzer::curves::LossCurve;

/// An axis for these losses. Losses over several decades are only readable on a logarithmic axis.
fn loss_axis(losses: &[f64]) -> Axis {
    let ends = losses
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |m, &l| (m.0.min(l), m.1.max(l)));
    let (least, largest) = ends;
    if least > 0.0 && largest > 50.0 * least {
        return Axis::decades("loss", losses.iter().copied());
    }
    let axis = Axis::around("loss", losses.iter().copied().chain([0.0]));
    let low = if least >= 0.0 { 0.0 } else { axis.range.0 };
    let high = axis.range.1;
    axis.ends(low, high)
}

/// The recorded losses by step and by epoch, and the held-out losses of the split with this name.
pub(crate) fn loss_plot(curve: &LossCurve, split: Option<&str>) -> Plot {
    let stretches = &curve.stretches;
    let held_out: Vec<(f64, f64)> = curve
        .held_out
        .iter()
        .map(|point| (point.step as f64, point.loss))
        .collect();
    let steps = stretches.iter().map(|s| s.step);
    let x = Axis::around("step", steps.chain(held_out.iter().map(|p| p.0)));
    let losses = stretches.iter().flat_map(|s| [s.least, s.largest]);
    let losses: Vec<f64> = losses.chain(held_out.iter().map(|p| p.1)).collect();
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    if !stretches.is_empty() {
        let finite = curve.known.saturating_sub(curve.not_finite);
        legend = if finite > stretches.len() {
            let least = finite / stretches.len();
            let each = if finite.is_multiple_of(stretches.len()) {
                least.to_string()
            } else {
                format!("{least} or {}", least + 1)
            };
            vec![
                (
                    Ink::Help,
                    Key::Line,
                    format!("training loss, mean of {each} steps"),
                ),
                (Ink::Quiet, Key::Band, "smallest to largest".to_owned()),
            ]
        } else {
            vec![(
                Ink::Help,
                Key::Line,
                "training loss of each step".to_owned(),
            )]
        };
        legend.push((
            Ink::Plain,
            Key::Line,
            "training, mean of an epoch".to_owned(),
        ));
        let band = stretches.iter().map(|s| (s.step, s.least, s.largest));
        marks.push(Mark::Band {
            points: band.collect(),
            ink: Ink::Quiet,
        });
        marks.push(Mark::Line {
            points: stretches.iter().map(|s| (s.step, s.mean)).collect(),
            ink: Ink::Help,
        });
    }
    // A level line over the steps of each epoch.
    let first_step = stretches.first().map_or(0.0, |s| s.step);
    let starts = std::iter::once(first_step).chain(curve.epochs.iter().map(|e| e.1 as f64));
    let levels = starts
        .zip(&curve.epochs)
        .map(|(from, &(_, step, mean))| Mark::Line {
            points: vec![(from, mean), (step as f64, mean)],
            ink: Ink::Plain,
        });
    marks.extend(levels);
    if let (Some(split), false) = (split, held_out.is_empty()) {
        legend.push((Ink::Harm, Key::Dot(3), format!("{split} loss")));
        marks.push(Mark::Line {
            points: held_out.clone(),
            ink: Ink::Harm,
        });
        marks.push(Mark::Dots {
            points: held_out,
            ink: Ink::Harm,
            shape: 3,
            size: 3,
        });
    }
    let mut plot = Plot::new(x, loss_axis(&losses), marks);
    plot.legend = legend;
    plot
}

/// A title that says how many losses aren't drawn, because they aren't finite.
pub(crate) fn titled(title: String, missing: usize) -> String {
    match missing as u64 {
        0 => title,
        n => format!(
            "{title} ({} not finite, not drawn)",
            counted(n, "loss is", "losses are")
        ),
    }
}

/// The losses of one of several runs.
pub(crate) struct ComparedCurve<'a> {
    pub run: &'a str,
    pub curve: &'a LossCurve,
    /// The split of the run's held-out losses, which may be another one than that of the other runs.
    pub split: Option<&'a str>,
}

/// The recorded losses of several runs by step, and their held-out losses.
pub(crate) fn compared_plot(runs: &[ComparedCurve<'_>]) -> Plot {
    let (mut marks, mut legend) = (Vec::new(), Vec::new());
    let (mut steps, mut losses) = (Vec::new(), Vec::new());
    for (at, ComparedCurve { run, curve, split }) in runs.iter().enumerate() {
        let mean: Vec<(f64, f64)> = curve.stretches.iter().map(|s| (s.step, s.mean)).collect();
        let held_out = curve.held_out.iter();
        let held_out: Vec<(f64, f64)> = held_out.map(|p| (p.step as f64, p.loss)).collect();
        for (step, loss) in mean.iter().chain(&held_out) {
            steps.push(*step);
            losses.push(*loss);
        }
        let of_split = format!("{} loss", split.unwrap_or("held-out"));
        let ink = Ink::Series(at);
        match (mean.is_empty(), held_out.is_empty()) {
            (true, true) => {}
            (true, false) => legend.push((ink, Key::Dot(3), format!("{run}, {of_split}"))),
            (false, true) => legend.push((ink, Key::Line, (*run).to_owned())),
            (false, false) => {
                legend.push((ink, Key::Line, (*run).to_owned()));
                legend.push((ink, Key::Dot(3), format!("its {of_split}")));
            }
        }
        marks.push(Mark::Line {
            points: mean,
            ink: Ink::Series(at),
        });
        marks.push(Mark::Dots {
            points: held_out,
            ink: Ink::Series(at),
            shape: 3,
            size: 4,
        });
    }
    let names: Vec<&str> = runs.iter().map(|run| run.run).collect();
    let missing: usize = runs.iter().map(|run| run.curve.not_finite).sum();
    let mut plot = Plot::new(Axis::around("step", steps), loss_axis(&losses), marks);
    plot.title = titled(format!("Losses of {}", names.join(" and ")), missing);
    plot.legend = legend;
    plot
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_analyzer::curves::{Point, Stretch};

    /// A curve with recorded losses, with held-out losses, or with both.
    fn curve(recorded: bool, held_out: bool) -> LossCurve {
        let stretch = |step: u64| Stretch {
            step: step as f64,
            mean: 1.0,
            least: 0.5,
            largest: 2.0,
        };
        let point = |step: u64| Point { step, loss: 0.75 };
        LossCurve {
            stretches: (0..3)
                .map(stretch)
                .take(3 * usize::from(recorded))
                .collect(),
            epochs: (0..1)
                .map(|epoch| (epoch, 2, 1.0))
                .take(usize::from(recorded))
                .collect(),
            held_out: (0..3).map(point).take(3 * usize::from(held_out)).collect(),
            ..LossCurve::default()
        }
    }

    fn names(plot: &Plot) -> Vec<&str> {
        plot.legend
            .iter()
            .map(|(_, _, name)| name.as_str())
            .collect()
    }

    #[test]
    fn a_legend_names_what_is_drawn() {
        let plot = loss_plot(&curve(false, true), Some("test"));
        assert_eq!(names(&plot), ["test loss"]);
        let mut one = curve(true, false);
        one.known = 3;
        assert_eq!(
            names(&loss_plot(&one, None)),
            ["training loss of each step", "training, mean of an epoch"]
        );
        one.known = 20;
        assert_eq!(
            names(&loss_plot(&one, None))[0],
            "training loss, mean of 6 or 7 steps"
        );
        (one.known, one.not_finite) = (31, 1);
        assert_eq!(
            names(&loss_plot(&one, None)),
            [
                "training loss, mean of 10 steps",
                "smallest to largest",
                "training, mean of an epoch"
            ]
        );
        let compared = [
            ("a", true, true, "test"),
            ("b", false, true, "validation"),
            ("c", true, false, "test"),
            ("d", false, false, "test"),
        ];
        let curves = compared.map(|(_, recorded, held_out, _)| curve(recorded, held_out));
        let runs: Vec<ComparedCurve<'_>> = compared
            .iter()
            .zip(&curves)
            .map(|((run, _, _, split), curve)| ComparedCurve {
                run,
                curve,
                split: Some(split),
            })
            .collect();
        let plot = compared_plot(&runs);
        assert_eq!(
            names(&plot),
            ["a", "its test loss", "b, validation loss", "c"]
        );
        assert_eq!(plot.title, "Losses of a and b and c and d");
        assert_eq!(
            titled("Losses of a".to_owned(), 1),
            "Losses of a (1 loss is not finite, not drawn)"
        );
        for plot in [plot, loss_plot(&curve(false, true), Some("test"))] {
            let svg = plot.svg(crate::report::plot::FIGURE_SIZE).unwrap();
            assert!(!svg.contains("NaN"), "{svg}");
        }
    }
}
