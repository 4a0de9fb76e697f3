//! `record --resume`: a resumed recording has the same bits as an uninterrupted one.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::slices::{end_by, pause_when, signal};
use super::*;

/// A net with batch norm and dropout, so that buffers, the optimizer's state and random draws must all be restored.
/// A batch is large enough that computing a step takes longer than writing it without syncing. Otherwise training would be over
/// while its first steps are being written, and a signal after them would come too late.
const TASK: &str = r#"
name = "resumed"
[data]
source = "csv"
train_files = "train.csv"
label = "y"
validation = 40
[model]
input = [2]
layers = [{ kind = "linear", out = 24 }, { kind = "batch_norm" }, { kind = "relu" }, { kind = "dropout", p = 0.2 }, { kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.02
[train]
epochs = 10
batch = 160
seed = 5
"#;
const STEPS: u64 = 400;

fn rows(label_of_row_3: u32) -> String {
    let mut text = "a,b,y\n".to_owned();
    for i in 0..6_440u32 {
        let (a, b) = (
            f64::from(i * 7 % 20) / 10.0 - 1.0,
            f64::from(i * 3 % 20) / 10.0 - 1.0,
        );
        let y = match i {
            3 => label_of_row_3,
            _ => u32::from(a + b > 0.1),
        };
        text.push_str(&format!("{a},{b},{y}\n"));
    }
    text
}

/// Changes of the task, and the `--keep` option.
struct Plan {
    set: &'static [&'static str],
    keep: &'static str,
    /// Largest difference of the scores, relative to the largest score. 0 demands the same bits.
    scores: f64,
}

const PLAIN: Plan = Plan {
    set: &[],
    keep: "all",
    scores: 0.0,
};

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("task.toml"), TASK).unwrap();
    for (folder, label) in [("data", 0), ("other", 1)] {
        fs::create_dir(dir.path().join(folder)).unwrap();
        fs::write(dir.path().join(folder).join("train.csv"), rows(label)).unwrap();
    }
    dir
}

fn record<'a>(plan: &'a Plan, out: &'a str) -> Vec<&'a str> {
    let mut words = vec!["record", "task.toml", "--data", "data", "--out", out];
    words.extend(["--keep", plan.keep, "--durability", "os"]);
    for set in plan.set {
        words.extend(["--set", *set]);
    }
    words
}

const RESUME: [&str; 7] = [
    "record",
    "--resume",
    "run",
    "--data",
    "data",
    "--durability",
    "os",
];

