//! Damaged traces: exit code 3, and the place of the damage.

use std::fs;

use hindcast_format::{DType, Durability, FsStorage, Layout, Role, RunInfo, RunWriter, TensorSpec};

use super::*;

/// Flips single bits at many positions of every file of a run; `verify` must exit with 3 each time.
#[test]
fn a_flipped_bit_anywhere_makes_verify_exit_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for entry in fs::read_dir(dir.join("run")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let places = 24.min(whole.len());
        for i in 0..places {
            // At both ends and evenly in between; a different bit each time.
            let at = i * (whole.len() - 1) / (places - 1);
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (i % 8);
            fs::write(&path, &damaged).unwrap();
            let output = hindcast(dir, &["verify", "run"]);
            assert_eq!(
                code(&output),
                3,
                "bit {} of byte {at} of {} went unseen:\n{}{}",
                i % 8,
                path.display(),
                stdout(&output),
                stderr(&output)
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    fine(dir, &["verify", "run"]);
}

#[test]
fn a_lost_file_makes_verify_exit_with_3_and_a_stray_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let run = dir.join("run");
    let names: Vec<_> = fs::read_dir(&run)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    for path in names {
        let aside = dir.join("aside");
        fs::rename(&path, &aside).unwrap();
        let output = hindcast(dir, &["verify", "run"]);
        assert_eq!(
            code(&output),
            3,
            "{} gone: {}{}",
            path.display(),
            stdout(&output),
            stderr(&output)
        );
        fs::rename(&aside, &path).unwrap();
    }
    // A file that doesn't belong to the run is named and does no harm.
    fs::write(run.join("notes.txt"), b"stray").unwrap();
    let said = fine(dir, &["verify", "run"]);
    assert!(said.contains("notes.txt"), "{said}");
}

#[test]
fn a_head_that_differs_from_the_expected_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let report: serde_json::Value =
        serde_json::from_str(&fine(dir, &["verify", "run", "--json"])).unwrap();
    let head = report["head_digest"].as_str().unwrap();
    fine(dir, &["verify", "run", "--head", head]);
    let other = "0".repeat(head.len());
    let output = hindcast(dir, &["verify", "run", "--head", &other]);
    assert_eq!(code(&output), 3);
    // The trace itself is undamaged, and still no line says "ok", which a script or a reader in a hurry would misread.
    let said = stdout(&output);
    assert!(!said.contains("ok:"), "{said}");
    assert!(said.starts_with("DAMAGED: the head is "), "{said}");
    assert!(said.contains(head) && said.contains(&other), "{said}");
    assert!(said.contains("in itself it is whole"), "{said}");

    // A digest that was cut short says nothing about the run.
    let output = hindcast(dir, &["verify", "run", "--head", &head[..12]]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("expected the 64 hexadecimal digits"),
        "{}",
        stderr(&output)
    );
}

