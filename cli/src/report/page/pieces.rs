//! Parts that the sections of a page share: titles, numbers and scrolling tables.

use std::path::Path;

use maud::{Markup, html};

use super::super::view::View;
use super::content::Page;
use crate::words::minus;

/// A view's title, which differs from the titles of the page's other views.
pub(super) fn title(page: &Page, view: &View) -> String {
    let several = |of: fn(&View) -> &str| page.shown.iter().any(|s| of(&s.view) != of(view));
    let method = method_name(&view.method);
    let asks = view.ranks.is_none_or(|ranks| ranks.asks);
    let mut title = if asks && several(|v| &v.query) {
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

/// A share in per cent, with this number of decimals. No line breaks before the sign.
pub(super) fn percent(share: f64, decimals: usize) -> String {
    format!("{:.decimals$}\u{a0}%", 100.0 * share)
}

/// Where an example is in the original data: the row of a file. A picture in a file of its own has no row.
pub(super) fn place(row: u64, file: &str) -> Markup {
    let picture = Path::new(file).extension().is_some_and(|ending| {
        let pictures = ["png", "jpg", "jpeg"];
        pictures.iter().any(|of| ending.eq_ignore_ascii_case(of))
    });
    html! {
        @if !picture { "row " (row) }
        @if !picture && !file.is_empty() { " of " }
        @if !file.is_empty() { (path(file)) }
    }
}

/// A path, which may break after its separators.
pub(super) fn path(path: &str) -> Markup {
    html! { bdi {
        @for (at, part) in short(path).split('/').enumerate() {
            @if at > 0 { "/" wbr; }
            (part)
        }
    } }
}

/// Shortens a name, which may be a long text.
pub(super) fn short(name: &str) -> String {
    const LONGEST: usize = 160;
    shortened(name, LONGEST)
}

pub(super) fn shortened(text: &str, longest: usize) -> String {
    let mut out: String = text.chars().take(longest).collect();
    if text.chars().nth(longest).is_some() {
        out.push('…');
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_in_a_file_of_its_own_has_no_row() {
        let said = |file: &str| place(195, file).into_string();
        assert_eq!(said("a.csv"), "row 195 of <bdi>a.csv</bdi>");
        assert_eq!(said(""), "row 195");
        assert_eq!(said("a/b.PNG"), "<bdi>a/<wbr>b.PNG</bdi>");
    }

    #[test]
    fn a_share_has_no_place_to_break() {
        assert_eq!(percent(0.0625, 1), "6.2\u{a0}%");
        assert_eq!(percent(1.0, 0), "100\u{a0}%");
    }
}