fn start(dir: &Path, words: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// One more than the last step on disk; 0 if there is no run yet.
fn held(dir: &Path) -> u64 {
    hindcast_format::Trace::open(dir.join("run")).map_or(0, |trace| trace.span().end)
}

/// Lets the process run until the run has `steps` steps, and pauses it there. Returns false if the process ended before.
fn reaches(dir: &Path, child: &mut Child, steps: u64) -> bool {
    pause_when(child, || held(dir) >= steps)
}

/// Checks that the run in `run` equals the one in `whole`: every recorded step, the final parameters, buffers and optimizer
/// state, and the scores.
fn same_run(dir: &Path, plan: &Plan) {
    let open = |name: &str| hindcast_format::Trace::open(dir.join(name)).unwrap();
    let (run, whole) = (open("run"), open("whole"));
    assert_eq!(run.final_step(), Some(STEPS));
    assert_eq!(run.final_state().unwrap(), whole.final_state().unwrap());
    let last = whole.ranges().unwrap().last().unwrap().clone();
    assert_eq!(run.span().end, whole.span().end);
    for step in last {
        if let Ok((state, _)) = run.state(step) {
            assert_eq!(state, whole.state(step).unwrap().0, "step {step}");
        }
        let meta = run.meta(step).unwrap().without_session();
        assert_eq!(meta, whole.meta(step).unwrap());
    }
    fine(dir, &["verify", "run"]);
    if plan.keep.starts_with("every") {
        return;
    }
    fine(dir, &["verify", "run", "--replay", "--data", "data"]);
    let scores = |name: &str| {
        let out = format!("{name}.csv");
        let words = [
            "influence",
            name,
            "--data",
            "data",
            "--window",
            "last-epoch",
        ];
        fine(dir, &[&words[..], &["--out", &out]].concat());
        fs::read_to_string(dir.join(out)).unwrap()
    };
    let (run, whole) = (scores("run"), scores("whole"));
    if plan.scores == 0.0 {
        assert!(run == whole, "the scores differ");
    } else {
        let (run, whole) = (influences(&run), influences(&whole));
        assert_eq!(run.len(), whole.len());
        let largest = whole.iter().fold(0.0f64, |most, x| most.max(x.abs()));
        let differences = run.iter().zip(&whole).map(|(a, b)| (a - b).abs());
        let error = differences.fold(0.0, f64::max) / largest;
        assert!(error <= plan.scores, "the scores differ by {error:.1e}");
    }
}

/// The column `influence` of a table.
fn influences(table: &str) -> Vec<f64> {
    let mut lines = table.lines().map(|line| line.split(','));
    let at = lines.next().unwrap().position(|name| name == "influence");
    let cells = lines.map(|mut cells| cells.nth(at.unwrap()).unwrap());
    cells.map(|cell| cell.parse().unwrap()).collect()
}

/// Kills a recording ten times, sometimes while it is being resumed, and then lets it finish.
fn killed_ten_times(plan: &Plan) {
    let dir = folder();
    let dir = dir.path();
    fine(dir, &record(plan, "whole"));
    let mut noise = 9u64;
    let (mut kills, mut at, mut resumed, mut begun_anew) = (0, 0, 0, 0);
    while kills < 10 {
        let words = match held(dir) {
            0 => {
                let _ = fs::remove_dir_all(dir.join("run"));
                record(plan, "run")
            }
            _ => {
                resumed += 1;
                RESUME.to_vec()
            }
        };
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Most kills wait for new steps. Some come sooner: before the first step, or while the last one is recomputed.
        let more = (noise >> 33) % 50;
        let begun_at = held(dir);
        let mut child = start(dir, &words);
        let paused = if more > 8 {
            at = (at.max(begun_at) + more).min(STEPS - 20);
            reaches(dir, &mut child, at)
        } else {
            let mut looks = 0;
            pause_when(&mut child, || {
                looks += 1;
                looks > 20 * more || held(dir) > begun_at
            })
        };
        if paused {
            signal(&child, Signal::KILL);
            child.wait().unwrap();
            kills += 1;
        } else {
            anew(dir, &mut begun_anew);
            (kills, at, resumed) = (0, 0, 0);
        }
    }
    assert!(resumed >= 4, "{resumed} resumed");
    if hindcast_format::Trace::open(dir.join("run"))
        .unwrap()
        .status()
        != hindcast_format::Status::Finished
    {
        let output = hindcast(dir, &RESUME);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        assert!(
            stderr(&output).contains("resuming at step ")
                && stderr(&output).contains(" of 400")
                && !stderr(&output).contains("warning"),
            "{}",
            stderr(&output)
        );
    }
    same_run(dir, plan);
}

#[test]
fn a_killed_recording_continues_to_the_same_bits() {
    killed_ten_times(&PLAIN);
}

#[test]
fn a_killed_recording_with_momentum_in_a_ring_continues_to_the_same_bits() {
    killed_ten_times(&Plan {
        set: &["optimizer.momentum=0.9", "train.dtype=f64"],
        keep: "last-epoch",
        scores: 0.0,
    });
}

#[test]
fn a_killed_recording_with_adam_continues_to_the_same_bits() {
    killed_ten_times(&Plan {
        set: &["optimizer.kind=adam", "train.dtype=f64"],
        keep: "all",
        // A sweep rebuilds the moments between the keyframes, and a resumed run has more keyframes. So the rounding is another.
        scores: 1e-8,
    });
}

#[test]
fn a_killed_recording_of_every_seventh_step_continues_to_the_same_bits() {
    killed_ten_times(&Plan {
        set: &["optimizer.momentum=0.9"],
        keep: "every=7",
        scores: 0.0,
    });
}

/// Removes a run that was finished before it could be interrupted. A machine with fast storage records it in a hundredth of a
/// second, and a busy machine may not run the test for longer than that.
fn anew(dir: &Path, times: &mut u32) {
    *times += 1;
    assert!(*times < 20, "every run ended before it was interrupted");
    fs::remove_dir_all(dir.join("run")).unwrap();
}

/// Starts or resumes the run, and sends it a signal some twenty steps later. Returns false if it was finished before.
fn stopped_by(dir: &Path, by: Signal, exit: i32) -> bool {
    let words = match held(dir) {
        0 => record(&PLAIN, "run"),
        _ => RESUME.to_vec(),
    };
    let more = held(dir) + 20;
    let mut child = start(dir, &words);
    if !reaches(dir, &mut child, more) {
        return false;
    }
    end_by(&child, by);
    let output = child.wait_with_output().unwrap();
    if code(&output) == 0 {
        // Training was over, and the signal came while the last steps were being written.
        return false;
    }
    assert_eq!(code(&output), exit, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("`hindcast record --resume run` continues it"),
        "{}",
        stderr(&output)
    );
    true
}

#[test]
fn ctrl_c_names_the_command_that_continues_and_it_does() {
    let dir = folder();
    let dir = dir.path();
    fine(dir, &record(&PLAIN, "whole"));
    let mut begun_anew = 0;
    while !(stopped_by(dir, Signal::INT, 130) && stopped_by(dir, Signal::TERM, 143)) {
        anew(dir, &mut begun_anew);
    }
    // A new run in the same place is refused, and the message names the command to resume.
    let output = hindcast(dir, &record(&PLAIN, "run"));
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("hindcast record --resume run"),
        "{}",
        stderr(&output)
    );
    let before = held(dir);
    let words = [&RESUME[..], &["--json"]].concat();
    let report: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
    assert_eq!(report["resumed_at"], before);
    assert_eq!(report["steps"], STEPS);
    same_run(dir, &PLAIN);

    // A finished run has nothing to resume.
    let output = hindcast(dir, &RESUME);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("finished, after 400 steps"),
        "{}",
        stderr(&output)
    );
}

