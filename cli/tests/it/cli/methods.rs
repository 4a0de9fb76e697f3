//! Methods are listed, described and chosen, and refused with advice.

use serde_json::Value;

use super::*;

fn refused(dir: &Path, words: &[&str]) -> String {
    let output = hindcast(dir, words);
    assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn methods_are_listed_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let list = fine(dir, &["methods"]);
    let help = fine(dir, &["influence", "--help"]);
    let all: Value = serde_json::from_str(&fine(dir, &["methods", "--json"])).unwrap();
    for method in all.as_array().unwrap() {
        let name = method["name"].as_str().unwrap();
        assert!(list.contains(&format!("{name:<18} ")), "{list}");
        assert!(help.contains(name), "{help}");
        let one = fine(dir, &["methods", name]);
        assert!(one.contains(method["source"].as_str().unwrap()), "{one}");
        for option in method["options"].as_array().unwrap() {
            let key = option["key"].as_str().unwrap();
            assert!(one.contains(&format!("{key}=")), "{one}");
        }
    }
    let said = refused(dir, &["methods", "magic"]);
    assert!(
        said.contains("no method `magic`") && said.contains("random"),
        "{said}"
    );
}

#[test]
fn a_table_names_its_method_and_a_ranking_is_not_used_as_a_prediction() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let table = |name: &str, extra: &[&str]| -> Value {
        let out = format!("{name}.csv");
        let mut words = vec!["influence", "run", "--out", &out, "--method", name];
        words.extend(extra);
        fine(dir, &words);
        let metadata = std::fs::read(dir.join(format!("{out}.meta.json"))).unwrap();
        serde_json::from_slice(&metadata).unwrap()
    };
    let sgd = table("sgd", &["--per-epoch"]);
    assert_eq!(sgd["method"], "sgd");
    assert_eq!(sgd.get("settings"), None);
    assert_eq!(table("hessian-free", &[])["method"], "hessian-free");
    let discounted = table("discounted", &["--per-epoch"]);
    assert_eq!(discounted["method"], "discounted");
    assert_eq!(discounted["settings"]["discount"], "0.99");
    let random = table("random", &["--method-set", "seed=5"]);
    assert_eq!(random["method"], "random");
    assert_eq!(random["settings"]["seed"], "5");

    let predicted = |table: &str| -> Value {
        let said = fine(
            dir,
            &["counterfactual", "run", "--top", "3", table, "--json"],
        );
        serde_json::from_str(&said).unwrap()
    };
    let by_sgd = predicted("sgd.csv");
    assert_eq!(by_sgd["predicted_from"], "the table");
    let by_chance = predicted("random.csv");
    assert_eq!(by_chance["predicted_from"], "a sweep of this window");
}

#[test]
fn options_that_a_method_lacks_are_refused_before_the_run_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // None of these needs the run.
    let said = refused(dir, &["influence", "run", "--method", "magic"]);
    assert!(said.contains("no method `magic`"), "{said}");
    let said = refused(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "random",
            "--method-set",
            "seed",
        ],
    );
    assert!(said.contains("KEY=VALUE"), "{said}");
    let words = ["influence", "run", "--method", "discounted"];
    let said = refused(
        dir,
        &[&words[..], &["--method-set", "discount=1.5"]].concat(),
    );
    assert!(said.contains("a number from 0 to 1"), "{said}");
    let said = refused(
        dir,
        &["influence", "run", "--method", "random", "--per-epoch"],
    );
    assert!(
        said.contains("--per-epoch") && said.contains("random"),
        "{said}"
    );
    let said = refused(dir, &["influence", "run", "--method", "random", "--resume"]);
    assert!(said.contains("--resume"), "{said}");
    let said = refused(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "random",
            "--window",
            "last-epoch",
        ],
    );
    assert!(said.contains("--window last-epoch"), "{said}");
}

#[test]
fn outlier_scores_are_the_same_for_every_query_and_come_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let cases: [(&str, &[&str]); 2] = [
        ("autoencoder", &["epochs=2", "channels=4,3", "batch=16"]),
        ("isolation-forest", &["trees=20"]),
    ];
    for (name, set) in cases {
        let ask = |out: &str| {
            let mut words = vec![
                "influence",
                "run",
                "--json",
                "--method",
                name,
                "--replace",
                "--out",
                out,
            ];
            words.extend(["--query", "validation", "--query", "validation:3"]);
            for option in set {
                words.extend(["--method-set", option]);
            }
            serde_json::from_str::<Value>(&fine(dir, &words)).unwrap()
        };
        let said = ask("a.csv");
        assert_eq!(said["method"], name);
        assert!(!said["notes"][0].as_str().unwrap().is_empty());
        let (one, other) = (&said["queries"][0], &said["queries"][1]);
        assert_eq!(one["most_harmful"], other["most_harmful"]);
        let score = &one["most_harmful"][0]["influence"];
        assert!(score.as_f64().unwrap() < 0.0, "{score}");
        assert_ne!(score, &one["most_helpful"][0]["influence"]);
        // The same again, digit for digit.
        assert_eq!(ask("b.csv")["queries"], said["queries"]);
    }
    let said = hindcast(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "autoencoder",
            "--method-set",
            "channels=4",
        ],
    );
    assert_eq!(code(&said), 2);
    assert!(
        stderr(&said).contains("channels=4: expected"),
        "{}",
        stderr(&said)
    );
}
