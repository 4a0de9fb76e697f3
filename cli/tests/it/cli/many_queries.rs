//! Many queries in one sweep: one per example or one per class, in one pass or several.

use std::fs;

#[cfg(unix)]
use super::slices::pause_when;
use super::*;

/// A column's cells.
fn column(csv: &str, name: &str) -> Vec<String> {
    let mut lines = csv.lines().map(|line| line.split(',').map(str::to_owned));
    let at = lines
        .next()
        .unwrap()
        .position(|cell| cell == name)
        .unwrap_or_else(|| panic!("no column {name}"));
    lines.map(|mut row| row.nth(at).unwrap()).collect()
}

#[test]
fn a_range_gives_one_column_per_example_with_the_bits_of_separate_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let ask = |out: &str, queries: &[&str]| {
        let mut words = vec![
            "influence",
            "run",
            "--window",
            "last-epoch",
            "--replace",
            "--out",
            out,
        ];
        words.extend(queries.iter().flat_map(|q| ["--query", q]));
        fine(dir, &words);
        fs::read_to_string(dir.join(out)).unwrap()
    };
    let many = ask("many.csv", &["validation:4..7", "per-class"]);
    for q in 4..7 {
        let alone = ask("alone.csv", &[&format!("validation:{q}")]);
        let name = format!("influence[validation:{q}]");
        assert_eq!(column(&many, &name), column(&alone, "influence"), "{q}");
    }
    let class = ask("class.csv", &["validation:class-3"]);
    assert_eq!(
        column(&many, "influence[validation:class-3]"),
        column(&class, "influence")
    );
    assert_eq!(
        ask("each.csv", &["each:validation:4,5,6", "per-class"]),
        many
    );
    // The table can be read back by the names of its columns.
    let best = fine(
        dir,
        &[
            "scores",
            "many.csv",
            "--sort",
            "influence[validation:class-3]",
            "--top",
            "2",
        ],
    );
    assert!(best.contains("influence[validation:class-3]"), "{best}");
}

#[test]
fn missing_and_repeated_queries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for (words, exit, hint) in [
        (
            &[
                "influence",
                "run",
                "--query",
                "validation:2..5",
                "--query",
                "validation:3",
            ][..],
            2,
            "`validation:3` is given twice",
        ),
        (
            &["influence", "run", "--query", "validation:30..50"],
            1,
            "there is no example 40",
        ),
        (
            &["influence", "run", "--query", "validation:class-seven"],
            1,
            "of the class `seven`; the classes are 0, 1",
        ),
        (
            &["influence", "run", "--query", "per-class:test"],
            1,
            "no test examples",
        ),
        (
            &["influence", "run", "--query", "each"],
            2,
            "each:validation:0..99",
        ),
    ] {
        let output = hindcast(dir, words);
        assert_eq!(code(&output), exit, "{}", stderr(&output));
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
    fs::write(dir.join("list.txt"), "3\n").unwrap();
    let words = |query| {
        [
            "counterfactual",
            "run",
            "--without",
            "list.txt",
            "--query",
            query,
        ]
    };
    let output = hindcast(dir, &words("validation:0..4"));
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("mean:validation:0..99"));
    fine(dir, &words("mean:validation:0..4"));
}

/// Runs a sweep of twelve queries with this limit on memory.
fn announced(dir: &Path, memory: &str, out: &str, more: &[&str]) -> Output {
    let mut words = vec![
        "influence",
        "run",
        "--query",
        "validation:0..12",
        "--per-epoch",
        "--memory",
        memory,
        "--out",
        out,
    ];
    words.extend(more);
    hindcast(dir, &words)
}

/// A limit on memory with which twelve queries need several passes.
fn tight(dir: &Path) -> String {
    (1..200)
        .map(|n| format!("{}kB", 500 * n))
        .find(|memory| {
            let output = announced(dir, memory, "found.csv", &[]);
            code(&output) == 0
                && stderr(&output).contains("passes")
                && stderr(&output).contains("queries each")
        })
        .expect("a size that is enough for one query and too small for all")
}

#[test]
fn queries_that_do_not_fit_at_once_give_the_same_table_in_passes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let output = announced(dir, "8GB", "whole.csv", &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(!stderr(&output).contains("passes"), "{}", stderr(&output));
    let whole = fs::read(dir.join("whole.csv")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["passes"], 1);
    let seconds = |part: &str| json["time"][part].as_f64().unwrap();
    assert!(seconds("replay") > 0.0 && seconds("waiting") >= 0.0 && seconds("rest") >= 0.0);

    let memory = tight(dir);
    let output = announced(dir, &memory, "parts.csv", &["--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(json["passes"].as_u64().unwrap() > 1, "{json}");
    assert_eq!(fs::read(dir.join("parts.csv")).unwrap(), whole);
}

#[cfg(unix)]
#[test]
fn killed_passes_resume_to_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    assert_eq!(code(&announced(dir, "8GB", "whole.csv", &[])), 0);
    let whole = fs::read(dir.join("whole.csv")).unwrap();
    let memory = tight(dir);
    let checkpoint = dir.join("parts.csv.sweep.safetensors");
    let mut in_later_passes = 0;
    // Killed whenever its checkpoint has changed, in every pass, until it is done.
    for _ in 0..200 {
        let before = fs::read(&checkpoint).ok();
        let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args([
                "influence",
                "run",
                "--query",
                "validation:0..12",
                "--per-epoch",
            ])
            .args(["--memory", &memory, "--out", "parts.csv", "--resume"])
            .args(["--checkpoint-every", "0"])
            .current_dir(dir)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // A finished sweep removes its checkpoint.
        let changed = pause_when(&mut child, || {
            let now = fs::read(&checkpoint).ok();
            now.is_some() && now != before
        });
        if changed {
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        if !changed {
            assert!(status.success(), "{status}");
            break;
        }
        let bytes = fs::read(&checkpoint).unwrap_or_default();
        if let Ok((_, metadata)) = safetensors::SafeTensors::read_metadata(&bytes) {
            let header = metadata.metadata().clone().unwrap_or_default();
            let header: serde_json::Value =
                serde_json::from_str(&header["hindcast-sweep"]).unwrap();
            in_later_passes += u64::from(header["finished"].as_u64() > Some(0));
        }
    }
    assert!(in_later_passes > 0, "no kill fell into a later pass");
    assert!(!checkpoint.exists());
    assert_eq!(fs::read(dir.join("parts.csv")).unwrap(), whole);
}
