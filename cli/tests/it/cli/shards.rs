//! Work that is divided among processes: the merged result is that of one process, to the byte, and nothing else is accepted.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::slices::{end_by, pause_when};
use super::*;

/// The arguments of a question with ten queries.
const QUESTION: [&str; 8] = [
    "influence",
    "run",
    "--query",
    "validation:0..9",
    "--query",
    "validation",
    "--per-epoch",
    "--replace",
];

fn influence<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&QUESTION[..], &["--out", out], more].concat()
}

fn same_bytes(dir: &Path, a: &str, b: &str) {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    assert!(read(a) == read(b), "{a} and {b}");
}

#[test]
fn four_shards_by_two_processes_of_which_one_is_killed_give_the_bytes_of_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &influence("whole.csv", &[]));
    let start = |shard: &str| {
        Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(influence(
                "scores.csv",
                &["--shard", shard, "--checkpoint-every", "0"],
            ))
            .current_dir(dir)
            .spawn()
            .unwrap()
    };
    let mut other = start("3/4");
    let mut killed = start("1/4");
    let checkpoint = dir.join("scores.csv.shards/.shard-1/part.csv.sweep.safetensors");
    let begun = pause_when(&mut killed, || checkpoint.exists());
    if begun {
        // While it is paused, it still has its shard.
        let busy = influence("scores.csv", &["--shard", "1/4"]);
        says(
            dir,
            &busy,
            1,
            &["another process computes shard 1 at the moment"],
        );
        end_by(&killed, Signal::KILL);
    }
    let _ = killed.wait().unwrap();
    assert!(other.wait().unwrap().success());

    let merge = ["merge", "scores.csv.shards"];
    let missing = if begun { "0, 1, 2" } else { "0, 2" };
    says(dir, &merge, 1, &["shards are missing", missing]);
    for shard in ["0/4", "1/4", "2/4"] {
        let words = influence("scores.csv", &["--shard", shard]);
        let said = says(dir, &words, 0, &["scores.csv.shards/shard-"]);
        if shard == "1/4" && begun {
            assert!(said.contains("this one continues its work"), "{said}");
            assert!(said.contains("continuing after"), "{said}");
        }
    }
    says(dir, &merge, 0, &["scores.csv: 10 queries from 4 shards"]);
    same_bytes(dir, "scores.csv", "whole.csv");
    same_bytes(dir, "scores.csv.meta.json", "whole.csv.meta.json");

    // Merging again writes the same, and a complete shard isn't computed again.
    let before = fs::metadata(dir.join("scores.csv.shards/shard-2/part.csv")).unwrap();
    says(
        dir,
        &influence("scores.csv", &["--shard", "2/4"]),
        0,
        &["complete already"],
    );
    let after = fs::metadata(dir.join("scores.csv.shards/shard-2/part.csv")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    let inside = dir.join("scores.csv.shards");
    says(&inside, &["merge", "."], 0, &["scores.csv: 10 queries"]);
    same_bytes(dir, "scores.csv", "whole.csv");
}

#[test]
fn a_shard_of_another_command_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let shard = |more: &[&'static str]| influence("s.csv", &[&["--shard", "0/3"], more].concat());
    fine(dir, &shard(&[]));
    for (more, said) in [
        (
            &["--at", "final"][..],
            "its query point: expected \"mean:last-epoch\", got \"final\"",
        ),
        (
            &["--query", "test:0"],
            "expected 10 (validation:0, validation:1",
        ),
        (&["--window", "last-epoch"], "its window"),
        (&["--precision", "f64"], "its engine"),
        (
            &["--no-predictions"],
            "its predictions: expected true, got false",
        ),
        (&["--method", "tracin"], "its columns per epoch"),
    ] {
        let mut words = shard(more);
        if more[0] == "--method" {
            words.retain(|word| *word != "--per-epoch");
        }
        if more[0] == "--query" {
            words = [
                "influence",
                "run",
                "--query",
                "validation:0",
                "--out",
                "s.csv",
            ]
            .to_vec();
            words.extend(["--shard", "0/3"]);
        }
        says(
            dir,
            &words,
            1,
            &["belongs to the shards of another command", said],
        );
    }
    says(
        dir,
        &influence("s.csv", &["--shard", "0/4"]),
        1,
        &["number of shards: expected 3, got 4"],
    );
    for (bad, said) in [
        (&["--shard", "3/3"][..], "expected I/N"),
        (&["--shard", "0/4294967295"], "N at most 100000"),
        (&["--shard", "auto"], "SLURM_ARRAY_TASK_ID"),
        (&["--shard", "0/3", "--resume"], "continues the work"),
        (&["--shard", "0/3", "--picture", "p.png"], "--picture"),
    ] {
        says(dir, &influence("s.csv", bad), 2, &[said]);
    }
    fs::write(dir.join("file.json"), "{}").unwrap();
    says(dir, &["merge", "run"], 1, &["shards.json", "--shard"]);
    fs::create_dir(dir.join("other.csv.shards")).unwrap();
    fs::write(dir.join("other.csv.shards/mine"), "x").unwrap();
    says(
        dir,
        &influence("other.csv", &["--shard", "0/3"]),
        1,
        &["there is no shards.json in it, and other files are"],
    );
}

