//! Findings about a run's folder and its manifest.

use std::collections::BTreeSet;

use super::report::{FindingKind, Severity, VerifyReport};
use crate::FormatError;
use crate::manifest::{MANIFEST, Manifest, SIGNATURE, Status, TIMESTAMP};
use crate::trace::{Part, Trace};

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
            .map_err(|e| FormatError::io(storage.location(), "list", e))?
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
            self.not_counted(trace, manifest);
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

    /// Notes steps of a closed run that are missing although the counters don't say that they were lost. A recorder counts them, and
    /// writes a gap for each step that it leaves out on purpose. A derived run states its original's counters.
    fn not_counted(&mut self, trace: &Trace, manifest: &Manifest) {
        if manifest.status == Status::Open || !crate::lineage::lineage(trace.info()).is_empty() {
            return;
        }
        let steps: Vec<&Part> = trace.parts.iter().filter(|p| !p.is_final).collect();
        let within = |p: &&Part| {
            let there = p.steps.saturating_add(p.gaps);
            p.range
                .end
                .saturating_sub(p.range.start)
                .saturating_sub(there)
        };
        let between = |two: &[&Part]| match two {
            [before, after] => after.range.start.saturating_sub(before.range.end),
            _ => 0,
        };
        // What the final state follows, or the end of a run without one, is known from its last step.
        let last = trace.parts.iter().find(|p| p.is_final).zip(steps.last());
        let last = last.map(|(end, last)| end.range.start.saturating_sub(last.range.end));
        let missing = steps.iter().map(within);
        let missing = missing.chain(steps.windows(2).map(between)).chain(last);
        let missing = missing.fold(0, u64::saturating_add);
        let lost = manifest.counters.get("lost").copied().unwrap_or(0);
        if missing <= lost {
            return;
        }
        let text = format!(
            "{MANIFEST}: steps that the run lacks between its first and its end: {missing}; steps that were lost, by the counters: {lost}"
        );
        self.note(
            FindingKind::Gap,
            Severity::Warning,
            MANIFEST,
            None,
            None,
            text,
        );
    }
}
