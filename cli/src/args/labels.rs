//! Arguments for labels of the user's own.

use std::path::{Path, PathBuf};

use clap::Args;
use hindcast_model::data::Given;

/// Files of labels.
#[derive(Debug, Clone, Default, Args)]
pub struct LabelArgs {
    /// File with labels that replace those of the data: a .csv with the columns row or file and label, a .npy array or a text with one label per row; an analysis needs the labels that the run was recorded with
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// File with known true labels, in the same form: it changes no label, but shows which are wrong
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

impl LabelArgs {
    /// The places of the data, with its folder.
    pub fn given<'a>(&'a self, folder: Option<&'a Path>) -> Given<'a> {
        Given {
            folder,
            labels: self.labels.as_deref(),
            truth: self.truth.as_deref(),
        }
    }
}
