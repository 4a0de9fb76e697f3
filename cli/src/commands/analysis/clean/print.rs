//! Prints what `clean` found, wrote and gained.

use std::io::{self, Write};
use std::time::Duration;

use hindcast_model::data::Source;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::evidence::{EvidenceJson, Judged};
use super::options;
use super::scan::{Measured, Retrained};
use super::shown::Shown;
use super::told::{Planted, Suggestions, advice, no_advice};
use crate::args::Clean;
use crate::commands::analysis::retraining;
use crate::terminal::{self, field};
use crate::words::{at_model, counted, decimal};
use hindcast_analyzer::counterfactual::SplitLoss;
use hindcast_analyzer::estimators::cleaning::{Action, Decisions, Issues, LabelIssue};
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::{CounterfactualReport, EngineKind, RecordedRun};

/// Everything that is printed.
pub(super) struct Found<'a> {
    pub args: &'a Clean,
    pub run: &'a RecordedRun<'static>,
    pub shown: &'a Shown<'a>,
    /// `None` if the decisions come from a file.
    pub judged: Option<&'a Judged>,
    /// The decisions of the file.
    pub all: &'a Decisions,
    /// Those that are applied.
    pub decisions: &'a Decisions,
    pub retrained: Option<&'a Retrained>,
    pub notes: Vec<String>,
    pub took: Duration,
}

/// The JSON of `--json`.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: String,
    examples: usize,
    issues: Option<usize>,
    evidence: Option<EvidenceJson>,
    thresholds: Option<Vec<Threshold>>,
    planted: Option<Planted>,
    suggestions: Option<Suggestions>,
    decisions: Counts,
    issues_table: Option<String>,
    decisions_file: String,
    cleaned_file: Option<String>,
    cleaned_folder: Option<String>,
    labels_file: Option<String>,
    retrained: Option<Vec<Row<'a>>>,
    retrained_with: Option<&'static str>,
    at: Option<&'a str>,
    control: Option<Control>,
    notes: Vec<&'a str>,
    seconds: f64,
}

#[derive(Serialize)]
struct Threshold {
    class: String,
    probability: Option<f64>,
}

#[derive(Serialize)]
struct Counts {
    relabel: usize,
    drop: usize,
    keep: usize,
}

#[derive(Serialize)]
struct Row<'a> {
    decisions: usize,
    losses: Vec<&'a SplitLoss>,
}

/// How close the retraining without a decision came to the recorded parameters.
#[derive(Serialize)]
struct Control {
    engine: EngineKind,
    reproduced: bool,
    bit_identical: bool,
    max_relative_error: f64,
    kernels_apart: Option<f64>,
}

impl Control {
    fn of(report: &CounterfactualReport) -> Self {
        Control {
            engine: report.engine,
            reproduced: report.drift.is_reproduced(),
            bit_identical: report.reproduction.bit_identical,
            max_relative_error: report.reproduction.max_relative_error,
            kernels_apart: report.kernels_apart,
        }
    }
}

