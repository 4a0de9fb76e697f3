//! Label issues: the most suspicious labels, with what the training suggests in their place.

use maud::{Markup, html};

use super::super::issues::{Issue, LabelIssues};
use super::ends::{path, short};
use super::explained::words;
use super::pieces::scrolling;
use super::sections::section;
use crate::words::grouped;

/// The section.
pub(super) fn issues(found: &LabelIssues) -> Markup {
    let share = 100.0 * found.issues as f64 / found.judged.max(1) as f64;
    let shown = found.most.len();
    section(
        "issues",
        html! {
            p {
                "Of " (grouped(found.judged as u64)) " labels, " b { (grouped(found.issues as u64)) } " are probably wrong (" (format!("{share:.1} %"))
                "), by the training's own predictions. The number is an estimate, and right labels may be among them: look at the examples before labels are changed. From "
                code { (found.file) } "."
            }
            @if shown == 0 {
                p.quiet { "There is nothing to show." }
            } @else {
                h3 { "The " (grouped(shown as u64)) " most suspicious" }
                @if found.most.iter().any(|issue| issue.content.picture.is_some()) {
                    ul.grid { @for issue in &found.most { (tile(issue)) } }
                } @else {
                    (rows(&found.most))
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
                span.quiet { (format!("{:.3}", row.given_probability)) " → " (format!("{:.3}", row.predicted_probability)) }
                br;
                span.quiet { "#" (row.index) }
                br;
                span.quiet { "row " (row.row) @if !row.file.is_empty() { " of " (path(&row.file)) } }
            }
        } }
    }
}

fn rows(issues: &[Issue]) -> Markup {
    let filed = issues.iter().any(|issue| !issue.row.file.is_empty());
    let known = issues.iter().any(|issue| issue.really.is_some());
    let content = |issue: &Issue| {
        let content = &issue.content;
        content.text.is_some() || !content.values.is_empty()
    };
    let shown = issues.iter().any(content);
    scrolling(
        "The most suspicious labels",
        html! {
            table.sortable {
                caption { "Probabilities are means over the steps that say most about the labels." }
                thead { tr {
                    th.n scope="col" { "Index" } th.n scope="col" { "Row" }
                    @if filed { th scope="col" { "File" } }
                    th scope="col" { "Label" } th scope="col" { "Suggested" }
                    @if known { th scope="col" { "Really" } }
                    th.n scope="col" { "Of the label" } th.n scope="col" { "Of the suggested" }
                    @if shown { th scope="col" { "Example" } }
                } }
                tbody { @for issue in issues { tr {
                    @let row = &issue.row;
                    th.n scope="row" { (row.index) } td.n { (row.row) }
                    @if filed { td { bdi { (short(&row.file)) } } }
                    td { bdi { (short(&row.given_label)) } } td { b { bdi { (short(&row.predicted_label)) } } }
                    @if known { td { bdi { (issue.really.as_deref().unwrap_or_default()) } } }
                    td.n { (format!("{:.3}", row.given_probability)) } td.n { (format!("{:.3}", row.predicted_probability)) }
                    @if shown { td.values { (words(&issue.content)) } }
                } } }
            }
        },
    )
}
