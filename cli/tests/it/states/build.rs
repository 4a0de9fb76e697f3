//! Builds a run in every possible state, from one tiny run of a real task.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use hindcast_format::{
    Access, Compaction, Derive, Durability, FsStorage, Identities, KeyPair, KeyState, Keyed, Keys,
    Recipients, Redaction, RunInfo, RunWriter, State as Weights, StepMeta, Storage, Trace,
};
use hindcast_model::task::Task;

/// The tiny run: three epochs of four steps, one segment per epoch, and its data.
pub struct World {
    dir: tempfile::TempDir,
    info: RunInfo,
    steps: Vec<(StepMeta, Weights, KeyState)>,
    end: (Weights, KeyState),
    /// The signer's keys.
    keys: KeyPair,
    /// The secret key of a reader of encrypted runs, and the public key.
    reader: (String, String),
}

const STEPS: u64 = 12;
const SEGMENT: u64 = 4;

pub(crate) const TASK: &str = r#"
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
epochs = 3
batch = 8
seed = 0
"#;

/// The folder of a state, with `run`, `data`, `out.txt` (the examples to leave out) and `scores.csv`.
pub struct Setup {
    pub dir: tempfile::TempDir,
    /// The folder given to `--data`.
    pub data: &'static str,
    /// A writer that is still writing the run.
    pub writer: Option<RunWriter>,
    /// The text of a reader's secret key, if the commands get it.
    pub reader: Option<String>,
}

impl Setup {
    pub fn run(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// The keys that commands get.
    pub fn keys(&self) -> Option<Arc<dyn Keys>> {
        let text = self.reader.as_ref()?;
        Some(Arc::new(Identities::read(text).unwrap()))
    }

    /// A folder beside the run, with the keys that commands get.
    pub fn storage(&self, name: &str) -> Arc<dyn Storage> {
        let storage = Arc::new(FsStorage::new(self.dir.path().join(name)));
        match self.keys() {
            Some(keys) => Arc::new(Keyed::new(storage, keys)),
            None => storage,
        }
    }
}

fn rows(label_of_row_3: u32) -> String {
    let mut text = "a,b,y\n".to_owned();
    for i in 0..40u32 {
        let (a, b) = (
            f64::from(i * 7 % 20) / 10.0 - 1.0,
            f64::from(i * 3 % 20) / 10.0 - 1.0,
        );
        let y = if i == 3 {
            label_of_row_3
        } else {
            u32::from(a + b > 0.1)
        };
        text.push_str(&format!("{a},{b},{y}\n"));
    }
    text
}

impl World {
    /// Records the run with the command and keeps its steps in memory.
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        for (folder, label) in [("data", 0), ("other", 1)] {
            fs::create_dir(at.join(folder)).unwrap();
            fs::write(at.join(folder).join("train.csv"), rows(label)).unwrap();
        }
        fs::write(at.join("task.toml"), TASK).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(["record", "task.toml", "--data", "data", "--out", "base"])
            .current_dir(at)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // A table for `report`, without the run's digest: each state has a different one.
        let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(["influence", "base", "--data", "data"])
            .current_dir(at)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let trace = Trace::open(at.join("base")).unwrap();
        let mut steps = Vec::new();
        let mut walk = trace.forward(0..u64::MAX);
        while let Some(step) = walk.next().unwrap() {
            // Without buffers and optimizer state, every step can start a segment.
            let key = KeyState::zeros(trace.layout());
            steps.push((step.meta.clone(), step.state.clone(), key));
        }
        assert_eq!(steps.len() as u64, STEPS);
        let end = trace.final_state().unwrap().unwrap();
        let mut info = trace.info().clone();
        info.created = "2026-01-02T03:04:05Z".to_owned();
        World {
            info,
            steps,
            end,
            keys: KeyPair::new(None).unwrap(),
            reader: Identities::generate(),
            dir,
        }
    }

