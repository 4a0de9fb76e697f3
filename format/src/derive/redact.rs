//! Takes out of a run what identifies people and places, and stored rows on request.

use crate::FormatError;
use crate::frozen::FrozenTensor;
use crate::info::RunInfo;
use crate::lineage::is_lineage_key;
use crate::made::{SESSION, is_made_key, made_note, session_of};
use crate::meta::{Extension, StepMeta};
use crate::rows::{self, HELD_OUT, ROWS, RowRecord};

/// Facts about how a run was made that name a person, a machine or a project.
const NAMING: [&str; 4] = ["program", "command", "commit", "os"];
/// Prefix of the notes with digests of the data's rows, and the note with their key.
const ROW_DIGESTS: &str = "data-rows.";
const ROW_KEY: &str = "data-rows.key";
/// Begins the text of digests that only the key can confirm.
const KEYED: &str = "keyed ";

/// Whether a note is left out, by its key and its text.
type IsLeftOut = fn(&str, &str) -> bool;

/// What is left out of a redacted run, beside the user's notes, the program with its command line, commit and operating system, and digests of
/// rows that a guess can confirm.
#[derive(Debug, Clone, Default)]
pub struct Redaction {
    /// The text that replaces the task's. `None` leaves the task as it is.
    pub task: Option<String>,
    /// Leave out stored rows. The run can't be analysed or replayed then.
    pub rows: bool,
}

impl Redaction {
    /// What is asked for, as a note says it.
    pub(super) fn options(&self) -> String {
        let mut options = Vec::new();
        if self.task.is_some() {
            options.push("task");
        }
        if self.rows {
            options.push("rows");
        }
        options.join(", ")
    }

    /// What is left out, as a note says it.
    pub(super) fn left_out(&self) -> String {
        let mut parts = vec![
            "notes, program, command line, commit, operating system, digests that confirm rows",
        ];
        if self.task.is_some() {
            parts.push("names in the task");
        }
        if self.rows {
            parts.push("stored rows");
        }
        parts.join(", ")
    }

    /// Takes names out of the description. Returns what was there, in words, with the keys of the user's notes.
    pub(super) fn describe(&self, info: &mut RunInfo) -> Vec<String> {
        let mut left_out = Vec::new();
        let kinds: [(&str, IsLeftOut); 3] = [
            ("the note", is_users),
            ("the fact", is_naming),
            ("the digests", confirms_rows),
        ];
        for (what, leaves) in kinds {
            info.notes.retain(|key, text| {
                let stays = !leaves(key, text);
                if !stays {
                    left_out.push(format!("{what} {key}"));
                }
                stays
            });
        }
        if let Some(task) = &self.task {
            if info.task.as_ref() != Some(task) {
                left_out.push("names in the task".to_owned());
            }
            info.task = Some(task.clone());
        }
        if self.rows {
            left_out.push("stored rows".to_owned());
        }
        left_out
    }

    /// Takes names, and rows if they are to be left out, out of a step's metadata. With the same key, equal rows get equal digests.
    pub(super) fn step(&self, meta: &mut StepMeta, key: &[u8; 32]) -> Result<(), FormatError> {
        if let Some(mut facts) = session_of(meta) {
            facts.retain(|key, text| !is_naming(key, text));
            let record = Extension::of_session(&facts);
            let mut records = meta.extensions.iter_mut();
            if let Some(old) = records.find(|e| e.id == SESSION) {
                *old = record;
            }
        }
        if !self.rows {
            return Ok(());
        }
        let mut without = Vec::new();
        for record in rows::parsed(meta)? {
            let keyed = |digest: &[u8; 32]| *blake3::keyed_hash(key, digest).as_bytes();
            without.push(Extension::of_rows(&RowRecord {
                split: record.split,
                layout: record.layout.clone(),
                next: record.next,
                indices: record.indices.clone(),
                digests: record.digests.iter().map(keyed).collect(),
                rows: None,
            })?);
        }
        let mut without = without.into_iter();
        for record in meta.extensions.iter_mut().filter(|e| e.id == ROWS) {
            // There are as many of them as were read.
            if let Some(new) = without.next() {
                *record = new;
            }
        }
        Ok(())
    }
}

/// Whether a note is one of the user's own.
fn is_users(key: &str, text: &str) -> bool {
    let held_out = HELD_OUT.contains(&key) && text.parse::<u64>().is_ok();
    let frozen = FrozenTensor::of_note(key, text).is_some();
    let ours = key.starts_with(ROW_DIGESTS) || is_made_key(key) || is_lineage_key(key);
    !(ours || held_out || frozen)
}

fn is_naming(key: &str, _: &str) -> bool {
    NAMING.iter().any(|what| made_note(what, "").0 == key)
}

/// Whether a note lets anyone confirm a guessed row: digests without a key, or the key.
fn confirms_rows(key: &str, text: &str) -> bool {
    key.starts_with(ROW_DIGESTS) && (key == ROW_KEY || !text.starts_with(KEYED))
}
