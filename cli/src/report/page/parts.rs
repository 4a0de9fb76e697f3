//! The page's sections, except that of the examples.

use maud::{Markup, html};

use super::super::view::{ClassProfile, Ranks, View};
use super::charts;
use super::content::{Page, Shown};
use super::pieces::{command, method_name, percent, prose, scrolling, signed, title};
use super::ranked;
use super::sections::{of_view, of_views, section};
use crate::verdict::{self, Told};
use crate::words::at_model_in_words;
use crate::words::{decimal, grouped, minus};
use hindcast_analyzer::Result;
use hindcast_analyzer::counterfactual::RemovalResult;
use hindcast_analyzer::measures::Level;

/// Largest number of retrainings that are listed one by one.
const MOST_SETS: usize = 50;

/// Smallest number of retrainings that are drawn.
const FEWEST_POINTS: usize = 3;

/// The run and its facts.
pub(super) fn run(page: &Page) -> Markup {
    section(
        "run",
        html! {
            ul.stats { @for (value, what) in &page.facts.headline { li { b { (value) } span { (what) } } } }
            table.facts {
                caption { "Facts stored in the recording" }
                tbody { @for (name, value) in &page.facts.list { tr { th scope="row" { (name) } td.long { (value) } } } }
            }
        },
    )
}

/// How far the scores can be trusted.
pub(super) fn trust(page: &Page) -> Result<Markup> {
    let mut plots = Vec::new();
    for shown in &page.shown {
        plots.push(match &shown.view.growth {
            Some(growth) => charts::growth(growth, shown.view.averaged_from)?,
            None => None,
        });
    }
    let content = html! {
        @if page.shown.iter().any(|shown| shown.view.ranks.is_none()) { p { "A score estimates by how much the query's value would change if the example were left out of training. For several examples, the scores are added. The verdicts below say how reliable each of these is." } }
        @for (k, (shown, plot)) in page.shown.iter().zip(&plots).enumerate() {
            (of_view(k, html! {
                (verdict_of(page, shown, plot.as_ref()))
                @for (_, why, line) in page.checks.iter().filter(|(of, ..)| *of == k) { p { (prose(why)) } (command(line)) }
            }))
        }
    };
    Ok(section("trust", content))
}

/// A view's verdict with its reasons, and the growth of its adjoint.
fn verdict_of(page: &Page, shown: &Shown, plot: Option<&Markup>) -> Markup {
    let v = &shown.verdict;
    html! {
        article class={ "verdict " (verdict::key(v.worse())) } {
            h3 { (title(page, &shown.view)) }
            (level("Removed one at a time", &v.one, true))
            (level("Removed together", &v.together, true))
            ul { @for reason in &v.common { li { (prose(reason)) } } }
        }
        @if let Some(factor) = shown.subject.growth.filter(|factor| factor.is_finite()) {
            p.quiet { (format!("The adjoint is the gradient of the query with respect to the parameters before a step: how much the query would change if training went on from slightly other parameters. Its norm changed by ×{factor:.2} over the sweep. Strong growth speaks against the scores; weak growth doesn't speak for them.")) }
        }
        @match plot {
            Some(plot) => (plot),
            None => p.quiet { "The growth of the adjoint is not known: the method is not a sweep, or the table has no metadata." },
        }
    }
}

/// The verdict about one kind of removal, and its reasons if asked.
pub(super) fn level(kind: &str, told: &Told, with_reasons: bool) -> Markup {
    html! {
        p.level.(verdict::key(told.level)) { (kind) ": " (sign(told.level)) " " (told.phrase()) }
        @if with_reasons { ul { @for reason in &told.reasons { li { (prose(reason)) } } } }
    }
}

/// A symbol for a verdict that can be recognised without colours.
fn sign(level: Level) -> &'static str {
    match level {
        Level::Confirmed => "✓",
        Level::Unchecked => "○",
        Level::Careful => "△",
        Level::Doubtful => "✗",
    }
}

