//! What verification found, as data.

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::manifest::Status;

/// Largest number of findings that a report lists. The first error is listed even beyond it.
const MOST: usize = 2000;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Intended, but worth knowing: steps recorded without tensors, segments dropped by a ring.
    Note,
    /// No recorded data is lost: an incomplete last frame, a file that isn't part of the run.
    Warning,
    /// Recorded data is lost or altered.
    Error,
}

/// What a finding is about.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The manifest can't be read, or its seal doesn't match its bytes.
    Manifest,
    /// A segment that the manifest lists is missing.
    MissingFile,
    /// A file isn't part of the run.
    ExtraFile,
    /// A segment's header or footer is damaged or contradicts the manifest.
    Segment,
    /// A segment's bytes don't match its digest.
    Digest,
    /// A segment doesn't follow the previous one.
    Chain,
    /// A step's metadata is damaged.
    Metadata,
    /// A step's tensors are damaged.
    Tensors,
    /// A frame is damaged in another way.
    Frame,
    /// A segment's link doesn't lead to the state that opens the next segment.
    Link,
    /// The run is said to be finished but has no final state.
    FinalState,
    /// The last frame is incomplete.
    TornTail,
    /// Steps were recorded without their tensors.
    Gap,
    /// Segments were removed on purpose.
    Dropped,
    /// Rows of batches are damaged or missing.
    Rows,
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
    /// Names of the affected tensors.
    pub tensors: Vec<String>,
    /// What was expected and what was found, in words.
    pub text: String,
}

/// The result of verifying a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The run.
    pub location: String,
    /// Open, unfinished or finished; `None` if the run can't be opened.
    pub status: Option<Status>,
    /// Number of segments that are present.
    pub segments: u64,
    /// Number of steps with tensors that are present.
    pub steps: u64,
    /// Number of those steps that can be read, tensors and metadata.
    pub steps_ok: u64,
    /// Number of steps without tensors.
    pub gaps: u64,
    /// Bytes of the manifest and the segments. Files that aren't part of the run don't count.
    pub bytes: u64,
    /// The manifest's seal. Once the run is closed, it stands for the whole run: compare it with a copy kept elsewhere.
    pub head_digest: Option<String>,
    /// Findings, in the order of the files; only the first ones if there are many.
    pub findings: Vec<Finding>,
    /// Number of findings that are not listed.
    #[serde(default)]
    pub more: u64,
}

impl VerifyReport {
    /// Whether no recorded data is lost or altered.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|f| f.severity < Severity::Error)
    }

    /// The highest severity among the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }

    /// A report without findings.
    pub(super) fn new(location: String) -> VerifyReport {
        VerifyReport {
            location,
            status: None,
            segments: 0,
            steps: 0,
            steps_ok: 0,
            gaps: 0,
            bytes: 0,
            head_digest: None,
            findings: Vec::new(),
            more: 0,
        }
    }

    /// Adds an error, unless it has been reported already.
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

    /// Adds a finding that isn't an error of a parser.
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

    fn keep(&mut self, finding: Finding) {
        // An error must show, whatever else was found.
        let first_error = finding.severity == Severity::Error && self.is_ok();
        if self.findings.len() < MOST || first_error {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

/// What an error of a parser is about; `otherwise` if it doesn't say.
pub(super) fn finding_kind(error: &FormatError, otherwise: FindingKind) -> FindingKind {
    match error {
        FormatError::Corrupt(c) if !c.tensors.is_empty() || c.what.starts_with("chunk") => {
            FindingKind::Tensors
        }
        FormatError::Corrupt(c) if c.what.starts_with("metadata") => FindingKind::Metadata,
        FormatError::Corrupt(c) if c.what.starts_with("rows") => FindingKind::Rows,
        FormatError::Corrupt(c) if c.what.starts_with("frame") => FindingKind::Frame,
        FormatError::Corrupt(c) if c.file.starts_with("seg-") => FindingKind::Segment,
        _ => otherwise,
    }
}
