//! No verb writes into a run's folder, by any path.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// Every file of a folder with its bytes.
fn held(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap_or_default())
        })
        .collect()
}

#[cfg(unix)]
#[test]
fn no_verb_writes_into_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--top", "0"]);
    fs::write(dir.join("list.txt"), "3\n").unwrap();
    std::os::unix::fs::symlink("run", dir.join("link")).unwrap();
    std::os::unix::fs::symlink("run/manifest.json", dir.join("worst.png")).unwrap();
    fs::create_dir(dir.join("beside")).unwrap();
    let before = held(&dir.join("run"));
    for words in [
        &["influence", "run", "--out", "run/s.csv"][..],
        &["influence", "run", "--out", "link/s.csv"],
        &["influence", "run", "--out", "beside/../run/s.csv"],
        &[
            "influence",
            "run",
            "--out",
            "s.csv",
            "--picture",
            "run/worst.png",
        ],
        &[
            "influence",
            "run",
            "--out",
            "s.csv",
            "--picture",
            "worst.png",
        ],
        &["scores", "scores.csv", "--out", "run/s.csv"],
        &["scores", "scores.csv", "--out", "run/s.jsonl"],
        &[
            "counterfactual",
            "run",
            "--without",
            "list.txt",
            "--out",
            "run/r.json",
        ],
        &["report", "run", "scores.csv", "--out", "link/report.html"],
        &["bounds", "run", "--out", "run/b.csv"],
        &["dynamics", "run", "--out", "link/d.csv"],
        &["export", "run", "--steps", "0..2", "--out", "run/steps"],
        &[
            "export",
            "run",
            "--steps",
            "0..2",
            "--out",
            "none/../run/steps",
        ],
        &[
            "checkpoint",
            "run",
            "--step",
            "last",
            "--out",
            "run/m.safetensors",
        ],
        &["recover", "run", "--out", "run/new"],
        &["prune", "run", "--keep", "last-epoch", "--out", "run/new"],
        &["prune", "run", "--keep", "last-epoch", "--out", "link/new"],
        &["recover", "run", "--out", "link/new"],
        &[
            "record",
            "digits",
            "--out",
            "run/inner",
            "--set",
            "data.train=50",
        ],
        &["demo", "--out", "run"],
        &["man", "--out", "run"],
    ] {
        let output = hindcast(dir, words);
        assert_eq!(code(&output), 1, "{words:?}: {}", stdout(&output));
        assert!(
            stderr(&output).contains("is the folder of a recorded run"),
            "{words:?}: {}",
            stderr(&output)
        );
        assert_eq!(held(&dir.join("run")), before, "{words:?}");
    }
    assert!(
        !dir.join("s.csv").exists(),
        "the refusal comes before the sweep"
    );
    fine(dir, &["verify", "run"]);
    fine(
        dir,
        &["export", "run", "--steps", "0..2", "--out", "beside/steps"],
    );
}

/// A writer that was killed leaves a temporary file, which the next one removes.
#[cfg(unix)]
#[test]
fn the_next_writer_removes_a_killed_writers_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let mut child = Command::new("true").spawn().unwrap();
    let id = child.id();
    child.wait().unwrap();
    for name in [
        "scores.csv",
        "scores.csv.meta.json",
        "report.html",
        "r.json",
    ] {
        fs::write(dir.join(format!("{name}.{id}.tmp")), "half").unwrap();
    }
    fs::write(dir.join(format!("other.csv.{id}.tmp")), "another's").unwrap();
    fine(dir, &["influence", "run", "--top", "0"]);
    fine(dir, &["report", "run", "scores.csv"]);
    fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--top",
            "2",
            "scores.csv",
            "--out",
            "r.json",
        ],
    );
    let left: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert_eq!(left, [format!("other.csv.{id}.tmp")]);
}
