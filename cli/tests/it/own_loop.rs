//! The example `own_model`, end to end: recorded, killed at random times, resumed, verified by replay, analysed and retrained.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use example::net::Net;
use hindcast::OwnProgram;
use hindcast_format::{Status, Trace};
use hindcast_model::{ops, own::OwnModel};

use crate::own_process;

mod rows;

#[path = "../../examples/own_model/main.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example`")]
mod example;

/// The variable that makes the process a program without a data loader.
const WITHOUT_DATA: &str = "HINDCAST_OWN_MODEL_WITHOUT_DATA";

/// Not a test: the process of the example, which the tests below start and kill.
#[test]
#[ignore = "started by the other tests of this module"]
fn process() {
    let Some(words) = own_process::words("own_model") else {
        return;
    };
    let words: Vec<_> = words.into_iter().map(Into::into).collect();
    own_process::exit(if std::env::var_os(WITHOUT_DATA).is_some() {
        let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy).unwrap();
        OwnProgram::with_rows(model).run_args(words)
    } else {
        example::run(words)
    });
}

/// Starts the example with these arguments in a separate process.
fn command(dir: &Path, words: &[&str]) -> Command {
    own_process::command("own_loop", dir, words)
}

/// What a program without a data loader says.
fn without_data(dir: &Path, words: &[&str]) -> Output {
    let mut command = command(dir, words);
    command.env(WITHOUT_DATA, "1").output().unwrap()
}

fn own_model(dir: &Path, words: &[&str]) -> Output {
    command(dir, words).output().unwrap()
}

fn fine(dir: &Path, words: &[&str]) -> String {
    let output = own_model(dir, words);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "own_model {words:?}\n{out}{err}");
    out + &err
}

/// The step and the state in which a training ended.
fn end(run: &Path) -> (u64, Vec<u8>) {
    let trace = Trace::open(run).unwrap();
    assert_eq!(trace.status(), Status::Finished);
    let (state, _) = trace.final_state().unwrap().unwrap();
    (trace.final_step().unwrap(), state.into_bytes())
}

/// Random numbers in 0..1. The seed differs between runs of the test, and is printed.
struct Moments(u64);

impl Moments {
    fn new() -> Self {
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .subsec_nanos();
        println!("moments drawn with seed {seed}");
        Moments(u64::from(seed) | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Number of the example's steps.
const STEPS: u64 = 120;

/// Trains with up to `kills` kills, each at a random time in its share of the remaining steps, and finally to the end. Returns
/// the number of kills (on a fast machine, training may end before a kill), and the steps at which training resumed.
fn train_with_kills(dir: &Path, run: &str, kills: u64, moments: &mut Moments) -> (u64, Vec<u64>) {
    let path = dir.join(run);
    let steps = || Trace::open(&path).map_or(0, |trace| trace.span().end);
    let (mut resumed, mut killed) = (Vec::new(), 0);
    for kill in 0..kills {
        let held = steps();
        let share = (STEPS - held) as f64 / (kills - kill + 1) as f64;
        // Every fourth kill comes during the start, when there may be no run yet, or an incomplete one.
        let (goal, delay) = match kill % 4 {
            0 => (0, moments.next() * 0.6),
            _ => (
                held + 1 + (1.8 * share * moments.next()) as u64,
                moments.next() * 0.05,
            ),
        };
        let mut child = command(dir, &["train", run])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while steps() < goal && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_secs_f64(delay));
        child.kill().unwrap(); // SIGKILL
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.code().is_none() || output.status.success(),
            "start {kill} failed: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        killed += u64::from(output.status.code().is_none());
        let step = said
            .lines()
            .find_map(|line| line.split_once("resumes at step "));
        resumed.extend(step.map(|(_, step)| step.trim().parse::<u64>().unwrap()));
        if output.status.success() {
            break;
        }
    }
    let held = steps();
    fine(dir, &["train", run]);
    println!("{killed} kills; resumed at steps {resumed:?}, the last time at {held}");
    (killed, resumed)
}

#[test]
fn a_run_killed_twenty_times_ends_in_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(dir, &["train", "whole"]);
    let (mut moments, mut kills, mut any_resumed) = (Moments::new(), 0, false);
    for turn in 0..10 {
        let run = format!("killed-{turn}");
        let (killed, resumed) = train_with_kills(dir, &run, 20 - kills, &mut moments);
        (kills, any_resumed) = (kills + killed, any_resumed || !resumed.is_empty());
        // A process that is killed before it has written its first step loses at most the step at which it resumed.
        assert!(resumed.windows(2).all(|w| w[0] <= w[1] + 1), "{resumed:?}");
        assert!(
            end(&dir.join(&run)) == end(&dir.join("whole")),
            "the killed run and the uninterrupted one ended in different states"
        );
        let report = hindcast_format::verify(dir.join(&run)).unwrap();
        assert!(report.is_ok(), "{:?}", report.findings);
        if kills == 20 {
            break;
        }
    }
    assert_eq!(kills, 20, "of twenty starts, in ten runs, were killed");
    assert!(any_resumed, "no start found a run to resume");
    let said = fine(dir, &["train", "killed-0"]);
    assert!(said.contains("is finished"), "{said}");
}

#[test]
fn an_own_loop_is_verified_by_replay_analysed_and_retrained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(dir, &["train", "run"]);