/// The losses.
pub(super) fn training(page: &Page) -> Result<Markup> {
    let curve = &page.curve;
    let points = curve.stretches.len().max(curve.held_out.len());
    let content = html! {
        @if points > 1 { (charts::training(curve, page.held_out)?) }
        @if curve.known == 0 { p.quiet { "The training loop recorded no losses (" code { "run.loss" } ")." } }
        @if points < 2 { p.quiet { "There is no curve, which needs two finite losses." } }
        @if curve.not_finite > 0 { p.note { (curve.not_finite) " of " (curve.known) " losses are not finite." } }
        @if !curve.epochs.is_empty() {
            details {
                summary { "Mean loss of each epoch" }
                (scrolling("Mean loss of each epoch", html! {
                    table {
                        thead { tr { th.n scope="col" { "Epoch" } th.n scope="col" { "Last step" } th.n scope="col" { "Mean loss" } } }
                        tbody { @for (epoch, step, mean) in &curve.epochs { tr { th.n scope="row" { (epoch) } td.n { (step) } td.n { (minus(&decimal(*mean, 6))) } } } }
                    }
                }))
            }
        }
    };
    Ok(section("training", content))
}

/// The distribution of influence.
pub(super) fn influence(page: &Page) -> Result<Markup> {
    let mut plots = Vec::new();
    for shown in &page.shown {
        plots.push(if shown.view.distribution.is_empty() {
            None
        } else {
            Some(charts::distribution(&shown.view)?)
        });
    }
    let content = html! {
        @for (k, (shown, plot)) in page.shown.iter().zip(&plots).enumerate() {
            @let view = &shown.view;
            (of_view(k, html! {
                h3 { (title(page, view)) }
                (in_words(view))
                @match plot { Some(plot) => (plot), None => p.quiet { "No example has a score." } }
                (totals(view))
            }))
        }
    };
    Ok(section("influence", content))
}

/// A view's numbers in sentences.
pub(super) fn in_words(view: &View) -> Markup {
    if let Some(ranks) = view.ranks {
        return ranked::in_words(view, ranks);
    }
    let t = &view.totals;
    let scored = view.examples - view.never_seen;
    html! {
        p {
            @if view.value.is_finite() { (asked(&view.query)) " is " (minus(&decimal(view.value, 6))) " " (at_model_in_words(&view.at)) ". " }
            "Of " (grouped(scored as u64)) " scored examples, " span.harm { (grouped(t.harmful as u64)) " harm" } " (without one of them, it would fall) and "
            span.help { (grouped(t.helpful as u64)) " help" } ". "
            @if t.harm < 0.0 {
                "The most harmful " @if t.hundredth == 1 { "example causes " } @else { (grouped(t.hundredth as u64)) " examples cause " }
                (percent(t.hundredth_harm / t.harm, 0)) " of all harm."
            }
            @if view.runs > 0 {
                " Each score is the mean over " (view.runs) " runs with other initial weights and another order; ± is the standard deviation between them. Of the "
                (grouped(t.hundredth as u64)) " most harmful, " (grouped(view.clear as u64)) " are harmful by more than two standard errors."
            }
            @if view.never_seen > 0 { " " (grouped(view.never_seen as u64)) " examples were in no batch of the window and have no score." }
        }
    }
}

/// What the query asks about.
fn asked(query: &str) -> Markup {
    let (split, example) = query.split_once(':').unwrap_or((query, ""));
    let known = matches!(split, "train" | "validation" | "test");
    html! {
        @if known && example.is_empty() { "The mean loss of the " em { (query) } " split" }
        @else if known && example.bytes().all(|b| b.is_ascii_digit()) { "The loss of " em { (query) } }
        @else { em { (query) } }
    }
}

