//! Forged runs: complete and consistent in all bytes, but not the record of the training that they claim to be. The forger
//! reads and writes runs by docs/format.md alone, and shares no code with the crate of the format.
//!
//! `verify` can't tell a forgery from a run, because only a replay compares the content with a training.
//! `cargo test -p hindcast-tests forger -- --nocapture` prints what each check says about each forgery.

mod chunks;
mod forgeries;
mod frame;
mod known;
mod layout;
mod meta;
mod read;
mod recordings;
mod run;
mod write;

use std::path::Path;

use anyhow::ensure;

use crate::common::{Tested, hindcast};
use forgeries::{FORGERIES, HONEST};
use known::{WITHIN_ROUNDING, named};
use recordings::{ADAM, ADAMW, BATCH_NORM, MOMENTUM, Recordings, Rule, SGD};
use run::Run;

/// What a check says about a run.
struct Verdict {
    code: i32,
    /// The line that says why.
    line: String,
    /// Everything that was printed.
    text: String,
}

/// Runs a check of `dir/name`.
fn check(dir: &Path, name: &str, options: &[&str]) -> anyhow::Result<Verdict> {
    let words = [&["verify", name], options].concat();
    let output = hindcast(dir, &words);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = out.lines().chain(err.lines()).collect();
    // The first kind of line that occurs says most.
    let kinds = [
        "DAMAGED",
        "hindcast: ",
        "NOT REPRODUCED",
        "NOT AS THE TASK SAYS",
        "warning",
        "replayed",
        "ok",
    ];
    let says = kinds
        .iter()
        .find_map(|kind| lines.iter().find(|line| line.starts_with(kind)));
    let code = output.status.code().unwrap_or(-1);
    ensure!((0..=3).contains(&code), "{words:?}: {code}: {out}{err}");
    Ok(Verdict {
        code,
        line: says.copied().unwrap_or_default().to_owned(),
        text: out.clone() + &err,
    })
}

/// What the checks say about a run that the forger writes.
struct Verdicts {
    bytes: Verdict,
    all_steps: Verdict,
    sample: Verdict,
    /// The check of all steps, if the run says that another kind of processor recorded it. The recorded bits aren't demanded then.
    elsewhere: Verdict,
}

impl Verdicts {
    fn of(dir: &Path, name: &str, run: &Run) -> anyhow::Result<Self> {
        write::write(run, &dir.join(name))?;
        let other = format!("{name}-elsewhere");
        let mut elsewhere = run.clone();
        elsewhere.description["notes"]["made.processor"] = "another kind".into();
        write::write(&elsewhere, &dir.join(&other))?;
        let verdicts = Verdicts {
            bytes: check(dir, name, &[])?,
            all_steps: check(dir, name, &["--replay", "--steps", "0"])?,
            sample: check(dir, name, &["--replay"])?,
            elsewhere: check(dir, &other, &["--replay", "--steps", "0"])?,
        };
        ensure!(
            verdicts.sample.code == 0 || verdicts.all_steps.code != 0,
            "{name}: the sample finds what a replay of all steps doesn't: {}",
            verdicts.sample.line
        );
        Ok(verdicts)
    }

    /// Prints a row of a table.
    fn print(&self, name: &str, rule: Rule) {
        let cell = |v: &Verdict| format!("{}: {}", v.code, v.line.replace('|', "\\|"));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            rule.name,
            cell(&self.bytes),
            cell(&self.all_steps),
            cell(&self.sample),
            cell(&self.elsewhere)
        );
    }

    fn passed(&self) -> bool {
        let all = [&self.bytes, &self.all_steps, &self.sample, &self.elsewhere];
        all.iter().all(|v| v.code == 0)
    }
}

/// Checks the honest runs and the forgeries of one rule.
fn judge(rule: Rule) -> Tested {
    let dir = tempfile::tempdir()?;
    let runs = Recordings::new(dir.path(), rule)?;
    let forged = dir.path().join("forged");
    std::fs::create_dir(&forged)?;
    for (name, run) in runs.all() {
        let name = format!("twin-of-{name}");
        let verdicts = Verdicts::of(&forged, &name, run)?;
        verdicts.print(&name, rule);
        ensure!(verdicts.passed(), "{name} with {}", rule.name);
        recordings::same(run, &read::read(&forged.join(&name))?)?;
    }
    for honest in HONEST {
        let verdicts = Verdicts::of(&forged, honest.name, &(honest.make)(&runs)?)?;
        verdicts.print(honest.name, rule);
        ensure!(verdicts.passed(), "{} with {}", honest.name, rule.name);
    }
    let mut wrong = Vec::new();
    for forgery in FORGERIES.iter().filter(|f| f.on.has(rule)) {
        let run = (forgery.forge)(&runs)?;
        let verdicts = Verdicts::of(&forged, forgery.name, &run)?;
        verdicts.print(forgery.name, rule);
        if verdicts.bytes.code != 0 {
            wrong.push(format!("{}: {}", forgery.name, verdicts.bytes.line));
        }
        let words = named(forgery.name, rule.name);
        let elsewhere = (!WITHIN_ROUNDING.contains(&forgery.name)).then_some(&verdicts.elsewhere);
        for verdict in [Some(&verdicts.all_steps), elsewhere].into_iter().flatten() {
            match (verdict.code != 0, words) {
                (true, None) => {}
                (false, Some(words)) if verdict.text.contains(words) => {}
                (true, Some(_)) => wrong.push(format!("{} is caught now", forgery.name)),
                (false, _) => wrong.push(format!(
                    "{}: {}: {}",
                    forgery.name, forgery.about, verdict.text
                )),
            }
        }
    }
    ensure!(wrong.is_empty(), "{}: {wrong:#?}", rule.name);
    Ok(())
}

/// Gaps of the recorder, and elements of another width.
#[test]
fn other_kinds_of_runs_are_read_and_written_again() -> Tested {
    let dir = tempfile::tempdir()?;
    let kinds: [(&str, &[&str]); 2] = [
        ("thinned", &["--keep", "every=3"]),
        ("double", &["--set", "train.dtype=f64"]),
    ];
    for (name, options) in kinds {
        let run = read::read(&recordings::record(dir.path(), ADAM, name, options))?;
        let again = format!("{name}-again");
        write::write(&run, &dir.path().join(&again))?;
        recordings::same(&run, &read::read(&dir.path().join(&again))?)?;
        let verdict = check(dir.path(), &again, &[])?;
        ensure!(verdict.code == 0, "{name}: {}", verdict.line);
    }
    Ok(())
}

#[test]
fn forgeries_of_a_run_with_sgd() -> Tested {
    judge(SGD)
}

#[test]
fn forgeries_of_a_run_with_momentum() -> Tested {
    judge(MOMENTUM)
}

#[test]
fn forgeries_of_a_run_with_adam() -> Tested {
    judge(ADAM)
}

#[test]
fn forgeries_of_a_run_with_adamw() -> Tested {
    judge(ADAMW)
}

#[test]
fn forgeries_of_a_run_with_batch_norm() -> Tested {
    judge(BATCH_NORM)
}
