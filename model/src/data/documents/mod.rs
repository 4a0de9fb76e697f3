//! Documents: JSON lines with one text each, turned into tf-idf features.

mod spec;
mod stop_words;
mod strip;
mod tfidf;

use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use serde_json::{Map, Value};

use super::report::Report;
use super::store::{Labels, Rows, SourceRows, Values};
use super::texts::{MAX_DISTINCT, Texts};
use super::{DataError, files};
use crate::objective::Split;

pub use spec::DocumentsSpec;
pub(in crate::data) use spec::check_words;
pub use strip::Strip;
pub(in crate::data) use tfidf::{Vocabulary, Words};

/// Largest number of values, which take 8 GiB. Each document has one value per word of the vocabulary.
pub(in crate::data) const MAX_VALUES: usize = 1 << 30;

/// Documents of one file that belong to one split.
struct Documents {
    path: PathBuf,
    texts: Vec<String>,
    labels: Vec<u32>,
}

/// Reads the documents of the training, validation and test files. If a field names the split, each file may hold documents of all
/// splits. `given` are the names of the classes in the Task.
pub(super) fn read(
    how: &DocumentsSpec,
    label: &str,
    given: &[String],
    encoding: Option<&'static Encoding>,
    files: &[Vec<PathBuf>; 3],
    report: &Report,
) -> Result<SourceRows, DataError> {
    let reading = Reading {
        how,
        label,
        encoding,
        report,
    };
    let mut labels = Texts::default();
    let mut parts: [Vec<Documents>; 3] = Default::default();
    for (at, paths) in files.iter().enumerate() {
        for path in paths {
            for (part, documents) in reading.file(path, at, &mut labels)? {
                if let Some(of_part) = parts.get_mut(part) {
                    of_part.push(documents);
                }
            }
        }
    }
    let [first, ..] = &parts;
    let path = files[0]
        .first()
        .map(PathBuf::as_path)
        .unwrap_or(Path::new(""));
    if first.is_empty() {
        let what = "holds no document of the train split";
        return Err(DataError::malformed(path, what));
    }
    let fitted = first.iter().flat_map(|d| &d.texts).map(String::as_str);
    let vocabulary = Vocabulary::fit(fitted, &how.words());
    let rows: usize = parts.iter().flatten().map(|d| d.texts.len()).sum();
    let width = vocabulary.words().len();
    if width == 0 {
        return Err(DataError::malformed(
            path,
            "no word of the training documents is within min_df and max_df: change them in [data.documents]",
        ));
    }
    if rows.checked_mul(width).is_none_or(|n| n > MAX_VALUES) {
        return Err(DataError::malformed(
            path,
            format!(
                "{rows} documents with {width} words each are more than {MAX_VALUES} values: raise \
                 data.documents.min_df"
            ),
        ));
    }
    let classes = labels.numbered(&format!("field {label:?}"), given)?;
    let features = vocabulary.words().to_vec();
    let parts = SourceRows::joined(parts, Some(classes.names), features, |documents| {
        part(documents, &vocabulary, &classes.places)
    })?;
    Ok(SourceRows {
        notes: classes.notes,
        ..parts
    })
}

/// How documents are read.
struct Reading<'a> {
    how: &'a DocumentsSpec,
    /// The field of the label.
    label: &'a str,
    encoding: Option<&'static Encoding>,
    report: &'a Report,
}

impl Reading<'_> {
    /// The documents of a file, by split. `own` is the split whose list of files contains the file.
    fn file(
        &self,
        path: &Path,
        own: usize,
        labels: &mut Texts,
    ) -> Result<Vec<(usize, Documents)>, DataError> {
        let content = files::read_text(path, self.encoding)?;
        let mut parts: Vec<(usize, Documents)> = Vec::new();
        let lines = content.lines().zip(1u64..);
        for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()) {
            let unlabelled = self.report.may_lack_labels(path);
            let (part, text, class) = match self.document(line, own, labels, unlabelled) {
                Ok(document) => document,
                Err(what) => {
                    let what = format!("line {number}: {what}");
                    self.report.take(DataError::malformed(path, what))?;
                    continue;
                }
            };
            let documents = match parts.iter_mut().find(|(p, _)| *p == part) {
                Some((_, documents)) => documents,
                None => {
                    let documents = Documents {
                        path: name_with_split(path, self.how, part),
                        texts: Vec::new(),
                        labels: Vec::new(),
                    };
                    parts.push((part, documents));
                    let Some((_, documents)) = parts.last_mut() else {
                        continue;
                    };
                    documents
                }
            };
            documents.texts.push(text);
            documents.labels.push(class);
        }
        if parts.is_empty() {
            return Err(DataError::malformed(path, "holds no document"));
        }
        Ok(parts)
    }

    /// The split, the text and the label's number of a line. If the line may lack a label, 0 takes its place.
    fn document(
        &self,
        line: &str,
        own: usize,
        labels: &mut Texts,
        unlabelled: bool,
    ) -> Result<(usize, String, u32), String> {
        let object: Map<String, Value> = serde_json::from_str(line)
            .map_err(|e| format!("is not a JSON object ({e}); expected one document per line"))?;
        let field = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(truth)) => Ok(truth.to_string()),
            Some(_) => Err(format!("field {name:?} is not a text")),
            None => Err(format!(
                "has no field {name:?}; it has {}",
                object.keys().cloned().collect::<Vec<_>>().join(", ")
            )),
        };
        let part = match &self.how.part {
            None => own,
            // New documents needn't name a split.
            Some(_) if unlabelled => own,
            Some(name) => {
                let value = field(name)?;
                Split::ALL
                    .iter()
                    .position(|part| part.name() == value)
                    .ok_or_else(|| {
                        format!(
                            "field {name:?} says {value:?}; expected {}",
                            Split::ALL.map(Split::name).join(", ")
                        )
                    })?
            }
        };
        let label = self.label;
        let text = strip::strip(&field(&self.how.text)?, &self.how.strip);
        if unlabelled && matches!(object.get(label), None | Some(Value::Null)) {
            self.report.lacks_label();
            return Ok((part, text, 0));
        }
        let name = field(label)?;
        if name.is_empty() {
            return Err(format!(
                "field {label:?} is empty; expected the document's label. Give it one, or leave the line out"
            ));
        }
        let class = labels.number(&name).ok_or_else(|| {
            format!("field {label:?} holds more than {MAX_DISTINCT} different labels")
        })?;
        Ok((part, text, class))
    }
}

/// The name of a file in messages about rows. If the file holds several splits, it includes the split, because rows are
/// counted within a split.
fn name_with_split(path: &Path, how: &DocumentsSpec, part: usize) -> PathBuf {
    match (&how.part, path.file_name(), Split::ALL.get(part)) {
        (Some(_), Some(name), Some(part)) => {
            path.with_file_name(format!("{} ({})", name.to_string_lossy(), part.name()))
        }
        _ => path.to_path_buf(),
    }
}

fn part(documents: Documents, vocabulary: &Vocabulary, places: &[u32]) -> Result<Rows, DataError> {
    let width = vocabulary.words().len();
    let mut values = vec![0.0; documents.texts.len() * width];
    for (text, row) in documents
        .texts
        .iter()
        .zip(values.chunks_exact_mut(width.max(1)))
    {
        vocabulary.weigh(text, row);
    }
    let labels = documents
        .labels
        .iter()
        .map(|n| places.get(*n as usize).copied().unwrap_or(0))
        .collect();
    Rows::new(
        &documents.path,
        &documents.path,
        vec![width],
        documents.texts.len(),
        Values::F64(values),
        Labels::Classes(labels),
    )
}
