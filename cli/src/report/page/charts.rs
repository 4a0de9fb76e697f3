//! A page's plots, each with a caption and a text for screen readers.

use maud::{Markup, PreEscaped, html};

use super::super::curves::loss_plot;
use super::super::plot::{Axis, Ink, Mark, Plot, Size};
use super::super::view::View;
use crate::words::grouped;
use hindcast_analyzer::Result;
use hindcast_analyzer::counterfactual::{RemovalResult, RemovalResults};
use hindcast_analyzer::curves::{LossCurve, Measured};
use hindcast_analyzer::scores::AdjointGrowth;

const WIDE: Size = Size {
    width: 720,
    height: 290,
    alone: false,
};
/// For phones: the plot is drawn again, because text must not shrink with it.
const NARROW: Size = Size {
    width: 330,
    height: 260,
    alone: false,
};

/// A plot in both widths.
fn figure(plot: &Plot, described: &str, caption: Markup) -> Result<Markup> {
    let (wide, narrow) = (inline(&plot.svg(WIDE)?), inline(&plot.svg(NARROW)?));
    Ok(html! {
        figure.plot {
            div.wide role="img" aria-label=(described) { (PreEscaped(wide)) }
            div.narrow role="img" aria-label=(described) { (PreEscaped(narrow)) }
            figcaption { (caption) }
        }
    })
}

/// Removes the namespace, which an SVG inside HTML doesn't need, so that the page contains no web address.
fn inline(svg: &str) -> String {
    svg.replacen(
        " xmlns=\"http://www.w3.org/2000/svg\"",
        " aria-hidden=\"true\"",
        1,
    )
}

/// Losses by step and by epoch, and the held-out losses of the `measured` examples.
pub(super) fn training(curve: &LossCurve, measured: Option<Measured>) -> Result<Markup> {
    let split = measured.map(|measured| measured.split.name());
    let mut described = Vec::new();
    let recorded = curve.stretches.first().zip(curve.stretches.last());
    if let Some((first, last)) = recorded {
        described.push(format!(
            "Training loss by step: from {:.4} to {:.4}",
            first.mean, last.mean
        ));
    }
    if let (Some(split), Some(last)) = (split, curve.held_out.last()) {
        described.push(format!("{split} loss at the end: {:.4}", last.loss));
    }
    figure(
        &loss_plot(curve, split),
        &described.join("; "),
        html! {
            @if recorded.is_some() {
                "Losses of the batches, as the training loop recorded them. A level line spans the steps of its epoch. "
            }
            @if let Some(measured) = measured {
                "Diamonds: the mean loss of "
                @if measured.examples < measured.of { (grouped(measured.examples as u64)) " of the " }
                (grouped(measured.of as u64)) " " (measured.split.name()) " examples after "
                @if curve.held_out.len() < curve.all_epochs { "some" } @else { "the" }
                " epochs, without dropout and augmentation."
            }
        },
    )
}

/// The distribution of the scores.
pub(super) fn distribution(view: &View) -> Result<Markup> {
    let bins = &view.distribution;
    let ends = bins.iter().flat_map(|b| [b.low, b.high]).chain([0.0]);
    let x = Axis::around(view.ranks.map_or("influence", |_| "score"), ends);
    let most = bins.iter().map(|b| b.count).max().unwrap_or(1) as f64;
    let y = Axis {
        log: true,
        ..Axis::around("examples", []).ends(0.7, 1.5 * most.max(4.0))
    };
    let bars = |harmful: bool| {
        bins.iter()
            .filter(|b| b.count > 0 && (b.low < 0.0) == harmful)
            .map(|b| {
                let gap = 0.08 * (b.high - b.low);
                [b.low + gap, b.high - gap, 0.7, b.count as f64]
            })
            .collect()
    };
    let (left, right) = match view.ranks {
        Some(_) => (Ink::Plain, Ink::Plain),
        None => (Ink::Harm, Ink::Help),
    };
    let marks = vec![
        Mark::Bars {
            bars: bars(true),
            ink: left,
        },
        Mark::Bars {
            bars: bars(false),
            ink: right,
        },
    ];
    let t = &view.totals;
    let (least, largest) = (t.least, t.largest);
    if view.ranks.is_some() {
        return figure(
            &Plot::new(x, y, marks),
            &format!("Distribution of the scores, from {least:.2e} to {largest:.2e}"),
            html! { "The examples on the left are ranked first. Counts have a logarithmic axis, so that single examples are visible." },
        );
    }
    let described = format!(
        "Distribution of influence: {} examples harm, {} help, scores from {least:.2e} to {largest:.2e}",
        t.harmful, t.helpful
    );
    figure(
        &Plot::new(x, y, marks),
        &described,
        html! { "Left of zero: examples without which " em { (view.query) } " would fall; if it is a loss, they are harmful. Right: examples without which it would rise. Counts have a logarithmic axis, so that single examples are visible." },
    )
}

