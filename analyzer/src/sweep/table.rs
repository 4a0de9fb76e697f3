//! A finished sweep as a table.

use std::collections::{BTreeMap, BTreeSet};

use hindcast_model::objective::Split;

use super::SweepState;
use crate::Query;
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::scores::{
    AdjointGrowth, METADATA_VERSION, QueryMetadata, ScoreMetadata, ScoreRow, ScoreTable,
};

/// What a table says about its origin and a sweep doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableOrigin {
    /// Head digest of the run, hexadecimal.
    pub run_digest: String,
    /// Element type and device of the replay, such as `f64 cpu`.
    pub engine: String,
    /// BLAKE3 of the files that queries read, hexadecimal, by the query's name.
    pub files: BTreeMap<String, String>,
}

impl TableOrigin {
    /// The same with the digests of the files that these queries read.
    ///
    /// # Errors
    /// Where such a file can't be read.
    pub fn with_files(mut self, queries: &[Query]) -> Result<Self> {
        for query in queries {
            let digest = query.file_digest()?;
            if !digest.is_empty() {
                self.files.insert(query.to_string(), digest);
            }
        }
        Ok(self)
    }
}

impl SweepState {
    /// One row a training example, in the order of their indices. An example that the window never saw has no score:
    /// nothing was estimated for it.
    pub fn table(&self, run: &RecordedRun<'_>, origin: &TableOrigin) -> ScoreTable {
        let epochs: Vec<u64> = self
            .queries
            .iter()
            .flat_map(|q| q.epochs.keys().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let rows = self
            .occurrences
            .iter()
            .enumerate()
            .map(|(i, &occurrences)| {
                let seen = |scores: &Vec<f64>| (occurrences > 0).then(|| scores[i]);
                let index = i as u64;
                ScoreRow {
                    index,
                    row: run.data().origin(Split::Train, index),
                    file: run.data().file(Split::Train, index),
                    name: None,
                    label: run.data().label(Split::Train, index),
                    occurrences,
                    influence: self.queries.iter().map(|q| seen(&q.influence)).collect(),
                    renormalised: self.queries.iter().map(|q| seen(&q.renormalised)).collect(),
                    epochs: match epochs.is_empty() {
                        true => Vec::new(),
                        false => self
                            .queries
                            .iter()
                            .map(|q| {
                                epochs
                                    .iter()
                                    .map(|e| q.epochs.get(e).and_then(seen))
                                    .collect()
                            })
                            .collect(),
                    },
                    refined: Vec::new(),
                }
            })
            .collect();
        ScoreTable {
            metadata: ScoreMetadata {
                version: METADATA_VERSION,
                writer: concat!("hindcast-analyzer ", env!("CARGO_PKG_VERSION")).to_owned(),
                run_digest: origin.run_digest.clone(),
                window: self.window.clone(),
                run_steps: self.end,
                method: "sgd".to_owned(),
                settings: BTreeMap::new(),
                notes: Vec::new(),
                engine: origin.engine.clone(),
                rule: run.rule().to_toml().unwrap_or_default(),
                queries: self
                    .queries
                    .iter()
                    .map(|q| QueryMetadata {
                        name: q.name.clone(),
                        value: q.value,
                        digest: origin.files.get(&q.name).cloned(),
                        growth: Some(AdjointGrowth::of(&q.growth)),
                    })
                    .collect(),
                epochs,
                refined: Vec::new(),
                files: run.data().files(Split::Train),
            },
            rows,
        }
    }
}
