//! The interface for scripts: field names, quiet pipes, completions and manual pages.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use super::*;

fn json(dir: &Path, words: &[&str]) -> Value {
    let said = fine(dir, words);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{words:?}: {e}: {said}"))
}

/// Checks that every field of the object is named in the verb's `--help`.
fn documented(dir: &Path, verb: &str, value: &Value) {
    let help = fine(dir, &[verb, "--help"]);
    let fields = help
        .split_once("--json prints an object with")
        .unwrap_or_else(|| panic!("`{verb} --help` does not say what --json prints"))
        .1;
    let known: Vec<&str> = fields
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    for field in value.as_object().unwrap().keys() {
        assert!(
            known.contains(&field.as_str()),
            "`{verb} --help` does not name {field}"
        );
    }
}

/// Sweeps and checks the JSON of `influence`, which it returns.
fn influence_is_documented(dir: &Path, head: &str) -> serde_json::Value {
    let swept = json(
        dir,
        &[
            "influence",
            "run",
            "--json",
            "--top",
            "3",
            "--window",
            "5..10",
            "--picture",
            "w.png",
            "--query",
            "validation",
            "--query",
            "validation:3",
        ],
    );
    documented(dir, "influence", &swept);
    assert_eq!(swept["run_digest"], head);
    assert_eq!(swept["window"]["start"], 5);
    assert_eq!(swept["run_steps"], 10);
    assert_eq!(swept["examples"], 120);
    assert_eq!(swept["never_seen"], 0);
    assert_eq!(swept["table"], "scores.csv");
    assert!(dir.join(swept["metadata"].as_str().unwrap()).exists());
    assert!(dir.join(swept["picture"].as_str().unwrap()).exists());
    let queries = swept["queries"].as_array().unwrap();
    assert_eq!(queries.len(), 2);
    for query in queries {
        assert!(query["value"].is_number() && query["growth"]["factor"].is_number());
        let of = |list: &str| -> Vec<f64> {
            let rows = query[list].as_array().unwrap();
            rows.iter()
                .map(|row| row["influence"].as_f64().unwrap())
                .collect()
        };
        let (harmful, helpful) = (of("most_harmful"), of("most_helpful"));
        assert_eq!((harmful.len(), helpful.len()), (3, 3));
        assert!(harmful[0] <= harmful[1] && harmful[2] < helpful[2] && helpful[1] <= helpful[0]);
    }
    swept
}

#[test]
fn printed_json_is_documented_and_parses() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let recorded = json(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--json",
            "--set",
            "data.train=120",
            "--set",
            "data.validation=40",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=2",
            "--set",
            "train.batch=25",
        ],
    );
    documented(dir, "record", &recorded);
    assert_eq!(recorded["steps"], 10);
    assert_eq!(recorded["written"], 10);
    let head = recorded["head_digest"].as_str().unwrap();

    let info = json(dir, &["info", "run", "--json"]);
    documented(dir, "info", &info);
    assert_eq!(info["head_digest"], head);

    let verified = json(
        dir,
        &["verify", "run", "--json", "--replay", "--head", head],
    );
    documented(dir, "verify", &verified);
    assert_eq!(verified["steps_ok"], 10);
    assert_eq!(verified["head_matches"], true);
    assert_eq!(verified["replay"]["steps"][0]["passed"], true);

    let swept = influence_is_documented(dir, head);
    let queries = swept["queries"].as_array().unwrap();
    let scores = json(dir, &["scores", "scores.csv", "--json", "--top", "2"]);
    documented(dir, "scores", &scores);
    assert_eq!(scores["rows_in_table"], 120);
    assert_eq!(scores["metadata"]["run_digest"], head);
    assert_eq!(
        scores["rows"][1]["index"],
        queries[0]["most_harmful"][1]["index"]
    );

    let retrained = json(
        dir,
        &[
            "counterfactual",
            "run",
            "--top",
            "3",
            "scores.csv",
            "--json",
            "--window",
            "5..10",
        ],
    );
    documented(dir, "counterfactual", &retrained);
    assert_eq!(retrained["predicted_from"], "the table");

    let exported = json(
        dir,
        &[
            "export", "run", "--steps", "2..5", "--out", "steps", "--json",
        ],
    );
    documented(dir, "export", &exported);
    assert_eq!(exported["files"], 3);
    assert_eq!(exported["steps"]["end"], 5);
    assert!(dir.join(exported["index"].as_str().unwrap()).exists());
    assert!(exported["bytes"].as_u64() > Some(3 * 1000));

    let tasks = json(dir, &["task", "list", "--json"]);
    let names: Vec<&str> = tasks
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"digits") && names.contains(&"cifar10-cnn"));
}

#[test]
fn bars_stay_out_of_pipes_and_estimates_go_to_standard_error() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("out.txt"), "3\n").unwrap();
    for (words, said) in [
        (
            &["influence", "run", "--json"][..],
            "10 steps, back from 10 to 0; 120 examples, 1 query",
        ),
        (
            &["counterfactual", "run", "--without", "out.txt", "--json"],
            "to retrain: 10 steps",
        ),
        (
            &[
                "record",
                "digits",
                "--out",
                "other",
                "--set",
                "train.epochs=1",
            ],
            "at most 67.2 MB of memory",
        ),
        (&["verify", "run", "--replay"], ""),
    ] {
        let output = hindcast(dir, words);
        let text = stderr(&output);
        assert_eq!(code(&output), 0, "{text}");
        assert!(
            text.contains(said),
            "{words:?} does not say {said:?}: {text}"
        );
        assert!(
            !text.contains('\r') && !text.contains('\u{1b}') && !text.contains("left"),
            "{words:?} draws into a pipe: {text:?}"
        );
        assert!(!stdout(&output).contains("memory"), "{words:?}");
    }
}

#[test]
fn what_does_not_fit_into_memory_is_refused_before_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let output = hindcast(dir, &["influence", "run", "--memory", "1kB"]);
    let said = stderr(&output);
    assert_eq!(code(&output), 1, "{said}");
    for words in [
        "at least",
        "1.00 kB is allowed",
        "fewer queries",
        "--memory",
    ] {
        assert!(said.contains(words), "no {words:?}: {said}");
    }
    assert!(!dir.join("scores.csv").exists());
    let output = hindcast(dir, &["influence", "run", "--memory", "lots"]);
    assert_eq!(code(&output), 2, "{}", stderr(&output));
    fine(dir, &["influence", "run", "--memory", "900MB"]);
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let verbs = ["record", "influence", "scores", "counterfactual", "verify"];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = fine(dir, &["completions", shell]);
        for words in verbs.iter().chain(&["checkpoint-every"]) {
            assert!(script.contains(words), "{shell} does not know {words}");
        }
    }
    let said = fine(dir, &["man", "--out", "man"]);
    assert!(said.contains("hindcast.1"), "{said}");
    for verb in verbs {
        let page = fs::read_to_string(dir.join(format!("man/hindcast-{verb}.1"))).unwrap();
        assert!(page.contains(".SH OPTIONS"), "{verb}");
    }
    let page = fine(dir, &["man"]);
    assert!(
        page.contains(".TH hindcast 1") && page.contains("130 interrupted"),
        "{page}"
    );
    // Here, too, a reader that closes the pipe is not a failure.
    for words in [&["completions", "bash"][..], &["man"]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(code(&output), 0, "{words:?}: {}", stderr(&output));
    }
}