#[test]
fn changed_parts_and_wrong_places_of_the_result_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for shard in ["0/3", "1/3", "2/3"] {
        fine(dir, &influence("s.csv", &["--shard", shard]));
    }
    let part = dir.join("s.csv.shards/shard-1/part.csv");
    let text = fs::read_to_string(&part).unwrap();
    fs::write(&part, text.replacen("0.", "1.", 1)).unwrap();
    says(
        dir,
        &["merge", "s.csv.shards"],
        1,
        &["shard-1: part.csv was changed", "compute the shard again"],
    );
    fs::write(&part, text).unwrap();
    let inside = [
        "merge",
        "s.csv.shards",
        "--out",
        "s.csv.shards/shard-1/part.csv",
        "--replace",
    ];
    says(dir, &inside, 1, &["it lies in the folder of shards"]);
    says(
        dir,
        &["merge", "s.csv.shards", "--out", "s.jsonl"],
        2,
        &["ends in .csv"],
    );
    says(
        dir,
        &["merge", "s.csv"],
        1,
        &["expected a folder of shards; did you mean s.csv.shards?"],
    );
    fine(dir, &["merge", "s.csv.shards"]);
    // A table of another question isn't replaced.
    fine(dir, &["influence", "run", "--out", "t.csv"]);
    let over = ["merge", "s.csv.shards", "--out", "t.csv"];
    says(dir, &over, 1, &["t.csv holds another result", "--replace"]);
    fine(dir, &[&over[..], &["--replace"]].concat());
    same_bytes(dir, "t.csv", "s.csv");
}

/// A process may be killed at any moment, also while it gives its part the name. Whatever it leaves, the same command continues.
#[test]
fn what_a_killed_process_leaves_never_blocks_its_shard() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &influence("whole.csv", &[]));
    let shards = dir.join("k.csv.shards");
    let shard = |k: &str| fine(dir, &influence("k.csv", &["--shard", k]));
    shard("0/2");
    shard("1/2");
    type Left<'a> = &'a dyn Fn(&Path);
    let left: [Left<'_>; 4] = [
        // Killed before the folder got its name.
        &|_| {},
        // … with temporary files.
        &|hidden| fs::write(hidden.join("part.csv.4000000.tmp"), "half").unwrap(),
        // A crash of the machine may leave empty or cut files.
        &|hidden| fs::write(hidden.join("sittings.json"), "").unwrap(),
        &|hidden| fs::write(hidden.join("part.csv.sweep.safetensors"), "junk").unwrap(),
    ];
    for (case, leave) in left.iter().enumerate() {
        let hidden = shards.join(".shard-1");
        fs::rename(shards.join("shard-1"), &hidden).unwrap();
        leave(&hidden);
        shard("1/2");
        let names = fs::read_dir(shards.join("shard-1")).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["part.csv", "part.csv.meta.json", "shard.json"],
            "{case}"
        );
        fine(dir, &["merge", "k.csv.shards"]);
        same_bytes(dir, "k.csv", "whole.csv");
    }
    // A damaged record says what to do.
    fs::write(shards.join("shard-1/shard.json"), "{").unwrap();
    says(
        dir,
        &["merge", "k.csv.shards"],
        1,
        &["no readable record", "remove this folder"],
    );
    fs::remove_dir_all(shards.join("shard-1")).unwrap();
    shard("1/2");
    fine(dir, &["merge", "k.csv.shards"]);
    same_bytes(dir, "k.csv", "whole.csv");
    fs::remove_file(shards.join("shards.json")).unwrap();
    let again = influence("k.csv", &["--shard", "1/2"]);
    says(dir, &again, 1, &["put that file back"]);
}

#[test]
fn a_job_of_a_cluster_says_which_shard_a_process_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let run = |shard: &str, set: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args([
                "influence",
                "run",
                "--query",
                "per-class",
                "--out",
                "c.csv",
                "--json",
            ])
            .args(["--shard", shard])
            .envs(set.iter().copied())
            .current_dir(dir)
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (
            said["shard"].as_u64().unwrap(),
            said["units"].as_array().unwrap().len(),
        )
    };
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "12"),
        ("SLURM_ARRAY_TASK_MIN", "1"),
        ("SLURM_ARRAY_TASK_MAX", "12"),
    ];
    // There are more shards than queries, so some have nothing to do.
    assert_eq!(run("auto", &slurm), (1, 1));
    assert_eq!(run("auto/12", &[("JOB_COMPLETION_INDEX", "0")]), (0, 0));
    for shard in 2..12 {
        run(&format!("{shard}/12"), &[]);
    }
    fine(dir, &["merge", "c.csv.shards"]);
    fine(
        dir,
        &[
            "influence",
            "run",
            "--query",
            "per-class",
            "--out",
            "whole.csv",
        ],
    );
    same_bytes(dir, "c.csv", "whole.csv");
}

