//! Applies 500 random mutations to a run of eight segments, the same in every run of the test. `verify` must count the
//! same steps as an independent count, `recover` may report no loss only if nothing is lost, and no verb may exit with
//! 0 if its result is incomplete.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, ensure};
use hindcast_format::{
    Durability, FsStorage, KeyState, MemStorage, RunWriter, Storage, Trace, is_made_key,
    recover_storage, verify_storage,
};
use hindcast_tests::noise::Noise;

use crate::common::{Tested, fine, folder, hindcast, said};
use crate::oracle::{Files, Original};

const MUTATIONS: u64 = 500;
const SEGMENT: u64 = 8;
const SEGMENTS: u64 = 7;
const STEPS: u64 = SEGMENT * SEGMENTS;

const TASK: &str = r#"
name = "tiny"
description = "Two features, two classes"
[data]
source = "csv"
train_files = "train.csv"
label = "y"
validation = 8
[model]
input = [2]
layers = [{ kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.05
[train]
epochs = 14
batch = 8
seed = 0
"#;

/// Records the run with the command and writes it again, with seven segments of steps and the final one.
pub fn record(dir: &Path) -> anyhow::Result<Files> {
    fs::create_dir(dir.join("data"))?;
    let mut rows = "a,b,y\n".to_owned();
    for i in 0..40u32 {
        let a = f64::from(i * 7 % 20) / 10.0 - 1.0;
        let b = f64::from(i * 3 % 20) / 10.0 - 1.0;
        rows.push_str(&format!("{a},{b},{}\n", u32::from(a + b > 0.1)));
    }
    fs::write(dir.join("data/train.csv"), rows)?;
    fs::write(dir.join("task.toml"), TASK)?;
    fs::write(dir.join("without.txt"), "3\n")?;
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "recorded"],
    );
    let trace = Trace::open(dir.join("recorded"))?;
    let storage = Arc::new(FsStorage::new(dir.join("base")));
    // Files of the same lengths on every machine, so that the mutations are the same.
    let mut info = trace.info().clone();
    info.notes.retain(|key, _| !is_made_key(key));
    let mut writer = RunWriter::create(storage, info, Durability::Os)?;
    let mut encoder = writer.encoder()?;
    let key = KeyState::zeros(trace.layout());
    let mut before: Option<hindcast_format::State> = None;
    for step in 0..STEPS {
        let recorded = trace.read(step)?;
        let (meta, state) = (&recorded.meta, &recorded.state);
        match &before {
            Some(before) if step % SEGMENT != 0 => {
                writer.append(encoder.difference(meta, step - 1, before, state)?)?;
            }
            before => {
                if let Some(before) = before {
                    writer.append(encoder.link(step, step - 1, before, state)?)?;
                }
                writer.seal()?;
                writer.open_segment(step)?;
                writer.append(encoder.keyframe(meta, state, &key)?)?;
            }
        }
        before = Some(recorded.state);
    }
    let (end, key) = trace.final_state()?.context("a final state")?;
    let before = before.context("a step")?;
    writer.append(encoder.link(STEPS, STEPS - 1, &before, &end)?)?;
    writer.finish(&end, &key, BTreeMap::new())?;
    read(&dir.join("base"))
}

fn read(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        files.insert(name, fs::read(entry.path())?);
    }
    Ok(files)
}

fn write(folder: &Path, files: &Files) -> Tested {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir(folder)?;
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// Applies one random mutation. Returns its description.
fn mutate(files: &mut Files, noise: &mut Noise) -> String {
    let mut below = |n: usize| noise.below(n as u64) as usize;
    let names: Vec<String> = files.keys().cloned().collect();
    let (name, other) = (
        names[below(names.len())].clone(),
        names[below(names.len())].clone(),
    );
    let mut bytes = files.get(&name).cloned().unwrap_or_default();
    let at = below(bytes.len());
    let n = match below(3) {
        0 => 1 + below(8),
        1 => 1 + below(200),
        _ => 1 + below(bytes.len()),
    };
    let end = (at + n).min(bytes.len());
    let what = below(11);
    let told = match what {
        0 if !bytes.is_empty() => {
            bytes[at] ^= 1 << below(8);
            "a bit flipped"
        }
        1 => {
            bytes.truncate(at);
            "cut"
        }
        2 => {
            bytes[at..end].fill(0);
            "zeroed"
        }
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(end..end, piece);
            "a piece doubled"
        }
        4 => {
            let piece: Vec<u8> = (0..n.min(3000)).map(|_| below(256) as u8).collect();
            bytes.splice(at..at, piece);
            "bytes inserted"
        }
        5 => {
            bytes.drain(at..end);
            "bytes deleted"
        }
        6 => {
            let theirs = files.get(&other).cloned().unwrap_or_default();
            files.insert(other.clone(), bytes);
            files.insert(name.clone(), theirs);
            return format!("{name} and {other} swapped");
        }
        7 => {
            files.remove(&name);
            let new = match below(4) {
                0 => format!("{name}.bak"),
                1 => name.replace(".hcs", " (1).hcs"),
                2 => format!("seg-{:08}.hcs", below(12)),
                _ => "something.else".to_owned(),
            };
            files.insert(new.clone(), bytes);
            return format!("{name} renamed {new}");
        }
        8 => {
            files.insert(other.clone(), bytes);
            return format!("{name} copied over {other}");
        }
        9 => {
            files.remove(&name);
            return format!("{name} removed");
        }
        _ => {
            let length = end - at;
            let from = below(bytes.len() - length + 1);
            let piece = bytes[from..from + length].to_vec();
            bytes[at..end].copy_from_slice(&piece);
            "overwritten with another piece of itself"
        }
    };
    files.insert(name.clone(), bytes);
    format!("{name}: {told} at {at}, {n} bytes")
}