/// The adjoint's norm by step. If the query is about an average of models that begins at `averaged_from`, the steps of the average
/// are left out: there, the sweep adds up the parts of the query's gradient, and the norm says nothing about growth.
pub(super) fn growth(growth: &AdjointGrowth, averaged_from: Option<u64>) -> Result<Option<Markup>> {
    let point = |&(step, norm): &(u64, Option<f64>)| Some((step, norm.filter(|n| *n > 0.0)?));
    let all: Vec<(u64, f64)> = growth.norms.iter().rev().filter_map(point).collect();
    let whole = |from: u64| -> Vec<(u64, f64)> {
        let before = all.iter().filter(|(step, _)| *step <= from);
        before.copied().collect()
    };
    let before = averaged_from.map(whole).filter(|points| points.len() > 2);
    let cut = before.is_some();
    let shown = before.unwrap_or_else(|| {
        let mut points = all.clone();
        if averaged_from.is_some() {
            // The gradient of the whole query, before its parts are added up.
            points.pop();
        }
        points
    });
    if shown.len() < 2 {
        return Ok(None);
    }
    let points: Vec<(f64, f64)> = shown
        .iter()
        .map(|(step, norm)| (*step as f64, *norm))
        .collect();
    let x = Axis::around(
        "step (the sweep runs from right to left)",
        points.iter().map(|p| p.0),
    );
    let y = Axis::decades("norm of the adjoint", points.iter().map(|p| p.1));
    let (first, last) = (points[0].1, points[points.len() - 1].1);
    let marks = vec![Mark::Line {
        points,
        ink: Ink::Plain,
    }];
    let end = if cut {
        "before the averaged steps"
    } else {
        "at the end of training"
    };
    let described = format!(
        "Norm of the adjoint: {last:.3e} {end}, {first:.3e} at the beginning of the window"
    );
    Ok(Some(figure(
        &Plot::new(x, y, marks),
        &described,
        html! {
            "How sensitive the query is to the parameters before each step. If this explodes towards the left, first-order estimates are wrong."
            @if let Some(from) = averaged_from { @if cut {
                " The steps from " (grouped(from)) " on are left out: the query is about the average of their models, and the sweep adds up one model's part at each of them."
            } @else {
                " The query is about an average of models, whose parts the sweep adds up on its way, so the norm also rises because of that."
            } }
        },
    )?))
}

/// Harm and help by epoch.
pub(super) fn epochs(view: &View) -> Result<Markup> {
    let epochs = &view.epochs;
    let places = epochs.iter().map(|e| e.epoch as f64);
    let first = places.clone().fold(f64::INFINITY, f64::min);
    let last = places.fold(f64::NEG_INFINITY, f64::max);
    let every = (epochs.len().div_ceil(12)).max(1);
    let x = Axis {
        words: epochs
            .iter()
            .step_by(every)
            .map(|e| (e.epoch as f64, e.epoch.to_string()))
            .collect(),
        ..Axis::around("epoch", []).ends(first - 0.6, last + 0.6)
    };
    let y = Axis::around(
        "sum of influence",
        epochs.iter().flat_map(|e| [e.harm, e.help, 0.0]),
    );
    let bars = |of: fn(&super::super::view::EpochProfile) -> [f64; 2]| {
        epochs
            .iter()
            .map(|e| {
                let [low, high] = of(e);
                [e.epoch as f64 - 0.36, e.epoch as f64 + 0.36, low, high]
            })
            .collect()
    };
    let marks = vec![
        Mark::Bars {
            bars: bars(|e| [e.harm, 0.0]),
            ink: Ink::Harm,
        },
        Mark::Bars {
            bars: bars(|e| [0.0, e.help]),
            ink: Ink::Help,
        },
    ];
    let described = format!("Harm and help of {} epochs", epochs.len());
    figure(
        &Plot::new(x, y, marks),
        &described,
        html! { "Sum over all examples of the influence of their use in each epoch: helpful influence above zero, harmful influence below." },
    )
}

