//! Limits on threads and file sizes, and a name that a file format reserves.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use candle_core::{DType, Device, Var};
use candle_nn::VarMap;
use hindcast_recorder::{BatchInfo, Recorder, StepInfo};

use super::*;

/// Runs the command in a shell with a limit on processes and threads. Root has no such limit, so root becomes `nobody`. Returns
/// `None` if that isn't possible.
fn with_threads(dir: &Path, threads: u32, words: &str) -> Option<Output> {
    let line = format!(
        "ulimit -u {threads} && exec {} {words}",
        env!("CARGO_BIN_EXE_hindcast")
    );
    let root = rustix::process::geteuid().is_root();
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        command.arg("bash");
        command
    } else {
        Command::new("bash")
    };
    let output = command.args(["-c", &line]).current_dir(dir).output().ok()?;
    // There is no such shell or limit, or the user `nobody` may not enter the folder.
    let tried =
        !matches!(output.status.code(), Some(126 | 127)) && !stderr(&output).contains("ulimit:");
    tried.then_some(output)
}

#[test]
fn a_process_without_threads_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let dir = dir.path();
    let words = "record digits --out run --set data.train=60 --set data.validation=20 --set data.test=20 --set train.epochs=1";
    let mut refused = 0;
    // The first thread is the process itself; then come the pool and the recorder's threads.
    for threads in 1..8 {
        let Some(output) = with_threads(dir, threads, words) else {
            println!("skipped: no limit on threads can be set here");
            return;
        };
        let said = stderr(&output);
        assert!(!said.contains("panicked"), "{threads} threads: {said}");
        if output.status.code() == Some(0) {
            std::fs::remove_dir_all(dir.join("run")).unwrap();
            continue;
        }
        refused += 1;
        assert_eq!(output.status.code(), Some(1), "{threads} threads: {said}");
        assert!(said.contains("ulimit -u"), "{threads} threads: {said}");
        assert!(
            !dir.join("run").exists(),
            "{threads} threads left a run behind"
        );
    }
    assert!(refused > 0, "the limit didn't hold");
}

#[test]
fn a_variable_with_a_reserved_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let variables = VarMap::new();
    let var = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let name = "__metadata__".to_owned();
    variables.data().lock().unwrap().insert(name, var);
    let run = Recorder::builder(dir.join("run"))
        .create(&variables)
        .unwrap();
    run.step(&StepInfo::new(BatchInfo::new(0, &[1]), 0.1))
        .unwrap();
    run.finish().unwrap();
    for words in [
        vec![
            "checkpoint",
            "run",
            "--step",
            "last",
            "--out",
            "model.safetensors",
        ],
        vec!["export", "run", "--steps", "0", "--out", "steps"],
    ] {
        let output = hindcast(dir, &words);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("\"__metadata__\"")
                && stderr(&output).contains("rename the variable"),
            "{}",
            stderr(&output)
        );
    }
    assert!(!dir.join("model.safetensors").exists());
}

#[cfg(unix)]
#[test]
fn a_file_size_limit_is_an_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let before = || {
        let mut names: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let names = before();
    for words in [
        "influence run --out s.csv",
        "export run --steps 0..2 --out steps",
        "checkpoint run --step final --out model.safetensors",
    ] {
        // One block of 512 bytes, or of 1,024 in some shells.
        let output = Command::new("sh")
            .args(["-c", "ulimit -f 1; exec \"$0\" \"$@\""])
            .arg(env!("CARGO_BIN_EXE_hindcast"))
            .args(words.split(' '))
            .current_dir(dir)
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{words}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains("too large"),
            "{words}: {}",
            stderr(&output)
        );
        let _ = std::fs::remove_dir_all(dir.join("steps"));
        assert_eq!(before(), names, "{words} left something behind");
    }
}
