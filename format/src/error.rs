//! One error type, with variants that a caller can act on.

use std::io;

/// What can go wrong while writing or reading a trace.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The caller's progress callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The bytes end early. Normal at the end of a segment that is still being written, damage anywhere else.
    #[error(
        "{file}: incomplete: {what} needs {need} bytes, and {have} are left; a recorder that is still writing may add them"
    )]
    Incomplete {
        /// File name inside the run folder.
        file: String,
        /// Which structure ends early.
        what: &'static str,
        /// Bytes that are present.
        have: u64,
        /// Bytes that are required.
        need: u64,
    },
    /// The bytes are present and wrong.
    #[error("{0}")]
    Corrupt(Box<Corruption>),
    /// This build doesn't know the format version: a later one, or 0, which no version of Hindcast writes.
    #[error(
        "{file}: format version {found}, and this build reads up to version {supported}; {}",
        match .found {
            0 => "version 0 never existed, so the file was altered or made by another program",
            _ => "use a newer hindcast",
        }
    )]
    NewerVersion {
        /// File name inside the run folder.
        file: String,
        /// The version that the file states.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// A storage operation failed.
    #[error("cannot {doing} {path}{}: {source}", match .step { Some(step) => format!(" at step {step}"), None => String::new() })]
    Io {
        /// Run folder and file.
        path: String,
        /// The failed operation, to be read before the path: `write`, `sync the folder`.
        doing: &'static str,
        /// The step being written or read, if there is one.
        step: Option<u64>,
        /// The storage's error.
        source: io::Error,
    },
    /// There is no trace at this path.
    #[error("{path}: not a recorded run: {why}")]
    NotARun {
        /// The path.
        path: String,
        /// What is missing.
        why: String,
    },
    /// A run exists at this path. Recordings are never overwritten.
    #[error("{path}: exists already; choose another folder, or resume the run that is there")]
    AlreadyExists {
        /// The path.
        path: String,
    },
    /// Another writer has the run open.
    #[error(
        "{path}: a recorder is writing this run at this moment; wait until it has ended, or end it first"
    )]
    InUse {
        /// The run.
        path: String,
    },
    /// The run is signed, and further steps would end its signature.
    #[error(
        "{path}: the run is signed, and its signature would no longer hold after another step; resume a copy of the run without its {}",
        crate::manifest::SIGNATURE
    )]
    Signed {
        /// The run.
        path: String,
    },
    /// The run is encrypted, and its key isn't known. What everybody may read of it is in the manifest.
    #[error("{path}: the run is encrypted, and {why}")]
    Locked {
        /// The run.
        path: String,
        /// Why it can't be decrypted.
        why: String,
    },
    /// The writer failed before and refuses all further calls.
    #[error(
        "{path}: the writer stopped at its first failure and refuses more steps (retrying a failed write proves nothing): {first}"
    )]
    Poisoned {
        /// The run.
        path: String,
        /// The first failure, as text.
        first: String,
    },
    /// The list of tensors contradicts itself.
    #[error("layout: {tensor}: {why}")]
    Layout {
        /// The tensor, by name.
        tensor: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes, values or flags don't fit the layout.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// The quantity that doesn't fit.
        what: &'static str,
        /// The number that the layout requires.
        expected: u64,
        /// The number that was given.
        got: u64,
    },
    /// Frames were appended in an order that a segment can't have.
    #[error("frame of step {step} can't be appended: {why}")]
    Order {
        /// The frame's step.
        step: u64,
        /// The rule that it violates.
        why: String,
    },
    /// The trace doesn't contain the step.
    #[error("step {step} can't be read: {why}")]
    NotRecorded {
        /// The requested step.
        step: u64,
        /// Why the trace doesn't contain it.
        why: String,
    },
    /// A number exceeds a limit of the format.
    #[error("{what} is {found}, over the format's limit of {limit}")]
    Limit {
        /// The quantity that is too large.
        what: &'static str,
        /// Its value.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Reading the run may need more memory than allowed. It is refused before the memory is allocated.
    #[error(
        "{path}: {what} may take {} of memory, but only {} are allowed; the need follows from the run's layout or from a length in its files",
        mebibytes(*.needs),
        mebibytes(*.limit)
    )]
    Memory {
        /// The run.
        path: String,
        /// The refused operation.
        what: String,
        /// Bytes that the operation may need.
        needs: u64,
        /// Allowed bytes.
        limit: u64,
    },
    /// No step of a damaged run can be read.
    #[error("{path}: nothing can be recovered: {why}")]
    NothingToRecover {
        /// The run.
        path: String,
        /// The reason.
        why: String,
    },
    /// The run has no end yet, so a copy would end earlier than it.
    #[error(
        "{path}: the run is still open: a recorder is writing it, or was killed; wait until it has ended, resume and finish it, or make a closed copy with `hindcast recover`"
    )]
    StillOpen {
        /// The run.
        path: String,
    },
    /// The run is damaged, so what is made from it would look whole and lack what the damage took.
    #[error(
        "{path}: the run is damaged, and a copy would hide that: {why}; `hindcast recover` copies what is readable to a new run, which can be used here"
    )]
    NotIntact {
        /// The run.
        path: String,
        /// The first finding.
        why: String,
    },
    /// What a new run is to keep isn't in the run.
    #[error("{path}: {what}: {why}")]
    NothingToKeep {
        /// The run.
        path: String,
        /// The choice, as the user writes it.
        what: String,
        /// Why it keeps nothing.
        why: String,
    },
    /// The run changed while it was being copied. Usually a recorder is writing it.
    #[error(
        "{path}: the run changed while it was read: a recorder is writing it, or it is being damaged or replaced; repeat this when nothing writes to it any more"
    )]
    Changed {
        /// The run.
        path: String,
    },
    /// A run that was written from another one, read back, differs from what was written. The disk or the memory is faulty.
    #[error(
        "{path}: the new run, read back, differs from what was written: {why}; it was removed, try another disk"
    )]
    NotAsWritten {
        /// The run.
        path: String,
        /// What differs.
        why: String,
    },
    /// An iterator was used again after it had failed.
    #[error("this iterator failed before and stays failed: {first}")]
    Failed {
        /// The first failure, as text.
        first: String,
    },
}