#[test]
fn retrainings_are_divided_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run"]);
    let each = [
        "counterfactual",
        "run",
        "--top",
        "5",
        "scores.csv",
        "--each",
    ];
    let scan = ["counterfactual", "run", "--scan", "2,5,9,20", "scores.csv"];
    for (words, name) in [(&each[..], "each"), (&scan, "scan")] {
        let whole = format!("{name}-whole.json");
        let out = format!("{name}.json");
        fine(dir, &[words, &["--out", &whole]].concat());
        for shard in ["1/2", "0/2"] {
            fine(dir, &[words, &["--out", &out, "--shard", shard]].concat());
        }
        let shards = format!("{out}.shards");
        let said = fine(dir, &["merge", &shards]);
        assert!(said.contains("removals from 2 shards"), "{said}");
        same_bytes(dir, &out, &whole);
    }
    let one = ["counterfactual", "run", "--top", "5", "scores.csv"];
    let shard = ["--shard", "0/2"];
    says(
        dir,
        &[&one[..], &shard].concat(),
        2,
        &["give --out FILE.json"],
    );
    let out = ["--out", "one.json"];
    says(
        dir,
        &[&one[..], &shard, &out].concat(),
        2,
        &["--each or --scan"],
    );
}

#[test]
fn seeds_are_divided_and_runs_need_no_merge() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sizes = [
        "data.train=60",
        "data.validation=20",
        "data.test=20",
        "train.epochs=1",
    ];
    let sizes: Vec<&str> = sizes.iter().flat_map(|set| ["--set", set]).collect();
    let record = ["record", "digits", "--seeds", "0..3", "--out", "runs"];
    let record = [&record[..], &sizes].concat();
    for shard in ["0/2", "1/2"] {
        fine(dir, &[&record[..], &["--shard", shard]].concat());
    }
    says(
        dir,
        &record,
        0,
        &["trained and recorded 0 runs", "3 complete already"],
    );
    let other = [&record[..], &["--keep", "last-epoch", "--shard", "0/2"]].concat();
    says(
        dir,
        &other,
        1,
        &["its keep: expected \"all\", got \"last-epoch\""],
    );
    says(dir, &["merge", "runs"], 1, &["need no merge"]);
    says(
        dir,
        &["record", "digits", "--out", "x", "--shard", "0/2"],
        2,
        &["--seeds A..B"],
    );

    let measure = [
        "experiment",
        "quality",
        "mislabels",
        "--only",
        "digits",
        "--seeds",
        "0..3",
    ];
    let methods = ["--methods", "sgd,random", "--set", "data.flipped=0.1"];
    let measure = [&measure[..], &methods, &sizes].concat();
    fine(dir, &[&measure[..], &["--out", "whole.csv"]].concat());
    for shard in ["1/2", "0/2"] {
        fine(
            dir,
            &[&measure[..], &["--out", "rows.csv", "--shard", shard]].concat(),
        );
    }
    let said = fine(dir, &["merge", "rows.csv.shards"]);
    assert!(said.contains("rows.csv: 3 seeds from 2 shards"), "{said}");
    // A task that was edited meanwhile is another experiment, and so are other options.
    fs::write(dir.join("t.toml"), fine(dir, &["task", "show", "digits"])).unwrap();
    let edited = measure
        .iter()
        .map(|word| if *word == "digits" { "t.toml" } else { word });
    let edited: Vec<&str> = edited.chain(["--out", "t.csv"]).collect();
    fine(dir, &[&edited[..], &["--shard", "0/2"]].concat());
    let task = fs::read_to_string(dir.join("t.toml")).unwrap();
    let rate = task
        .lines()
        .find(|line| line.starts_with("learning_rate"))
        .unwrap();
    fs::write(
        dir.join("t.toml"),
        task.replace(rate, "learning_rate = 0.3"),
    )
    .unwrap();
    let said = ["its tasks", "learning_rate = 0.3"];
    says(dir, &[&edited[..], &["--shard", "1/2"]].concat(), 1, &said);
    let other = [
        &measure[..],
        &["--out", "rows.csv", "--shard", "0/2", "--at", "mean"],
    ]
    .concat();
    says(dir, &other, 1, &["its options", "at: Mean"]);
    fs::write(dir.join("mine.csv"), "precious\n").unwrap();
    let over = ["merge", "rows.csv.shards", "--out", "mine.csv", "--replace"];
    says(dir, &over, 1, &["isn't a table of this experiment"]);

    // The last column is the time of the measurement.
    let rows = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        let of = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
        text.lines().map(of).collect::<Vec<_>>()
    };
    assert_eq!(rows("rows.csv"), rows("whole.csv"));
}