/// Predicted and real changes: against the number of examples for a scan, else against each other.
pub(super) fn retrainings(results: &RemovalResults) -> Result<Markup> {
    if results.is_scan() {
        scan(&results.sets)
    } else {
        scatter(&results.sets)
    }
}

/// Predicted and real changes against the number of examples that were left out together.
fn scan(sets: &[RemovalResult]) -> Result<Markup> {
    let of = |change: fn(&RemovalResult) -> f64| -> Vec<(f64, f64)> {
        let points = sets
            .iter()
            .map(|set| (set.without.len() as f64, change(set)));
        points.filter(|(_, change)| change.is_finite()).collect()
    };
    let (predicted, real) = (
        of(|set| set.predicted_change.unwrap_or(f64::NAN)),
        of(|set| set.real_change),
    );
    let tried: Vec<usize> = sets.iter().map(|set| set.without.len()).collect();
    let x = Axis::at_sizes("examples left out together", &tried);
    let both = predicted.iter().chain(&real).map(|point| point.1);
    let y = Axis::around("change of the query", both.chain([0.0]));
    let ends = x.range;
    let dots = |points: &[(f64, f64)], ink, shape| Mark::Dots {
        points: points.to_vec(),
        ink,
        shape,
        size: 4,
    };
    let marks = vec![
        Mark::Line {
            points: vec![(ends.0, 0.0), (ends.1, 0.0)],
            ink: Ink::Plain,
        },
        Mark::Line {
            points: predicted.clone(),
            ink: Ink::Quiet,
        },
        Mark::Line {
            points: real.clone(),
            ink: Ink::Help,
        },
        dots(&predicted, Ink::Quiet, 3),
        dots(&real, Ink::Help, 0),
    ];
    let sizes: Vec<String> = sets.iter().map(|s| s.without.len().to_string()).collect();
    figure(
        &Plot::new(x, y, marks),
        &format!(
            "Predicted and real changes without {} examples",
            sizes.join(", ")
        ),
        html! { "Change of the query by the number of examples that were left out together. Grey diamonds: predicted; coloured dots: real. Where the two part, the prediction no longer holds." },
    )
}

/// Predicted and real changes.
fn scatter(sets: &[RemovalResult]) -> Result<Markup> {
    let points: Vec<(f64, f64)> = sets
        .iter()
        .map(|set| (set.predicted_change.unwrap_or(f64::NAN), set.real_change))
        .filter(|(p, r)| p.is_finite() && r.is_finite())
        .collect();
    let x = Axis::around("predicted change", points.iter().map(|p| p.0).chain([0.0]));
    let y = Axis::around("real change", points.iter().map(|p| p.1).chain([0.0]));
    let (low, high) = (x.range.0.max(y.range.0), x.range.1.min(y.range.1));
    let n = points.len();
    let marks = vec![
        Mark::Line {
            points: vec![(low, low), (high, high)],
            ink: Ink::Quiet,
        },
        Mark::Dots {
            points,
            ink: Ink::Help,
            shape: 0,
            size: 4,
        },
    ];
    figure(
        &Plot::new(x, y, marks),
        &format!("Predicted and real changes of {n} retrainings"),
        html! { "One dot per retraining. On the grey line, the real change equals the predicted one." },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_analyzer::curves::Point;
    use hindcast_model::objective::Split;

    #[test]
    fn a_run_without_recorded_losses_is_described_by_its_held_out_ones() {
        let measured = Measured {
            split: Split::Test,
            examples: 5,
            of: 5,
        };
        let said = |all_epochs: usize| {
            let curve = LossCurve {
                all_epochs,
                held_out: vec![
                    Point { step: 9, loss: 2.0 },
                    Point {
                        step: 19,
                        loss: 0.5,
                    },
                ],
                ..LossCurve::default()
            };
            training(&curve, Some(measured)).unwrap().into_string()
        };
        let page = said(2);
        assert!(!page.contains("NaN"), "{page}");
        assert!(page.contains("\"test loss at the end: 0.5000\""), "{page}");
        assert!(!page.contains("Losses of the batches"), "{page}");
        assert!(page.contains("after the epochs"), "{page}");
        assert!(said(40).contains("after some epochs"));
    }
}
