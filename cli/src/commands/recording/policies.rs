//! Parses the options for slow storage, failing storage, power cuts and notes.

use std::collections::BTreeSet;
use std::path::Path;

use hindcast_format::Durability;
use hindcast_format::Recipients;
use hindcast_model::task::Task;
use hindcast_recorder::{Builder, Keep, OnError, Recorder, WhenFull};

use super::labels;
use crate::args::{OnErrorPolicy, Record, WhenFullPolicy};
use crate::commands::{Usage, keys};
use hindcast_analyzer::run::LABELS_NOTE;

/// What a recording does about slow storage, failing storage and power cuts.
pub(super) struct Policies {
    durability: Durability,
    when_full: WhenFull,
    on_error: OnError,
    /// Who may read a new run, if it is encrypted.
    readers: Option<Recipients>,
}

impl Policies {
    pub(super) fn of(args: &Record) -> anyhow::Result<Self> {
        Ok(Self {
            durability: durability(&args.durability)?,
            when_full: match args.when_full {
                WhenFullPolicy::Block => WhenFull::Block,
                WhenFullPolicy::Stop => WhenFull::Stop,
                WhenFullPolicy::Skip => WhenFull::Skip,
            },
            on_error: match args.on_error {
                OnErrorPolicy::Fail => OnError::Fail,
                OnErrorPolicy::TrainOn => OnError::TrainOn,
            },
            readers: keys::recipients(&args.encrypt_to)?,
        })
    }

    /// The recorder of a run in that folder, new or resumed.
    pub(super) fn of_run(&self, run: &Path) -> Builder {
        let builder = match keys::given() {
            Some(keys) => Recorder::builder(run).keys(keys),
            None => Recorder::builder(run),
        };
        builder
            .durability(self.durability)
            .when_full(self.when_full)
            .on_error(self.on_error)
    }

    /// Builds the recorder of a new run of `task` in `out` from the command line.
    pub(super) fn builder(
        &self,
        args: &Record,
        task: &Task,
        out: &Path,
        keep: Keep,
    ) -> anyhow::Result<Builder> {
        let mut builder = self.of_run(out).keep(keep);
        if let Some(readers) = &self.readers {
            builder = builder.encrypt(readers.encryption()?);
        }
        let mut keys = BTreeSet::new();
        for note in &args.note {
            let pair = note.split_once('=');
            let Some((key, value)) = pair.filter(|(key, _)| !key.trim().is_empty()) else {
                return Err(Usage(format!(
                    "--note {note}: expected KEY=VALUE, as in --note machine=n7"
                ))
                .into());
            };
            if !keys.insert(key.trim()) {
                return Err(Usage(format!(
                    "--note {note}: a run has one note per key, and {} was given before; write both texts into one note",
                    key.trim()
                ))
                .into());
            }
            builder = builder.note(key.trim(), value.trim());
        }
        if args.no_command_line {
            builder = builder.without_command_line();
        }
        let given = args.own.given(args.data.as_deref());
        Ok(match labels::note(task, given)? {
            Some(note) => builder.note(LABELS_NOTE, note),
            None => builder,
        })
    }
}

fn durability(text: &str) -> Result<Durability, Usage> {
    let usage = || {
        Usage(format!(
            "--durability: expected os, seals, every=N (steps) or always, got {text:?}"
        ))
    };
    match text {
        "os" => Ok(Durability::Os),
        "seals" => Ok(Durability::Seals),
        "always" => Ok(Durability::Always),
        _ => match text.strip_prefix("every=").map(str::parse) {
            Some(Ok(n)) if n > 0 => Ok(Durability::Every(n)),
            _ => Err(usage()),
        },
    }
}