impl Found<'_> {
    pub(super) fn print(&self) -> anyhow::Result<()> {
        let mut out = terminal::stdout();
        if self.args.json {
            serde_json::to_writer_pretty(&mut out, &self.report())?;
            writeln!(out)?;
            return Ok(());
        }
        if let Some(judged) = self.judged {
            self.issues(&mut out, judged)?;
        }
        self.files(&mut out)?;
        if let Some(judged) = self.judged {
            let told = match judged.trust {
                Some(trust) => Some(advice(&trust, self.args, self.all)),
                None => no_advice(&judged.issues, self.run.data()),
            };
            if let Some(told) = told {
                writeln!(out, "{told}")?;
            }
        }
        if let Some(retrained) = self.retrained {
            trained_again(&mut out, retrained)?;
        }
        for note in self.notes() {
            writeln!(out, "note: {}", field(note))?;
        }
        Ok(())
    }

    fn notes(&self) -> impl Iterator<Item = &str> {
        let of_retraining = self.retrained.into_iter().flat_map(|r| &r.notes);
        self.notes.iter().chain(of_retraining).map(String::as_str)
    }

    fn report(&self) -> Report<'_> {
        let data = self.run.data();
        let thresholds = self.judged.map(|judged| {
            let all = judged.issues.thresholds.iter().enumerate();
            all.map(|(class, &probability)| Threshold {
                class: name(self.run, class),
                probability,
            })
            .collect()
        });
        let path = |path: &std::path::PathBuf| path.display().to_string();
        let written = &self.args.write_decisions;
        Report {
            run: self.args.run.display().to_string(),
            run_digest: self.run.head(),
            examples: data.len(Split::Train) as usize,
            issues: self.judged.map(|judged| count(&judged.issues)),
            evidence: self.judged.map(|judged| judged.evidence.json()),
            thresholds,
            planted: self.planted(),
            suggestions: self
                .judged
                .and_then(|judged| judged.trust)
                .map(Suggestions::of),
            decisions: counts(self.decisions),
            issues_table: self.judged.map(|_| path(&self.args.issues)),
            decisions_file: path(self.args.decisions.as_ref().unwrap_or(written)),
            cleaned_file: self.args.out.as_ref().map(path),
            cleaned_folder: self.args.out_data.as_ref().map(path),
            labels_file: self.args.out_labels.as_ref().map(path),
            retrained: self.retrained.map(|retrained| {
                let rows = retrained.rows();
                rows.map(|(decisions, losses)| Row { decisions, losses })
                    .collect()
            }),
            retrained_with: self.retrained.map(|retrained| match retrained.of {
                Measured::Decisions => "decisions",
                Measured::IfRelabelled => "issues-relabelled",
            }),
            at: self.retrained.map(|retrained| retrained.report.at.as_str()),
            control: self
                .retrained
                .map(|retrained| Control::of(&retrained.report)),
            notes: self.notes().collect(),
            seconds: self.took.as_secs_f64(),
        }
    }

    fn planted(&self) -> Option<Planted> {
        Planted::of(&self.judged?.issues, self.run.data())
    }

    fn issues(&self, out: &mut dyn Write, judged: &Judged) -> io::Result<()> {
        let issues = &judged.issues;
        let (n, all) = (count(issues), issues.examples.len());
        writeln!(
            out,
            "label issues: {n} of {all} ({:.1} %), ranked by {}; each with another suggested label",
            100.0 * n as f64 / all.max(1) as f64,
            field(options::ranked_by(self.args))
        )?;
        writeln!(out, "{}", judged.evidence)?;
        if let Some(planted) = self.planted() {
            let data = self.run.data();
            let examples = data.len(Split::Train) as usize;
            planted.print(out, examples, data.truth_is_given())?;
        }
        let worst = issues.worst();
        let shown = &worst[..worst.len().min(self.args.top)];
        if shown.is_empty() {
            return Ok(());
        }
        writeln!(out, "most suspicious:")?;
        self.rows(out, shown)
    }

    fn rows(&self, out: &mut dyn Write, shown: &[LabelIssue]) -> io::Result<()> {
        let data = self.run.data();
        let files: Vec<_> = shown
            .iter()
            .map(|issue| field(data.file(Split::Train, issue.example as u64)))
            .collect();
        let wide = files
            .iter()
            .map(terminal::Field::width)
            .max()
            .unwrap_or(0)
            .max(4);
        writeln!(
            out,
            "{:>6} {:>8} {:<wide$} {:<12} {:<12} {:>8} {:>12} {:>12}{}",
            "index",
            "row",
            "file",
            "given",
            "suggested",
            "p(given)",
            "p(suggested)",
            "score",
            if self.shown.has_names() { "  name" } else { "" }
        )?;
        for (issue, file) in shown.iter().zip(&files) {
            let index = issue.example as u64;
            writeln!(
                out,
                "{index:>6} {:>8} {file:<wide$} {:<12} {:<12} {:>8.3} {:>12.3} {:>12}{}",
                data.origin(Split::Train, index),
                field(name(self.run, issue.given)),
                field(name(self.run, issue.suggested)),
                issue.given_probability,
                issue.suggested_probability,
                issue.score.map_or(String::new(), |s| format!("{s:+.4e}")),
                self.shown.after(index)
            )?;
        }
        Ok(())
    }

    fn files(&self, out: &mut dyn Write) -> io::Result<()> {
        let Counts {
            relabel,
            drop,
            keep,
        } = counts(self.all);
        let counts = format!("{relabel} relabel, {drop} drop, {keep} keep");
        match (&self.args.decisions, self.judged) {
            (Some(path), _) => writeln!(out, "{}: {counts}", field(path.display()))?,
            (None, judged) => {
                writeln!(
                    out,
                    "{} ({}, with {})",
                    field(self.args.issues.display()),
                    counted(
                        judged.map_or(0, |judged| judged.issues.examples.len()) as u64,
                        "row",
                        "rows"
                    ),
                    field(sidecar_path(&self.args.issues).display())
                )?;
                writeln!(
                    out,
                    "{}: {counts}; edit the column `decision`, then apply it with --decisions {}",
                    field(self.args.write_decisions.display()),
                    field(self.args.write_decisions.display())
                )?;
            }
        }
        let task = self.run.task();
        let images = task.is_some_and(|task| task.data.source == Source::Images);
        let (one, many, rest) = if images {
            ("image", "images", "the image files stay as they are")
        } else {
            ("row", "rows", "all other rows stay as they are")
        };
        let relabelled = self.decisions.count(Action::Relabel) as u64;
        let of = format!(
            "{} relabelled, {} dropped; {rest}",
            counted(relabelled, one, many),
            self.decisions.count(Action::Drop)
        );
        if let Some(path) = &self.args.out {
            writeln!(out, "{}: {of}", field(path.display()))?;
        }
        if let Some(path) = &self.args.out_labels {
            let count = self.decisions.count(Action::Relabel) as u64;
            let labels = counted(count, "label", "labels");
            writeln!(
                out,
                "{}: {labels} for `record --labels`",
                field(path.display())
            )?;
        }
        if let Some(path) = &self.args.out_data {
            let links = if images {
                "; the folder has links to them, sorted by the new labels"
            } else {
                ""
            };
            writeln!(out, "{}: {of}{links}", field(path.display()))?;
        }
        Ok(())
    }
}

