//! Paths without a run.

use std::fs;

use super::super::build::World;
use super::super::cell::*;

/// All commands that need a run print the same; `record` and the library create a run or refuse.
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
        fails(says),
        record,
        fails(says),
        fails(says),
    ]
}

pub(super) fn no_run() -> Vec<State> {
    vec![
        no_such_folder(),
        empty_folder(),
        a_folder_of_something_else(),
        a_file(),
    ]
}

fn no_such_folder() -> State {
    State {
        name: "no such folder",
        meaning: "A mistyped name.",
        build: World::empty,
        cells: refused(
            &["run: not a recorded run: there is no such folder"],
            ok(&["run: 12 steps", "head"]),
        ),
    }
}

fn empty_folder() -> State {
    State {
        name: "empty folder",
        meaning: "An empty folder is not a run; a run can be recorded into it.",
        build: |w| {
            let setup = w.empty();
            fs::create_dir(setup.run()).unwrap();
            setup
        },
        cells: refused(
            &["run: not a recorded run: the folder is empty"],
            ok(&["run: 12 steps", "head"]),
        ),
    }
}

fn a_folder_of_something_else() -> State {
    State {
        name: "a folder of something else",
        meaning: "It contains neither a manifest nor a segment.",
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
    }
}

fn a_file() -> State {
    State {
        name: "a file",
        meaning: "The path is a file.",
        build: |w| {
            let setup = w.empty();
            fs::write(setup.run(), "mine").unwrap();
            setup
        },
        cells: refused(
            &["run: not a recorded run: it is a file, and a run is a folder"],
            taken(),
        ),
    }
}
