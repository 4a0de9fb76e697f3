//! A task without names that its numbers don't depend on.

use std::collections::BTreeMap;

use super::Task;
use crate::data::{Files, Pair, Source};

/// A task without names, and what they became.
#[derive(Debug, Clone, PartialEq)]
pub struct RedactedTask {
    /// The task. It trains the same numbers on the same data, if the files have the new names.
    pub task: Task,
    /// Each file or folder that it named, and its new name, in the order in which the task names them. Who has the data gives the files the new
    /// names to replay the run.
    pub renamed: Vec<(String, String)>,
    /// Names that stay, because the numbers depend on them: of columns, texts or classes.
    pub kept: Vec<&'static str>,
}

impl Task {
    /// The task without its name and description, with numbers in the place of the names of files and, where the labels are numbers, of classes.
    ///
    /// Names that the data is read by stay: columns, fields, tensors, texts that count as the same, and classes whose labels may be texts.
    /// [`RedactedTask::kept`] lists their keys.
    pub fn redacted(&self) -> RedactedTask {
        let mut task = self.clone();
        task.name = "redacted".to_owned();
        task.description.clear();
        let mut names = Names::default();
        let data = &mut task.data;
        for files in [
            &mut data.train_files,
            &mut data.validation_files,
            &mut data.test_files,
        ] {
            match files {
                Some(Files::One(name)) => names.replace(name),
                Some(Files::Many(all)) => all.iter_mut().for_each(|name| names.replace(name)),
                Some(Files::Pair(Pair { inputs, labels })) => {
                    names.replace(inputs);
                    names.replace(labels);
                }
                None => {}
            }
        }
        for name in [
            &mut data.labels_file,
            &mut data.truth_file,
            &mut data.class_names_file,
        ] {
            name.iter_mut().for_each(|name| names.replace(name));
        }
        // Labels of other sources may be texts, whose numbers follow from the names.
        let numbered = [
            Source::Idx,
            Source::Cifar10,
            Source::Safetensors,
            Source::Digits,
        ];
        let texts = !numbered.contains(&data.source);
        if !texts {
            let numbers = (0..data.class_names.len()).map(|class| class.to_string());
            data.class_names = numbers.collect();
        }
        let there = [
            ("data.class_names", !data.class_names.is_empty() && texts),
            ("data.classes", !data.classes.is_empty()),
            ("data.inputs", data.inputs.is_some()),
            ("data.labels", data.labels.is_some()),
            ("data.label", data.label.is_some()),
            ("data.columns", !data.columns.is_empty()),
            ("data.categorical", !data.categorical.is_empty()),
            ("data.ignore", !data.ignore.is_empty()),
            ("data.log1p", !data.log1p.is_empty()),
            ("data.merge", !data.merge.is_empty()),
            ("data.missing", data.missing.is_some()),
            ("data.tfidf", data.tfidf.is_some()),
            ("data.documents", data.documents.is_some()),
        ];
        let kept = there.iter().filter(|(_, there)| *there);
        RedactedTask {
            kept: kept.map(|(key, _)| *key).collect(),
            renamed: names.order,
            task,
        }
    }
}

/// The new names of files.
#[derive(Default)]
struct Names {
    new: BTreeMap<String, String>,
    order: Vec<(String, String)>,
}

impl Names {
    /// A name is replaced by the same one wherever it occurs.
    fn replace(&mut self, name: &mut String) {
        let next = self.order.len() + 1;
        let new = self.new.entry(name.clone()).or_insert_with(|| {
            let new = format!("file-{next}{}", endings(name));
            self.order.push((name.clone(), new.clone()));
            new
        });
        *name = new.clone();
    }
}

/// Endings of names that say what a file is and name nobody.
const ENDINGS: [&str; 11] = [
    ".csv",
    ".tsv",
    ".txt",
    ".json",
    ".jsonl",
    ".ndjson",
    ".npy",
    ".npz",
    ".bin",
    ".safetensors",
    ".parquet",
];

/// The endings that say what a file is, such as `.csv` or `.csv.gz`.
fn endings(name: &str) -> String {
    let packed = [".gz", ".xz"].into_iter().find(|end| name.ends_with(end));
    let packed = packed.unwrap_or_default();
    let bare = name.strip_suffix(packed).unwrap_or(name);
    let kind = ENDINGS.into_iter().find(|end| bare.ends_with(end));
    format!("{}{packed}", kind.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_get_numbers_and_keep_their_endings() {
        for (name, ending) in [
            ("patients.csv", ".csv"),
            ("clinic-a/2024/patients.csv.gz", ".csv.gz"),
            ("train-images-idx3-ubyte", ""),
            ("train-images-idx3-ubyte.gz", ".gz"),
            ("photos/of.people.we.know.in.person", ""),
            ("notes.anna.xz", ".xz"),
            (".hidden", ""),
            ("a.safetensors", ".safetensors"),
        ] {
            assert_eq!(endings(name), ending, "{name}");
        }
        let text = include_str!("redact/example.toml");
        let task = Task::from_toml(text).unwrap();
        let redacted = task.redacted();
        let new = redacted.task.to_toml().unwrap();
        for word in ["Heart", "charite", "anna", "clinic"] {
            assert!(text.contains(word), "{word}");
            assert!(!new.contains(word), "{word} in {new}");
        }
        assert_eq!(
            redacted.renamed,
            [
                ("charite-2024.csv".to_owned(), "file-1.csv".to_owned()),
                ("anna/second.csv".to_owned(), "file-2.csv".to_owned()),
                ("clinic.txt".to_owned(), "file-3.txt".to_owned()),
            ]
        );
        assert_eq!(redacted.kept, ["data.label", "data.ignore"]);
        assert_eq!(redacted.task.train, task.train);
        assert_eq!(redacted.task.model, task.model);
        // Nothing more to leave out.
        assert_eq!(redacted.task.redacted().task.to_toml().unwrap(), new);
    }

    #[test]
    fn names_of_numbered_classes_become_numbers() {
        let mut task = Task::builtin("digits").unwrap();
        task.data.class_names = vec!["anna".to_owned(), "bert".to_owned()];
        let redacted = task.redacted().task;
        assert_eq!(redacted.data.class_names, ["0", "1"]);
    }
}
