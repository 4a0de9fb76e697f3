//! The places of a run's data: the data folder, and files of labels that a user gives.

use std::path::Path;

/// The data folder, and files with labels of the user's own.
///
/// ```
/// use hindcast_model::data::Given;
/// use std::path::Path;
///
/// let given = Given { labels: Some(Path::new("corrected.csv")), ..Given::from(Some(Path::new("data"))) };
/// assert_eq!(given.folder, Some(Path::new("data")));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given<'a> {
    /// The data folder. `None` if the source needs no files.
    pub folder: Option<&'a Path>,
    /// A file with labels that replace those of the data, instead of the Task's `data.labels_file`.
    pub labels: Option<&'a Path>,
    /// A file with known true labels, instead of the Task's `data.truth_file`.
    pub truth: Option<&'a Path>,
}

impl<'a> From<Option<&'a Path>> for Given<'a> {
    fn from(folder: Option<&'a Path>) -> Self {
        Self {
            folder,
            ..Self::default()
        }
    }
}
