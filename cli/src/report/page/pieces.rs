//! Parts that the sections of a page share: titles, numbers and scrolling tables.

use maud::{Markup, html};

use super::super::view::View;
use super::content::Page;
use crate::words::minus;

/// A view's title, which differs from the titles of the page's other views.
pub(super) fn title(page: &Page, view: &View) -> String {
    let several = |of: fn(&View) -> &str| page.shown.iter().any(|s| of(&s.view) != of(view));
    let method = method_name(&view.method);
    let mut title = if several(|v| &v.query) {
        format!("{method}, {}", view.query)
    } else {
        method
    };
    // Two tables of the same method and query are distinguished by their file names.
    let same = |v: &View| v.method == view.method && v.query == view.query;
    if page.shown.iter().filter(|s| same(&s.view)).count() > 1 {
        title += &format!(" ({})", view.table);
    }
    title
}

/// A method's name in headings.
pub(super) fn method_name(method: &str) -> String {
    match method {
        "sgd" | "reverse-sweep" => "SGD-influence".to_owned(),
        "" => "Scores of unknown origin".to_owned(),
        other => other.to_owned(),
    }
}

/// A number with its sign, in few digits.
pub(super) fn signed(value: f64) -> String {
    minus(&format!("{value:+.2e}"))
}

/// A table that scrolls on a narrow screen, also by keyboard.
pub(super) fn scrolling(label: &str, table: Markup) -> Markup {
    html! { div.scroll role="region" tabindex="0" aria-label=(label) { (table) } }
}

/// A sentence in which words between backticks are code.
pub(super) fn prose(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A command that can be copied.
pub(super) fn command(text: &str) -> Markup {
    html! { pre.command { (text) } }
}
