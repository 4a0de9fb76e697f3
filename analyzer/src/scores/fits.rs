//! Checks whether a table belongs to a run: its digest, its window, and its rows against the data.

use std::collections::BTreeMap;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::{METADATA_VERSION, ScoreMetadata, ScoreRow, ScoreTable};

impl ScoreMetadata {
    /// Whether the table is about this run, or about several runs of which it is one. `head` is the run's head digest.
    pub fn is_about(&self, head: &str) -> bool {
        if self.runs.is_empty() {
            self.run_digest == head
        } else {
            self.runs.iter().any(|run| run.digest == head)
        }
    }

    /// Whether it is known which runs the table is about.
    pub fn names_runs(&self) -> bool {
        !self.run_digest.is_empty() || !self.runs.is_empty()
    }

    /// Refuses a table that is about other runs. `head` is the run's head digest. If a digest is unknown, nothing is
    /// refused.
    ///
    /// # Errors
    /// The text names the digests and the remedy.
    pub fn check_run(&self, head: &str) -> Result<(), String> {
        if self.runs.is_empty() {
            return same_run(&self.run_digest, head);
        }
        if head.is_empty() || self.is_about(head) {
            return Ok(());
        }
        Err(format!(
            "made from {} runs, and this one, with the head digest {}…, is none of them; make it again with this run among them",
            self.runs.len(),
            head.chars().take(16).collect::<String>()
        ))
    }

    /// Checks the metadata's version and window. Version 0 stands for a table without metadata.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.version > METADATA_VERSION {
            return Err(format!(
                "metadata of version {}; this program reads versions up to {METADATA_VERSION}",
                self.version
            ));
        }
        let window = &self.window;
        if window.start > window.end || window.end > self.run_steps {
            return Err(format!(
                "the metadata contradicts itself: window {}..{} of {} steps",
                window.start, window.end, self.run_steps
            ));
        }
        Ok(())
    }
}

/// Refuses a table or result made from another run. `digest` is the head digest in the table, `head` that of the run.
/// If either is empty, nothing is refused.
///
/// # Errors
/// The text names both digests and the remedy.
pub fn same_run(digest: &str, head: &str) -> Result<(), String> {
    if digest.is_empty() || head.is_empty() || digest == head {
        return Ok(());
    }
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    Err(format!(
        "made from another run, or from this one when it held other steps: its head digest is {}…, this run's is {}…; make it again from this run",
        short(digest),
        short(head)
    ))
}

/// The text about an example in two rows, counted from 1.
pub(super) fn appears_twice(index: u64, first: usize, second: usize) -> String {
    format!(
        "example {index} appears twice, in rows {first} and {second} (counted from 1, without the header)"
    )
}

impl ScoreTable {
    /// Refuses a table that contains an example twice, because its two rows could contradict each other.
    ///
    /// # Errors
    /// The text names the first such example and its two rows, counted from 1 without the header.
    pub fn check_unique(&self) -> Result<(), String> {
        let mut seen = BTreeMap::new();
        for (at, row) in (1..).zip(&self.rows) {
            if let Some(before) = seen.insert(row.index, at) {
                return Err(appears_twice(row.index, before, at));
            }
        }
        Ok(())
    }

    /// Refuses a table without rows, and one with a row for an example outside of a training split of `examples`.
    ///
    /// # Errors
    /// The text names the problem.
    pub fn check_range(&self, examples: u64) -> Result<(), String> {
        if self.rows.is_empty() {
            return Err("the table has no rows".to_owned());
        }
        match self.rows.iter().find(|row| row.index >= examples) {
            Some(row) => Err(format!(
                "the table has a row for example {}, but the training split has {examples} examples, 0..{examples}",
                row.index
            )),
            None => self.check_unique(),
        }
    }