/// Records a run of some twenty steps, closed as unfinished.
fn interrupted(dir: &Path) {
    let mut begun_anew = 0;
    while !stopped_by(dir, Signal::INT, 130) {
        anew(dir, &mut begun_anew);
    }
}

fn refused(dir: &Path, words: &[&str], exit: i32, says: &[&str]) {
    let before = held(dir);
    let output = hindcast(dir, words);
    assert_eq!(code(&output), exit, "{words:?}: {}", stderr(&output));
    for part in says {
        assert!(
            stderr(&output).contains(part),
            "{part:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(held(dir), before, "{words:?} changed the run");
}

#[test]
fn a_resumption_with_other_data_or_settings_is_refused() {
    let dir = folder();
    let dir = dir.path();
    interrupted(dir);
    let other = ["record", "--resume", "run", "--data", "other"];
    refused(
        dir,
        &other,
        1,
        &["this is not the data that the run was trained on"],
    );
    let task = |set: &'static str| {
        let mut words = vec!["record", "task.toml", "--resume", "run", "--data", "data"];
        words.extend(["--set", set]);
        words
    };
    refused(dir, &task("train.seed=6"), 1, &["seed = 5", "seed = 6"]);
    refused(
        dir,
        &task("train.epochs=11"),
        1,
        &["epochs = 10", "epochs = 11"],
    );
    refused(
        dir,
        &["record", "--resume", "nothing"],
        1,
        &["nothing: not a recorded run"],
    );
    refused(dir, &["record"], 2, &["--out", "<TASK>"]);
    let twice = ["record", "task.toml", "--out", "new", "--resume", "run"];
    refused(dir, &twice, 2, &["--resume"]);
    let keep = [&RESUME[..], &["--keep", "last-epoch"]].concat();
    refused(dir, &keep, 2, &["--keep"]);
    let set = [&RESUME[..], &["--set", "train.seed=6"]].concat();
    refused(dir, &set, 2, &["<TASK>"]);
    // The recorded task may be named.
    let words = ["record", "task.toml", "--resume", "run", "--data", "data"];
    fine(dir, &words);
    fine(dir, &record(&PLAIN, "whole"));
    same_run(dir, &PLAIN);
}

#[test]
fn a_damaged_run_is_recovered_first() {
    let dir = folder();
    let dir = dir.path();
    interrupted(dir);
    let segment = dir.join("run/seg-00000000.hcs");
    let whole = fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let output = hindcast(dir, &RESUME);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    assert!(stderr(&output).contains("recover"), "{}", stderr(&output));
    assert_eq!(fs::read(&segment).unwrap(), bytes, "the run was changed");
    fs::write(&segment, &whole).unwrap();
    let manifest = fs::read(dir.join("run/manifest.json")).unwrap();
    fs::remove_file(dir.join("run/manifest.json")).unwrap();
    refused(dir, &RESUME, 3, &["hindcast recover run --out NEW"]);
    fs::write(dir.join("run/manifest.json"), manifest).unwrap();
    // A recovered run can be resumed, with the same bits.
    fs::write(&segment, &bytes).unwrap();
    assert_eq!(code(&hindcast(dir, &["recover", "run", "--out", "new"])), 3);
    fs::rename(dir.join("run"), dir.join("damaged")).unwrap();
    fs::rename(dir.join("new"), dir.join("run")).unwrap();
    fine(dir, &RESUME);
    fine(dir, &record(&PLAIN, "whole"));
    let open = |name: &str| hindcast_format::Trace::open(dir.join(name)).unwrap();
    assert_eq!(
        open("run").final_state().unwrap(),
        open("whole").final_state().unwrap()
    );
}

#[test]
fn a_run_whose_disk_was_full_continues_when_there_is_room() {
    let dir = folder();
    let dir = dir.path();
    fine(dir, &record(&PLAIN, "whole"));
    // A limit on a file's size stands for a full disk: the write fails in the same way.
    let words = record(&PLAIN, "run").join(" ");
    let output = Command::new("sh")
        .arg("-c")
        .arg(format!("ulimit -f 100; exec \"$0\" {words}"))
        .arg(env!("CARGO_BIN_EXE_hindcast"))
        .current_dir(dir)
        .output()
        .unwrap();
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("`hindcast record --resume run` continues it")
            && stderr(&output).contains("File too large"),
        "{}",
        stderr(&output)
    );
    let before = held(dir);
    assert!(before > 5 && before < STEPS, "{before}");
    fine(dir, &RESUME);
    same_run(dir, &PLAIN);
}

