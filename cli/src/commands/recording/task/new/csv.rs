//! The draft of a task for a table.

mod gaps;

use std::path::{Path, PathBuf};

use crate::words::counted;
use anyhow::bail;
use hindcast_model::data::{Numerals, unpacked};
use hindcast_model::files::not_a_text;
use toml::Value;

use super::draft::{CLASSES, Draft, Inputs, line, plain, texts};
use super::look::{Column, Kind, Looked, look};
use super::names;
use super::places::{Places, stem};
use crate::args::NewTarget;
use crate::commands::Usage;
use gaps::gaps;

/// Names that usually belong to the column of labels.
const LABELS: [&str; 14] = [
    "label",
    "labels",
    "class",
    "target",
    "y",
    "category",
    "outcome",
    "diagnosis",
    "species",
    "sentiment",
    "given_label",
    "quality",
    "answer",
    "result",
];
/// Columns with more categories than this are named.
const MANY: u64 = 50;

/// What the user says about a table.
pub(super) struct Asked<'a> {
    pub(super) label: Option<&'a str>,
    pub(super) target: Option<NewTarget>,
}

/// The draft for the training files of a table.
pub(super) fn draft(
    files: &[PathBuf],
    places: &Places,
    asked: &Asked<'_>,
) -> anyhow::Result<Draft> {
    let Some(first) = files.first() else {
        bail!(Usage("name the file with the table".into()));
    };
    let (text, encoding) = read(first)?;
    let looked = look(first, &text)?;
    let (at, why) = label(&looked, asked.label, first)?;
    let Some(labels) = looked.columns.get(at) else {
        bail!("{}: the table has no column", first.display());
    };
    let (values, about) = is_value(labels, &looked, asked.target);
    let names: Vec<String> = files
        .iter()
        .map(|f| places.name(f))
        .collect::<Result<_, _>>()?;
    let shown = names.first().cloned().unwrap_or_default();
    let mut draft = Draft {
        name: stem(&plain(first)),
        found: vec![format!(
            "{shown}: {} and {}{}.",
            counted(looked.rows, "row", "rows"),
            counted(looked.columns.len() as u64, "column", "columns"),
            if looked.header { "" } else { " without names" }
        )],
        data: vec![line("source", "csv", "")],
        tables: Vec::new(),
        inputs: Inputs::Columns,
        values,
    };
    match names.as_slice() {
        [one] => draft.set("train_files", one.as_str(), "relative to the data folder"),
        many => draft.set("train_files", texts(many), "relative to the data folder"),
    }
    if let Some(encoding) = encoding {
        draft.set("encoding", encoding, "the file is not UTF-8");
    }
    if looked.separator != ',' {
        draft.set(
            "delimiter",
            looked.separator.to_string(),
            "separates the cells",
        );
    }
    if let Some(sign) = looked.comment {
        draft.set(
            "comment",
            sign.to_string(),
            "lines that begin with it are skipped",
        );
    }
    if !looked.header {
        let names: Vec<String> = looked.columns.iter().map(|c| c.name.clone()).collect();
        draft.set("columns", texts(&names), "the file has no header line");
    }
    draft.set("label", labels.name.as_str(), &why);
    draft.found.push(about);
    if values {
        draft.predict_numbers();
    }
    columns(&mut draft, &looked, at, values);
    let merges = draft.data.iter().any(|line| line.text.starts_with("merge"));
    if !values && !merges {
        let classes: Vec<&str> = labels.texts.keys().map(String::as_str).collect();
        draft.data.extend(names::line(&classes, Some(&labels.name)));
    }
    draft.set(
        "standardise",
        true,
        "each feature gets mean 0 and standard deviation 1",
    );
    Ok(draft)
}

/// The text of a file, and its encoding if it isn't UTF-8.
fn read(path: &Path) -> anyhow::Result<(String, Option<&'static str>)> {
    let bytes = unpacked(path)?;
    if let Some(what) = not_a_text(&bytes) {
        bail!("{}: {what}", path.display());
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Ok((text.to_owned(), None));
    }
    let wide = |big: bool| {
        let units = bytes.chunks_exact(2).skip(1).filter_map(|pair| {
            let &[a, b] = pair else { return None };
            Some(u16::from_le_bytes(if big { [b, a] } else { [a, b] }))
        });
        let text = char::decode_utf16(units);
        text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect()
    };
    Ok(match bytes {
        [0xff, 0xfe, ..] => (wide(false), Some("utf-16le")),
        [0xfe, 0xff, ..] => (wide(true), Some("utf-16be")),
        // The first 256 characters of Unicode are those of Latin 1, which Windows extends.
        _ => (
            bytes.iter().map(|&b| char::from(b)).collect(),
            Some("windows-1252"),
        ),
    })
}

/// The column of the labels, and why it is that one.
fn label(looked: &Looked, asked: Option<&str>, path: &Path) -> anyhow::Result<(usize, String)> {
    let columns = &looked.columns;
    let count = columns.len();
    if let Some(asked) = asked {
        let named = columns.iter().position(|c| c.name == asked);
        let numbered = asked.parse::<i64>().ok().and_then(|n| match n {
            1.. => usize::try_from(n - 1).ok(),
            ..=-1 => count.checked_sub(usize::try_from(-n).ok()?),
            0 => None,
        });
        let found = named.or(numbered).filter(|at| *at < count);
        let Some(at) = found else {
            let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
            let asked_lower = asked.to_lowercase();
            let meant = names.iter().find(|name| name.to_lowercase() == asked_lower);
            let meant = meant.map_or(String::new(), |name| format!(" (did you mean {name:?}?)"));
            bail!(Usage(format!(
                "--label {asked}: {} has no such column{meant}; it has {}, or give a number from 1 (-1 is the last)",
                path.display(),
                names.join(", ")
            )));
        };
        return Ok((at, "the column of the labels".to_owned()));
    }
    let usual = LABELS.iter().find_map(|usual| {
        let like = |c: &Column| c.name.eq_ignore_ascii_case(usual);
        columns.iter().position(like)
    });
    match usual {
        Some(at) => Ok((
            at,
            "a usual name for labels; --label names another column".to_owned(),
        )),
        None => Ok((
            count.saturating_sub(1),
            "a guess: the last column; --label names another one".to_owned(),
        )),
    }
}