    /// Refuses rows whose label, row or file differs from the data. Missing columns are not compared.
    ///
    /// # Errors
    /// The text names the first difference.
    pub fn check_data(&self, data: &dyn DataSet) -> Result<(), String> {
        self.check_range(data.len(Split::Train))?;
        let any = |has: fn(&ScoreRow) -> bool| self.rows.iter().any(has);
        let labels = any(|row| !row.label.is_empty());
        let numbers = any(|row| row.row != 0);
        let files = any(|row| !row.file.is_empty());
        for row in &self.rows {
            let differs = |what: &str, in_table: &str, in_data: &str| {
                Err(format!(
                    "example {} has the {what} {in_table:?} in the table and {in_data:?} in the data: the table was made from other data",
                    row.index
                ))
            };
            let label = data.label(Split::Train, row.index);
            if labels && row.label != label {
                return differs("label", &row.label, &label);
            }
            let number = data.origin(Split::Train, row.index);
            if numbers && row.row != number {
                return differs("row", &row.row.to_string(), &number.to_string());
            }
            let file = data.file(Split::Train, row.index);
            if files && row.file != file {
                return differs("file", &row.file, &file);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hindcast_model::data::{DataSpec, Source, load};

    use super::*;
    use std::collections::BTreeMap;

    use crate::scores::{AdjointGrowth, QueryMetadata, ScoreRow};

    /// Scores of one query, labels `a` and `b` in turn, in two epochs that share a score evenly.
    fn table(scores: &[Option<f64>]) -> ScoreTable {
        let rows = (0..)
            .zip(scores)
            .map(|(index, &score)| ScoreRow {
                index,
                row: 100 + index,
                file: "rows.csv".to_owned(),
                name: None,
                label: ["a", "b"][index as usize % 2].to_owned(),
                occurrences: 2 * u64::from(score.is_some()),
                influence: vec![score],
                renormalised: vec![score],
                epochs: vec![vec![score.map(|s| s / 2.0); 2]],
                refined: Vec::new(),
                ..ScoreRow::default()
            })
            .collect();
        ScoreTable {
            metadata: ScoreMetadata {
                version: 1,
                writer: "test".to_owned(),
                run_digest: "00ff".to_owned(),
                window: 0..20,
                run_steps: 20,
                at: String::new(),
                method: "sgd".to_owned(),
                settings: BTreeMap::new(),
                notes: Vec::new(),
                engine: "kernels, recorded precision, cpu".to_owned(),
                rule: "kind = \"sgd\"\n".to_owned(),
                queries: vec![QueryMetadata {
                    name: "validation".to_owned(),
                    value: 0.25,
                    digest: None,
                    growth: Some(AdjointGrowth::of(&[(20, 1.0), (10, 1.5), (0, 2.0)])),
                }],
                epochs: vec![0, 1],
                refined: Vec::new(),
                files: vec![vec!["rows.csv".to_owned()]],
                ..ScoreMetadata::default()
            },
            rows,
        }
    }

    fn digits() -> Box<dyn DataSet> {
        let mut spec = DataSpec::new(Source::Digits);
        spec.train = Some(4);
        load(&spec, None, None, 0).unwrap()
    }

    /// A table that fits [`digits`].
    fn fitting() -> ScoreTable {
        let data = digits();
        let mut table = table(&[Some(1.0); 4]);
        for row in &mut table.rows {
            row.label = data.label(Split::Train, row.index);
            row.row = row.index;
            row.file = "digits/train".to_owned();
        }
        table
    }

    #[test]
    fn rows_that_differ_from_the_data_are_refused() {
        let data = digits();
        fitting().check_data(data.as_ref()).unwrap();
        type Spoil = fn(&mut ScoreTable);
        let spoilt: [(Spoil, &str); 6] = [
            (|t| t.rows.clear(), "no rows"),
            (
                |t| t.rows[2].index = 4,
                "example 4, but the training split has 4",
            ),
            (
                |t| t.rows[2].index = 1,
                "example 1 appears twice, in rows 2 and 3",
            ),
            (
                |t| t.rows[3].label = "eleven".to_owned(),
                "example 3 has the label \"eleven\"",
            ),
            (
                |t| t.rows[3].row = 9,
                "example 3 has the row \"9\" in the table and \"3\"",
            ),
            (
                |t| t.rows[0].file = "a.csv".to_owned(),
                "example 0 has the file \"a.csv\"",
            ),
        ];
        for (spoil, hint) in spoilt {
            let mut table = fitting();
            spoil(&mut table);
            let said = table.check_data(data.as_ref()).unwrap_err();
            assert!(said.contains(hint), "{said}");
        }
        // Tables of earlier versions and handmade ones may lack these columns.
        let mut table = fitting();
        for row in &mut table.rows {
            (row.row, row.label, row.file) = (0, String::new(), String::new());
        }
        table.check_data(data.as_ref()).unwrap();
    }

    #[test]
    fn contradictory_metadata_is_refused() {
        let of = |change: fn(&mut ScoreMetadata)| {
            let mut metadata = fitting().metadata;
            change(&mut metadata);
            metadata.check()
        };
        of(|_| ()).unwrap();
        assert!(of(|m| m.version = 2).unwrap_err().contains("version 2"));
        assert!(
            of(|m| m.window = 3..21)
                .unwrap_err()
                .contains("3..21 of 20")
        );
        assert!(same_run("00", "").is_ok() && same_run("", "00").is_ok());
        assert!(same_run("00", "11").unwrap_err().contains("another run"));
    }
}
