//! The table: one function per state, with one cell per command in the order of [`COMMANDS`](super::cell::COMMANDS).

mod cut_short;
mod derived;
mod hit;
mod mended_or_foreign;
mod misplaced;
mod no_run;
mod whole;

use super::cell::State;

pub(super) fn states() -> Vec<State> {
    let mut states = whole::whole();
    states.extend(derived::derived_runs());
    states.extend(cut_short::cut_short());
    states.extend(hit::hit());
    states.extend(misplaced::misplaced());
    states.extend(mended_or_foreign::mended_or_foreign());
    states.extend(no_run::no_run());
    states
}