/// Where frame `nth` of a segment begins.
pub(super) fn frame(bytes: &[u8], nth: usize) -> usize {
    (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .nth(nth)
        .unwrap()
}

/// Damage of the first keyframe loses Adam's moments before step 0. Nothing that depends on them may be computed.
#[test]
fn a_lost_optimizer_state_is_never_treated_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let settings = [
        "data.train=60",
        "data.validation=20",
        "data.test=0",
        "train.epochs=2",
        "train.batch=20",
        "optimizer.kind=adam",
        "schedule.learning_rate=0.001",
    ];
    let mut words = vec!["record", "digits", "--out", "run"];
    words.extend(settings.iter().flat_map(|s| ["--set", s]));
    fine(dir, &words);
    fine(dir, &["influence", "run", "--out", "whole.csv"]);
    let segment = dir.join("run/seg-00000000.hcs");
    let mut bytes = fs::read(&segment).unwrap();
    let end = frame(&bytes, 1);
    bytes[end - 13] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let output = hindcast(dir, &["recover", "run", "--out", "new"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let said = stdout(&output);
    assert!(
        said.contains("LOST: step 0: the state that only a keyframe holds")
            && said.contains("the optimizer state before it can't be read")
            && said.contains("6 steps recovered, with its final state"),
        "{said}"
    );
    fine(dir, &["verify", "new"]);
    // Adam's first step needs no state: before it, the moments are zero by definition.
    fine(dir, &["influence", "new", "--out", "again.csv"]);
    assert_eq!(
        fs::read(dir.join("whole.csv")).unwrap(),
        fs::read(dir.join("again.csv")).unwrap()
    );

    // From step 1 on, the moments depend on step 0, so without it they are unknown.
    let mut bytes = fs::read(&segment).unwrap();
    let (first, second) = (frame(&bytes, 0) + 20, frame(&bytes, 1) + 66);
    bytes[first] ^= 1;
    bytes[second] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let output = hindcast(dir, &["recover", "run", "--out", "later"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    for verb in [
        &["influence", "later"][..],
        &[
            "counterfactual",
            "later",
            "--top",
            "3",
            "whole.csv",
            "--other-run",
        ],
        &["verify", "later", "--replay"],
    ] {
        let output = hindcast(dir, verb);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{verb:?}: {said}{}", stdout(&output));
        assert!(
            said.contains("the trace doesn't contain the optimizer state of")
                && said.contains("before step 2"),
            "{verb:?}: {said}"
        );
    }
}

/// Step 4 of the golden run uses row 7, which step 3 stored.
#[test]
fn an_export_without_all_rows_of_its_steps_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let golden =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/v1-rows");
    fs::create_dir(dir.join("run")).unwrap();
    for entry in fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join("run").join(path.file_name().unwrap())).unwrap();
    }
    let written = |out: &str| fs::read_to_string(dir.join(out).join("rows.jsonl")).unwrap();
    fine(dir, &["export", "run", "--steps", "4", "--out", "whole"]);
    assert!(written("whole").contains("\"index\":7,"));
    let rows = written("whole").matches("\"split\":\"train\"").count();
    assert_eq!(rows, 3, "only the rows of step 4 are loaded");
    let info = fine(dir, &["info", "run"]);
    assert!(info.contains("16 distinct training rows, stored"), "{info}");

    let row_7 = [&7f32.to_le_bytes()[..], &1.5f32.to_le_bytes(), &[7]].concat();
    let mut flipped = 0;
    for entry in fs::read_dir(dir.join("run")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let places = bytes.windows(row_7.len()).position(|at| at == row_7);
        if let Some(at) = places {
            bytes[at + 2] ^= 4;
            fs::write(&path, bytes).unwrap();
            flipped += 1;
        }
    }
    assert_eq!(flipped, 1);
    let output = hindcast(dir, &["export", "run", "--steps", "4", "--out", "part"]);
    assert_eq!(code(&output), 1, "{}", stdout(&output));
    let said = stderr(&output);
    assert!(
        said.contains("1 of the 3 rows that these steps use"),
        "{said}"
    );
    assert!(said.contains("the first with index 7"), "{said}");
    assert!(written("part").contains("\"index\":8,"));
    assert!(dir.join("part/step-000000004.safetensors").exists());
    // Rows that can't be counted are not left out in silence.
    let output = hindcast(dir, &["info", "run"]);
    let said = stdout(&output);
    assert_eq!(code(&output), 3, "{said}");
    assert!(said.contains("  data        not known: "), "{said}");
    assert!(said.contains("step 3"), "{said}");
}

/// The prefix was free for users' notes before frozen tensors took it.
#[test]
fn a_users_note_with_the_key_of_a_frozen_tensor_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let spec = TensorSpec {
        name: "w".to_owned(),
        role: Role::Parameter,
        dtype: DType::F32,
        shape: vec![2],
        group: 0,
    };
    let mut info = RunInfo::new(Layout::new(vec![spec]).unwrap(), 0);
    let digest = "ab".repeat(32);
    for (key, text) in [
        ("frozen.layers", "3".to_owned()),
        ("frozen.base", format!("f32 [3,4] {digest}")),
        ("frozen.huge", format!("f32 [{},2] {digest}", u64::MAX)),
    ] {
        info.notes.insert(key.to_owned(), text);
    }
    let storage = std::sync::Arc::new(FsStorage::new(dir.join("run")));
    let writer = RunWriter::create(storage, info, Durability::Os).unwrap();
    writer.abandon(std::collections::BTreeMap::new()).unwrap();
    let said = fine(dir, &["info", "run"]);
    assert!(said.contains("note        frozen.layers: 3"), "{said}");
    assert!(said.contains("note        frozen.huge: "), "{said}");
    assert!(!said.contains("frozen.base"), "{said}");
    assert!(said.contains("12 values in 1 tensors"), "{said}");
}
