//! Where a run comes from that was made from another one: the notes of each derivation.
//!
//! docs/format.md lists the notes. Their keys are `prune-2.original-head` and the like: how the run was made, the number of the derivation
//! in the chain, and the fact. Numbers count all derivations, so that a chain can be read in order.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::info::{RunInfo, rfc3339};
use crate::manifest::Status;
use crate::trace::Trace;

/// Longest text of a note, in bytes. It is limited because every segment repeats the notes.
const LONGEST: usize = 4096;

/// How a run was made from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Derivation {
    /// From what was readable of a damaged run.
    Recovery,
    /// With fewer steps.
    Prune,
    /// With the same content in fewer bytes.
    Compact,
    /// Without what identifies people and places.
    Redact,
}

impl Derivation {
    /// All of them.
    pub const ALL: [Derivation; 4] = [
        Derivation::Recovery,
        Derivation::Prune,
        Derivation::Compact,
        Derivation::Redact,
    ];

    /// The beginning of the notes' keys.
    pub const fn name(self) -> &'static str {
        match self {
            Derivation::Recovery => "recovery",
            Derivation::Prune => "prune",
            Derivation::Compact => "compact",
            Derivation::Redact => "redact",
        }
    }

    /// What was done, as in "pruned from a run with head …".
    pub const fn done(self) -> &'static str {
        match self {
            Derivation::Recovery => "recovered",
            Derivation::Prune => "pruned",
            Derivation::Compact => "compacted",
            Derivation::Redact => "redacted",
        }
    }
}

/// The facts that the notes of a derivation can tell.
const FACTS: [&str; 13] = [
    "time",
    "writer",
    "original-head",
    "original-salt",
    "original-status",
    "options",
    "left-out",
    "signed-by",
    "signature",
    "lost",
    "digest-disagreed",
    "dropped-before",
    "resumed",
];

/// One derivation of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor<'a> {
    /// How the run was made from the one before.
    pub by: Derivation,
    /// Number of the derivation, from 1, oldest first.
    pub number: u32,
    facts: BTreeMap<&'a str, &'a str>,
}

impl Ancestor<'_> {
    /// A fact, such as `original-head`; `None` if no note tells it.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.get(name).copied()
    }

    /// In words: what was done, from which run, when, and what is missing since.
    pub fn in_words(&self) -> String {
        let mut text = self.by.done().to_owned();
        if let Some(head) = self.fact("original-head") {
            text += &format!(" from a run with head {head}");
        }
        if let Some(time) = self.fact("time") {
            text += &format!(" at {time}");
        }
        for (name, words) in [
            ("options", ""),
            ("left-out", "left out: "),
            ("lost", "what was lost: "),
        ] {
            if let Some(fact) = self.fact(name).filter(|fact| !fact.is_empty()) {
                text += &format!("; {words}{fact}");
            }
        }
        if let Some(key) = self.fact("signed-by") {
            let checked = self.fact("signature").unwrap_or("not checked");
            text += &format!("; that run was signed with the key {key}, which was {checked}");
        }
        text
    }
}

/// The derivations through which a run was made, oldest first. Empty for a recorded run.
pub fn lineage(info: &RunInfo) -> Vec<Ancestor<'_>> {
    let mut found: BTreeMap<(u32, &str), Ancestor<'_>> = BTreeMap::new();
    for (key, text) in &info.notes {
        let Some((by, number, fact)) = parse(key) else {
            continue;
        };
        let ancestor = found.entry((number, by.name())).or_insert(Ancestor {
            by,
            number,
            facts: BTreeMap::new(),
        });
        ancestor.facts.insert(fact, text);
    }
    found.into_values().collect()
}

/// Whether a note with this key belongs to a derivation. Writers of other notes avoid such keys.
pub fn is_lineage_key(key: &str) -> bool {
    parse(key).is_some()
}

/// Derivation, number and fact of a note's key.
fn parse(key: &str) -> Option<(Derivation, u32, &str)> {
    let (place, fact) = key.split_once('.')?;
    let fact = FACTS.iter().find(|f| **f == fact)?;
    let (name, digits) = place.rsplit_once('-')?;
    let by = Derivation::ALL.into_iter().find(|by| by.name() == name)?;
    let number: u32 = digits.parse().ok()?;
    (number > 0 && number.to_string() == digits).then_some((by, number, fact))
}

/// The notes of a new derivation of the trace: what is common to all, and `facts`.
pub(crate) fn notes(
    trace: &Trace,
    by: Derivation,
    facts: Vec<(&'static str, String)>,
) -> Vec<(String, String)> {
    let old = trace.info();
    let last = lineage(old).last().map_or(0, |a| a.number);
    let number = last.saturating_add(1);
    let head = match trace.head_digest() {
        Some(head) => crate::hex(&head),
        None => "none: its manifest was lost".to_owned(),
    };
    let status = match trace.manifest().map(|m| m.status) {
        Some(Status::Open) => "open",
        Some(Status::Unfinished) => "unfinished",
        Some(Status::Finished) => "finished",
        None => "unknown",
    };
    let mut all = vec![
        ("time", rfc3339(SystemTime::now())),
        (
            "writer",
            concat!("hindcast-format ", env!("CARGO_PKG_VERSION")).to_owned(),
        ),
        ("original-salt", crate::hex(&old.salt)),
        ("original-head", head),
        ("original-status", status.to_owned()),
    ];
    all.extend(facts);
    all.extend(history(trace));
    all.into_iter()
        .map(|(fact, text)| (format!("{}-{number}.{fact}", by.name()), cut(text)))
        .collect()
}

/// What only the original's manifest tells: segments that were dropped on purpose, and cuts.
fn history(trace: &Trace) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    let Some(manifest) = trace.manifest() else {
        return facts;
    };
    let dropped: Vec<_> = manifest.segments.iter().filter(|s| s.dropped).collect();
    if let (Some(first), Some(last)) = (dropped.first(), dropped.last()) {
        let (number, start, end) = (dropped.len(), first.first_step, last.end_step);
        facts.push((
            "dropped-before",
            format!("{number} segments with steps {start}..{end}, on purpose"),
        ));
    }
    let forks: Vec<String> = manifest
        .forks
        .iter()
        .map(|f| {
            format!(
                "at step {} on {} (steps up to {} were superseded)",
                f.at_step, f.time, f.end_step
            )
        })
        .collect();
    if !forks.is_empty() {
        facts.push(("resumed", forks.join("; ")));
    }
    facts
}

/// The text, cut to the longest that a note has.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&i| text.is_char_boundary(i));
        text.truncate(end.unwrap_or(0));
        text.push_str(" … (cut short)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_strictly() {
        let read = |key| parse(key).map(|(by, n, fact)| (by.name(), n, fact.to_owned()));
        assert_eq!(
            read("prune-2.left-out"),
            Some(("prune", 2, "left-out".into()))
        );
        assert_eq!(
            read("recovery-1.lost"),
            Some(("recovery", 1, "lost".into()))
        );
        for key in [
            "prune-0.time",
            "prune-02.time",
            "prune-+2.time",
            "prune-4294967296.time",
            "prune.time",
            "prune-1",
            "prune-1.secret",
            "plan-1.time",
            "prune-1.time.more",
        ] {
            assert_eq!(read(key), None, "{key}");
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned()), "short");
        let long = cut("é".repeat(LONGEST));
        assert!(long.ends_with("é … (cut short)") && long.len() < LONGEST + 20);
    }
}
