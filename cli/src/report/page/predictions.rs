//! Predictions for a held-out split: the confusion matrix, and the most confident mistakes.

use maud::{Markup, html};

use super::super::predicted::{Predicted, Wrong};
use super::ends::{ValueColumns, one_file, rows_of};
use super::pieces::{percent, place, scrolling, short};
use super::sections::section;
use crate::words::{at_model_in_words, decimal, grouped, minus};
use hindcast_analyzer::predictions::Confusion;

/// With more classes, the most frequent mistakes are listed instead of all pairs.
const MOST_CLASSES: usize = 20;
/// How many kinds of mistakes are listed.
const MISTAKES: usize = 20;

/// The section.
pub(super) fn predictions(predicted: &Predicted) -> Markup {
    section(
        "predictions",
        html! {
            (in_words(predicted))
            @if let Some(confusion) = &predicted.confusion {
                @if confusion.classes.len() <= MOST_CLASSES { (matrix(confusion)) } @else { (mistakes(confusion)) }
            }
            @if !predicted.surest.is_empty() {
                h3 { "The most confident mistakes" }
                (surest(predicted))
            }
        },
    )
}

fn in_words(predicted: &Predicted) -> Markup {
    let (n, split) = (predicted.examples as u64, predicted.split.name());
    html! {
        p {
            "Of " (grouped(n)) " " (split) " examples, "
            @if let Some(wrong) = predicted.errors {
                @let right = predicted.examples - wrong;
                (grouped(right as u64)) " are predicted right (" (percent(right as f64 / predicted.examples as f64, 2)) ") and " (grouped(wrong as u64)) " wrong, "
            }
            (at_model_in_words(&predicted.at)) ". Their mean loss is " (minus(&decimal(predicted.mean_loss, 6))) "."
            @if let Some(far) = predicted.root_mean_square { " The root of the mean squared difference between predictions and labels is " (decimal(far, 6)) "." }
        }
        @if let Some(why) = &predicted.untold { p.note { "No predictions: " (why) "." } }
    }
}

/// A table with a row per label and a column per predicted class.
fn matrix(confusion: &Confusion) -> Markup {
    let most = confusion
        .mistakes()
        .first()
        .map_or(1, |(_, _, count)| *count);
    // A mistake at least half as frequent as the most frequent one is marked twice, from a quarter once.
    let mark = |label: usize, predicted: usize, count: u64| match count {
        _ if label == predicted => "hit",
        0 => "quiet",
        n if 2 * n >= most => "often most",
        n if 4 * n >= most => "often",
        _ => "rare",
    };
    let right = |label: usize, row: &[u64]| {
        let all: u64 = row.iter().sum();
        match all {
            0 => String::new(),
            all => percent(row[label] as f64 / all as f64, 1),
        }
    };
    scrolling(
        "Confusion matrix",
        html! {
            table.confusion {
                caption { "How often the examples of each label (rows) were predicted as each class (columns). Numbers off the diagonal are mistakes, which are shaded; the most frequent ones are bold and underlined." }
                thead {
                    tr { th scope="col" { "Label" } @for class in &confusion.classes { th.n scope="col" { bdi { (short(class)) } } } th.n scope="col" { "Right" } }
                }
                tbody { @for (label, row) in confusion.counts.iter().enumerate() { tr {
                    th scope="row" { bdi { (short(&confusion.classes[label])) } }
                    @for (predicted, &count) in row.iter().enumerate() {
                        td class={ "n " (mark(label, predicted, count)) } { (count) }
                    }
                    td.n { (right(label, row)) }
                } } }
            }
        },
    )
}

/// The most frequent mistakes.
fn mistakes(confusion: &Confusion) -> Markup {
    let all = confusion.mistakes();
    scrolling(
        "The most frequent mistakes",
        html! {
            table {
                caption { "The most frequent of " (grouped(all.len() as u64)) " kinds of mistakes among " (confusion.classes.len()) " classes." }
                thead { tr { th scope="col" { "Label" } th scope="col" { "Predicted" } th.n scope="col" { "Examples" } } }
                tbody { @for (label, predicted, count) in all.iter().take(MISTAKES) { tr {
                    th scope="row" { bdi { (short(label)) } } td { bdi { (short(predicted)) } } td.n { (grouped(*count)) }
                } } }
            }
        },
    )
}

fn surest(predicted: &Predicted) -> Markup {
    let wrong = &predicted.surest;
    if wrong.iter().any(|w| w.content.picture.is_some()) {
        return html! {
            p.quiet { "Below a picture stand its label, the class that it is predicted as, the probability of that class, and its place: # is the position among the " (predicted.split.name()) " examples, from 0." }
            ul.grid { @for one in wrong { (tile(predicted, one)) } }
        };
    }
    let columns = ValueColumns::of(wrong.iter().map(|w| &w.content.values));
    let texts = wrong.iter().any(|w| w.content.text.is_some());
    let from = one_file(wrong.iter().map(|w| w.row.file.as_str()));
    let number = |x: Option<f64>| x.map_or_else(String::new, |x| format!("{x:.3}"));
    scrolling(
        "The most confident mistakes",
        html! {
            table {
                @if let Some(file) = from { caption { (rows_of(file)) } }
                thead { tr {
                    th.n scope="col" { "Index" } th.n scope="col" { "Row" } @if from.is_none() { th scope="col" { "File" } } th scope="col" { "Label" } th scope="col" { "Predicted" }
                    th.n scope="col" { "Probability" } th.n.wrap scope="col" { "Probability of the label" } th.n scope="col" { "Loss" }
                    (columns.heads())
                    @if texts { th scope="col" { "Text" } }
                } }
                tbody { @for Wrong { row, content } in wrong { tr {
                    th.n scope="row" { (row.index) } td.n { (row.row) } @if from.is_none() { td { bdi { (short(&row.file)) } } } td { bdi { (short(&row.label)) } } td { bdi { (short(&row.predicted)) } }
                    td.n { (number(row.probability)) } td.n { (number(row.label_probability)) } td.n { (minus(&decimal(row.loss.unwrap_or(f64::NAN), 4))) }
                    (columns.cells(&content.values))
                    @if texts { td.values { bdi { (short(content.text.as_deref().unwrap_or_default())) } } }
                } } }
            }
        },
    )
}

fn tile(predicted: &Predicted, one: &Wrong) -> Markup {
    let row = &one.row;
    let sure = row
        .probability
        .map_or_else(String::new, |p| format!("{p:.3}"));
    let alt = format!(
        "{} example {}, label {}, predicted {} with probability {sure}",
        predicted.split.name(),
        row.index,
        row.label,
        row.predicted
    );
    html! {
        li { figure {
            @if let Some((address, width, height)) = &one.content.picture {
                img src=(address) width=(width) height=(height) alt=(alt);
            }
            figcaption {
                b { bdi { (short(&row.label)) } } span.mark { " as " bdi { (short(&row.predicted)) } }
                br;
                span.quiet { (sure) }
                br;
                span.quiet { "#" (row.index) }
                br;
                span.quiet { (place(row.row, &row.file)) }
            }
        } }
    }
}
