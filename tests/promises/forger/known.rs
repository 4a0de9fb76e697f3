//! What a replay of all steps doesn't catch yet.

const EVERY: &[&str] = &["sgd", "momentum", "adam", "adamw", "batch-norm"];
const STATEFUL: &[&str] = &["momentum", "adam", "adamw", "batch-norm"];

/// Forgeries that `verify --replay --steps 0` accepts, with the rules for which it does. They are to be caught, and leave
/// this list when they are.
pub const LATER: &[(&str, &[&str])] = &[
    ("noise-between-holes", EVERY),
    ("noise-after-a-hole", STATEFUL),
    ("noise-in-gaps", EVERY),
    ("other-run-after-a-hole", EVERY),
    ("other-run-after-a-lost-step", EVERY),
    ("batch-order", EVERY),
    ("nicer-losses", EVERY),
    ("nicer-losses-at-the-end", EVERY),
    ("schedule", EVERY),
    ("epochs-shifted", EVERY),
    ("fewer-epochs", EVERY),
    ("last-epoch-left-out", EVERY),
    ("optimizer-steps", &["sgd", "momentum", "batch-norm"]),
    ("optimizer-restart", &["sgd"]),
    ("seed", EVERY),
    ("initial-weights", EVERY),
    ("pretrained", EVERY),
    ("created-later", EVERY),
    ("cut-earlier", EVERY),
    ("final-state-after-a-hole", EVERY),
    ("final-moments", STATEFUL),
    ("final-buffers", &["batch-norm"]),
];

/// Whether this forgery isn't caught yet.
pub fn later(forgery: &str, rule: &str) -> bool {
    let mut listed = LATER.iter();
    listed.any(|(name, rules)| *name == forgery && rules.contains(&rule))
}
