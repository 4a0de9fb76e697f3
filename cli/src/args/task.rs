//! Arguments of `hindcast task`.

use clap::{Args, Subcommand};

/// `hindcast task`
#[derive(Debug, Args)]
pub struct TaskCommand {
    /// List or show.
    #[command(subcommand)]
    pub verb: TaskVerb,
}

/// `hindcast task list|show`
#[derive(Debug, Subcommand)]
pub enum TaskVerb {
    /// Print the names and one-line descriptions of the built-in tasks
    List {
        /// For scripts: print a JSON list of {name, description}
        #[arg(long)]
        json: bool,
    },
    /// Print a task as TOML, to save, change and record it
    Show {
        /// Name of a built-in task, or a TOML file
        task: String,
        /// Change a key first, for example --set train.epochs=1
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}