/// The mutated runs that differ from the original, with descriptions.
fn mutations(original: &Files) -> Vec<(String, Files)> {
    let mut noise = Noise(0x4d55_5441);
    let mut all = Vec::new();
    while (all.len() as u64) < MUTATIONS {
        let mut files = original.clone();
        let mut told = mutate(&mut files, &mut noise);
        if noise.below(4) == 0 {
            told = format!("{told}; {}", mutate(&mut files, &mut noise));
        }
        if files != *original {
            all.push((told, files));
        }
    }
    all
}

/// Compares the library's counts with the independent count, and the recovered run with the recorded one.
pub fn counts(what: &str, files: &Files, original: &Original, truth: &Trace) -> Tested {
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::from_files(files.clone()));
    let expected = original.readable(files);
    let report = match verify_storage(&storage) {
        Ok(report) => report,
        Err(e) => {
            ensure!(
                expected.is_empty(),
                "{what}: {e}, although the steps {expected:?} can be read"
            );
            return Ok(());
        }
    };
    ensure!(
        report.steps_ok == expected.len() as u64,
        "{what}: verify counts {} steps, but {} can be read: {expected:?}\n{:#?}",
        report.steps_ok,
        expected.len(),
        report.findings
    );
    if let Ok(trace) = Trace::open_storage(Arc::clone(&storage)) {
        let readable = trace.readable(0..u64::MAX)?;
        let steps: Vec<u64> = readable.ranges.into_iter().flatten().collect();
        ensure!(
            steps.iter().eq(expected.iter()),
            "{what}: expected steps {expected:?}, got {steps:?}"
        );
        for step in steps {
            let (found, right) = (trace.read(step)?, truth.read(step)?);
            ensure!(
                found.meta == right.meta && found.state == right.state,
                "{what}: step {step} differs from the recorded one"
            );
        }
    }
    let target = MemStorage::new();
    let new: Arc<dyn Storage> = Arc::new(target.clone());
    let Ok(report) = recover_storage(&storage, &new, &mut |_, _| {}) else {
        return Ok(());
    };
    let recovered = Trace::open_storage(new)?;
    let mut steps = recovered.forward(0..u64::MAX);
    let mut kept = 0;
    while let Some(step) = steps.next()? {
        let right = truth.read(step.meta.step)?;
        ensure!(
            *step.meta == right.meta && *step.state == right.state,
            "{what}: recovered step {} differs from the recorded one",
            right.meta.step
        );
        kept += 1;
    }
    ensure!(
        kept >= expected.len() as u64,
        "{what}: {kept} steps recovered of {} that can be read",
        expected.len()
    );
    let end = recovered.final_state()?.is_some();
    ensure!(
        !report.is_lossless() || kept == STEPS && end,
        "{what}: recover reports no loss, but the new run has {kept} steps, final state: {end}"
    );
    Ok(())
}

/// The files that a verb wrote, without the parts that name the run.
fn results(dir: &Path, verb: &str) -> anyhow::Result<Files> {
    let mut all = match verb {
        "export" => read(&dir.join("steps"))?,
        "recover" | "prune" => {
            fine(
                dir,
                &["export", "new", "--steps", "0..56", "--out", "steps"],
            );
            read(&dir.join("steps"))?
        }
        "influence" => Files::from([(String::new(), fs::read(dir.join("scores.csv"))?)]),
        "checkpoint" => {
            let bytes = fs::read(dir.join("model.safetensors"))?;
            let header = u64::from_le_bytes(bytes[..8].try_into()?) as usize;
            Files::from([(String::new(), bytes[8 + header..].to_vec())])
        }
        _ => Files::new(),
    };
    all.retain(|_, bytes| !bytes.is_empty());
    Ok(all)
}

const VERBS: [(&str, &str); 10] = [
    ("info", "info run"),
    ("verify", "verify run"),
    ("export", "export run --steps 0..56 --out steps"),
    ("recover", "recover run --out new"),
    ("prune", "prune run --window 0..56 --out new"),
    ("influence", "influence run --data data --out scores.csv"),
    (
        "counterfactual",
        "counterfactual run --data data --without without.txt",
    ),
    (
        "checkpoint",
        "checkpoint run --step 29 --out model.safetensors",
    ),
    ("report", "report run table.csv --data data --out page.html"),
    (
        "bounds",
        "bounds run --data data --window last-epoch --out bounds.csv",
    ),
];