fn counts(decisions: &Decisions) -> Counts {
    Counts {
        relabel: decisions.count(Action::Relabel),
        drop: decisions.count(Action::Drop),
        keep: decisions.count(Action::Keep),
    }
}

fn count(issues: &Issues) -> usize {
    issues.examples.iter().filter(|e| e.is_issue).count()
}

/// The name of a class; its number if it has none.
fn name(run: &RecordedRun<'_>, class: usize) -> String {
    let name = run.data().class_names().get(class);
    name.cloned().unwrap_or_else(|| class.to_string())
}

/// Why a loss on wrong labels says little.
const WRONG_LABELS: &str = "wrong ones favour a model that makes the same mistakes, so with right training labels the loss rises. The same holds for the test labels";

/// Losses and errors by the number of decisions that were applied.
fn trained_again(out: &mut dyn Write, retrained: &Retrained) -> io::Result<()> {
    let at = at_model(&retrained.report.at);
    match retrained.of {
        Measured::Decisions => writeln!(out, "trained again with the first K decisions, {at}:")?,
        Measured::IfRelabelled => writeln!(
            out,
            "trained again with the first K issues relabelled, although the decisions say keep, {at}:"
        )?,
    }
    let mut headed = false;
    for (k, losses) in retrained.rows() {
        if !std::mem::replace(&mut headed, true) {
            write!(out, "{:>8}", "K")?;
            for loss in &losses {
                write!(out, " {:>17}", format!("{} loss", loss.split))?;
                if loss.error_rate.is_some() {
                    write!(out, " {:>8}", "error")?;
                }
            }
            writeln!(out)?;
        }
        write!(out, "{k:>8}")?;
        for loss in &losses {
            write!(out, " {:>17}", decimal(loss.loss, 4))?;
            if let Some(rate) = loss.error_rate {
                write!(out, " {:>6.2} %", 100.0 * rate)?;
            }
        }
        writeln!(out)?;
    }
    retraining::reproduced(out, &retrained.report)?;
    match lowest(retrained) {
        None => {}
        Some((0, _)) => writeln!(
            out,
            "  no K lowers the validation loss. This speaks against the changes only if the validation labels are right: {}",
            WRONG_LABELS
        )?,
        Some((k, loss)) => writeln!(
            out,
            "  lowest validation loss with K = {k}: {}; {} applies only these. Choose K by it only if the validation labels are right: {}",
            decimal(loss, 4),
            match retrained.of {
                Measured::Decisions => format!("--first {k}"),
                Measured::IfRelabelled => format!("--decide relabel --first {k}"),
            },
            WRONG_LABELS
        )?,
    }
    Ok(())
}

