//! Checks of the `[data]` table before any file is opened.

use super::spec::{DataSpec, Files, Pick, Pool, Source};
use super::table::Numerals;
use super::{DataError, encoding};

impl DataSpec {
    /// Checks the table alone, without opening any file.
    ///
    /// # Errors
    /// [`DataError::Spec`] for a key that the source doesn't have, a key that it needs, or a value out of range.
    pub fn validate(&self) -> Result<(), DataError> {
        match self.problems().into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(()),
        }
    }

    /// All problems of the table alone. [`DataSpec::validate`] returns the first.
    pub fn problems(&self) -> Vec<DataError> {
        let mut problems = self.foreign_keys();
        for (key, value) in [
            ("train_files", &self.train_files),
            ("validation_files", &self.validation_files),
            ("test_files", &self.test_files),
        ] {
            problems.extend(self.validate_files(key, value.as_ref()).err());
        }
        for (key, name) in [
            ("labels_file", &self.labels_file),
            ("truth_file", &self.truth_file),
            ("class_names_file", &self.class_names_file),
        ] {
            let outside = name.as_ref().and_then(|name| check_inside(key, name).err());
            problems.extend(outside);
        }
        problems.extend(self.validate_source().err());
        problems.extend(self.validate_texts().err());
        problems.extend(self.validate_numbers().err());
        problems
    }

    /// The keys that are set and that the source doesn't have.
    pub(super) fn foreign_keys(&self) -> Vec<DataError> {
        use Source::{Cifar10, Csv, Documents, Idx, Images, Npy, Safetensors, Text};
        let mut foreign = Vec::new();
        let mut only = |key: &str, set: bool, sources: &[Source]| {
            if set && !sources.contains(&self.source) {
                let names: Vec<_> = sources.iter().map(|s| s.name()).collect();
                foreign.push(DataError::spec(
                    key,
                    format!(
                        "is a key of source {}, not of {:?}",
                        names.join(", "),
                        self.source.name()
                    ),
                ));
            }
        };
        let files = [Idx, Cifar10, Images, Csv, Documents, Npy, Safetensors, Text];
        let texts = [Csv, Documents, Text];
        only("train_files", self.train_files.is_some(), &files);
        only("validation_files", self.validation_files.is_some(), &files);
        only("test_files", self.test_files.is_some(), &files);
        only("images", self.images.is_some(), &[Images]);
        only("transpose", self.transpose, &[Idx]);
        only("decimal", self.decimal.is_some(), &[Csv]);
        only("thousands", self.thousands.is_some(), &[Csv]);
        only("encoding", self.encoding.is_some(), &texts);
        only("missing", self.missing.is_some(), &[Csv]);
        only("tfidf", self.tfidf.is_some(), &[Csv]);
        only("inputs", self.inputs.is_some(), &[Safetensors]);
        only("labels", self.labels.is_some(), &[Safetensors]);
        only("layout", self.layout.is_some(), &[Idx, Npy, Safetensors]);
        only("label", self.label.is_some(), &[Csv, Documents]);
        only("categorical", !self.categorical.is_empty(), &[Csv]);
        only("ignore", !self.ignore.is_empty(), &[Csv]);
        only("columns", !self.columns.is_empty(), &[Csv]);
        only("delimiter", self.delimiter.is_some(), &[Csv]);
        only("comment", self.comment.is_some(), &[Csv]);
        only("log1p", !self.log1p.is_empty(), &[Csv]);
        only("merge", !self.merge.is_empty(), &[Csv]);
        only("documents", self.documents.is_some(), &[Documents]);
        only("text", self.text.is_some(), &[Text]);
        only("skip", self.skip > 0, &files);
        only("pool", self.pool != Pool::Separate, &files);
        only("pick", self.pick != Pick::Random, &files);
        only("classes", !self.classes.is_empty(), &files);
        foreign
    }

    /// Checks that the keys that the source needs are set.
    fn validate_source(&self) -> Result<(), DataError> {
        use Source::{Csv, Documents, Images, Npy, Safetensors, Text};
        if matches!(
            self.source,
            Csv | Documents | Images | Npy | Safetensors | Text
        ) && self.train_files.is_none()
        {
            let what = match self.source {
                Images => {
                    "name the folder that has one folder of training images per class (\".\" is the data folder itself)"
                }
                _ => "name the file with the training examples",
            };
            return Err(DataError::spec(
                "train_files",
                format!(
                    "source {:?} has no built-in file names: {what}",
                    self.source.name()
                ),
            ));
        }
        if self.source == Csv && self.label.is_none() {
            return Err(DataError::spec("label", "name the column of the labels"));
        }
        if self.source == Documents {
            let label = self.label.as_ref().ok_or_else(|| {
                DataError::spec("label", "name the field of a document that holds its label")
            })?;
            let documents = self.documents.clone().unwrap_or_default();
            documents.validate(&label.to_string())?;
        }
        if let Some(images) = &self.images {
            images.validate()?;
        }
        if self.source == Text {
            let text = self.text.as_ref().ok_or_else(|| {
                DataError::spec("text", "say how long a window is: text = { length = 8 }")
            })?;
            text.validate()?;
        }
        Ok(())
    }

    /// Checks the texts of tables.
    fn validate_texts(&self) -> Result<(), DataError> {
        encoding::named(self.encoding.as_deref())?;
        if let Some(missing) = &self.missing {
            missing.validate()?;
        }
        if let Some(words) = &self.tfidf {
            words.validate()?;
        }
        if let Some(c) = self.decimal.filter(|c| !matches!(c, '.' | ',')) {
            return Err(DataError::spec(
                "decimal",
                format!("expected \".\" or \",\", got {c:?}"),
            ));
        }
        let numerals = self.numerals();
        if self.thousands.is_some() && !Numerals::ALL.contains(&numerals) {
            let decimal = numerals.decimal;
            return Err(DataError::spec(
                "thousands",
                format!(
                    "expected \",\", \".\", \" \" or \"'\", and another character than the decimal separator, which is {decimal:?}"
                ),
            ));
        }
        if !self.class_names.is_empty() && self.class_names_file.is_some() {
            return Err(DataError::spec(
                "class_names_file",
                "is given together with class_names: remove one of them",
            ));
        }
        for (column, groups) in &self.merge {
            let mut seen = std::collections::BTreeSet::new();
            if let Some(twice) = groups.values().flatten().find(|text| !seen.insert(*text)) {
                return Err(DataError::spec(
                    "merge",
                    format!(
                        "{twice:?} of column {column:?} is named twice, but can be merged into one text only"
                    ),
                ));
            }
        }
        for (key, value) in [("delimiter", self.delimiter), ("comment", self.comment)] {
            if let Some(c) = value.filter(|c| !c.is_ascii()) {
                return Err(DataError::spec(
                    key,
                    format!("expected one ASCII character, got {c:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Checks how the splits are drawn, and the numbers of the scaling.
    fn validate_numbers(&self) -> Result<(), DataError> {
        if self.validation_files.is_some() && self.pool != Pool::Separate {
            return Err(DataError::spec(
                "validation_files",
                "expected pool = \"separate\", because the validation split has its own files",
            ));
        }
        if self.train == Some(0) {
            return Err(DataError::spec(
                "train",
                "expected at least one training example, got 0",
            ));
        }
        if let Some(share) = self.flipped.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(DataError::spec(
                "flipped",
                format!("expected a share of the training labels in [0, 1], got {share}"),
            ));
        }
        if let Some(d) = self.divide_by.filter(|d| !d.is_finite() || *d == 0.0) {
            return Err(DataError::spec(
                "divide_by",
                format!("expected a finite number other than 0, got {d}"),
            ));
        }
        if let Some(m) = self.mean.iter().find(|m| !m.is_finite()) {
            return Err(DataError::spec(
                "mean",
                format!("expected finite numbers, got {m}"),
            ));
        }
        if let Some(s) = self.sd.iter().find(|s| !s.is_finite() || **s <= 0.0) {
            return Err(DataError::spec(
                "sd",
                format!("expected finite numbers above 0, got {s}"),
            ));
        }
        Ok(())
    }

    fn validate_files(&self, key: &str, files: Option<&Files>) -> Result<(), DataError> {
        let names: Vec<&String> = match (self.source, files) {
            (_, None) => return Ok(()),
            (Source::Idx | Source::Npy, Some(Files::Pair(pair))) => {
                vec![&pair.inputs, &pair.labels]
            }
            (Source::Idx | Source::Npy, Some(_)) => {
                return Err(DataError::spec(
                    key,
                    format!(
                        "source {:?} has inputs and labels in separate files: write {{ inputs = \"…\", labels = \"…\" }}",
                        self.source.name()
                    ),
                ));
            }
            (_, Some(Files::Pair(_))) => {
                return Err(DataError::spec(
                    key,
                    format!(
                        "source {:?} has inputs and labels in the same file: give one name or a list of names",
                        self.source.name()
                    ),
                ));
            }
            (_, Some(Files::One(name))) => vec![name],
            (_, Some(Files::Many(names))) => names.iter().collect(),
        };
        if names.is_empty() {
            return Err(DataError::spec(
                key,
                "expected at least one file name, got an empty list",
            ));
        }
        for name in names {
            check_inside(key, name)?;
        }
        Ok(())
    }
}

/// Checks that a name leads into the data folder. A Task may come from another person's run. It must not name files outside
/// the folder that the user named.
fn check_inside(key: &str, name: &str) -> Result<(), DataError> {
    use std::path::Component;
    let inside = std::path::Path::new(name)
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if name.is_empty() || !inside {
        return Err(DataError::spec(
            key,
            format!("expected a name inside the data folder, got {name:?}"),
        ));
    }
    Ok(())
}