/// Runs every verb. Exit code 0 must mean the complete result.
fn verbs(dir: &Path, what: &str, files: &Files, original: &Files, right: &Rights) -> Tested {
    write(&dir.join("run"), files)?;
    let listed_as_recorded = original.iter().all(|(name, bytes)| {
        files.get(name).is_some_and(|now| {
            now.len() == bytes.len()
                && (now == bytes || original.values().all(|other| other != now))
        })
    });
    let unaltered = original
        .iter()
        .all(|(name, bytes)| files.get(name) == Some(bytes));
    for (verb, line) in VERBS {
        for left in ["steps", "new"] {
            let _ = fs::remove_dir_all(dir.join(left));
        }
        for left in ["scores.csv", "scores.csv.json", "model.safetensors"] {
            let _ = fs::remove_file(dir.join(left));
        }
        let words: Vec<&str> = line.split(' ').collect();
        let output = hindcast(dir, &words);
        let text = said(&output);
        let code = output.status.code().unwrap_or(-1);
        ensure!(
            matches!(code, 0 | 1 | 3) && !text.contains("panicked"),
            "{what}: {verb}: {text}"
        );
        // A run is made only from one that is whole.
        if ["verify", "prune"].contains(&verb) {
            ensure!((code == 0) == unaltered, "{what}: {verb}: {text}");
        }
        if code != 0 {
            continue;
        }
        if ["info", "report"].contains(&verb) {
            ensure!(listed_as_recorded, "{what}: {verb} exits with 0: {text}");
        }
        let (files, out) = &right[verb];
        ensure!(
            results(dir, verb)? == *files,
            "{what}: {verb} exits with 0, but its result differs: {text}"
        );
        if verb == "counterfactual" {
            ensure!(output.stdout == *out, "{what}: {verb}: {text}");
        }
    }
    Ok(())
}

/// What each verb writes and prints for the original run.
type Rights = BTreeMap<&'static str, (Files, Vec<u8>)>;

#[test]
fn five_hundred_random_mutations_never_pass_for_the_original_run() -> Tested {
    let home = folder(true)?;
    let base = record(home.path())?;
    ensure!(base.len() as u64 == SEGMENTS + 2, "{:?}", base.keys());
    let original = Original::new(&base);
    let truth = Trace::open(home.path().join("base"))?;
    ensure!(original.readable(&base).len() as u64 == STEPS);

    // Every worker has a folder of its own.
    let worker = |name: &str| -> anyhow::Result<PathBuf> {
        let dir = home.path().join(name);
        fs::create_dir(&dir)?;
        fs::create_dir(dir.join("data"))?;
        for file in ["data/train.csv", "without.txt"] {
            fs::copy(home.path().join(file), dir.join(file))?;
        }
        write(&dir.join("run"), &base)?;
        fine(
            &dir,
            &["influence", "run", "--data", "data", "--out", "scores.csv"],
        );
        // Without its metadata file, a table does not name its run, and is accepted for any run.
        fs::rename(dir.join("scores.csv"), dir.join("table.csv"))?;
        Ok(dir)
    };
    let first = worker("0")?;
    let mut right = Rights::new();
    for (verb, line) in VERBS {
        for left in ["steps", "new"] {
            let _ = fs::remove_dir_all(first.join(left));
        }
        let output = hindcast(&first, &line.split(' ').collect::<Vec<_>>());
        ensure!(output.status.success(), "{verb}: {}", said(&output));
        right.insert(verb, (results(&first, verb)?, output.stdout));
    }

    let all = mutations(&base);
    let next = AtomicUsize::new(0);
    let second = worker("1")?;
    let work = |dir: &Path| -> Vec<String> {
        let mut wrong = Vec::new();
        while let Some((what, files)) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            let tried = counts(what, files, &original, &truth)
                .and_then(|()| verbs(dir, what, files, &base, &right));
            if let Err(e) = tried {
                wrong.push(format!("{e:#}"));
            }
        }
        wrong
    };
    let wrong = std::thread::scope(|scope| {
        let other = scope.spawn(|| work(&second));
        let mut wrong = work(&first);
        wrong.extend(
            other
                .join()
                .unwrap_or_else(|_| vec!["a worker panicked".to_owned()]),
        );
        wrong
    });
    ensure!(
        wrong.is_empty(),
        "{} of {MUTATIONS} mutations went wrong:\n{}",
        wrong.len(),
        wrong.join("\n---\n")
    );
    let readable: usize = all.iter().map(|(_, f)| original.readable(f).len()).sum();
    println!(
        "{MUTATIONS} mutations of a run of {} segments: {readable} of {} steps can be read, and verify counts the same number each time; {} verbs on each, none exits with 0 with an incomplete result",
        SEGMENTS + 1,
        MUTATIONS * STEPS,
        VERBS.len()
    );
    Ok(())
}