/// The number of decisions with the lowest validation loss; 0 if none lower it. `None` without validation examples.
fn lowest(retrained: &Retrained) -> Option<(usize, f64)> {
    let of_validation = |(k, losses): (usize, Vec<&SplitLoss>)| {
        let loss = losses.into_iter().find(|loss| loss.split == "validation")?;
        Some((k, loss.loss))
    };
    let best = retrained.rows().filter_map(of_validation);
    best.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// What the user should know about the cleaned data.
pub(super) fn notes(args: &Clean, run: &RecordedRun<'_>, decisions: &Decisions) -> Vec<String> {
    let mut notes = Vec::new();
    let held_out = [Split::Validation, Split::Test];
    let drawn: u64 = held_out
        .iter()
        .map(|split| run.data().drawn_from_training(*split))
        .sum();
    if drawn > 0 && args.decisions.is_none() {
        notes.push(format!(
            "{} of the training files {} drawn for validation or test, so their labels were not judged. `record` with --set data.validation=0 --set data.test=0, or `task new --train-on-all`, trains on all of them. Without files for validation or test, there is then no advice about the suggested labels, and nothing to measure a gain by",
            counted(drawn, "row", "rows"),
            if drawn == 1 { "was" } else { "were" }
        ));
    }
    let writes = args.out.is_some() || args.out_data.is_some();
    let Some(task) = run.task().filter(|_| writes) else {
        return notes;
    };
    let drawn = task.data.validation_files.is_none() && run.data().len(Split::Validation) > 0;
    if drawn && decisions.count(Action::Drop) > 0 {
        notes.push(
            "the validation examples are drawn from the same file: with rows dropped, `record` draws other ones, so losses before and after are of different examples. Name a file of its own (data.validation_files) to compare them"
                .to_owned(),
        );
    }
    let named = [
        ("data.labels_file", &task.data.labels_file),
        ("data.truth_file", &task.data.truth_file),
    ];
    for (key, name) in named {
        if let (Some(folder), Some(name)) = (&args.out_data, name) {
            notes.push(format!(
                "{} has no {name}, because that file is about the labels as they were; if your task has the key {key}, remove it",
                folder.display()
            ));
        }
    }
    if task.data.flipped.is_some_and(|share| share > 0.0) {
        notes.push(
            "the task makes labels wrong on purpose after it has read the files (data.flipped), so the files don't have these wrong labels"
                .to_owned(),
        );
    }
    notes
}
