//! Places with no run in them.

use std::fs;

use super::super::build::World;
use super::super::{COMMANDS, Cell, State};
use super::*;

/// The commands that need a run say the same; `record` makes one or refuses; so does the library.
fn refused(says: Words, record: Cell) -> [Cell; COMMANDS.len()] {
    [
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        fails(says),
        record,
        fails(says),
        fails(says),
    ]
}

pub(super) fn no_run() -> Vec<State> {
    vec![
        State {
            name: "no such folder",
            meaning: "A mistyped name.",
            build: World::empty,
            cells: refused(
                &["run: not a recorded run: there is no such folder"],
                ok(&["run: 12 steps", "head"]),
            ),
        },
        State {
            name: "empty folder",
            meaning: "An empty folder is no run; a run may be recorded into it.",
            build: |w| {
                let setup = w.empty();
                fs::create_dir(setup.run()).unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: the folder is empty"],
                ok(&["run: 12 steps", "head"]),
            ),
        },
        State {
            name: "a folder of something else",
            meaning: "Neither a manifest nor a segment in it.",
            build: |w| {
                let setup = w.empty();
                fs::create_dir(setup.run()).unwrap();
                fs::write(setup.run().join("notes.txt"), "mine").unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: there is no manifest.json and no segment in it"],
                taken(),
            ),
        },
        State {
            name: "a file",
            meaning: "Not a folder at all.",
            build: |w| {
                let setup = w.empty();
                fs::write(setup.run(), "mine").unwrap();
                setup
            },
            cells: refused(
                &["run: not a recorded run: it is a file, and a run is a folder"],
                taken(),
            ),
        },
    ]
}
