//! Arguments of `clean`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hindcast_analyzer::QueryPoint;
use hindcast_analyzer::estimators::cleaning::Action;

use super::analysis::NamesArgs;
use super::dynamics::ReplayArgs;
use super::labels::LabelArgs;
use super::numbers::whole;

/// `hindcast clean`
#[derive(Debug, Args)]
pub struct Clean {
    /// Folder of the run
    pub run: PathBuf,
    /// Folder with the data files
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Labels of your own.
    #[command(flatten)]
    pub own: LabelArgs,
    /// The cleaned file to write, in the format of the original: the table, or the array of labels; for folders of images, a list of files with their labels (.csv); it must not exist, unless --replace is given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The folder to write with all data files of the task, so that `record TASK --data DIR` trains on the cleaned data; it must not exist, unless --replace is given. Files that don't change are links
    #[arg(long, value_name = "DIR")]
    pub out_data: Option<PathBuf>,
    /// The file of new labels to write for `record --labels`, for data of every source: row, file and label of the relabelled examples (.csv), and the labels of the run's own --labels; it must not exist, unless --replace is given
    #[arg(long, value_name = "FILE")]
    pub out_labels: Option<PathBuf>,
    /// Apply the decisions of this file, which `clean` wrote and you may have edited, instead of looking for issues
    #[arg(long, value_name = "FILE", conflicts_with_all = ["decide", "method", "method_set", "scores", "window", "issues", "write_decisions"])]
    pub decisions: Option<PathBuf>,
    /// What the written decisions say about each issue: relabel (give it the suggested label), drop, or keep [default: relabel; keep if held-out examples advise against relabelling]
    #[arg(long, value_enum, value_name = "ACTION", hide_possible_values = true)]
    pub decide: Option<Decide>,
    /// Apply only the first K decisions, the most suspicious ones; --retrain shows which K is best
    #[arg(long, value_name = "K", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub first: Option<usize>,
    /// The table of issues to write
    #[arg(long, value_name = "FILE", default_value = "issues.csv")]
    pub issues: PathBuf,
    /// The file of decisions to write, for you to edit; it must not exist, unless --replace is given
    #[arg(long, value_name = "FILE", default_value = "decisions.csv")]
    pub write_decisions: PathBuf,
    /// Replace what an earlier `clean` wrote: the decisions, also edited ones, and the files and the folder of --out, --out-labels and --out-data. Data files of the task are never replaced
    #[arg(long)]
    pub replace: bool,
    /// The user's own names for examples.
    #[command(flatten)]
    pub names: NamesArgs,
    /// Rank by this method instead of the margin; `hindcast methods` lists them. A method that asks a query needs validation labels that are right
    #[arg(
        long,
        value_name = "NAME",
        default_value = "margin",
        conflicts_with = "scores"
    )]
    pub method: String,
    /// Set an option of the method, for example --method-set damping=0.1; may be given several times
    #[arg(long = "method-set", value_name = "KEY=VALUE")]
    pub method_set: Vec<String>,
    /// Rank by a table written by `influence`
    #[arg(long, value_name = "SCORES")]
    pub scores: Option<PathBuf>,
    /// The query of --method, or the column of --scores, as for `influence`
    #[arg(long, value_name = "QUERY", default_value = "validation")]
    pub query: String,
    /// Look at the forward passes of these steps: auto (those that say most about the labels: the model has learned, and hasn't memorised wrong labels yet), all, last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", default_value = "auto")]
    pub window: String,
    /// Train again on the changed data, with the recorded batches, and print losses and errors before and after
    #[arg(long)]
    pub retrain: bool,
    /// With --retrain: apply the first K decisions, for each K of a list [default: a tenth of them, a third, and all]
    #[arg(long, value_name = "K,K,...", requires = "retrain")]
    pub scan: Option<String>,
    /// The model that --retrain measures, and that the query of --method is asked about, as for `influence`
    #[arg(long, value_name = "POINT", default_value_t = QueryPoint::default())]
    pub at: QueryPoint,
    /// How many of the issues to print
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub top: usize,
    /// How the steps are replayed.
    #[command(flatten)]
    pub replay: ReplayArgs,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}

/// The decision that is written for each issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Decide {
    /// Give it the suggested label.
    Relabel,
    /// Leave it out.
    Drop,
    /// Leave it as it is.
    Keep,
}

impl From<Decide> for Action {
    fn from(decide: Decide) -> Self {
        match decide {
            Decide::Relabel => Action::Relabel,
            Decide::Drop => Action::Drop,
            Decide::Keep => Action::Keep,
        }
    }
}
