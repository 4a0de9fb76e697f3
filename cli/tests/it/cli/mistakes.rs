//! Mistakes of the user: messages say what is wrong, where, and what to do.

use std::fs;
use std::process::Stdio;

use super::*;

#[test]
fn wrong_usage_exits_with_2_and_says_what_was_expected() {
    let dir = tempfile::tempdir().unwrap();
    for (words, expected) in [
        (vec!["influense"], "influence"),
        (vec!["influence", "run", "--resum"], "--resume"),
        (vec!["influence", "run", "--precision", "f46"], "f64"),
        (vec!["record", "digitz", "--out", "run"], "digits"),
        (
            vec!["record", "digits", "--out", "run", "--set", "train.epoch=1"],
            "epochs",
        ),
        (
            vec!["record", "digits", "--out", "run", "--set", "train.epochs"],
            "KEY=VALUE",
        ),
        (
            vec!["record", "digits", "--out", "run", "--keep", "some"],
            "last-epoch",
        ),
        (
            vec!["record", "digits", "--out", "run", "--device", "gpu"],
            "cuda",
        ),
        (vec!["influence", "run", "--window", "5..2"], "5..2"),
        (vec!["influence", "run", "--query", "valid"], "validation"),
        (vec!["influence", "run", "--out", "scores.xls"], "csv"),
        (vec!["counterfactual", "run"], "--without"),
    ] {
        let output = hindcast(dir.path(), &words);
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(expected),
            "{words:?} does not say {expected:?}: {}",
            stderr(&output)
        );
        assert!(
            fs::read_dir(dir.path()).unwrap().next().is_none(),
            "{words:?} left something behind"
        );
    }
}

#[test]
fn missing_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for verb in ["info", "verify", "influence"] {
        let output = hindcast(dir, &[verb, "nowhere"]);
        assert_eq!(code(&output), 1, "{verb}: {}", stderr(&output));
        assert!(
            stderr(&output).contains("nowhere"),
            "{verb}: {}",
            stderr(&output)
        );
    }
    let output = hindcast(dir, &["scores", "nowhere.csv"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("`influence RUN --out TABLE` writes one"),
        "{}",
        stderr(&output)
    );
    let output = hindcast(dir, &["record", "mnist-cnn", "--data", ".", "--out", "run"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("train-images-idx3-ubyte"),
        "{}",
        stderr(&output)
    );
    assert!(!dir.join("run").exists(), "a run without data is not begun");
}

#[test]
fn an_existing_run_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let before = fs::read(dir.join("run/manifest.json")).unwrap();
    let output = hindcast(dir, &["record", "digits", "--out", "run"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("exists"), "{}", stderr(&output));
    assert_eq!(fs::read(dir.join("run/manifest.json")).unwrap(), before);
}

#[test]
fn an_example_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let output = hindcast(dir, &["influence", "run", "--query", "validation:40"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("`validation:40`") && said.contains("40 examples, 0..40"),
        "{said}"
    );
    fs::write(dir.join("out.txt"), "3\n120\n").unwrap();
    let output = hindcast(dir, &["counterfactual", "run", "--without", "out.txt"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output)
            .contains("example 120 can't be left out: the train split has 120 examples, 0..120"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(["task", "show", "cifar10-cnn"])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

/// The same if the reader closes the pipe in the middle of a run's description.
#[test]
fn info_into_a_closed_pipe_is_not_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    small_run(dir.path());
    for words in [
        &["info", "run"][..],
        &["info", "run", "--json"],
        &["verify", "run"],
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(words)
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).is_empty(), "{words:?}: {}", stderr(&output));
    }
}

#[test]
fn every_verb_explains_itself() {
    let dir = tempfile::tempdir().unwrap();
    let all = fine(dir.path(), &["-h"]);
    assert!(all.contains("Exit codes: 0 success"), "{all}");
    let verbs: Vec<&str> = all
        .lines()
        .skip_while(|l| !l.starts_with("Commands:"))
        .skip(1)
        .take_while(|l| l.starts_with("  "))
        .filter(|l| !l.starts_with("   "))
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    for known in [
        "record",
        "info",
        "verify",
        "influence",
        "counterfactual",
        "export",
        "recover",
        "prune",
        "task",
    ] {
        assert!(verbs.contains(&known), "{known} is not among {verbs:?}");
    }
    for verb in verbs.into_iter().filter(|&verb| verb != "help") {
        let help = fine(dir.path(), &[verb, "-h"]);
        assert!(help.contains("Usage: hindcast"), "{verb}: {help}");
        let long = fine(dir.path(), &["help", verb]);
        assert!(long.len() >= help.len(), "{verb}");
    }
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
}

#[test]
fn typos_get_a_suggestion() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let shown = fine(dir, &["task", "show", "digits"]);
    for (file, from, to) in [
        ("layer.toml", "\"conv2d\"", "\"conv2\""),
        ("key.toml", "epochs =", "epoch ="),
        ("loss.toml", "\"cross-entropy\"", "\"cross-entrpy\""),
    ] {
        fs::write(dir.join(file), shown.replacen(from, to, 1)).unwrap();
    }
    for (words, meant) in [
        (vec!["recver", "run", "--out", "new"], "recover"),
        (vec!["task", "lst"], "list"),
        (vec!["influence", "run", "--qery", "validation"], "--query"),
        (
            vec!["record", "digit", "--out", "run"],
            "did you mean \"digits\"?",
        ),
        (
            vec![
                "record",
                "digits",
                "--out",
                "run",
                "--set",
                "schedule.learnin_rate=1",
            ],
            "did you mean \"learning_rate\"?",
        ),
        (
            vec!["record", "layer.toml", "--out", "run"],
            "did you mean `conv2d`?",
        ),
        (
            vec!["record", "key.toml", "--out", "run"],
            "did you mean `epochs`?",
        ),
        (
            vec!["record", "loss.toml", "--out", "run"],
            "did you mean `cross-entropy`?",
        ),
    ] {
        let output = hindcast(dir, &words);
        let said = stderr(&output);
        assert_ne!(code(&output), 0, "{words:?}");
        assert!(
            said.contains(meant),
            "{words:?} does not suggest {meant:?}: {said}"
        );
        if words[1].ends_with(".toml") {
            assert!(
                said.contains(words[1]),
                "{words:?} does not name the file: {said}"
            );
        }
        assert!(!dir.join("run").exists(), "{words:?} began a run");
    }
}

