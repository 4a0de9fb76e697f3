//! Handles runs that their writer can't close normally: a run whose storage still fails, and a run without steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::live::claim;
use super::run::RunWriter;
use crate::FormatError;
use crate::manifest::{MANIFEST, Status};
use crate::segment;
use crate::storage::Storage;

impl RunWriter {
    /// Replaces the counters in the manifest of a run that can't be opened for writing. Everything else stays unchanged. A recorder uses it
    /// at its end if storage still fails.
    ///
    /// # Errors
    /// Another writer has the run open, the manifest can't be read, or the storage fails.
    pub fn replace_counters(
        storage: &dyn Storage,
        counters: BTreeMap<String, u64>,
    ) -> Result<(), FormatError> {
        let _claim = claim(storage)?;
        let (mut manifest, _) = crate::trace::read_manifest(storage)?;
        manifest.counters = counters;
        storage
            .replace(MANIFEST, &manifest.to_bytes()?)
            .map_err(|e| {
                let path = format!("{}/{MANIFEST}", storage.location());
                FormatError::io(path, "replace", e)
            })
    }

    /// Removes a run without recorded steps, so that it doesn't block the next attempt. Returns false and changes nothing if there is a
    /// step, a final state, or a file that no writer makes before these.
    ///
    /// # Errors
    /// Another writer has the run open, or the storage fails.
    pub fn discard_empty(storage: &Arc<dyn Storage>) -> Result<bool, FormatError> {
        let claim = claim(storage.as_ref())?;
        let trace = crate::Trace::open_storage(Arc::clone(storage))?;
        let untouched = trace.manifest().is_some_and(|manifest| {
            manifest.segments.is_empty()
                && manifest.forks.is_empty()
                && manifest.status != Status::Finished
        });
        // A damaged or foreign segment may hold steps even though the trace doesn't show them.
        let recorded =
            trace.sizes().iter().any(|s| s.recorded + s.gaps > 0) || !trace.problems().is_empty();
        drop(trace);
        let first = segment::name(0, 0);
        let ours = [MANIFEST.to_owned(), format!("{MANIFEST}.tmp"), first];
        let io = |doing, e| FormatError::io(storage.location(), doing, e);
        let files = storage.list().map_err(|e| io("list", e))?;
        if !untouched || recorded || files.iter().any(|file| !ours.contains(&file.name)) {
            return Ok(false);
        }
        for file in files.iter().filter(|file| file.name != MANIFEST) {
            let removed = storage.remove(&file.name);
            removed.map_err(|e| io("remove a file of the run without steps", e))?;
        }
        storage
            .remove_run()
            .map_err(|e| io("remove the run without steps", e))?;
        drop(claim);
        Ok(true)
    }
}
