//! Findings about a run's folder and its manifest.

use std::collections::BTreeSet;

use super::report::{FindingKind, Severity, VerifyReport};
use crate::FormatError;
use crate::manifest::{MANIFEST, Manifest, SIGNATURE, TIMESTAMP};
use crate::trace::Trace;

impl VerifyReport {
    /// Adds the sizes of the run's files, and findings about files that aren't part of the run and about what the manifest counts.
    /// `before` names the files that were there before the run was opened: files that a recorder has begun since then belong to the run.
    pub(super) fn files(
        &mut self,
        trace: &Trace,
        before: &BTreeSet<String>,
    ) -> Result<(), FormatError> {
        let storage = trace.storage();
        let known: BTreeSet<&str> = trace
            .parts
            .iter()
            .map(|p| p.name.as_str())
            .chain([MANIFEST])
            .collect();
        for entry in storage
            .list()
            .map_err(|e| FormatError::io(storage.location(), "listing", e))?
        {
            if known.contains(entry.name.as_str()) {
                self.bytes += entry.length;
            } else if before.contains(&entry.name)
                && ![SIGNATURE, TIMESTAMP].contains(&entry.name.as_str())
            {
                let text = format!(
                    "{}: not part of the run: neither the manifest nor a segment refers to it",
                    entry.name
                );
                self.note(
                    FindingKind::ExtraFile,
                    Severity::Warning,
                    &entry.name,
                    None,
                    None,
                    text,
                );
            }
        }
        if let Some(manifest) = trace.manifest() {
            self.dropped(manifest);
            self.never_recorded(manifest);
        }
        Ok(())
    }

    fn dropped(&mut self, manifest: &Manifest) {
        let dropped = manifest.segments.iter().filter(|s| s.dropped).count();
        if dropped == 0 {
            return;
        }
        let s = if dropped == 1 { " was" } else { "s were" };
        let text =
            format!("{MANIFEST}: {dropped} segment{s} dropped on purpose; their digests are kept");
        self.note(
            FindingKind::Dropped,
            Severity::Note,
            MANIFEST,
            None,
            None,
            text,
        );
    }

    fn never_recorded(&mut self, manifest: &Manifest) {
        let count = |name: &str| manifest.counters.get(name).copied().unwrap_or(0);
        let lost = count("lost");
        if lost == 0 {
            return;
        }
        let (from, to) = (count("lost-from"), count("lost-to"));
        let text = format!(
            "{MANIFEST}: {lost} steps in {from}..{to} were never recorded: storage failed there, and training continued"
        );
        self.note(
            FindingKind::Gap,
            Severity::Note,
            MANIFEST,
            None,
            Some(from),
            text,
        );
    }
}
