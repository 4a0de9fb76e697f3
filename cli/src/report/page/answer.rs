//! The answer: how many examples harm, which are the worst, and how far to believe it.

use maud::{Markup, html};

use super::super::issues::LabelIssues;
use super::content::{Page, Shown};
use super::ends;
use super::parts::{in_words, level};
use super::pieces::{prose, title};
use super::sections::{of_view, section};
use crate::verdict;
use crate::words::{grouped, plural};

/// Number of examples that the answer shows.
const WORST: usize = 10;

/// The top of the page.
pub(super) fn answer(page: &Page) -> Markup {
    section(
        "answer",
        html! {
            @for note in &page.notes { p.note { (prose(note)) } }
            @if let Some(found) = &page.issues { (label_issues(found)) }
            @for (k, shown) in page.shown.iter().enumerate() { (of_view(k, one(page, shown))) }
        },
    )
}

/// How many labels are probably wrong.
fn label_issues(found: &LabelIssues) -> Markup {
    let issues = found.issues as u64;
    html! {
        p {
            b { (grouped(issues)) " of " (grouped(found.judged as u64)) } " labels " (plural(issues, "is", "are")) " probably wrong, by the training's own predictions. "
            @if issues > 0 { a href="#issues" { "The most suspicious ones" } }
        }
    }
}

fn one(page: &Page, shown: &Shown) -> Markup {
    let verdict = &shown.verdict;
    let worst = &shown.extremes.harmful[..shown.extremes.harmful.len().min(WORST)];
    let (first, more) = match shown.view.ranks {
        Some(_) => (
            "The examples that are ranked first",
            "More examples, and those that are ranked last",
        ),
        None => (
            "The most harmful examples",
            "More examples, and the most helpful ones",
        ),
    };
    html! {
        @if page.shown.len() > 1 { h3 { (title(page, &shown.view)) } }
        (in_words(&shown.view))
        @if worst.is_empty() {
            p.quiet { @if shown.view.ranks.is_some() { "No example has a score." } @else { "No example that is shown harms." } }
        } @else {
            (ends::legend(worst.iter()))
            (ends::gallery(worst, &format!("{first}, {}", title(page, &shown.view))))
            p.quiet { a href="#examples" { (more) } }
        }
        div class={ "verdict " (verdict::key(verdict.worse())) } {
            (level("Removed one at a time", &verdict.one, false))
            (level("Removed together", &verdict.together, false))
            p.quiet { a href="#trust" { "What these verdicts rest on" } }
        }
    }
}
