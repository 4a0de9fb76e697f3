//! Runs with each update rule: recorded, replayed over all steps, scored, and retrained; or refused by name.

use super::*;

/// Records the digits with this optimizer: two epochs of five steps.
fn record(dir: &Path, run: &str, settings: &[&str], rate: &str) -> Output {
    let rate = format!("schedule.learning_rate={rate}");
    let mut words = vec!["record", "digits", "--out", run];
    for setting in [
        "data.train=120",
        "data.validation=40",
        "data.test=0",
        "train.epochs=2",
        "train.batch=25",
        &rate,
    ]
    .iter()
    .chain(settings)
    {
        words.extend(["--set", *setting]);
    }
    hindcast(dir, &words)
}

#[test]
fn every_rule_is_recorded_replayed_scored_and_retrained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("without.txt"), "3\n17\n").unwrap();
    let rules: [(&str, &[&str], &str); 4] = [
        (
            "rmsprop",
            &[
                "optimizer.kind=rmsprop",
                "optimizer.eps=0.001",
                "optimizer.momentum=0.5",
                "optimizer.centered=true",
            ],
            "0.001",
        ),
        (
            "adagrad",
            &[
                "optimizer.kind=adagrad",
                "optimizer.initial_accumulator_value=0.01",
            ],
            "0.01",
        ),
        (
            "lamb",
            &["optimizer.kind=lamb", "optimizer.weight_decay=0.01"],
            "0.01",
        ),
        ("muon", &["optimizer.kind=muon"], "0.01"),
    ];
    // The settings that are left out have the documented defaults of the new kind.
    let described = [
        "kind = \"rmsprop\"\nalpha = 0.99",
        "initial_accumulator_value = 0.01",
        "kind = \"lamb\"\nbeta1 = 0.9",
        "kind = \"muon\"\nmomentum = 0.95\nnesterov = true",
    ];
    for ((name, settings, rate), rule) in rules.into_iter().zip(described) {
        let recorded = record(dir, name, settings, rate);
        assert_eq!(code(&recorded), 0, "{name}: {}", stderr(&recorded));
        assert!(!stderr(&recorded).contains("scores by a sweep"), "{name}");
        let replayed = fine(dir, &["verify", name, "--replay", "--steps", "0"]);
        assert!(
            replayed.contains("10 of 10 steps give the next recorded state, bit for bit"),
            "{name}: {replayed}"
        );
        let info = fine(dir, &["info", name, "--json"]);
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        let task = info["info"]["task"].as_str().unwrap();
        assert!(task.contains(rule), "{rule}: {task}");
        let table = format!("{name}.csv");
        fine(dir, &["influence", name, "--out", &table]);
        let words = ["counterfactual", name, "--without", "without.txt"];
        let retrained = fine(dir, &[&words[..], &["--engine", "autodiff"]].concat());
        assert!(retrained.contains("bit for bit"), "{name}: {retrained}");
    }
}

#[test]
fn lion_is_named_at_the_start_and_everything_but_a_sweep_works() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("without.txt"), "3\n17\n").unwrap();
    let recorded = record(dir, "run", &["optimizer.kind=lion"], "0.001");
    assert_eq!(code(&recorded), 0, "{}", stderr(&recorded));
    let said = stderr(&recorded);
    assert!(
        said.contains("the run won't have scores by a sweep: Lion"),
        "{said}"
    );
    let replayed = fine(dir, &["verify", "run", "--replay", "--steps", "0"]);
    assert!(replayed.contains("10 of 10 steps"), "{replayed}");

    let refused = hindcast(dir, &["influence", "run"]);
    let said = stderr(&refused);
    assert_eq!(code(&refused), 1, "{said}");
    for part in [
        "Lion, beta 0.9 and 0.99",
        "the derivative of a sign is 0 almost everywhere",
        "influence --method tracin",
        "counterfactual",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!dir.join("scores.csv").exists());
    fine(dir, &["influence", "run", "--method", "tracin"]);
    let retrained = fine(dir, &["counterfactual", "run", "--without", "without.txt"]);
    // A ranking is no prediction: it gets no size, no direction and no verdict.
    assert!(
        retrained.contains("nothing predicts these changes"),
        "{retrained}"
    );
    for absent in ["predicted (by", "as predicted", "was predicted", "trust"] {
        assert!(!retrained.contains(absent), "{absent}: {retrained}");
    }
    let each = [
        "counterfactual",
        "run",
        "--without",
        "without.txt",
        "--each",
    ];
    let listed = fine(dir, &each);
    assert!(listed.contains("real"), "{listed}");
    assert!(
        !listed.contains("Kendall") && !listed.contains("trust"),
        "{listed}"
    );
    let words = ["--json", "--out", "removed.json"];
    let json = fine(dir, &[&each[..], &words].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["predicted_from"].is_null() && json["trust"].is_null());
    for set in json["sets"].as_array().unwrap() {
        assert!(set["predicted_change"].is_null() && set["real_change"].is_number());
    }
    // A table that ranks is no prediction either, and the report shows the real changes.
    fine(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "tracin",
            "--out",
            "ranks.csv",
        ],
    );
    let top = fine(dir, &["counterfactual", "run", "--top", "3", "ranks.csv"]);
    assert!(top.contains("nothing predicts these changes"), "{top}");
    let words = ["--removed", "removed.json", "--out", "report.html"];
    fine(dir, &[&["report", "run", "ranks.csv"][..], &words].concat());
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("not predicted"));
}

#[test]
fn unknown_rules_and_settings_name_what_exists() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = |settings: &[&str]| {
        let output = record(dir, "run", settings, "0.01");
        assert_eq!(code(&output), 2, "{}", stderr(&output));
        assert!(!dir.join("run").exists());
        stderr(&output)
    };
    let said = refused(&["optimizer.kind=adadelta"]);
    for name in ["sgd", "adamw", "rmsprop", "adagrad", "lamb", "lion", "muon"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    let said = refused(&["optimizer.kind=lamb", "optimizer.momentum=0.9"]);
    assert!(said.contains("momentum"), "{said}");
    let said = refused(&["optimizer.kind=adagrad", "optimizer.lr_decay=-1"]);
    assert!(said.contains("optimizer.lr_decay = -1"), "{said}");
}
