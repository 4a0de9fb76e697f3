//! Checks exit code and output of every command for every state of a run, and that docs/states.md lists the same.

mod build;
mod cell;
mod page;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use candle_core::{DType, Device, Var};
use hindcast_format::SIGNATURE;
use hindcast_recorder::{Named, Recorder};

pub(crate) use build::TASK;
use build::{Setup, World};
use cell::{COMMANDS, Cell, RESUME};

/// Commands that make a new run.
const DERIVED: [&str; 4] = ["recover", "prune", "compact", "redact"];

/// Runs a command in a fresh copy of the state. Returns its exit code and its whole output.
fn outcome(world: &World, setup: &Setup, command: &str, line: &str) -> (i32, String) {
    if command == RESUME {
        return resume(world, setup);
    }
    let line = line.replace("--data data", &format!("--data {}", setup.data));
    let mut hindcast = Command::new(env!("CARGO_BIN_EXE_hindcast"));
    if setup.reader.is_some() {
        hindcast.env("HINDCAST_IDENTITY", "reader.key");
    }
    let output = hindcast
        .args(line.split(' ').skip(1))
        .current_dir(setup.dir.path())
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.code().unwrap_or(-1), text)
}

/// A training loop that resumes at step 6 with the trace's state.
fn resume(world: &World, setup: &Setup) -> (i32, String) {
    let vars: Vec<(String, Var)> = world
        .tensors()
        .into_iter()
        .map(|(name, shape)| (name, Var::zeros(shape, DType::F32, &Device::Cpu).unwrap()))
        .collect();
    let named = vars
        .iter()
        .map(|(name, var)| Named::parameter(name.as_str(), var));
    let mut builder = Recorder::builder(setup.run()).restore_variables();
    if let Some(keys) = setup.keys() {
        builder = builder.keys(keys);
    }
    match builder.resume_from(named.collect(), 6) {
        Ok((_, resumed)) => (
            0,
            format!("resumes at step {} of {}", resumed.step, resumed.end),
        ),
        Err(e) => (1, e.to_string()),
    }
}

/// Names and bytes of everything in the run, to check that nothing was changed.
fn bytes_of(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(run) else {
        return fs::read(run)
            .map(|bytes| BTreeMap::from([(String::new(), bytes)]))
            .unwrap_or_default();
    };
    entries
        .map(|e| {
            let path = e.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // Reading a pipe would block.
            if path.is_file() {
                (name, fs::read(&path).unwrap_or_default())
            } else {
                (name + " (no file)", Vec::new())
            }
        })
        .collect()
}

#[test]
fn every_command_in_every_state_ends_as_the_table_says() {
    let world = World::new();
    let mut wrong = Vec::new();
    let show = std::env::var_os("HINDCAST_SHOW_STATES").is_some();
    for state in table::states() {
        for ((command, line), Cell(code, says)) in COMMANDS.iter().zip(&state.cells) {
            let setup = (state.build)(&world);
            let before = bytes_of(&setup.run());
            let (got, text) = outcome(&world, &setup, command, line);
            if show {
                println!("## {} × {command}: {got}\n{text}", state.name);
            }
            let unsaid: Vec<_> = says.iter().filter(|s| !text.contains(**s)).collect();
            if got != *code || !unsaid.is_empty() || says.is_empty() || text.contains("panicked") {
                wrong.push(format!(
                    "{} × {command}: expected {code} and {unsaid:?}, got {got}:\n{text}",
                    state.name
                ));
            }
            // Only a recorder may change a run: one that resumes it, or one that may start here.
            let changes = *code == 0 && [RESUME, "record", "record --resume"].contains(command);
            let mut after = bytes_of(&setup.run());
            // A signature is a file of its own, beside the manifest.
            if *command == "sign" && *code == 0 {
                assert!(after.remove(SIGNATURE).is_some(), "{}", state.name);
            }
            if !changes && after != before {
                wrong.push(format!("{} × {command}: the run was changed", state.name));
            }
            let copies = match *command {
                "recover" => got != 1,
                "prune" | "compact" | "redact" => got == 0,
                _ => false,
            };
            if copies {
                let new = setup.storage("new");
                let verified = hindcast_format::verify_storage(&new).unwrap();
                assert!(verified.is_ok(), "{}: {verified:#?}", state.name);
            } else if DERIVED.contains(command) {
                let new = setup.dir.path().join("new");
                assert!(!new.exists(), "{} × {command}", state.name);
            }
            if *command == "checkpoint" && got == 0 {
                let file = fs::read(setup.dir.path().join("model.safetensors")).unwrap();
                let file = safetensors::SafeTensors::deserialize(&file).unwrap();
                for (name, bytes) in world.parameters_before(6) {
                    let written = file.tensor(&name).unwrap();
                    assert!(written.data() == bytes, "{}: {name}", state.name);
                }
            }
            let left = fs::read_dir(setup.dir.path()).unwrap();
            let left: Vec<String> = left
                .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
                .filter(|n| n.starts_with('.') && n != ".run.new-4711")
                .collect();
            assert!(left.is_empty(), "{} × {command} left {left:?}", state.name);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n---\n"));
}

/// A verb that takes a run must have a column here, or it isn't tested.
#[test]
fn every_command_that_takes_a_run_has_its_column() {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(words)
            .arg("-h")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let general = help(&[]);
    let listed = general
        .split_once("Commands:\n")
        .and_then(|(_, rest)| rest.split_once("\n\n"))
        .expect("the help lists its commands")
        .0;
    let verbs: Vec<&str> = listed
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    let columns: Vec<&str> = COMMANDS.iter().map(|(command, _)| *command).collect();
    for verb in verbs {
        let takes_a_run = help(&[verb])
            .lines()
            .any(|line| line.starts_with("Usage:") && line.contains("<RUN>"));
        assert!(
            !takes_a_run || columns.contains(&verb),
            "`hindcast {verb}` takes a run, and has no column in COMMANDS"
        );
    }
}