/// A view's numbers as a table.
fn totals(view: &View) -> Markup {
    let t = &view.totals;
    let settings: Vec<String> = view
        .settings
        .iter()
        .map(|(k, v)| format!("{k} = {v}"))
        .collect();
    // The scores of a ranking don't add up.
    let sum = |of: f64| view.ranks.map_or_else(|| signed(of), |_| String::new());
    let rows = [
        ("Table", view.table.clone()),
        ("Method", method_name(&view.method)),
        ("Options", settings.join(", ")),
        ("Remarks of the method", view.remarks.join("; ")),
        ("Engine", view.engine.clone()),
        (
            "Asked about",
            match view.ranks {
                Some(Ranks { asks: false }) => String::new(),
                _ => view.at.clone(),
            },
        ),
        (
            "Runs",
            match view.runs {
                0 => String::new(),
                n => n.to_string(),
            },
        ),
        (
            "Steps",
            match view.run_steps {
                0 => "not known".to_owned(),
                n => format!("{} to {} of {n}", view.window.start, view.window.end),
            },
        ),
        ("Smallest", signed(t.least)),
        ("Median", signed(t.median)),
        ("Largest", signed(t.largest)),
        ("Sum of harm", sum(t.harm)),
        ("Sum of help", sum(t.help)),
    ];
    html! {
        details {
            summary { "The numbers" }
            table.facts { tbody { @for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) { tr { th scope="row" { (name) } td.long { (value) } } } } }
        }
    }
}

/// Harmful and helpful influence by epoch.
pub(super) fn epochs(page: &Page) -> Result<Markup> {
    let mut parts = Vec::new();
    for (k, shown) in page.shown.iter().enumerate() {
        if !shown.view.epochs.is_empty() {
            parts.push((k, &shown.view, charts::epochs(&shown.view)?));
        }
    }
    let content = html! {
        @for (k, view, plot) in &parts {
            (of_view(*k, html! {
                h3 { (title(page, view)) }
                (plot)
                details {
                    summary { "The numbers" }
                    (scrolling("Harm and help of each epoch", html! {
                        table {
                            thead { tr { th.n scope="col" { "Epoch" } th.n scope="col" { "Harm" } th.n scope="col" { "Help" } } }
                            tbody { @for e in &view.epochs { tr { th.n scope="row" { (e.epoch) } td.n.harm { (signed(e.harm)) } td.n.help { (signed(e.help)) } } } }
                        }
                    }))
                }
            }))
        }
    };
    Ok(section("epochs", content))
}

/// Harmful and helpful influence by class.
pub(super) fn classes(page: &Page) -> Markup {
    let parts: Vec<(usize, &View)> = page
        .shown
        .iter()
        .map(|s| &s.view)
        .enumerate()
        .filter(|(_, v)| !v.classes.is_empty())
        .collect();
    section(
        "classes",
        html! {
            @for (k, view) in parts { (of_view(k, classes_of(page, view))) }
        },
    )
}

fn classes_of(page: &Page, view: &View) -> Markup {
    if view.ranks.is_some() {
        return html! {
            h3 { (title(page, view)) }
            (ranked::classes(view, &format!("Classes, {}", title(page, view))))
        };
    }
    html! {
        h3 { (title(page, view)) }
        (scrolling(&format!("Classes, {}", title(page, view)), html! {
            table.sortable {
                caption { "Sums of influence over the examples of each class, the most harmful class first. “Among the worst”: how many of the " (view.totals.hundredth) " most harmful examples have this class." }
                thead { tr {
                    th scope="col" { "Class" } th.n scope="col" { "Examples" } th.n scope="col" { "Harm" } th.pictured scope="col" { "Harm and help" } th.n scope="col" { "Help" } th.n scope="col" { "Among the worst" }
                } }
                tbody { @for class in &view.classes { tr {
                    th scope="row" { (class.label) }
                    td.n { (grouped(class.examples as u64)) }
                    td.n.harm { (signed(class.harm)) }
                    td.bar { (bar(class, &view.classes)) }
                    td.n.help { (signed(class.help)) }
                    td.n { (class.among_worst) }
                } } }
            }
        }))
    }
}

