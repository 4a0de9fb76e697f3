//! The notes of a run.

use hindcast_format::{FrozenTensor, HELD_OUT, RunInfo, is_lineage_key, is_made_key};

use super::rows::ROWS_NOTE;

/// The user's notes. Leaves out what is stored as a note, too: the digests of the data's rows and of frozen tensors, the number of
/// held-out rows, how the run was made, and from which other run.
pub fn user_notes(info: &RunInfo) -> impl Iterator<Item = (&String, &String)> {
    info.notes.iter().filter(|(key, text)| {
        let held_out = HELD_OUT.contains(&key.as_str()) && text.parse::<u64>().is_ok();
        let frozen = FrozenTensor::of_note(key, text).is_some();
        !(key.starts_with(ROWS_NOTE)
            || held_out
            || frozen
            || is_made_key(key)
            || is_lineage_key(key))
    })
}
