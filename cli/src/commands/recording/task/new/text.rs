//! The draft of a task for texts: documents in JSON lines, or plain text.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hindcast_model::data::unpacked_text;
use serde_json::{Map, Value as Json};
use toml::Value;

use super::draft::{Draft, Inputs, line, plain, texts};
use super::names;
use super::places::{Places, stem};
use super::trial::trial;
use crate::commands::Usage;

/// Names that usually belong to the field of the label, and of the text.
const LABELS: [&str; 8] = [
    "label",
    "category",
    "class",
    "target",
    "sentiment",
    "topic",
    "y",
    "intent",
];
const TEXTS: [&str; 7] = [
    "text", "document", "body", "content", "sentence", "review", "message",
];
/// Largest number of words, each of which is a feature.
const WORDS: usize = 3000;

/// The draft for documents, one JSON object per line.
pub(super) fn documents(
    files: &[PathBuf],
    places: &Places,
    label: Option<&str>,
) -> anyhow::Result<Draft> {
    let Some(path) = files.first() else {
        bail!(Usage("name the file with the documents".into()));
    };
    let fields = fields(path)?;
    let (label, text) = fields.of_label_and_text(path, label)?;
    let mut draft = Draft {
        name: stem(&plain(path)),
        found: vec![format!(
            "{}: {} documents; field {text:?} is the text, and field {label:?} the label.",
            places.name(path)?,
            fields.lines
        )],
        data: vec![line("source", "documents", "JSON lines, one text each")],
        tables: Vec::new(),
        inputs: Inputs::Words,
        values: false,
    };
    train_files(&mut draft, files, places)?;
    draft.set("label", label.as_str(), "the field of the label");
    // A word in two documents says something about other documents; a word in one doesn't.
    let mut least = 2.0 / fields.lines.max(1) as f64;
    let mut named = None;
    for _ in 0..12 {
        draft.tables = vec![(
            "data.documents".to_owned(),
            "A document becomes one weight (tf-idf) per word.".to_owned(),
            vec![
                line("text", text.as_str(), "the field of the text"),
                line(
                    "min_df",
                    Value::Float(rounded(least)),
                    "words in a smaller share of the documents are left out",
                ),
                line(
                    "max_df",
                    Value::Float(0.5),
                    "words in a larger share are left out",
                ),
            ],
        )];
        let data = trial(&draft.data, &draft.tables, places)?;
        let words: usize = data.shape().iter().product();
        named = names::of(data.as_ref());
        if words <= WORDS {
            draft
                .found
                .push(format!("{words} different words are kept."));
            break;
        }
        least *= 1.5;
    }
    draft.data.extend(named);
    Ok(draft)
}

/// The draft for plain text, whose next character is predicted.
pub(super) fn characters(files: &[PathBuf], places: &Places) -> anyhow::Result<Draft> {
    let Some(path) = files.first() else {
        bail!(Usage("name the file with the text".into()));
    };
    let name = plain(path);
    if matches!(
        name.extension().and_then(|e| e.to_str()),
        Some("jsonl" | "json")
    ) {
        return documents(files, places, None);
    }
    let text = unpacked_text(path)?;
    let lines: Vec<usize> = text
        .lines()
        .filter(|l| !l.is_empty())
        .map(|l| l.chars().count())
        .collect();
    let mut sorted = lines.clone();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    // Short lines, such as names, are texts of their own.
    let short = lines.len() > 20 && median <= 40;
    let length: i64 = if short { 8 } else { 16 };
    let mut draft = Draft {
        name: stem(&plain(path)),
        found: vec![format!(
            "{}: {} characters in {} lines. The model learns to predict the next character.",
            places.name(path)?,
            text.chars().count(),
            lines.len()
        )],
        data: vec![line(
            "source",
            "text",
            "plain text, cut into windows of characters",
        )],
        tables: Vec::new(),
        inputs: Inputs::Characters,
        values: false,
    };
    train_files(&mut draft, files, places)?;
    draft.set(
        "pick",
        "first",
        "neighbouring windows overlap: the splits follow one another",
    );
    let mut how = vec![line("length", length, "characters per window")];
    if short {
        how.push(line("lines", true, "each line is a text of its own"));
    }
    draft.tables.push((
        "data.text".to_owned(),
        "How the text is cut.".to_owned(),
        how,
    ));
    Ok(draft)
}

