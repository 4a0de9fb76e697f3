//! The answer: how many examples harm, which are the worst, and how far to believe it.

use maud::{Markup, html};

use super::content::{Page, Shown};
use super::ends;
use super::parts::{in_words, level};
use super::pieces::{prose, title};
use super::sections::{of_view, section};
use crate::verdict;

/// Number of examples that the answer shows.
const WORST: usize = 10;

/// The top of the page.
pub(super) fn answer(page: &Page) -> Markup {
    section(
        "answer",
        html! {
            @for note in &page.notes { p.note { (prose(note)) } }
            @for (k, shown) in page.shown.iter().enumerate() { (of_view(k, one(page, shown))) }
        },
    )
}

fn one(page: &Page, shown: &Shown) -> Markup {
    let verdict = &shown.verdict;
    let worst = &shown.extremes.harmful[..shown.extremes.harmful.len().min(WORST)];
    html! {
        @if page.shown.len() > 1 { h3 { (title(page, &shown.view)) } }
        (in_words(&shown.view))
        @if worst.is_empty() {
            p.quiet { "No example that is shown harms." }
        } @else {
            (ends::gallery(worst, &format!("The most harmful examples, {}", title(page, &shown.view))))
            p.quiet { a href="#examples" { "More examples, and the most helpful ones" } }
        }
        div class={ "verdict " (verdict::key(verdict.worse())) } {
            (level("Removed one at a time", &verdict.one, false))
            (level("Removed together", &verdict.together, false))
            p.quiet { a href="#trust" { "What these verdicts rest on" } }
        }
    }
}
