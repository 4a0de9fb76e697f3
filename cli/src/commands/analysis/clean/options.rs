//! The options of `clean` that decide which labels are issues, as words of a command line.

use clap::ValueEnum;
use hindcast_analyzer::QueryPoint;

use crate::args::{Clean, Precision};

/// The method or the table by which the issues are ranked.
pub(super) fn ranked_by(args: &Clean) -> String {
    match &args.scores {
        Some(path) => path.display().to_string(),
        None => args.method.clone(),
    }
}

/// The options that aren't defaults.
pub(super) fn given(args: &Clean) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut add = |name: &str, value: String| words.extend([name.to_owned(), value]);
    let path = |path: &std::path::Path| path.display().to_string();
    if let Some(scores) = &args.scores {
        add("--scores", path(scores));
    } else if args.method != "margin" {
        add("--method", args.method.clone());
    }
    for set in &args.method_set {
        add("--method-set", set.clone());
    }
    if args.query != "validation" {
        add("--query", args.query.clone());
    }
    if args.at != QueryPoint::default() {
        add("--at", args.at.to_string());
    }
    if args.window != "auto" {
        add("--window", args.window.clone());
    }
    let model = &args.replay;
    if model.precision != Precision::Recorded {
        add("--precision", word(&model.precision));
    }
    if let Some(engine) = &model.engine {
        add("--engine", word(engine));
    }
    if model.device != "cpu" {
        add("--device", model.device.clone());
    }
    words
}

/// A choice as the command line writes it.
fn word(choice: &impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}
