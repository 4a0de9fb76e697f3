//! Arguments of `hindcast task`.

use clap::{Args, Subcommand};

/// `hindcast task`
#[derive(Debug, Args)]
pub struct TaskCommand {
    /// What to do.
    #[command(subcommand)]
    pub verb: TaskVerb,
}

/// `hindcast task list|show|keys`
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
    /// Print every key of a task file: its type, its default and what it means
    Keys {
        /// Only this key and the keys below it, for example data, schedule or data.documents.min_df
        key: Option<String>,
        /// For scripts: print a JSON list of tables {path, tag, text, keys}; keys is a list of {path, type, presence, default, text, choices}
        #[arg(long, conflicts_with = "schema")]
        json: bool,
        /// For editors: print the JSON Schema of a task file, which completes and checks it while you type
        #[arg(long, conflicts_with = "key")]
        schema: bool,
    },
}