/// Two bars from the middle, scaled by the largest sum of the page.
fn bar(class: &ClassProfile, all: &[ClassProfile]) -> Markup {
    let largest = all
        .iter()
        .flat_map(|c| [c.harm.abs(), c.help.abs()])
        .fold(f64::MIN_POSITIVE, f64::max);
    let length = |x: f64| format!("{:.1}", 50.0 * x.abs() / largest);
    let left = format!("{:.1}", 50.0 - 50.0 * class.harm.abs() / largest);
    html! {
        svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
            rect x=(left) y="1" width=(length(class.harm)) height="8" fill="var(--harm)" {}
            rect x="50" y="1" width=(length(class.help)) height="8" fill="var(--help)" {}
            rect x="49.8" y="0" width="0.4" height="10" fill="var(--quiet)" {}
        }
    }
}

/// Results of retraining without examples.
pub(super) fn retraining(page: &Page) -> Result<Markup> {
    let mut parts = Vec::new();
    for (name, results) in &page.removals {
        // Fewer points say no more than their numbers.
        let plot = if results.sets.len() < FEWEST_POINTS {
            None
        } else {
            Some(charts::retrainings(results)?)
        };
        parts.push((name, results, plot));
    }
    let content = html! {
        @for (name, results, plot) in &parts {
            @let fitting: Vec<usize> = (0..page.shown.len()).filter(|k| page.shown[*k].subject.fits(results)).collect();
            (of_views(&fitting, html! {
            h3 { (results.query) ", " @if results.predicted_by.is_empty() { "not predicted" } @else { (method_name(&results.predicted_by)) } }
            p {
                "Examples were left out of steps " (results.window.start) " to " (results.window.end) " (" (results.removal) " removal, " (results.denominators) " denominators), and the model was retrained on the recorded batches. Changes are measured " (at_model_in_words(results.point())) ". From " code { (name) } "."
                @if fitting.is_empty() {
                    " Query, model, window or method differ from those of the tables on this page."
                }
            }
            @for note in &results.notes { p.note { (note) } }
            @if let Some(plot) = plot { (plot) }
            details open[plot.is_none()] {
                summary { "The numbers" }
                (scrolling(&format!("Predicted and real changes, {name}"), html! {
                    table {
                        @if results.sets.len() > MOST_SETS { caption { "The first " (MOST_SETS) " of " (results.sets.len()) " retrainings. The file has all of them." } }
                        thead { tr { th scope="col" { "Without" } th.n scope="col" { "Predicted" } th.n scope="col" { "Real" } th.n scope="col" { "Ratio" }
                            @for loss in &results.losses_with_everyone { th.n scope="col" { (loss.split) " loss" } } } }
                        tbody {
                            tr { th scope="row" { "nothing" } td.n {} td.n {} td.n {} @for loss in &results.losses_with_everyone { td.n { (minus(&decimal(loss.loss, 4))) } } }
                            @for set in results.sets.iter().take(MOST_SETS) { tr {
                                th scope="row" { @match set.without.as_slice() { [one] => { "#" (one) }, many => { (grouped(many.len() as u64)) " examples" } }
                                    @if set.without.len() > 1 && !set.chosen_as.is_empty() { " (" (set.chosen_as) ")" } }
                                td.n { (set.predicted_change.map_or(String::new(), signed)) } td.n { (signed(set.real_change)) } td.n { (ratio(set)) }
                                @for loss in &set.losses { td.n { (minus(&decimal(loss.loss, 4))) } }
                            } }
                        }
                    }
                }))
            }
            }))
        }
    };
    Ok(section("retraining", content))
}

/// The real change divided by the predicted one; empty if nothing was predicted.
fn ratio(set: &RemovalResult) -> String {
    match set.real_change / set.predicted_change.unwrap_or(f64::NAN) {
        ratio if ratio.is_finite() => minus(&format!("{ratio:.2}")),
        _ => String::new(),
    }
}

/// The commands.
pub(super) fn reproduce(page: &Page) -> Markup {
    section(
        "reproduce",
        html! {
            p { "The same run, data and program give the same scores, bit for bit on the same kind of machine." }
            @for (why, line) in &page.commands { p { (prose(why)) } (command(line)) }
            @for (k, why, line) in &page.alone { (of_view(*k, html! { p { (prose(why)) } (command(line)) })) }
        },
    )
}
