//! Starts the programs, and kills them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use hindcast_format::{Status, Trace};

/// A training takes a few seconds. A process that runs this long hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// One of the programs.
#[derive(Clone, Copy)]
pub struct Program {
    /// Its executable.
    pub path: &'static str,
    /// Words after `train RUN`, which make the training small.
    pub small: &'static [&'static str],
    /// Number of steps of its training.
    pub steps: u64,
}

impl Program {
    fn command(self, dir: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(self.path);
        command
            .args(words)
            .env("XDG_CACHE_HOME", dir.join("cache"))
            .current_dir(dir);
        command
    }

    /// `train run`, with the words that make it small.
    fn training(self, run: &str) -> Vec<&str> {
        ["train", run].iter().chain(self.small).copied().collect()
    }

    /// Trains to the end.
    pub fn train(self, dir: &Path, run: &str) {
        self.fine(dir, &self.training(run));
    }

    /// Runs a command line that must succeed, and returns what it printed.
    pub fn fine(self, dir: &Path, words: &[&str]) -> String {
        let (code, said) = self.run(dir, words);
        assert_eq!(code, Some(0), "{} {words:?}\n{said}", self.path);
        said
    }

    /// The exit code and what was printed, to standard output and then to standard error.
    pub fn run(self, dir: &Path, words: &[&str]) -> (Option<i32>, String) {
        let output = self.command(dir, words).output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said.into_owned())
    }

    /// Starts `train run` and kills it with SIGKILL once the trace holds `goal` steps. Returns whether it was killed, which
    /// it isn't if it ended first.
    pub fn train_and_kill(self, dir: &Path, run: &str, goal: u64) -> bool {
        let path = dir.join(run);
        let mut child = self
            .command(dir, &self.training(run))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while Trace::open(&path).map_or(0, |trace| trace.span().end) < goal
            && child.try_wait().unwrap().is_none()
        {
            assert!(started.elapsed() < PATIENCE, "{} hangs", self.path);
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.code().is_none() || output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.status.code().is_none()
    }
}

/// The state in which a training ended.
pub fn end(run: &Path) -> Vec<u8> {
    let trace = Trace::open(run).unwrap();
    assert_eq!(trace.status(), Status::Finished);
    let (state, _) = trace.final_state().unwrap().unwrap();
    state.into_bytes()
}

/// A random number in `range`. It differs between runs of the test, and is printed.
pub fn moment(range: std::ops::Range<u64>) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let drawn = u64::from(now.unwrap().subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let moment = range.start + drawn % (range.end - range.start);
    println!("killed at step {moment}");
    moment
}