/// Whether the labels are numbers to predict, and a sentence about them.
fn is_value(labels: &Column, looked: &Looked, asked: Option<NewTarget>) -> (bool, String) {
    let different = labels.different();
    let many = different.is_none_or(|n| n > CLASSES as u64 && n * 10 > looked.rows);
    let values = match asked {
        Some(NewTarget::Class) => false,
        Some(NewTarget::Value) => true,
        None => labels.is_numbers() && (many || !labels.all_whole()),
    };
    let name = &labels.name;
    let about = if values {
        format!("The labels are the numbers in column {name:?}.")
    } else {
        let mut sizes: Vec<(&String, &u64)> = labels.texts.iter().collect();
        if !labels.is_numbers() {
            let missing = labels.missing.iter();
            sizes.extend(missing.filter(|(text, _)| !text.is_empty()));
        }
        let count = different.map_or("more than 1000".to_owned(), |_| sizes.len().to_string());
        sizes.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        let shown: Vec<String> = sizes
            .iter()
            .take(5)
            .map(|(text, count)| format!("{text} in {}", counted(**count, "row", "rows")))
            .collect();
        let more = if sizes.len() > 5 { ", …" } else { "" };
        format!(
            "The labels are {count} classes in column {name:?}: {}{more}.",
            shown.join(", ")
        )
    };
    (values, about)
}

/// The lines about the columns of inputs.
fn columns(draft: &mut Draft, looked: &Looked, label: usize, values: bool) {
    let inputs: Vec<&Column> = looked
        .columns
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != label)
        .map(|(_, column)| column)
        .collect();
    let named = |kinds: &[Kind]| -> Vec<String> {
        let of = inputs.iter().filter(|c| kinds.contains(&c.kind()));
        of.map(|c| c.name.clone()).collect()
    };
    let numbers = named(&[Kind::Numbers]);
    let categories = named(&[Kind::Categories]);
    let free = named(&[Kind::Text]);
    draft.set_list(
        "categorical",
        &categories,
        "few different texts: one feature per text",
    );
    let unused = [
        (Kind::Identifier, "it names the rows"),
        (
            Kind::ManyTexts,
            "it has more than 1000 different texts, which are neither numbers nor categories",
        ),
        (
            Kind::OtherNumerals,
            "it writes numbers in another way than the other columns: write them alike, such as 1234.5",
        ),
        (Kind::Constant, "it is the same in all rows"),
        (Kind::Empty, "it is empty"),
        (
            Kind::Dates,
            "it holds dates: numbers such as a month or an age can be learned from, texts of dates can't",
        ),
        (
            Kind::Times,
            "it holds times: write them as numbers, such as hours or minutes (12:30 is 12.5 or 750)",
        ),
    ];
    let mut ignored = Vec::new();
    for (kind, why) in unused {
        for name in named(&[kind]) {
            draft
                .found
                .push(format!("Column {name:?} is left out, because {why}."));
            ignored.push(name);
        }
    }
    draft.set_list("ignore", &ignored, "columns that are not read");
    numerals(draft, looked.numerals);
    let of = |columns: usize| counted(columns as u64, "column", "columns");
    draft.found.push(format!(
        "Inputs: {} of numbers, {} of categories, {} of free text.",
        of(numbers.len()),
        of(categories.len()),
        of(free.len())
    ));
    for column in inputs.iter().filter(|c| c.kind() == Kind::Categories) {
        if let Some(texts) = column.different().filter(|n| *n > MANY) {
            draft.found.push(format!(
                "Column {:?} has {texts} different texts, each of which becomes a feature.",
                column.name
            ));
        }
    }
    if let Some(labels) = looked.columns.get(label) {
        let used = inputs.iter().filter(|c| c.kind() == Kind::Numbers);
        let typos = used.copied().chain(values.then_some(labels));
        draft.found.extend(typos.filter_map(Column::typos));
        gaps(draft, &inputs, labels, values);
    }
    words(draft, &free);
}

/// How the file writes numbers, if it isn't the usual way.
fn numerals(draft: &mut Draft, numerals: Numerals) {
    let Numerals { decimal, thousands } = numerals;
    if decimal != '.' {
        draft.set("decimal", decimal.to_string(), "numbers are written as 1,5");
    }
    if let Some(thousands) = thousands {
        let example = format!("1{thousands}234{decimal}5");
        draft.set(
            "thousands",
            thousands.to_string(),
            &format!("numbers are written as {example}"),
        );
        draft.found.push(format!(
            "Numbers are written as {example}: {thousands:?} separates thousands, and {decimal:?} the decimals."
        ));
    }
}

/// How free text becomes numbers.
fn words(draft: &mut Draft, free: &[String]) {
    if free.is_empty() {
        return;
    }
    draft.tables.push((
        "data.tfidf".to_owned(),
        "Free text becomes one weight per word.".to_owned(),
        vec![
            line("columns", texts(free), ""),
            line(
                "min_df",
                Value::Float(0.005),
                "words in fewer texts are left out",
            ),
            line(
                "max_df",
                Value::Float(0.5),
                "words in more texts are left out",
            ),
            line(
                "max_features",
                500,
                "at most this number of words per column",
            ),
        ],
    ));
}
