//! P4 with the command: on small folders with large layouts and lists, no verb takes more memory than
//! docs/durability.md states, and a verb is refused if less memory is allowed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::{ScoreMetadata, ScoreRow, ScoreTable};
use hindcast_format::{
    BatchWeights, Chunking, DType, Durability, FsStorage, GroupHyper, KeyState, Layout, Role,
    RunInfo, RunWriter, State, StepMeta, TensorSpec, Work,
};
use hindcast_tests::plan::PEAK;

use crate::common::{CHILD, Tested, folder, said};

fn tensor(name: &str, role: Role, elements: usize) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        role,
        dtype: DType::F64,
        shape: vec![elements],
        group: 0,
    }
}

/// Writes a finished run of three steps of zeros.
fn write(run: &Path, info: &RunInfo, batch: usize) -> Tested {
    let layout = &info.layout;
    let storage = Arc::new(FsStorage::new(run));
    let mut writer = RunWriter::create(storage, info.clone(), Durability::Os)?;
    let mut encoder = writer.encoder()?;
    let (state, key) = (State::zeros(layout), KeyState::zeros(layout));
    for step in 0..3 {
        let meta = StepMeta {
            step,
            epoch: 0,
            groups: vec![
                GroupHyper {
                    learning_rate: 0.1,
                    weight_decay: 0.0
                };
                layout.groups()
            ],
            indices: vec![7; batch],
            weights: BatchWeights::Mean,
            micro_batches: vec![],
            loss: None,
            clip_norm: None,
            optimizer_step: step,
            trained: vec![true; layout.parameters().len()],
            scalars: vec![],
            extensions: vec![],
        };
        if step > 0 {
            writer.append(encoder.link(step, step - 1, &state, &state)?)?;
        }
        writer.seal()?;
        writer.open_segment(step)?;
        writer.append(encoder.keyframe(&meta, &state, &key)?)?;
    }
    writer.append(encoder.link(3, 2, &state, &state)?)?;
    writer.finish(&state, &key, BTreeMap::new())?;
    Ok(())
}

/// The forged folders: what is large in each, the run's description, and the batch size.
fn forgeries() -> anyhow::Result<Vec<(&'static str, RunInfo, usize)>> {
    let info = |tensors| -> anyhow::Result<RunInfo> { Ok(RunInfo::new(Layout::new(tensors)?, 0)) };
    let mut crumbs = info(vec![tensor("w", Role::Parameter, 100_000)])?;
    crumbs.chunks = Chunking {
        state: vec![1; 100_000],
        key: vec![],
    };
    let mut notes = info(vec![tensor("w", Role::Parameter, 9)])?;
    notes.notes = (0..100_000)
        .map(|i| (i.to_string(), String::new()))
        .collect();
    let names =
        (0..2000).map(|i| tensor(&format!("{i:04}{}", "n".repeat(4092)), Role::Parameter, 1));
    Ok(vec![
        (
            "a layout of 180 MB",
            info(vec![
                tensor("w", Role::Parameter, 12 << 20),
                tensor("m", Role::OptimizerState, 9 << 20),
                tensor("b", Role::Buffer, 1 << 19),
            ])?,
            4,
        ),
        ("chunks of one number", crumbs, 4),
        ("100,000 notes", notes, 4),
        ("2,000 long names", info(names.collect())?, 4),
        (
            "batches of 1,000,000",
            info(vec![tensor("w", Role::Parameter, 9)])?,
            1_000_000,
        ),
    ])
}

const VERBS: [(&str, &str, Work); 6] = [
    ("info", "info run --json", Work::Read),
    ("verify", "verify run", Work::Verify),
    ("export", "export run --steps 0..3 --out steps", Work::Read),
    (
        "checkpoint",
        "checkpoint run --step 1 --out model.safetensors",
        Work::Read,
    ),
    (
        "report",
        "report run scores.csv --out page.html",
        Work::Read,
    ),
    ("recover", "recover run --out new", Work::Recover),
];

/// Writes a table with one score for the run, which `report` needs.
fn score(dir: &Path) -> Tested {
    let trace = hindcast_format::Trace::open(dir.join("run"))?;
    let table = ScoreTable {
        metadata: ScoreMetadata {
            version: 1,
            run_digest: hindcast_format::hex(&trace.head_digest().context("the head")?),
            window: 0..3,
            run_steps: 3,
            at: String::new(),
            method: "sgd".to_owned(),
            queries: vec![QueryMetadata {
                name: "validation".to_owned(),
                value: 1.0,
                growth: None,
                digest: None,
            }],
            ..ScoreMetadata::default()
        },
        rows: vec![ScoreRow {
            index: 7,
            row: 7,
            label: "a".to_owned(),
            occurrences: 3,
            influence: vec![Some(-0.5)],
            renormalised: vec![Some(-0.5)],
            ..ScoreRow::default()
        }],
    };
    table.write(&dir.join("scores.csv"))?;
    Ok(())
}

