//! What takes the place of missing values in a table.

use std::collections::{BTreeMap, BTreeSet};

use toml::Value;

use super::super::draft::{Draft, line, texts};
use super::super::look::{Column, Kind};
use crate::words::counted;

/// Adds what takes the place of missing values in columns that are used, and of missing labels. `values`: whether the labels
/// are numbers to predict.
pub(super) fn gaps(draft: &mut Draft, inputs: &[&Column], labels: &Column, values: bool) {
    let with = |kinds: &[Kind]| -> Vec<&Column> {
        let of = inputs.iter().copied();
        of.filter(|c| kinds.contains(&c.kind()) && c.gaps() > 0)
            .collect()
    };
    let filled = with(&[Kind::Numbers, Kind::Categories]);
    let words: Vec<&Column> = with(&[Kind::Text]);
    let words: Vec<&Column> = words
        .into_iter()
        .filter(|c| c.missing_texts().next().is_some())
        .collect();
    // Among labels that are texts, one such as `none` can be a class.
    let numbers = values || labels.is_numbers();
    let unlabelled = match labels.missing.get("") {
        _ if numbers => labels.gaps(),
        Some(empty) => *empty,
        None => 0,
    };
    let mut all = filled.clone();
    all.extend(&words);
    if unlabelled > 0 {
        all.push(labels);
    }
    if !numbers {
        classes_of_their_own(draft, labels);
    }
    if all.is_empty() {
        return;
    }
    let shown: Vec<String> = all.iter().map(|c| c.shown_gaps()).collect();
    draft
        .found
        .push(format!("Missing values: {}.", shown.join(", ")));
    let mut lines = Vec::new();
    if !filled.is_empty() {
        lines.push(line(
            "fill",
            "mean",
            "of categories, the most frequent one; \"drop\" leaves the rows out",
        ));
        lines.push(line(
            "indicator",
            true,
            "a feature that is 1 where a value was missing",
        ));
    }
    let found = listed(draft, &all, &filled, labels, numbers);
    let mut columns = toml::Table::new();
    if unlabelled > 0 {
        columns.insert(labels.name.clone(), "drop".into());
    }
    if !found.is_empty() {
        for column in &words {
            let empty = Value::Table([("constant".to_owned(), "".into())].into_iter().collect());
            columns.insert(column.name.clone(), empty);
        }
    }
    if !columns.is_empty() {
        let why = if unlabelled > 0 {
            "rows without a label are left out"
        } else {
            "a missing text has no words"
        };
        lines.push(line("columns", Value::Table(columns), why));
    }
    if !found.is_empty() {
        lines.push(line("texts", texts(&found), "cells that count as missing"));
    }
    if !lines.is_empty() {
        draft.tables.push((
            "data.missing".to_owned(),
            "What takes the place of missing values.".to_owned(),
            lines,
        ));
    }
}

/// The texts that count as missing, if the usual ones of columns of numbers don't suffice. Where a class has one of these
/// names, the texts of categories are merged into empty ones instead.
fn listed(
    draft: &mut Draft,
    all: &[&Column],
    filled: &[&Column],
    labels: &Column,
    numbers: bool,
) -> Vec<String> {
    let of_texts = |c: &&&Column| match c.kind() {
        Kind::Numbers => c.name == labels.name,
        _ => c.name != labels.name || numbers,
    };
    let needed = all
        .iter()
        .filter(of_texts)
        .any(|c| c.missing_texts().next().is_some());
    if !needed {
        return Vec::new();
    }
    let inputs = all.iter().filter(|c| c.name != labels.name || numbers);
    let mut found: BTreeSet<String> = inputs.flat_map(|c| c.missing_texts()).cloned().collect();
    if !numbers && labels.missing_texts().any(|text| found.contains(text)) {
        let mut merged = toml::Table::new();
        for column in filled.iter().filter(|c| c.kind() == Kind::Categories) {
            let from: Vec<String> = column.missing_texts().cloned().collect();
            if !from.is_empty() {
                let group: BTreeMap<String, Value> = [(String::new(), texts(&from))].into();
                merged.insert(
                    column.name.clone(),
                    Value::Table(group.into_iter().collect()),
                );
            }
        }
        if !merged.is_empty() {
            draft.set(
                "merge",
                Value::Table(merged),
                "texts that count as an empty cell",
            );
        }
        return Vec::new();
    }
    found.insert(String::new());
    found.into_iter().collect()
}

/// Says which classes have names that programs write for a missing value.
fn classes_of_their_own(draft: &mut Draft, labels: &Column) {
    for text in labels.missing_texts() {
        let rows = labels.missing.get(text).copied().unwrap_or(0);
        draft.found.push(format!(
            "The label {text:?} of {} is a class. If it stands for a missing label, leave its rows out: missing.columns = {{ {:?} = \"drop\" }} and missing.texts.",
            counted(rows, "row", "rows"),
            labels.name
        ));
    }
}
