//! `record --seeds`: runs that share their data and differ in everything else that is random.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use hindcast_format::{Status, Trace};
use rustix::process::Signal;

use super::slices::{end_by, pause_when};
use super::*;

/// A small task with `more` words.
fn words<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["record", "digits", "--out", out];
    for set in [
        "data.train=120",
        "data.validation=40",
        "data.test=0",
        "train.epochs=2",
        "train.batch=25",
        "train.seed=4",
    ] {
        words.extend(["--set", set]);
    }
    words.extend(more);
    words
}

fn open(path: &Path) -> Trace {
    Trace::open(path).unwrap()
}

#[test]
fn runs_share_the_split_and_equal_single_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = fine(dir, &words("runs", &["--seeds", "0..3", "--jobs", "2"]));
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.starts_with("runs/seed-0: "), "{said}");
    fine(
        dir,
        &words("one", &["--set", "data.seed=4", "--set", "train.seed=1"]),
    );
    let one = open(&dir.join("one"));
    let run = |seed: u64| open(&dir.join(format!("runs/seed-{seed}")));
    assert_eq!(run(1).final_state().unwrap(), one.final_state().unwrap());
    for step in 0..one.span().end {
        assert_eq!(run(1).meta(step).unwrap(), one.meta(step).unwrap());
    }
    // The task's own seed decides the data of all runs.
    fine(dir, &words("own", &[]));
    let own = open(&dir.join("own"));
    for seed in 0..3 {
        assert_eq!(run(seed).info().data, own.info().data, "seed {seed}");
        assert_eq!(run(seed).info().seed, seed);
    }
    assert_ne!(run(0).final_state().unwrap(), run(1).final_state().unwrap());
    assert_ne!(
        run(0).meta(0).unwrap().indices,
        run(2).meta(0).unwrap().indices
    );

    // Complete runs are kept, and a new seed is added to them.
    let heads = [0, 1, 2].map(|seed| run(seed).head_digest());
    let report: serde_json::Value =
        serde_json::from_str(&fine(dir, &words("runs", &["--seeds", "1..4", "--json"]))).unwrap();
    let trained: Vec<_> = report["runs"].as_array().unwrap().iter().collect();
    assert_eq!(
        trained
            .iter()
            .map(|run| &run["trained"])
            .collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(trained[2]["seed"], 3);
    assert_eq!(trained[0]["steps"], trained[2]["written"]);
    assert_eq!([0, 1, 2].map(|seed| run(seed).head_digest()), heads);
    assert_eq!(run(3).status(), Status::Finished);

    // The folder of the runs isn't a run, and the message names those in it.
    let said = hindcast(dir, &["influence", "runs"]);
    assert_eq!(code(&said), 1);
    let said = stderr(&said);
    assert!(said.contains("not a recorded run"), "{said}");
    assert!(said.contains("runs/seed-0 … runs/seed-3"), "{said}");
}

#[test]
fn an_interrupted_command_resumes_every_run_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let more = ["--seeds", "0..3", "--durability", "os", "--jobs", "1"];
    fine(dir, &words("whole", &more));
    let end = |run: &str| Trace::open(dir.join(run)).map_or(0, |trace| trace.span().end);
    let mut stopped = 0;
    for (run, by, code) in [
        ("runs/seed-0", Signal::INT, Some(130)),
        ("runs/seed-1", Signal::KILL, None),
        ("runs/seed-2", Signal::TERM, Some(143)),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(words("runs", &more))
            .current_dir(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if !pause_when(&mut child, || end(run) >= 2) {
            // A fast machine may complete all runs between two looks.
            child.wait().unwrap();
            continue;
        }
        end_by(&child, by);
        let output = child.wait_with_output().unwrap();
        if output.status.code() == Some(0) {
            continue;
        }
        assert_eq!(output.status.code(), code, "{}", stderr(&output));
        if code.is_some() {
            let said = stderr(&output);
            assert!(said.contains("of 3 runs in runs are complete"), "{said}");
        }
        stopped += 1;
    }
    assert!(stopped > 0, "no recording was interrupted");
    fine(dir, &words("runs", &more));
    for seed in 0..3 {
        let of = |runs: &str| open(&dir.join(runs).join(format!("seed-{seed}")));
        let (run, whole) = (of("runs"), of("whole"));
        assert_eq!(run.final_state().unwrap(), whole.final_state().unwrap());
        for step in 0..whole.span().end {
            let meta = run.meta(step).unwrap().without_session();
            assert_eq!(meta, whole.meta(step).unwrap());
        }
    }
}

#[test]
fn other_tasks_damage_and_wrong_words_are_refused_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(dir, &words("runs", &["--seeds", "0..2"]));
    fs::create_dir(dir.join("runs/seed-7")).unwrap();
    fs::write(dir.join("runs/seed-7/notes.txt"), "mine").unwrap();
    let cases: [(&[&str], i32, &str); 8] = [
        (&["--seeds", "3..3"], 2, "--seeds: expected A..B"),
        (&["--seeds", "0..9999999"], 2, "at most 10000 seeds"),
        (&["--seeds", "0..2", "--jobs", "0"], 2, "--jobs"),
        (&["--jobs", "2"], 2, "--seeds"),
        (&["--seeds", "0..2", "--note", "x"], 2, "KEY=VALUE"),
        (
            &["--seeds", "1..3", "--set", "train.epochs=3"],
            1,
            "runs/seed-1 is a run of another command: it was recorded with `train.epochs = 2`, but this command gives `train.epochs = 3`",
        ),
        (
            &["--seeds", "1..3", "--keep", "last-epoch"],
            1,
            "`--keep all`, but this command gives `--keep last-epoch`",
        ),
        (&["--seeds", "6..8"], 1, "runs/seed-7"),
    ];
    for (more, exit, hint) in cases {
        let output = hindcast(dir, &words("runs", more));
        let said = stderr(&output);
        assert_eq!(code(&output), exit, "{more:?}: {said}");
        assert!(said.contains(hint), "{more:?}: {said}");
    }
    assert!(!dir.join("runs/seed-6").exists());
    assert!(!dir.join("runs/seed-2").exists());
    let output = hindcast(dir, &words("runs/seed-0", &["--seeds", "0..2"]));
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("folder of a recorded run"));

    let segment = fs::read_dir(dir.join("runs/seed-1"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "hcs"))
        .unwrap();
    fs::remove_file(segment).unwrap();
    let output = hindcast(dir, &words("runs", &["--seeds", "0..2"]));
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("runs/seed-1 is damaged"));
}
