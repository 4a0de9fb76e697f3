//! The sections of a page.

use maud::{Markup, html};

/// Anchor and title of every section, in order. The titles are the headings, and the words of the navigation.
pub(super) const SECTIONS: [(&str, &str); 13] = [
    ("answer", "The answer"),
    ("examples", "Examples"),
    ("issues", "Label issues"),
    ("predictions", "Predictions"),
    ("explained", "Explained"),
    ("influence", "Distribution"),
    ("trust", "Trust"),
    ("retraining", "Retraining"),
    ("training", "Training"),
    ("classes", "Classes"),
    ("epochs", "Epochs"),
    ("run", "The run"),
    ("reproduce", "Reproduce"),
];

/// A section with its heading.
pub(super) fn section(anchor: &str, content: Markup) -> Markup {
    let title = SECTIONS.iter().find(|(of, _)| *of == anchor);
    html! {
        section id=(anchor) aria-labelledby={ (anchor) "-heading" } {
            h2 id={ (anchor) "-heading" } { (title.map_or(anchor, |(_, title)| title)) }
            (content)
        }
    }
}

/// Results that belong to the views at these positions. If they belong to one, the page's choice of a query can hide them.
pub(super) fn of_views(views: &[usize], content: Markup) -> Markup {
    match views {
        [k] => of_view(*k, content),
        _ => content,
    }
}

/// The results of the view at position `k`, which the page's choice of a query can hide.
pub(super) fn of_view(k: usize, content: Markup) -> Markup {
    html! { div data-view=(k) { (content) } }
}
