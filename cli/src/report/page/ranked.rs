//! The words about scores that only rank examples: they claim no change of a query.

use maud::{Markup, html};

use super::super::view::{Ranks, View};
use super::pieces::{method_name, scrolling, signed};
use crate::words::grouped;

/// A view's numbers in sentences.
pub(super) fn in_words(view: &View, ranks: Ranks) -> Markup {
    let scored = view.examples - view.never_seen;
    html! {
        p {
            code { (method_name(&view.method)) } " ranks " (grouped(scored as u64)) " training examples"
            @if ranks.asks { " for " em { (view.query) } }
            ": the lower the score, the more harmful or suspicious the example. "
            @if !ranks.asks { "The order is the same for every query. " }
            "A score is not a predicted change of a loss."
            @if view.runs > 0 { " Each score is the mean over " (view.runs) " runs with other initial weights and another order; ± is the standard deviation between them." }
            @if view.never_seen > 0 { " " (grouped(view.never_seen as u64)) " examples were in no batch of the window and have no score." }
        }
    }
}

/// The heading of the examples that are ranked first or last, and what it means.
pub(super) fn heading(first: bool) -> (&'static str, &'static str) {
    if first {
        (
            "Ranked first",
            "the lowest scores, the most harmful or suspicious examples",
        )
    } else {
        ("Ranked last", "the highest scores")
    }
}

/// The classes, with the mean score of each: sums of scores that don't add up would say nothing.
pub(super) fn classes(view: &View, label: &str) -> Markup {
    let hundredth = view.totals.hundredth;
    let mean = |harm: f64, help: f64, examples: usize| (harm + help) / examples as f64;
    html! {
        (scrolling(label, html! {
            table.sortable {
                caption { "The classes of the ranked examples. “Among the first”: how many of the first " (hundredth) " examples have this class." }
                thead { tr {
                    th scope="col" { "Class" } th.n scope="col" { "Examples" } th.n scope="col" { "Mean score" } th.n scope="col" { "Among the first" }
                } }
                tbody { @for class in &view.classes { tr {
                    th scope="row" { (class.label) }
                    td.n { (grouped(class.examples as u64)) }
                    td.n { (signed(mean(class.harm, class.help, class.examples))) }
                    td.n { (class.among_worst) }
                } } }
            }
        }))
    }
}
