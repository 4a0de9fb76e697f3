//! The page: one HTML file that needs nothing else.

mod charts;
mod ends;
mod parts;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::examples::Extremes;
use super::facts::{Curve, Facts};
use super::verdict::Verdict;
use super::view::View;
use hindcast_analyzer::RemovalResults;
use hindcast_analyzer::Result;

/// Everything that a page shows.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Page {
    pub facts: Facts,
    pub curve: Curve,
    pub shown: Vec<Shown>,
    /// Files of retrainings, with their names.
    pub removals: Vec<(String, RemovalResults)>,
    /// What of the trace is damaged, as far as it was read; the notes say it, too.
    pub damaged: Vec<String>,
    /// What the reader should know before all else.
    pub notes: Vec<String>,
    /// Steps to do it again: what for, and the command.
    pub commands: Vec<(String, String)>,
    /// Program and version that made the page.
    pub writer: String,
}

/// A query of a table, with what is drawn of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shown {
    pub view: View,
    pub extremes: Extremes,
    pub verdict: Verdict,
}

/// Anchor and title of every section, in order.
pub(crate) const SECTIONS: [(&str, &str); 9] = [
    ("summary", "Summary"),
    ("trust", "Trust"),
    ("training", "Training"),
    ("influence", "Influence"),
    ("examples", "Examples"),
    ("epochs", "Epochs"),
    ("classes", "Classes"),
    ("retraining", "Retraining"),
    ("reproduce", "Reproduce"),
];

/// Nothing is fetched: whatever tried to would fail, and say so in the browser's console.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// Where a plot can't be drawn.
    pub fn html(&self) -> Result<String> {
        let title = format!("{}: which examples made it what it is", self.facts.task);
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="generator" content=(self.writer);
                    title { (title) }
                    style { (PreEscaped(include_str!("style.css"))) }
                }
                body {
                    a.skip href="#summary" { "Skip to the report" }
                    (self.head())
                    nav aria-label="Sections" {
                        ul { @for (anchor, title) in SECTIONS { li { a href={ "#" (anchor) } { (title) } } } }
                    }
                    main {
                        (parts::summary(self))
                        (parts::trust(self)?)
                        (parts::training(self)?)
                        (parts::influence(self)?)
                        (ends::examples(self))
                        (parts::epochs(self)?)
                        (parts::classes(self))
                        (parts::retraining(self)?)
                        (parts::reproduce(self))
                    }
                    footer { p { "Made by " (self.writer) " from the recorded run alone. This file needs no network." } }
                    script { (PreEscaped(include_str!("script.js"))) }
                }
            }
        };
        Ok(page.into_string())
    }

    fn head(&self) -> Markup {
        html! {
            header.top { div {
                div {
                    p.eyebrow { "Hindcast report" }
                    h1 { (self.facts.task) }
                    p.lead { "Which training examples made this model what it is." }
                }
                button #theme type="button" hidden { "Colours" }
            } }
        }
    }
}

/// What a view is called, among the others of its page.
fn title(page: &Page, view: &View) -> String {
    let several = |of: fn(&View) -> &str| page.shown.iter().any(|s| of(&s.view) != of(view));
    let method = method_name(&view.method);
    let mut title = if several(|v| &v.query) {
        format!("{method}, {}", view.query)
    } else {
        method
    };
    // Two tables of one method and query are told apart by their files.
    let same = |v: &View| v.method == view.method && v.query == view.query;
    if page.shown.iter().filter(|s| same(&s.view)).count() > 1 {
        title += &format!(" ({})", view.table);
    }
    title
}

/// A method as a heading has it.
fn method_name(method: &str) -> String {
    match method {
        "sgd" | "reverse-sweep" => "SGD-influence".to_owned(),
        "" => "Scores of unknown origin".to_owned(),
        other => other.to_owned(),
    }
}

/// A number with its sign, in few digits.
fn signed(value: f64) -> String {
    super::plot::minus(&format!("{value:+.2e}"))
}

/// A section with its heading.
fn section(anchor: &str, heading: &str, content: Markup) -> Markup {
    html! {
        section id=(anchor) aria-labelledby={ (anchor) "-heading" } {
            h2 id={ (anchor) "-heading" } { (heading) }
            (content)
        }
    }
}

/// A table that a narrow screen scrolls, also by keyboard.
fn scrolling(label: &str, table: Markup) -> Markup {
    html! { div.scroll role="region" tabindex="0" aria-label=(label) { (table) } }
}
