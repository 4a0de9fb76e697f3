//! Whether reading stops at the first problem or goes on to find the others, and which file may lack labels.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::DataError;

/// Takes the problems after which reading can go on.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The problems so far, and the largest number of them. `None` if reading stops at the first.
    found: Option<(Mutex<Vec<DataError>>, usize)>,
    /// The file or folder whose rows may lack labels.
    unlabelled: Option<PathBuf>,
    /// Whether a row of it lacks one.
    lacks_labels: AtomicBool,
}

impl Report {
    /// Reading stops at the first problem.
    pub(super) fn first() -> Self {
        Self::default()
    }

    /// Reading goes on until there are `most` problems.
    pub(super) fn all(most: usize) -> Self {
        Self {
            found: Some((Mutex::default(), most)),
            ..Self::default()
        }
    }

    /// Reading stops at the first problem, but rows of this file or folder may lack labels.
    pub(super) fn with_placeholder(path: &Path) -> Self {
        Self {
            unlabelled: Some(path.to_path_buf()),
            ..Self::default()
        }
    }

    /// Whether rows of a file or folder may lack labels.
    pub(super) fn may_lack_labels(&self, path: &Path) -> bool {
        self.unlabelled.as_deref() == Some(path)
    }

    /// Notes that a row lacks its label.
    pub(super) fn lacks_label(&self) {
        self.lacks_labels.store(true, Ordering::Relaxed);
    }

    /// Whether a row lacked its label.
    pub(super) fn lacks_labels(&self) -> bool {
        self.lacks_labels.load(Ordering::Relaxed)
    }

    /// Takes a problem.
    ///
    /// # Errors
    /// The problem, if reading stops at it.
    pub(super) fn take(&self, problem: DataError) -> Result<(), DataError> {
        let Some((found, most)) = &self.found else {
            return Err(problem);
        };
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.len() + 1 >= *most {
            return Err(problem);
        }
        found.push(problem);
        Ok(())
    }

    /// The problems that were taken.
    pub(super) fn into_found(self) -> Vec<DataError> {
        let found = self.found.map(|(found, _)| found.into_inner());
        found
            .unwrap_or_else(|| Ok(Vec::new()))
            .unwrap_or_else(PoisonError::into_inner)
    }
}