fn train_files(draft: &mut Draft, files: &[PathBuf], places: &Places) -> Result<(), Usage> {
    let names: Vec<String> = files
        .iter()
        .map(|f| places.name(f))
        .collect::<Result<_, _>>()?;
    match names.as_slice() {
        [one] => draft.set("train_files", one.as_str(), "relative to the data folder"),
        many => draft.set("train_files", texts(many), "relative to the data folder"),
    }
    Ok(())
}

fn rounded(x: f64) -> f64 {
    format!("{x:.1e}").parse().unwrap_or(x)
}

/// The fields that all lines have.
struct Fields {
    lines: u64,
    /// For each field, its different texts (at most 1000) and the total length of all.
    all: BTreeMap<String, (HashSet<String>, u64)>,
}

impl Fields {
    /// The fields of the label and of the text. `asked` is what the user says about the label.
    fn of_label_and_text(
        &self,
        path: &Path,
        asked: Option<&str>,
    ) -> anyhow::Result<(String, String)> {
        let named = |usual: &[&str]| {
            let found = usual.iter().find(|name| self.all.contains_key(**name));
            found.map(|name| (*name).to_owned())
        };
        let label = match asked {
            Some(label) if self.all.contains_key(label) => label.to_owned(),
            Some(label) => bail!(Usage(format!(
                "--label {label}: {} has no such field in all lines; they have {}",
                path.display(),
                self.listed()
            ))),
            None => match named(&LABELS).or_else(|| self.fewest()) {
                Some(label) => label,
                None => bail!(Usage(format!(
                    "{}: name the field of the label (--label); the lines have {}",
                    path.display(),
                    self.listed()
                ))),
            },
        };
        let text = named(&TEXTS).or_else(|| self.longest(&label));
        let Some(text) = text.filter(|text| *text != label) else {
            bail!(
                "{}: no field of text was found beside the label {label:?}",
                path.display()
            );
        };
        Ok((label, text))
    }

    fn listed(&self) -> String {
        self.all.keys().cloned().collect::<Vec<_>>().join(", ")
    }

    /// The field with the fewest different texts, if they repeat.
    fn fewest(&self) -> Option<String> {
        let few = self.all.iter().filter(|(_, (texts, _))| {
            texts.len() > 1 && (texts.len() as u64) * 4 <= self.lines.max(8)
        });
        few.min_by_key(|(_, (texts, _))| texts.len())
            .map(|(name, _)| name.clone())
    }

    /// The field with the longest texts.
    fn longest(&self, label: &str) -> Option<String> {
        let others = self.all.iter().filter(|(name, _)| *name != label);
        others
            .max_by_key(|(_, (_, length))| *length)
            .map(|(name, _)| name.clone())
    }
}

fn fields(path: &Path) -> anyhow::Result<Fields> {
    let text = unpacked_text(path)?;
    let mut fields = Fields {
        lines: 0,
        all: BTreeMap::new(),
    };
    for (line, number) in text
        .lines()
        .zip(1u64..)
        .filter(|(l, _)| !l.trim().is_empty())
    {
        let object: Map<String, Json> = serde_json::from_str(line)
            .with_context(|| format!("{}: line {number} is not a JSON object", path.display()))?;
        if fields.lines == 0 {
            fields.all = object
                .keys()
                .map(|key| (key.clone(), Default::default()))
                .collect();
        }
        fields.lines += 1;
        fields.all.retain(|name, (texts, length)| {
            let text = match object.get(name) {
                Some(Json::String(text)) => text.clone(),
                Some(Json::Number(n)) => n.to_string(),
                Some(Json::Bool(truth)) => truth.to_string(),
                _ => return false,
            };
            *length += text.len() as u64;
            if texts.len() < 1000 {
                texts.insert(text);
            }
            true
        });
    }
    if fields.lines == 0 {
        bail!("{}: the file has no line", path.display());
    }
    Ok(fields)
}
