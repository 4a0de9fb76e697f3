//! What a run says about how it was made.

use std::fs;
use std::sync::Arc;

use hindcast_format::{Durability, FsStorage, RunWriter, State, Trace};

use super::*;

/// Writes the run again, as if it had been recorded on another processor.
fn recorded_on(processor: &str, dir: &Path) {
    let trace = Trace::open(dir.join("run")).unwrap();
    let mut info = trace.info().clone();
    let note = info.notes.get_mut("made.processor").unwrap();
    *note = processor.to_owned();
    let storage = Arc::new(FsStorage::new(dir.join("other")));
    let mut writer = RunWriter::create(storage, info, Durability::Seals).unwrap();
    let mut encoder = writer.encoder().unwrap();
    let mut before: Option<(u64, State)> = None;
    let mut steps = trace.forward(trace.span());
    while let Some(step) = steps.next().unwrap() {
        let (at, state) = (step.meta.step, step.state.clone());
        let frame = match before.take() {
            None => {
                writer.open_segment(at).unwrap();
                encoder.keyframe(step.meta, &state, step.key.unwrap())
            }
            Some((last, from)) => encoder.difference(step.meta, last, &from, &state),
        };
        writer.append(frame.unwrap()).unwrap();
        before = Some((at, state));
    }
    let (end, key) = trace.final_state().unwrap().unwrap();
    let (last, from) = before.unwrap();
    let link = encoder.link(last + 1, last, &from, &end).unwrap();
    writer.append(link).unwrap();
    writer.finish(&end, &key, Default::default()).unwrap();
}

fn record(dir: &Path, options: &[&str]) {
    let words = [
        "record",
        "digits",
        "--out",
        "run",
        "--set",
        "data.train=200",
    ];
    let rest = ["--set", "data.validation=50", "--set", "train.epochs=1"];
    fine(dir, &[&words[..], &rest, options].concat());
}

#[test]
fn a_run_says_with_what_it_was_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, &[]);
    let info = fine(dir, &["info", "run"]);
    for part in [
        "  processor ",
        "  os ",
        "  features    candle 0.",
        "  program     hindcast",
        "  ended ",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }
    assert!(
        info.contains("hindcast record digits --out run --set data.train=200"),
        "{info}"
    );
    let json = fine(dir, &["info", "run", "--json"]);
    assert!(json.contains("made.processor"), "{json}");
    fs::remove_dir_all(dir.join("run")).unwrap();
    record(dir, &["--no-command-line"]);
    let info = fine(dir, &["info", "run"]);
    assert!(
        !info.contains("record digits") && info.contains("  processor "),
        "{info}"
    );
    let output = hindcast(
        dir,
        &["record", "digits", "--out", "other", "--note", "made.by=me"],
    );
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("made.…"), "{}", stderr(&output));
}

/// A processor of another kind rounds in another way, so only its tolerances are demanded.
#[test]
fn another_processor_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, &[]);
    let checked = |run: &str| -> serde_json::Value {
        let text = fine(dir, &["verify", run, "--replay", "--json"]);
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["replay"].clone()
    };
    let here = checked("run");
    assert_eq!(
        (&here["same_bits"], &here["other_processor"]),
        (&true.into(), &().into())
    );
    recorded_on("Abacus 1", dir);
    let there = checked("other");
    assert_eq!(there["same_bits"], false);
    assert!(
        there["other_processor"]
            .as_str()
            .unwrap()
            .starts_with("Abacus 1 (")
    );
    fs::write(dir.join("out.txt"), "3\n").unwrap();
    let output = hindcast(dir, &["counterfactual", "other", "--without", "out.txt"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("was recorded on Abacus 1"),
        "{}",
        stderr(&output)
    );
}
