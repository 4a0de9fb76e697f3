//! The page: one self-contained HTML file.

mod answer;
mod charts;
mod content;
mod ends;
mod explained;
mod issues;
mod parts;
mod pieces;
mod predictions;
mod ranked;
mod sections;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use hindcast_analyzer::Result;
use sections::SECTIONS;

pub(crate) use content::{Page, Shown};

/// Forbids all network requests. If the page made one, it would fail with a message in the browser's console.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    /// If a plot can't be drawn.
    pub fn html(&self) -> Result<String> {
        let (about, lead) = match (&self.issues, self.shown.is_empty()) {
            (_, true) => (
                "its label issues",
                "Which labels of the training examples are probably wrong.",
            ),
            (Some(_), false) => (
                "its training examples by influence",
                "Which training examples made this model what it is, and which of their labels are probably wrong.",
            ),
            (None, false) => (
                "its training examples by influence",
                "Which training examples made this model what it is.",
            ),
        };
        let title = format!("{}: {about}", self.facts.task);
        let scored = !self.shown.is_empty();
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
                    a.skip href="#report" { "Skip to the report" }
                    (self.head(lead))
                    nav aria-label="Sections" {
                        ul { @for (anchor, title) in SECTIONS.iter().filter(|(anchor, _)| self.has(anchor)) { li { a href={ "#" (anchor) } { (title) } } } }
                        (self.choice())
                    }
                    main #report {
                        @if self.has("answer") { (answer::answer(self)) }
                        @if self.has("examples") { (ends::examples(self)) }
                        @if let Some(found) = &self.issues { (issues::issues(found)) }
                        @if let Some(predicted) = &self.predicted { (predictions::predictions(predicted)) }
                        @if self.has("explained") { (explained::explained(self)) }
                        @if scored { (parts::influence(self)?) (parts::trust(self)?) }
                        @if self.has("retraining") { (parts::retraining(self)?) }
                        (parts::training(self)?)
                        @if self.has("classes") { (parts::classes(self)) }
                        @if self.has("epochs") { (parts::epochs(self)?) }
                        (parts::run(self))
                        (parts::reproduce(self))
                    }
                    footer { p { "Made by " (self.writer) " from the recorded run, its tables, and the results of retraining if there are any. This file needs no network." } }
                    script { (PreEscaped(include_str!("script.js"))) }
                }
            }
        };
        Ok(page.into_string())
    }

    /// Whether a section has something to show. The page and its navigation leave the others out.
    fn has(&self, anchor: &str) -> bool {
        match anchor {
            "answer" => !self.shown.is_empty() || self.issues.is_some() || !self.notes.is_empty(),
            "issues" => self.issues.is_some(),
            "examples" | "influence" | "trust" => !self.shown.is_empty(),
            "explained" => !self.explained.is_empty(),
            "predictions" => self.predicted.is_some(),
            "retraining" => !self.removals.is_empty(),
            "epochs" => self.shown.iter().any(|s| !s.view.epochs.is_empty()),
            "classes" => self.shown.iter().any(|s| !s.view.classes.is_empty()),
            _ => true,
        }
    }

    /// Chooses which query's results are visible, if there are several. Without scripts, all are.
    fn choice(&self) -> Markup {
        html! {
            @if self.shown.len() > 1 {
                div #choice hidden { label { "Show " select {
                    option value="all" { "all queries and tables" }
                    @for (k, shown) in self.shown.iter().enumerate() { option value=(k) { (pieces::title(self, &shown.view)) } }
                } } }
            }
        }
    }

    fn head(&self, lead: &str) -> Markup {
        html! {
            header.top { div {
                div {
                    p.eyebrow { "Hindcast report" }
                    h1 { (self.facts.task) }
                    p.lead { (lead) }
                }
                button #theme type="button" hidden { "Colours" }
            } }
        }
    }
}
