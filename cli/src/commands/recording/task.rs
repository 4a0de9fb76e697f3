//! `hindcast task`: the built-in tasks, the keys of a task, and a check before a recording.

#[cfg(feature = "record")]
mod check;
mod find;
mod keys;
#[cfg(feature = "record")]
mod new;

use std::io::Write;

use hindcast_model::task::Task;
use serde_json::json;

use crate::args::{TaskCommand, TaskVerb};
use crate::commands::Outcome;
use crate::terminal;

pub(crate) use find::find;
#[cfg(feature = "record")]
pub(super) use find::{note_doubts, note_rule};

pub(crate) fn run(args: &TaskCommand) -> anyhow::Result<Outcome> {
    let mut out = terminal::stdout();
    match &args.verb {
        TaskVerb::List { json: true } => {
            let list: Vec<_> = Task::builtins()
                .into_iter()
                .map(|task| json!({ "name": task.name, "description": task.description }))
                .collect();
            serde_json::to_writer_pretty(&mut out, &list)?;
            writeln!(out)?;
        }
        TaskVerb::List { json: false } => {
            for task in Task::builtins() {
                writeln!(out, "{:<14} {}", task.name, task.description)?;
            }
        }
        TaskVerb::Keys { key, json, schema } => {
            let form = match (json, schema) {
                (_, true) => keys::Form::Schema,
                (true, _) => keys::Form::Json,
                _ => keys::Form::Text,
            };
            keys::print(&mut out, key.as_deref(), form)?;
        }
        #[cfg(feature = "record")]
        TaskVerb::Check(args) => return check::run(args),
        #[cfg(feature = "record")]
        TaskVerb::New(args) => return new::run(args),
        TaskVerb::Show { task, set } => {
            // An unchanged built-in task is shown with its comments.
            let own = Task::builtins()
                .into_iter()
                .find(|b| b.name == task && set.is_empty());
            match own {
                Some(builtin) => write!(out, "{}", builtin.text)?,
                None => write!(out, "{}", find(task, set)?.to_toml()?)?,
            }
        }
    }
    Ok(Outcome::Fine)
}
