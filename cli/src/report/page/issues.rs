//! Label issues: the most suspicious labels, with what the training suggests in their place.

use maud::{Markup, html};

use super::super::issues::{Issue, LabelIssues};
use super::ends::{ValueColumns, one_file, rows_of};
use super::pieces::{percent, place, scrolling, short};
use super::sections::section;
use crate::words::grouped;

/// The section.
pub(super) fn issues(found: &LabelIssues) -> Markup {
    let share = found.issues as f64 / found.judged.max(1) as f64;
    let shown = found.most.len();
    section(
        "issues",
        html! {
            p {
                "Of " (grouped(found.judged as u64)) " labels, " b { (grouped(found.issues as u64)) } " are probably wrong (" (percent(share, 1))
                "), by the training's own predictions. The number is an estimate, and right labels may be among them: look at the examples before labels are changed. From "
                code { (found.file) } "."
            }
            @if let Some(made) = &found.made {
                p.quiet { "Ranked by " code { (made.ranked_by) } ". " (capital(&made.evidence)) "." }
            }
            @if shown == 0 {
                p.quiet { "There is nothing to show." }
            } @else {
                h3 { "The " (grouped(shown as u64)) " most suspicious" }
                @if found.most.iter().any(|issue| issue.content.picture.is_some()) {
                    p.quiet {
                        "Below a picture stand its label and the suggested one, their probabilities"
                        @if found.made.is_some() { " (means over the steps that " code { "clean" } " looked at)" }
                        ", and its place: # is the position among the training examples, from 0."
                    }
                    ul.grid { @for issue in &found.most { (tile(issue)) } }
                } @else {
                    (rows(&found.most, found.made.is_some()))
                }
            }
        },
    )
}

fn tile(issue: &Issue) -> Markup {
    let row = &issue.row;
    let alt = format!(
        "Training example {}, label {}, suggested {} with probability {:.3}",
        row.index, row.given_label, row.predicted_label, row.predicted_probability
    );
    html! {
        li { figure {
            @if let Some((address, width, height)) = &issue.content.picture {
                img src=(address) width=(width) height=(height) alt=(alt);
            }
            figcaption {
                b { bdi { (short(&row.given_label)) } } span.mark { " → " bdi { (short(&row.predicted_label)) } "?" }
                @if let Some(really) = &issue.really { br; span.quiet { "really " bdi { (short(really)) } } }
                br;
                span.quiet { "probability " (format!("{:.3}", row.given_probability)) " → " (format!("{:.3}", row.predicted_probability)) }
                br;
                span.quiet { "#" (row.index) }
                br;
                span.quiet { (place(row.row, &row.file)) }
            }
        } }
    }
}

/// A sentence without its end, with a capital.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}

fn rows(issues: &[Issue], told: bool) -> Markup {
    let from = one_file(issues.iter().map(|issue| issue.row.file.as_str()));
    let filed = from.is_none() && issues.iter().any(|issue| !issue.row.file.is_empty());
    let known = issues.iter().any(|issue| issue.really.is_some());
    let columns = ValueColumns::of(issues.iter().map(|issue| &issue.content.values));
    let texts = issues.iter().any(|issue| issue.content.text.is_some());
    scrolling(
        "The most suspicious labels",
        html! {
            table.sortable {
                caption { @if let Some(file) = from { (rows_of(file)) } "Probabilities are means over the steps that " code { "clean" } " looked at" @if told { "." } @else { ". It prints which epochs these are; by default those in which the model has learned and hasn't memorised wrong labels yet." } }
                thead { tr {
                    th.n scope="col" { "Index" } th.n scope="col" { "Row" }
                    @if filed { th scope="col" { "File" } }
                    th scope="col" { "Label" } th scope="col" { "Suggested" }
                    @if known { th scope="col" { "Really" } }
                    th.n.wrap scope="col" { "Probability of the label" } th.n.wrap scope="col" { "Probability of the suggested" }
                    (columns.heads())
                    @if texts { th scope="col" { "Text" } }
                } }
                tbody { @for issue in issues { tr {
                    @let row = &issue.row;
                    th.n scope="row" { (row.index) } td.n { (row.row) }
                    @if filed { td { bdi { (short(&row.file)) } } }
                    td { bdi { (short(&row.given_label)) } } td { b { bdi { (short(&row.predicted_label)) } } }
                    @if known { td { bdi { (issue.really.as_deref().unwrap_or_default()) } } }
                    td.n { (format!("{:.3}", row.given_probability)) } td.n { (format!("{:.3}", row.predicted_probability)) }
                    (columns.cells(&issue.content.values))
                    @if texts { td.values { bdi { (short(issue.content.text.as_deref().unwrap_or_default())) } } }
                } } }
            }
        },
    )
}