#[test]
fn a_task_that_does_not_build_names_the_layer_and_the_shapes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let task = fine(dir, &["task", "show", "digits"]);
    // A convolution whose input is a row of numbers.
    let broken = task.replacen(
        "{ kind = \"linear\", out = 10 }",
        "{ kind = \"conv2d\", out = 4, kernel = 3 }",
        1,
    );
    fs::write(dir.join("broken.toml"), broken).unwrap();
    let output = hindcast(dir, &["record", "broken.toml", "--out", "run"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    for words in [
        "broken.toml",
        "model.layers[5]",
        "conv2d",
        "expects",
        "got input shape [256]",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(!dir.join("run").exists());
    // A model that builds, but whose input has another shape than the examples.
    let output = hindcast(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "model.input=[1, 32, 32]",
        ],
    );
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains("[1, 28, 28]") && said.contains("[1, 32, 32]"),
        "{said}"
    );
    assert!(!dir.join("run").exists(), "{said}");
}

/// Values that diverge are recorded unchanged. Messages say where they start, and where an analysis reads them.
#[test]
fn a_training_that_diverges_is_recorded_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let words = [
        "record",
        "digits",
        "--out",
        "run",
        "--set",
        "data.train=60",
        "--set",
        "data.validation=20",
        "--set",
        "data.test=0",
        "--set",
        "train.epochs=2",
        "--set",
        "train.batch=20",
        "--set",
        "schedule.learning_rate=1e38",
    ];
    let said = fine(dir, &words);
    assert!(
        said.contains("with a value that is not finite (first \"") && said.contains("\" at step "),
        "{said}"
    );
    let info = fine(dir, &["info", "run"]);
    assert!(info.contains("  diverged    "), "{info}");
    fine(dir, &["verify", "run"]);
    let output = hindcast(dir, &["influence", "run"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains(
            "the recorded training itself diverged: its parameters are not finite from step "
        ) && !said.contains("--window"),
        "{said}"
    );
    let step = |said: &str, before: &str| -> u64 {
        let rest = said.split_once(before).unwrap().1;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    let broken = step(&said, "not finite from step ");
    // The model before that step is the first one with such a value.
    for (at, finite) in [(broken - 1, true), (broken, false)] {
        let (at, out) = (at.to_string(), format!("{at}.safetensors"));
        fine(dir, &["checkpoint", "run", "--step", &at, "--out", &out]);
        let bytes = fs::read(dir.join(&out)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let all = file.iter().all(|(_, tensor)| {
            let values = tensor.data().chunks_exact(4);
            let mut values = values.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            values.all(f32::is_finite)
        });
        assert_eq!(all, finite, "step {at}");
    }
    let said = fine(dir, &["dynamics", "run", "--json"]);
    assert!(said.contains("not finite"), "{said}");
    fs::write(dir.join("none"), "0\n").unwrap();
    let output = hindcast(dir, &["counterfactual", "run", "--without", "none"]);
    let said = stderr(&output);
    assert!(
        code(&output) == 1 && said.contains("the recorded training itself diverged"),
        "{said}"
    );
}

/// A run that is too large for any disk: the warning comes with the estimate, before the first step, and training starts.
#[test]
fn a_disk_that_is_too_small_is_reported_before_the_first_step() {
    use std::io::{BufRead, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args([
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "train.epochs=1000000000",
        ])
        .args(["--set", "data.train=120", "--set", "data.validation=40"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    for line in lines.map_while(Result::ok) {
        let done = line.starts_with("warning: ");
        seen.push(line);
        if done {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let warning = seen.last().unwrap();
    assert!(
        warning.contains("the run probably doesn't fit on the disk")
            && warning.contains("are needed")
            && warning.contains("are free for run")
            && warning.contains("--keep last-epoch"),
        "{seen:#?}"
    );
}

/// A limit on the size of files stands for a full disk: the kernel refuses the write in the same place.
#[test]
#[cfg(unix)]
fn a_full_disk_names_file_and_step_and_leaves_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let limited = |blocks: u32, words: &str| {
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec {} {words}",
            env!("CARGO_BIN_EXE_hindcast")
        );
        Command::new("bash")
            .args(["-c", &script])
            .current_dir(dir)
            .output()
            .unwrap()
    };
    // Blocks of 1,024 bytes: space for some steps of 23 kB.
    let output = limited(
        100,
        "record digits --out run --set data.train=120 --set data.validation=40 --set data.test=0 --set train.epochs=5 --set train.batch=20",
    );
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("run/seg-00000000.hcs"), "{said}");
    assert!(
        said.contains("cannot write ") && said.contains(" at step "),
        "{said}"
    );
    assert!(said.contains("can be resumed"), "{said}");
    assert_eq!(said.matches("os error").count(), 1, "said once: {said}");
    let info = fine(dir, &["info", "run"]);
    assert!(info.contains("open"), "{info}");
    let steps: serde_json::Value =
        serde_json::from_str(&fine(dir, &["info", "run", "--json"])).unwrap();
    assert!(steps["steps"].as_u64().unwrap() >= 1, "{info}");
    fine(dir, &["verify", "run"]);
    // Recovery to a full disk leaves nothing behind, and the run unchanged.
    let output = limited(20, "recover run --out new");
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains("seg-00000000.hcs") && said.contains("os error"),
        "{said}"
    );
    assert!(!dir.join("new").exists());
    let names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?} stayed behind");
    fine(dir, &["recover", "run", "--out", "new"]);
    // Neither does a run that is made from that one.
    let output = limited(20, "prune new --keep last-steps=9 --out smaller");
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(
        said.contains("seg-00000000.hcs") && said.contains("os error"),
        "{said}"
    );
    let names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.starts_with('.') || n == "smaller")
        .collect();
    assert!(names.is_empty(), "{names:?} stayed behind");
    // Output that can't be written is a failure. Output to a closed pipe is not.
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(["info", "run"])
        .current_dir(dir)
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("No space left"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[cfg(unix)]
fn a_place_that_cannot_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("file"), "mine").unwrap();
    for words in [
        vec!["record", "digits", "--out", "file/run"],
        vec!["recover", "run", "--out", "file/new"],
        vec!["prune", "run", "--keep", "every=2", "--out", "file/new"],
        vec!["export", "run", "--steps", "0", "--out", "file/steps"],
        vec!["influence", "run", "--out", "file/scores.csv"],
    ] {
        let output = hindcast(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words:?}: {said}");
        let why = said.contains("os error") || said.contains("file is a file, not a folder");
        assert!(said.contains("file/") && why, "{words:?}: {said}");
    }
    let output = hindcast(dir, &["export", "run", "--steps", "0", "--out", "file"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    assert!(said.contains("file is a file; name a new folder"), "{said}");
    assert_eq!(fs::read_to_string(dir.join("file")).unwrap(), "mine");
    let closed = dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(closed.join("probe"), b"").is_ok() {
        println!("not tried: this user may write to every folder");
        return;
    }
    let output = hindcast(dir, &["record", "digits", "--out", "closed/run"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("closed/run"),
        "{}",
        stderr(&output)
    );
}
