//! Explained predictions: an example, its prediction, and the training examples behind it.

use maud::{Markup, html};

use super::super::examples::Content;
use super::super::predicted::{Explained, Pushed};
use super::content::Page;
use super::ends::{legend, named_values, rows, tile};
use super::pieces::{method_name, percent, place, short, signed};
use super::sections::section;
use crate::words::{at_model_in_words, decimal, grouped, minus};

/// The section.
pub(super) fn explained(page: &Page) -> Markup {
    let mut methods = page.explained.iter().map(|e| &e.method);
    let first = methods.next();
    let several = methods.any(|method| Some(method) != first);
    section(
        "explained",
        html! {
            (legend(page.explained.iter().flat_map(|one| one.away.heaviest.iter().chain(&one.towards.heaviest))))
            @for one in &page.explained {
                h3 { (one.query) @if several { ", " (method_name(&one.method)) } }
                (example(one))
                @let (first, second) = sides(one);
                (first) (second)
            }
        },
    )
}

/// The explained example with its label and prediction.
fn example(one: &Explained) -> Markup {
    html! {
        div.explained {
            @if let Some(Content { picture: Some((address, width, height)), .. }) = &one.content {
                img src=(address) width=(width) height=(height) alt={ "The example " (one.query) };
            }
            div {
                @match &one.row {
                    Some(row) => p {
                        "Its label is " b { bdi { (short(&row.label)) } }
                        @if !row.predicted.is_empty() {
                            ", and the model predicts " b { bdi { (row.predicted) } }
                            @if let Some(p) = row.probability { " with probability " (format!("{p:.3}")) }
                            @if one.wrong == Some(true) { span.mark { " ✗ wrong" } @if let Some(p) = row.label_probability { " (probability of the label " (format!("{p:.3}")) ")" } }
                        }
                        ". Its loss is " (minus(&decimal(row.loss.unwrap_or(f64::NAN), 4))) " " (at_model_in_words(&one.at)) ". It is " (place(row.row, &row.file)) "."
                    },
                    None => p.quiet { "Its prediction isn't shown without the data." },
                }
                @if let Some(content) = &one.content { (words(content)) }
            }
        }
    }
}

/// The text or the values of an example.
pub(super) fn words(content: &Content) -> Markup {
    html! {
        @if let Some(text) = &content.text { p { bdi { (short(text)) } } }
        @if !content.values.is_empty() { p.values.quiet { (content.values.heading()) ": " (named_values(&content.values)) } }
    }
}

/// Both sides. What speaks for a wrong prediction comes first.
fn sides(one: &Explained) -> (Markup, Markup) {
    let away = side(one, &one.away, true);
    let towards = side(one, &one.towards, false);
    if one.wrong == Some(false) {
        (towards, away)
    } else {
        (away, towards)
    }
}

fn side(one: &Explained, pushed: &Pushed, away: bool) -> Markup {
    let (heading, then) = if away {
        ("Pushed away from the label", "falls")
    } else {
        ("Pushed towards the label", "rises")
    };
    let shown: f64 = pushed.heaviest.iter().filter_map(|e| e.share).sum();
    html! {
        h4 { span.dot.up[!away] aria-hidden="true" {} (heading) span.quiet { " – the loss of " (one.query) " " (then) " without them" } }
        @if pushed.heaviest.is_empty() {
            p.quiet { "None." }
        } @else {
            p { (grouped(pushed.examples as u64)) " training examples, together " (signed(pushed.total)) ". These " (pushed.heaviest.len()) " have " (percent(shown, 0)) " of it." }
            @if pushed.heaviest.iter().any(|e| e.picture.is_some()) {
                ul.grid { @for example in &pushed.heaviest { (tile(example)) } }
            } @else {
                (rows(&pushed.heaviest, &format!("{heading}, {}", one.query)))
            }
        }
    }
}