/// Where the damage is, and how it was noticed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Corruption {
    /// File name inside the run folder.
    pub file: String,
    /// Segment number.
    pub segment: Option<u64>,
    /// Step whose frame is damaged.
    pub step: Option<u64>,
    /// Tensors with bytes in the damaged part.
    pub tensors: Vec<String>,
    /// The damaged structure.
    pub what: String,
    /// The expected value.
    pub expected: String,
    /// The value that was found.
    pub got: String,
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: corrupt",
            if self.file.is_empty() {
                "trace"
            } else {
                &self.file
            }
        )?;
        if let Some(segment) = self.segment {
            write!(f, ", segment {segment}")?;
        }
        if let Some(step) = self.step {
            write!(f, ", step {step}")?;
        }
        if !self.tensors.is_empty() {
            write!(f, ", tensors {}", self.tensors.join(", "))?;
        }
        write!(f, ": {}", self.what)?;
        if !self.expected.is_empty() || !self.got.is_empty() {
            write!(f, ": expected {}, got {}", self.expected, self.got)?;
        }
        Ok(())
    }
}

impl FormatError {
    /// Damage found by a parser that doesn't know the file's name.
    pub(crate) fn corrupt(
        what: impl Into<String>,
        expected: impl ToString,
        got: impl ToString,
    ) -> FormatError {
        FormatError::Corrupt(Box::new(Corruption {
            what: what.into(),
            expected: expected.to_string(),
            got: got.to_string(),
            ..Corruption::default()
        }))
    }

    /// Adds file and segment to a parser's error, unless they are known already.
    pub(crate) fn within(mut self, in_file: &str, in_segment: Option<u64>) -> FormatError {
        match &mut self {
            FormatError::Corrupt(c) => {
                if c.file.is_empty() {
                    c.file = in_file.to_owned();
                }
                c.segment = c.segment.or(in_segment);
            }
            FormatError::Incomplete { file, .. } | FormatError::NewerVersion { file, .. }
                if file.is_empty() =>
            {
                *file = in_file.to_owned();
            }
            _ => {}
        }
        self
    }

    /// An encrypted run that can't be read, and why.
    pub(crate) fn locked(why: String) -> FormatError {
        FormatError::Locked {
            path: String::new(),
            why,
        }
    }

    /// Adds the run to a parser's refusal, unless it is known already.
    pub(crate) fn of_run(mut self, location: impl FnOnce() -> String) -> FormatError {
        if let FormatError::Locked { path, .. } = &mut self
            && path.is_empty()
        {
            *path = location();
        }
        self
    }

    /// Whether this build, this machine or this reader can't read the run, although nothing says that it is damaged.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            FormatError::NewerVersion { .. }
                | FormatError::Memory { .. }
                | FormatError::Locked { .. }
        )
    }

    /// Adds the step to a parser's error, unless it is known already.
    pub(crate) fn at_step(mut self, at: u64) -> FormatError {
        if let FormatError::Corrupt(c) = &mut self {
            c.step = c.step.or(Some(at));
        }
        self
    }

    /// The mismatch of two numbers, if they differ.
    pub(crate) fn unless_equal(
        what: &'static str,
        expected: usize,
        got: usize,
    ) -> Result<(), FormatError> {
        if expected == got {
            return Ok(());
        }
        Err(FormatError::Mismatch {
            what,
            expected: expected as u64,
            got: got as u64,
        })
    }

    pub(crate) fn io(
        path: impl Into<String>,
        doing: &'static str,
        source: io::Error,
    ) -> FormatError {
        FormatError::Io {
            path: path.into(),
            doing,
            step: None,
            source,
        }
    }

    /// The error for a file of the run that can't be opened. It is damage if the file isn't a regular file.
    pub(crate) fn opening(path: &str, source: io::Error) -> FormatError {
        match crate::storage::not_regular(&source) {
            Some(kind) => FormatError::corrupt("file", "a regular file", kind),
            None => FormatError::io(path, "open", source),
        }
    }

    /// Whether the bytes are wrong or missing. Otherwise the storage failed, or the request can't be met.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            FormatError::Corrupt(_) | FormatError::Incomplete { .. }
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A checksum in hexadecimal, for errors.
pub(crate) fn hex32(value: u32) -> String {
    format!("{value:08x}")
}

/// A digest in lower-case hexadecimal, as in errors and the manifest.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The inverse of [`hex`]; `None` unless it is exactly `N` bytes in lower-case hex.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let nibble = |d: u8| match d {
        b'0'..=b'9' => Some(d - b'0'),
        b'a'..=b'f' => Some(d - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(*pair.first()?)? << 4 | nibble(*pair.get(1)?)?;
    }
    Some(bytes)
}
