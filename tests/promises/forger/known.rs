//! Forgeries that pass, and what is said of them.

const EVERY: &[&str] = &["sgd", "momentum", "adam", "adamw", "batch-norm"];

/// A run can lack steps for a good reason, so it isn't refused. `verify --replay` says what it can't know.
const UNKNOWN: &str = "nothing is said about";

/// Forgeries that `verify --replay --steps 0` accepts, the rules for which it does, and the words that name the gap.
const NAMED: &[(&str, &[&str], &str)] = &[
    ("noise-in-gaps", EVERY, UNKNOWN),
    ("final-state-after-a-hole", EVERY, UNKNOWN),
    ("created-later", EVERY, "which is in the future"),
    ("cut-earlier", EVERY, "before it was created"),
];

/// The words with which this forgery is named, if it isn't caught.
pub fn named(forgery: &str, rule: &str) -> Option<&'static str> {
    let mut listed = NAMED.iter();
    let found = listed.find(|(name, rules, _)| *name == forgery && rules.contains(&rule));
    found.map(|(.., words)| *words)
}

/// Forgeries that rounding explains, if the run says that another kind of processor recorded it.
pub const WITHIN_ROUNDING: &[&str] = &["rounded-loss"];
