//! P14: a copy of a run is as good as the original. It gives the same answers whichever tool made it, in another place,
//! under another name, read-only, and when the command runs in another folder. Nothing is written into it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::ensure;
use hindcast_format::Trace;
use hindcast_tests::plan::{PLAN, Plan};
use hindcast_tests::training::Truth;

use crate::common::{CHILD, Tested, compare, files, fine, said};

/// Names, contents, modification times and permissions.
type Look = BTreeMap<PathBuf, (Vec<u8>, SystemTime, u32)>;

fn look(run: &Path) -> anyhow::Result<Look> {
    files(run)?
        .into_iter()
        .map(|path| {
            let about = fs::metadata(&path)?;
            let look = (
                fs::read(&path)?,
                about.modified()?,
                about.permissions().mode(),
            );
            Ok((path, look))
        })
        .collect()
}

fn shell(dir: &Path, script: &str) -> anyhow::Result<std::process::Output> {
    Ok(Command::new("sh")
        .args(["-ec", script])
        .env("CHILD", CHILD)
        .env_remove(PLAN)
        .current_dir(dir)
        .output()?)
}

/// Every result of an analysis: the checks, the table and its metadata, and a retraining.
fn analyse(dir: &Path, run: &str, out: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    fs::create_dir_all(out)?;
    let to = |name: &str| out.join(name).display().to_string();
    fine(dir, &["verify", run, "--replay"]);
    fine(dir, &["info", run]);
    fine(
        dir,
        &["influence", run, "--out", &to("scores.csv"), "--per-epoch"],
    );
    let words = [
        "counterfactual",
        run,
        "--top",
        "4",
        &to("scores.csv"),
        "--json",
    ];
    fs::write(out.join("without.json"), fine(dir, &words))?;
    fine(
        dir,
        &["export", run, "--steps", "2..5", "--out", &to("steps")],
    );
    let mut all = BTreeMap::new();
    for path in files(out)?.into_iter().chain(files(&out.join("steps"))?) {
        if path.is_file() {
            all.insert(path.strip_prefix(out)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(all)
}

/// The `unshare` command that gives a process its own mounts on this machine. `None` if none is allowed.
pub fn own_mounts() -> Option<&'static str> {
    ["unshare -m", "unshare --user --map-root-user -m"]
        .into_iter()
        .find(|way| {
            let folder = tempfile::tempdir();
            folder.is_ok_and(|folder| {
                shell(
                    folder.path(),
                    &format!("{way} mount -t tmpfs -o size=64k tmpfs ."),
                )
                .is_ok_and(|output| output.status.success())
            })
        })
}

#[test]
fn a_read_only_copy_elsewhere_gives_the_same_answers_and_is_not_changed() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    fine(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "data.train=100",
            "--set",
            "data.validation=20",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=2",
            "--set",
            "train.batch=20",
        ],
    );
    let answers = analyse(dir, "run", &dir.join("answers"))?;
    ensure!(answers.len() >= 6, "{:?}", answers.keys());

    // The original's folder is removed before its copy is read. Times and modes are those that the tools set.
    let made = shell(
        dir,
        "mkdir -p far/away work
         cp -r run far/away/copy
         tar cf run.tar run && mkdir unpacked && tar xf run.tar -C unpacked && rm run.tar
         rm -r run
         touch -d 2001-02-03 far/away/copy/*
         chmod 0444 far/away/copy/* && chmod 0555 far/away/copy
         ln -s far/away/copy linked",
    )?;
    ensure!(made.status.success(), "{}", said(&made));
    let absolute = dir.join("far/away/copy").display().to_string();
    for (i, (from, run)) in [
        ("work", "../far/away/copy"),
        ("far/away/copy", "."),
        (".", "linked"),
        ("/", absolute.as_str()),
        ("unpacked", "run"),
    ]
    .into_iter()
    .enumerate()
    {
        let from = dir.join(from);
        let before = look(&from.join(run))?;
        let found = analyse(&from, run, &dir.join(format!("answers-{i}")))?;
        ensure!(found.keys().eq(answers.keys()), "{run}: {:?}", found.keys());
        for (name, bytes) in &found {
            ensure!(*bytes == answers[name], "{run}: {} differs", name.display());
        }
        ensure!(look(&from.join(run))? == before, "{run} was changed");
    }

    // Modes do not keep root from writing. A read-only mount does.
    let Some(way) = own_mounts() else {
        println!(
            "skipped in part: this machine lets no process mount a folder read-only (unshare, mount)"
        );
        return Ok(());
    };
    let mounted = shell(
        dir,
        &format!(
            "{way} sh -ec '
                 mount --bind far/away/copy far/away/copy
                 mount -o remount,bind,ro far/away/copy
                 if touch far/away/copy/stray 2>/dev/null; then exit 9; fi
                 \"$CHILD\" verify far/away/copy --replay
                 \"$CHILD\" influence far/away/copy --out mounted.csv --per-epoch'"
        ),
    )?;
    ensure!(mounted.status.success(), "{}", said(&mounted));
    ensure!(fs::read(dir.join("mounted.csv"))? == answers[Path::new("scores.csv")]);
    // Lets a user who is not root remove the folder.
    shell(dir, "chmod 0755 far/away/copy")?;
    Ok(())
}

/// The rows that a run stores are part of every copy, whichever tool made it.
#[test]
fn a_copy_has_the_rows_of_the_run() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let plan = Plan {
        rows: true,
        segment_steps: Some(8),
        ..Plan::new(dir.join("run"), 4, 30)
    };
    let training = plan.training()?;
    let recorder = plan.builder()?.create(training.variables())?;
    training.record(&recorder, 0..30, |_| Ok(()))?;
    recorder.finish()?;
    let truth = Truth::new(4, 30)?;
    let export = |run: &str, out: &str| -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
        compare(&Trace::open(dir.join(run))?, &truth)?;
        fine(dir, &["verify", run]);
        fine(dir, &["export", run, "--steps", "0..30", "--out", out]);
        let all = files(&dir.join(out))?.into_iter();
        all.map(|path| {
            let name = path.strip_prefix(dir.join(out))?.to_owned();
            Ok((name, fs::read(&path)?))
        })
        .collect()
    };
    let original = export("run", "exported")?;
    // Two splits of one shape, and the list of their rows.
    let rows = original
        .keys()
        .filter(|name| name.to_string_lossy().starts_with("rows"));
    ensure!(rows.count() == 3, "{:?}", original.keys());
    let made = shell(
        dir,
        "cp -r run copy
         tar cf run.tar run && mkdir unpacked && tar xf run.tar -C unpacked && rm -r run
         chmod 0444 copy/* && chmod 0555 copy && ln -s copy linked",
    )?;
    ensure!(made.status.success(), "{}", said(&made));
    for (i, run) in ["copy", "unpacked/run", "linked"].into_iter().enumerate() {
        ensure!(export(run, &format!("exported-{i}"))? == original, "{run}");
    }
    shell(dir, "chmod 0755 copy")?;
    Ok(())
}
