//! What verification found, as data.

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::manifest::Status;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As intended, but worth knowing: steps recorded without tensors, segments dropped by a ring.
    Note,
    /// Nothing recorded is lost: an unfinished last frame, a file that doesn't belong here.
    Warning,
    /// Recorded data is lost or altered.
    Error,
}

/// What a finding is about.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The manifest can't be read, or its seal doesn't agree with it.
    Manifest,
    /// A segment that the manifest lists is not there.
    MissingFile,
    /// A file that the manifest doesn't list.
    ExtraFile,
    /// A segment's header or footer is damaged, or says something else than the manifest.
    Segment,
    /// A segment's bytes don't agree with its digest.
    Digest,
    /// A segment doesn't follow the one before it.
    Chain,
    /// A step's metadata is damaged.
    Metadata,
    /// A step's tensors are damaged.
    Tensors,
    /// A frame is damaged in another way.
    Frame,
    /// A segment's link doesn't lead to the state that opens the next one.
    Link,
    /// The run says that it is finished and holds no final state.
    FinalState,
    /// The last frame was not written to its end.
    TornTail,
    /// Steps that were recorded without their tensors.
    Gap,
    /// Segments that were removed on purpose.
    Dropped,
}

/// One thing that verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about.
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// File name inside the run folder.
    pub file: String,
    /// Segment number.
    pub segment: Option<u64>,
    /// Step.
    pub step: Option<u64>,
    /// Tensors that are hit.
    pub tensors: Vec<String>,
    /// In words: what was expected and what was found.
    pub text: String,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The run.
    pub location: String,
    /// Open, unfinished or finished; `None` if the run can't be opened.
    pub status: Option<Status>,
    /// Segments that are there.
    pub segments: u64,
    /// Steps with tensors that are there.
    pub steps: u64,
    /// Of them, how many can be read, tensors and metadata.
    pub steps_ok: u64,
    /// Steps without tensors.
    pub gaps: u64,
    /// Bytes of the run's files: the manifest and the segments. Files that aren't part of the run don't count.
    pub bytes: u64,
    /// The manifest's seal, which stands for the whole run once it is closed: compare it with one kept elsewhere.
    pub head_digest: Option<String>,
    /// Findings, in the order of the files. Only the first are kept if there are many.
    pub findings: Vec<Finding>,
    /// Number of further findings.
    #[serde(default)]
    pub more: u64,
}

/// Largest number of findings that a report spells out. A first error is kept even beyond it.
const MOST: usize = 2000;

impl VerifyReport {
    /// Is nothing lost or altered?
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|f| f.severity < Severity::Error)
    }

    /// The gravest severity among the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }
}

impl VerifyReport {
    pub(super) fn add(&mut self, kind: FindingKind, error: &FormatError) {
        let mut finding = Finding {
            kind,
            severity: Severity::Error,
            file: String::new(),
            segment: None,
            step: None,
            tensors: Vec::new(),
            text: error.to_string(),
        };
        match error {
            FormatError::Corrupt(c) => {
                finding.file.clone_from(&c.file);
                finding.segment = c.segment;
                finding.step = c.step;
                finding.tensors.clone_from(&c.tensors);
            }
            FormatError::Incomplete { file, .. } => finding.file.clone_from(file),
            _ => {}
        }
        // Beyond the limit, findings are only counted.
        if self.findings.len() >= MOST || !self.findings.contains(&finding) {
            self.keep(finding);
        }
    }

    fn keep(&mut self, finding: Finding) {
        // A loss is never left out, whatever else was found.
        let first_error = finding.severity == Severity::Error && self.is_ok();
        if self.findings.len() < MOST || first_error {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn note(
        &mut self,
        kind: FindingKind,
        severity: Severity,
        file: &str,
        segment: Option<u64>,
        step: Option<u64>,
        text: String,
    ) {
        self.keep(Finding {
            kind,
            severity,
            file: file.to_owned(),
            segment,
            step,
            tensors: Vec::new(),
            text,
        });
    }
}

pub(super) fn finding_kind(error: &FormatError, otherwise: FindingKind) -> FindingKind {
    match error {
        FormatError::Corrupt(c) if !c.tensors.is_empty() || c.what.starts_with("chunk") => {
            FindingKind::Tensors
        }
        FormatError::Corrupt(c) if c.what.starts_with("metadata") => FindingKind::Metadata,
        FormatError::Corrupt(c) if c.what.starts_with("frame") => FindingKind::Frame,
        FormatError::Corrupt(c) if c.file.starts_with("seg-") => FindingKind::Segment,
        _ => otherwise,
    }
}