    /// Names and shapes of the tensors, for a training loop that resumes the run.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let tensors = self.info.layout.parameters();
        tensors
            .iter()
            .map(|t| (t.name.clone(), t.shape.clone()))
            .collect()
    }

    /// θ_t by tensor, as recorded.
    pub fn parameters_before(&self, step: usize) -> Vec<(String, &[u8])> {
        let tensors = self.info.layout.parameters().iter().enumerate();
        tensors
            .map(|(i, t)| (t.name.clone(), self.steps[step].1.tensor(i)))
            .collect()
    }

    pub fn empty(&self) -> Setup {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["data", "other"] {
            copy(&self.dir.path().join(folder), &dir.path().join(folder));
        }
        for file in ["task.toml", "scores.csv"] {
            fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        fs::write(dir.path().join("out.txt"), "3\n").unwrap();
        fs::write(dir.path().join("key"), &self.keys.secret).unwrap();
        fs::write(dir.path().join("key.pub"), &self.keys.public).unwrap();
        Setup {
            dir,
            data: "data",
            writer: None,
            reader: None,
        }
    }

    fn writer(&self, setup: &Setup) -> RunWriter {
        let storage = Arc::new(FsStorage::new(setup.run()));
        RunWriter::create(storage, self.info.clone(), Durability::Seals).unwrap()
    }

    /// Appends steps, four per segment.
    fn append(&self, writer: &mut RunWriter, steps: std::ops::Range<u64>) {
        let mut encoder = writer.encoder().unwrap();
        for t in steps.clone() {
            let (meta, state, key) = &self.steps[t as usize];
            let before = (t > steps.start).then(|| &self.steps[t as usize - 1].1);
            let frame = match before {
                Some(before) if t % SEGMENT != 0 => {
                    encoder.difference(meta, t - 1, before, state).unwrap()
                }
                before => {
                    if let Some(before) = before {
                        writer
                            .append(encoder.link(t, t - 1, before, state).unwrap())
                            .unwrap();
                    }
                    writer.seal().unwrap();
                    writer.open_segment(t).unwrap();
                    encoder.keyframe(meta, state, key).unwrap()
                }
            };
            writer.append(frame).unwrap();
        }
    }

    fn finish(&self, mut writer: RunWriter) {
        let mut encoder = writer.encoder().unwrap();
        let (state, key) = &self.end;
        let last = &self.steps[STEPS as usize - 1].1;
        let link = encoder.link(STEPS, STEPS - 1, last, state).unwrap();
        writer.append(link).unwrap();
        writer.finish(state, key, Default::default()).unwrap();
    }

    /// The finished run, signed.
    pub fn signed(&self) -> Setup {
        let setup = self.finished();
        let output = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(["sign", "run", "--key", "key", "--comment", "as recorded"])
            .current_dir(setup.dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        setup
    }

    pub fn finished(&self) -> Setup {
        let setup = self.empty();
        let mut writer = self.writer(&setup);
        self.append(&mut writer, 0..STEPS);
        self.finish(writer);
        setup
    }

    /// The finished run, encrypted, and the key in a file.
    pub fn encrypted(&self) -> Setup {
        let mut setup = self.locked();
        fs::write(setup.dir.path().join("reader.key"), &self.reader.0).unwrap();
        setup.reader = Some(self.reader.0.clone());
        setup
    }

    /// The finished run, encrypted.
    pub fn locked(&self) -> Setup {
        let setup = self.empty();
        let recipients = Recipients::read(&self.reader.1).unwrap();
        let info = RunInfo {
            encryption: Some(recipients.encryption().unwrap()),
            ..self.info.clone()
        };
        let storage = Arc::new(FsStorage::new(setup.run()));
        let mut writer = RunWriter::create(storage, info, Durability::Seals).unwrap();
        self.append(&mut writer, 0..STEPS);
        self.finish(writer);
        setup
    }

    /// The state that a killed recorder leaves: steps 8 and 9 in an open segment.
    pub fn killed(&self) -> Setup {
        let mut setup = self.live();
        drop(setup.writer.take());
        setup
    }

    pub fn live(&self) -> Setup {
        let mut setup = self.empty();
        let mut writer = self.writer(&setup);
        self.append(&mut writer, 0..10);
        setup.writer = Some(writer);
        setup
    }

    pub fn unfinished(&self) -> Setup {
        let setup = self.empty();
        let mut writer = self.writer(&setup);
        self.append(&mut writer, 0..10);
        writer.abandon(Default::default()).unwrap();
        setup
    }

    pub fn ring(&self) -> Setup {
        let setup = self.empty();
        let mut writer = self.writer(&setup);
        self.append(&mut writer, 0..STEPS);
        writer.drop_oldest(1).unwrap();
        self.finish(writer);
        setup
    }

    pub fn resumed(&self) -> Setup {
        let setup = self.killed();
        let storage = Arc::new(FsStorage::new(setup.run()));
        let (mut writer, _) = RunWriter::resume(storage, 6, Durability::Seals).unwrap();
        self.append_from(&mut writer, 6);
        self.finish(writer);
        setup
    }

    /// After a cut, the first step is always a keyframe.
    fn append_from(&self, writer: &mut RunWriter, from: u64) {
        let mut encoder = writer.encoder().unwrap();
        let (meta, state, key) = &self.steps[from as usize];
        writer.open_segment(from).unwrap();
        writer
            .append(encoder.keyframe(meta, state, key).unwrap())
            .unwrap();
        for t in from + 1..STEPS {
            let (meta, state, _) = &self.steps[t as usize];
            let before = &self.steps[t as usize - 1].1;
            writer
                .append(encoder.difference(meta, t - 1, before, state).unwrap())
                .unwrap();
        }
    }

    pub fn killed_during_creation(&self) -> Setup {
        let setup = self.finished();
        let left = setup.dir.path().join(".run.new-4711");
        fs::create_dir(&left).unwrap();
        fs::rename(
            setup.run().join("manifest.json"),
            left.join("manifest.json"),
        )
        .unwrap();
        fs::remove_dir_all(setup.run()).unwrap();
        setup
    }

    pub fn torn(&self) -> Setup {
        let setup = self.killed();
        let last = setup.run().join("seg-00000002.hcs");
        let length = fs::metadata(&last).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&last).unwrap();
        file.set_len(length - 20).unwrap();
        setup
    }

    /// A finished run with one changed byte in a file.
    pub fn hit(&self, file: &str, at: impl Fn(&[u8]) -> usize) -> Setup {
        let setup = self.finished();
        let path = setup.run().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let at = at(&bytes);
        bytes[at] ^= 0x10;
        fs::write(&path, bytes).unwrap();
        setup
    }

    /// Two segments with swapped names.
    pub fn swapped(&self) -> Setup {
        let setup = self.finished();
        let at = |name: &str| setup.run().join(name);
        fs::rename(at("seg-00000001.hcs"), at("aside")).unwrap();
        fs::rename(at("seg-00000002.hcs"), at("seg-00000001.hcs")).unwrap();
        fs::rename(at("aside"), at("seg-00000002.hcs")).unwrap();
        setup
    }

    /// A second copy of a segment, named as copying tools do.
    pub fn renamed(&self) -> Setup {
        let setup = self.finished();
        let at = |name: &str| setup.run().join(name);
        fs::rename(at("seg-00000001.hcs"), at("seg-00000001 (1).hcs")).unwrap();
        setup
    }

    /// One segment copied over another.
    pub fn copied_over(&self) -> Setup {
        let setup = self.finished();
        let at = |name: &str| setup.run().join(name);
        fs::copy(at("seg-00000002.hcs"), at("seg-00000001.hcs")).unwrap();
        setup
    }

    pub fn emptied(&self) -> Setup {
        let setup = self.finished();
        fs::write(setup.run().join("seg-00000001.hcs"), "").unwrap();
        setup
    }

    /// A pipe in place of a file.
    pub fn pipe(&self, file: &str) -> Setup {
        let setup = self.without(file);
        let made = Command::new("mkfifo").arg(setup.run().join(file)).status();
        assert!(made.unwrap().success());
        setup
    }

    /// A manifest with a valid seal that declares 2^37 numbers of 8 bytes.
    pub fn forged(&self) -> Setup {
        let setup = self.finished();
        let path = setup.run().join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
        json.as_object_mut().unwrap().remove("seal");
        let run = &mut json["predicate"]["run"];
        run["layout"] = serde_json::json!([
            { "name": "w", "role": "parameter", "dtype": "f64", "shape": [1_u64 << 37], "group": 0 }
        ]);
        run["chunks"] = serde_json::json!({ "state": vec![65_536; 1 << 21], "key": [] });
        let text = json.to_string();
        let body = text.strip_suffix('}').unwrap();
        let seal = blake3::hash(body.as_bytes()).to_hex();
        fs::write(&path, format!("{body},\n  \"seal\": \"{seal}\"\n}}\n")).unwrap();
        setup
    }

    pub fn without(&self, file: &str) -> Setup {
        let setup = self.finished();
        fs::remove_file(setup.run().join(file)).unwrap();
        setup
    }

    /// A manifest of version 9, with a valid seal.
    pub fn future(&self) -> Setup {
        let setup = self.finished();
        let path = setup.run().join("manifest.json");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replacen("\"format\": 1,", "\"format\": 9,", 1);
        let (body, _) = text.split_once(",\n  \"seal\": \"").unwrap();
        let seal = blake3::hash(body.as_bytes()).to_hex();
        fs::write(&path, format!("{body},\n  \"seal\": \"{seal}\"\n}}\n")).unwrap();
        setup
    }

    /// A run that was pruned, with a choice of steps as `--keep` takes it.
    pub fn pruned(&self, keep: &str) -> Setup {
        self.derived(&Derive::Prune(keep.parse().unwrap()))
    }

    /// A compacted run.
    pub fn compacted(&self) -> Setup {
        self.derived(&Derive::Compact(Compaction {
            level: 19,
            segment_steps: None,
        }))
    }

    /// A redacted run, and its data under the new names.
    pub fn redacted(&self) -> Setup {
        let task = Task::from_toml(TASK).unwrap().redacted();
        let redaction = Redaction {
            task: Some(task.task.to_toml().unwrap()),
            rows: false,
        };
        let mut setup = self.derived(&Derive::Redact(redaction));
        let renamed = setup.dir.path().join("renamed");
        fs::create_dir(&renamed).unwrap();
        for (old, new) in task.renamed {
            let data = setup.dir.path().join("data");
            fs::copy(data.join(old), renamed.join(new)).unwrap();
        }
        setup.data = "renamed";
        setup
    }

    /// What was made from the finished run, in its place.
    fn derived(&self, what: &Derive) -> Setup {
        let setup = self.finished();
        let aside = setup.dir.path().join("aside");
        fs::rename(setup.run(), &aside).unwrap();
        let ignore = &mut |_, _| {};
        hindcast_format::derive(&aside, setup.run(), what, None, &Access::default(), ignore)
            .unwrap();
        fs::remove_dir_all(aside).unwrap();
        setup
    }

    /// The result of `recover` for a run that has lost step 5.
    pub fn recovered(&self) -> Setup {
        let setup = self.hit("seg-00000001.hcs", |b| frame(b, 1) + 20);
        let aside = setup.dir.path().join("aside");
        fs::rename(setup.run(), &aside).unwrap();
        hindcast_format::recover(&aside, setup.run(), &mut |_, _| {}).unwrap();
        fs::remove_dir_all(aside).unwrap();
        setup
    }
}

/// Offset of frame `nth` of a segment.
pub fn frame(bytes: &[u8], nth: usize) -> usize {
    (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .nth(nth)
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