/// `--on-error train-on`: the exit code, the summary, `info` and the trace show the loss, and the run can be resumed.
#[test]
fn a_recording_that_trained_on_reports_its_losses() {
    let dir = folder();
    let dir = dir.path();
    let words = record(&PLAIN, "run").join(" ");
    let within = |blocks: u32| {
        let limited = format!("ulimit -f {blocks}; exec \"$0\" {words} --on-error train-on");
        let output = Command::new("sh")
            .arg("-c")
            .arg(limited)
            .arg(env!("CARGO_BIN_EXE_hindcast"))
            .current_dir(dir)
            .output()
            .unwrap();
        let trace = hindcast_format::Trace::open(dir.join("run")).unwrap();
        if trace.status() == hindcast_format::Status::Finished {
            // There was room for the end of the segment, and the final state has a file of its own. Such a run isn't resumed.
            fs::remove_dir_all(dir.join("run")).unwrap();
            return None;
        }
        Some(output)
    };
    let output = (100..120).find_map(within).expect("an unfinished run");
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let recorded = held(dir);
    let lost = STEPS - recorded;
    assert!(recorded > 5 && lost > 5);
    for part in [
        format!("{lost} steps are not in the trace ({recorded}..400)"),
        format!("the tensors of {lost} of them were not recorded"),
    ] {
        assert!(
            stderr(&output).contains(&part),
            "{part}: {}",
            stderr(&output)
        );
    }
    assert!(
        stdout(&output).contains(&format!("{lost} lost after storage failed")),
        "{}",
        stdout(&output)
    );
    let info = fine(dir, &["info", "run"]);
    assert!(
        info.contains(&format!("lost        {lost} steps in {recorded}..400")),
        "{info}"
    );
    let said = fine(dir, &["verify", "run"]);
    assert!(
        said.contains(&format!(
            "{lost} steps in {recorded}..400 were never recorded"
        )),
        "{said}"
    );
    // With free space, the run resumes where its recording ended, and nothing more is lost.
    fine(dir, &RESUME);
    fine(dir, &record(&PLAIN, "whole"));
    same_run(dir, &PLAIN);
    let info = fine(dir, &["info", "run"]);
    assert!(!info.contains("lost  "), "{info}");
}