    // With this note, an analysis with different data can name the rows.
    let notes = hindcast_format::Trace::open(dir.join("run"))
        .unwrap()
        .info()
        .notes
        .clone();
    let data = example::data::load(None).unwrap();
    let digests = hindcast_analyzer::run::row_digests(data.as_ref());
    assert_eq!(digests.len(), 3, "training, validation, key: {digests:?}");
    for (key, text) in digests {
        // They have another key each time.
        assert_eq!(notes.get(&key).map(String::len), Some(text.len()), "{key}");
    }

    let said = fine(dir, &["verify", "run", "--replay", "--check-seed", "3"]);
    assert!(said.contains("ok: 120 steps"), "{said}");
    assert!(
        said.contains("replayed: 20 of 20 steps chosen at random (seed 3) give the next recorded state, bit for bit"),
        "{said}"
    );

    let said = fine(
        dir,
        &[
            "influence",
            "run",
            "--window",
            "last-epoch",
            "--out",
            "scores.csv",
        ],
    );
    assert!(
        said.contains("derivatives of the model agree with differences in float64")
            && !said.contains("checked before"),
        "{said}"
    );
    let again = [
        "influence",
        "run",
        "--window",
        "119..120",
        "--out",
        "again.csv",
    ];
    let said = fine(dir, &again);
    assert!(
        said.contains("checked before, and run and model are the same"),
        "{said}"
    );
    let table = hindcast_analyzer::ScoreTable::read(&dir.join("scores.csv")).unwrap();
    let worst = table.worst(0, 20);
    // Digits with flipped labels are known, and are harmful.
    let data = example::data::load(None).unwrap();
    let flipped = |i: u64| data.planted(hindcast_model::objective::Split::Train, i) == Some(true);
    let found = worst.iter().filter(|row| flipped(row.index)).count();
    assert!(
        found >= 12,
        "only {found} of the 20 worst have a flipped label"
    );

    let said = fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--window",
            "last-epoch",
            "--top",
            "10",
            "scores.csv",
        ],
    );
    assert!(
        said.contains("retraining with all examples gives the recorded parameters, bit for bit"),
        "{said}"
    );
    let (predicted, real) = changes(&said);
    println!("predicted {predicted:+.4e}, real {real:+.4e}");
    assert!(predicted < 0.0 && real < 0.0, "{said}");
    let ratio = real / predicted;
    assert!(
        (0.4..1.6).contains(&ratio),
        "real / predicted is {ratio}: {said}"
    );

    candle_loads_the_final_state(dir);

    for option in ["--labels", "--truth"] {
        refuses_labels(dir, &["report", "run", "scores.csv", option, "mine.csv"]);
    }

    // `hindcast` itself says that it lacks the model.
    let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(["influence", "run"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run_with"));
}

/// Checks that the program, which loads its own labels, doesn't take a file of labels.
fn refuses_labels(dir: &Path, words: &[&str]) {
    let output = own_model(dir, words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
    assert!(said.contains("for runs of tasks"), "{words:?}: {said}");
}

#[test]
fn labels_of_a_program_with_its_own_loader_are_not_taken_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("without.txt"), "0\n").unwrap();
    let verbs: [&[&str]; 7] = [
        &["influence", "run"],
        &["counterfactual", "run", "--without", "without.txt"],
        &["clean", "run"],
        &["predict", "run"],
        &["explain", "run", "validation:0"],
        &["dynamics", "run"],
        &["spikes", "run"],
    ];
    for verb in verbs {
        for option in ["--labels", "--truth"] {
            refuses_labels(dir.path(), &[verb, &[option, "mine.csv"]].concat());
        }
    }
}

/// The predicted and the real change that `counterfactual` printed: "change: P predicted (by the table), R real".
fn changes(said: &str) -> (f64, f64) {
    let line = said.lines().find_map(|l| l.trim().strip_prefix("change: "));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    let number = |at: usize| words[at].parse::<f64>().unwrap();
    (number(0), number(words.len() - 2))
}

/// Checks that candle loads the final state from a checkpoint file.
fn candle_loads_the_final_state(dir: &Path) {
    fine(
        dir,
        &[
            "checkpoint",
            "run",
            "--step",
            "final",
            "--out",
            "model.safetensors",
        ],
    );
    let mut variables = candle_nn::VarMap::new();
    let vb = candle_nn::VarBuilder::from_varmap(
        &variables,
        candle_core::DType::F32,
        &candle_core::Device::Cpu,
    );
    example::net::Net::new(vb).unwrap();
    variables.load(dir.join("model.safetensors")).unwrap();
    let trace = Trace::open(dir.join("run")).unwrap();
    let (last, _) = trace.final_state().unwrap().unwrap();
    let vars = variables.data().lock().unwrap();
    for (i, spec) in trace.layout().tensors().iter().enumerate() {
        let loaded: Vec<u8> = vars[&spec.name]
            .flatten_all()
            .and_then(|t| t.to_vec1::<f32>())
            .unwrap()
            .into_iter()
            .flat_map(f32::to_le_bytes)
            .collect();
        assert_eq!(loaded, last.tensor(i), "{}", spec.name);
    }
}