/// Verbs that need the model, which these folders do not name. They are refused within the bound of `verify`.
const ANALYSES: [&str; 4] = [
    "verify run --replay",
    "influence run",
    "counterfactual run --without out.txt",
    "bounds run",
];

/// A forged folder in which the child runs verbs, and the sizes from which the bounds on their memory are computed.
struct Forged<'a> {
    what: &'a str,
    dir: &'a Path,
    layout: &'a Layout,
    manifest: u64,
    /// Bytes of metadata that a verb may hold in addition to the bound.
    metadata: u64,
}

impl Forged<'_> {
    fn bound(&self, work: Work) -> u64 {
        work.bound(self.layout, self.manifest) + self.metadata
    }

    /// Runs the child with these arguments. Returns its output and its peak memory in bytes.
    fn run(&self, line: &str) -> anyhow::Result<(Output, u64)> {
        let peak = self.dir.join("peak");
        let _ = fs::remove_file(&peak);
        let output = Command::new(CHILD)
            .args(line.split(' '))
            .env(PEAK, &peak)
            .current_dir(self.dir)
            .output()?;
        let kib: u64 = fs::read_to_string(peak).context("the peak")?.parse()?;
        Ok((output, kib * 1024))
    }

    /// Removes what the verbs write.
    fn clean(&self) {
        for left in ["steps", "new"] {
            let _ = fs::remove_dir_all(self.dir.join(left));
        }
        for left in ["model.safetensors", "page.html"] {
            let _ = fs::remove_file(self.dir.join(left));
        }
    }

    /// Checks that a verb keeps to its bound, and is refused if less memory is allowed. Returns its peak in bytes.
    fn keeps_to_its_bound(&self, verb: &str, line: &str, work: Work) -> anyhow::Result<u64> {
        let (what, bound) = (self.what, self.bound(work));
        let (output, peak) = self.run(line)?;
        ensure!(output.status.success(), "{what}: {verb}: {}", said(&output));
        ensure!(
            peak <= bound,
            "{what}: {verb} took {} of {}",
            mib(peak),
            mib(bound)
        );
        self.clean();
        // Verbs that only list the steps read no states.
        if ["info", "report"].contains(&verb) {
            return Ok(peak);
        }
        let less = bound - self.metadata - 1;
        let (output, _) = self.run(&format!("{line} --memory {less}"))?;
        let text = said(&output);
        ensure!(
            output.status.code() == Some(1)
                && text.contains("of memory")
                && text.contains("--memory SIZE"),
            "{what}: {verb} --memory: {text}"
        );
        ensure!(!self.dir.join("new").exists() && !self.dir.join("model.safetensors").exists());
        let _ = fs::remove_dir_all(self.dir.join("steps"));
        Ok(peak)
    }

    /// Checks that the analyses are refused, and keep to the bound of `verify`. Returns their peak in bytes.
    fn analyses(&self) -> anyhow::Result<u64> {
        let what = self.what;
        let mut highest = 0;
        for line in ANALYSES {
            let (output, peak) = self.run(line)?;
            let text = said(&output);
            ensure!(
                output.status.code() == Some(1) && text.contains("recorded without a task"),
                "{what}: {line}: {text}"
            );
            highest = highest.max(peak);
        }
        let bound = self.bound(Work::Verify);
        ensure!(
            highest <= bound,
            "{what}: an analysis took {} of {}",
            mib(highest),
            mib(bound)
        );
        Ok(highest)
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[test]
fn no_verb_takes_more_memory_than_is_stated() -> Tested {
    let mut table = String::from(
        "| folder | bytes | info | verify | export | checkpoint | report | recover | analyses, refused | bounds |\n",
    );
    for (what, info, batch) in forgeries()? {
        let dir = folder(false)?;
        let dir = dir.path();
        write(&dir.join("run"), &info, batch)?;
        score(dir)?;
        fs::write(dir.join("out.txt"), "1\n")?;
        let size: u64 = crate::common::files(&dir.join("run"))?
            .iter()
            .map(|path| fs::metadata(path).map_or(0, |m| m.len()))
            .sum();
        let forged = Forged {
            what,
            dir,
            layout: &info.layout,
            manifest: fs::metadata(dir.join("run/manifest.json"))?.len(),
            // Two bytes per index, and 200 for the rest of a step.
            metadata: 16 * (2 * batch as u64 + 200),
        };
        table.push_str(&format!("| {what} | {size} "));
        for (verb, line, work) in VERBS {
            let peak = forged.keeps_to_its_bound(verb, line, work)?;
            table.push_str(&format!("| {} ", mib(peak)));
        }
        table.push_str(&format!(
            "| {} | {}, recover {} |\n",
            mib(forged.analyses()?),
            mib(forged.bound(Work::Read)),
            mib(forged.bound(Work::Recover))
        ));
    }
    println!("{table}");
    Ok(())
}
