//! P10 with the command: `verify` exits with 3 if any file of a run was edited, removed, reordered, renamed, cut or
//! spliced. A forged run that is consistent in itself passes, and only the head digest reveals it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use hindcast_format::{Durability, FsStorage, MANIFEST, RunWriter, State, Trace};
use hindcast_tests::plan::Plan;

use crate::common::{Tested, exits, files, fine};

const HIDDEN: usize = 4;
const STEPS: u64 = 30;
/// Steps per segment: four segments, and the final one.
const SEGMENT: u64 = 8;

/// A run's files by name.
type Files = BTreeMap<String, Vec<u8>>;

fn read(run: &Path) -> anyhow::Result<Files> {
    let mut all = Files::new();
    for path in files(run)? {
        let name = path.file_name().context("a name")?.to_string_lossy();
        all.insert(name.into_owned(), fs::read(&path)?);
    }
    Ok(all)
}

fn write(run: &Path, all: &Files) -> anyhow::Result<()> {
    if run.exists() {
        fs::remove_dir_all(run)?;
    }
    fs::create_dir(run)?;
    for (name, bytes) in all {
        fs::write(run.join(name), bytes)?;
    }
    Ok(())
}

/// Records a finished run of the training loop with `hidden` hidden units. Returns its head digest.
fn record(run: &Path, hidden: usize) -> anyhow::Result<String> {
    let plan = Plan {
        segment_steps: Some(SEGMENT as u32),
        // The run stores the rows of its batches, so that these are changed, too.
        rows: true,
        ..Plan::new(run, hidden, STEPS)
    };
    let training = plan.training()?;
    let recorder = plan.builder()?.create(training.variables())?;
    training.record(&recorder, 0..STEPS, |_| Ok(()))?;
    let head = recorder.finish()?.head.context("a head")?;
    Ok(hindcast_format::hex(&head))
}

/// Writes the run again with the format's own writer, as an attacker could: the same description and salt, the first
/// `steps` steps, and one changed state if `change` names its step. Everything in it is consistent.
fn forge(from: &Path, to: &Path, steps: u64, change: Option<u64>) -> anyhow::Result<()> {
    let trace = Trace::open(from)?;
    let mut states: Vec<State> = (0..steps)
        .map(|step| Ok(trace.state(step)?.0))
        .collect::<anyhow::Result<_>>()?;
    let (end, key) = trace.final_state()?.context("a final state")?;
    let end = if steps == STEPS {
        end
    } else {
        trace.state(steps)?.0
    };
    states.push(end);
    if let Some(step) = change {
        states[step as usize].bytes_mut()[1] ^= 0x40;
    }
    let storage = Arc::new(FsStorage::new(to));
    let mut writer = RunWriter::create(storage, trace.info().clone(), Durability::Os)?;
    let mut encoder = writer.encoder()?;
    for step in 0..steps {
        let at = step as usize;
        let meta = trace.meta(step)?;
        if step % SEGMENT == 0 {
            if step > 0 {
                let link = encoder.link(step, step - 1, &states[at - 1], &states[at])?;
                writer.append(link)?;
            }
            writer.seal()?;
            writer.open_segment(step)?;
            let key = trace.state(step)?.1.context("a keyframe")?;
            let keyframe = encoder.keyframe(&meta, &states[at], &key)?;
            writer.append(keyframe)?;
        } else {
            let (before, now) = (&states[at - 1], &states[at]);
            writer.append(encoder.difference(&meta, step - 1, before, now)?)?;
        }
    }
    let (last, end) = (&states[steps as usize - 1], &states[steps as usize]);
    writer.append(encoder.link(steps, steps - 1, last, end)?)?;
    let counters = trace.manifest().context("a manifest")?.counters.clone();
    writer.finish(end, &key, counters)?;
    Ok(())
}

/// Changes the manifest's text and gives it a matching seal.
fn reseal(all: &mut Files, change: impl FnOnce(&str) -> String) -> anyhow::Result<()> {
    let text = String::from_utf8(all.remove(MANIFEST).context("a manifest")?)?;
    let end = ",\n  \"seal\": \"";
    let body = &text[..text.rfind(end).context("a seal")?];
    let changed = change(body);
    ensure!(changed != body, "nothing was changed");
    let seal = blake3::hash(changed.as_bytes()).to_hex();
    all.insert(
        MANIFEST.to_owned(),
        format!("{changed}{end}{seal}\"\n}}\n").into_bytes(),
    );
    Ok(())
}

/// Positions at which the frames of a segment begin.
fn frames(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len().saturating_sub(4))
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .collect()
}

fn segment(number: u64) -> String {
    format!("seg-{number:08}.hcs")
}

/// The recorded run, and other runs whose files an attacker could put in its place.
struct Runs {
    /// The head digest of `ours`.
    head: String,
    ours: Files,
    /// The same training, recorded again.
    again: Files,
    /// Another model's run.
    other: Files,
    /// `ours` with one changed weight, and the same salt.
    forged: Files,
    /// The first 20 steps of `ours`, with the same salt.
    shorter: Files,
}

impl Runs {
    fn record(dir: &Path) -> anyhow::Result<Self> {
        let head = record(&dir.join("ours"), HIDDEN)?;
        record(&dir.join("again"), HIDDEN)?;
        record(&dir.join("other"), HIDDEN + 1)?;
        forge(&dir.join("ours"), &dir.join("forged"), STEPS, Some(11))?;
        forge(&dir.join("ours"), &dir.join("shorter"), 20, None)?;
        let of = |name: &str| read(&dir.join(name));
        Ok(Self {
            head,
            ours: of("ours")?,
            again: of("again")?,
            other: of("other")?,
            forged: of("forged")?,
            shorter: of("shorter")?,
        })
    }
}

/// Mutates `ours` and expects that `verify` finds damage.
struct Mutator<'a> {
    dir: &'a Path,
    ours: &'a Files,
    /// Mutations so far.
    found: u32,
}

impl Mutator<'_> {
    fn expect(
        &mut self,
        what: String,
        change: impl FnOnce(&mut Files) -> anyhow::Result<()>,
    ) -> Tested {
        let mut all = self.ours.clone();
        change(&mut all)?;
        ensure!(all != *self.ours, "{what}: nothing was changed");
        write(&self.dir.join("run"), &all)?;
        let (said, _) = exits(self.dir, &["verify", "run"], 3);
        ensure!(said.contains("DAMAGED"), "{what}: {said}");
        self.found += 1;
        Ok(())
    }

    /// Edits, removes, empties and lengthens one file.
    fn edit(&mut self, name: &str) -> Tested {
        let length = self.ours[name].len();
        for at in [9, length / 3, length / 2, length - 9] {
            self.expect(format!("{name}: byte {at} edited"), |all| {
                all.get_mut(name).context("a file")?[at] ^= 0x21;
                Ok(())
            })?;
        }
        self.expect(format!("{name} removed"), |all| {
            all.remove(name).map(drop).context("a file")
        })?;
        self.expect(format!("{name} emptied"), |all| {
            all.get_mut(name).context("a file")?.clear();
            Ok(())
        })?;
        self.expect(format!("{name} lengthened"), |all| {
            all.get_mut(name).context("a file")?.push(0);
            Ok(())
        })
    }

    /// Puts another run's file in the place of one file.
    fn replace(&mut self, name: &str, runs: &Runs) -> Tested {
        for (whose, theirs) in [
            ("of the same training recorded again", &runs.again),
            ("of another model's run", &runs.other),
            ("of a forged run with the same salt", &runs.forged),
            ("of a forged run that ends earlier", &runs.shorter),
        ] {
            let Some(bytes) = theirs.get(name).filter(|bytes| *bytes != &self.ours[name]) else {
                continue;
            };
            self.expect(format!("{name} {whose}"), |all| {
                all.insert(name.to_owned(), bytes.clone());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Cuts a segment at each frame, renames it, and swaps it with each segment before it.
    fn rearrange(&mut self, number: u64) -> Tested {
        let name = segment(number);
        for at in frames(&self.ours[&name]) {
            self.expect(format!("{name} cut at its frame at {at}"), |all| {
                all.get_mut(&name).context("a file")?.truncate(at);
                Ok(())
            })?;
        }
        for to in [segment(7), format!("seg-{number:08}.f1.hcs")] {
            self.expect(format!("{name} renamed {to}"), |all| {
                let bytes = all.remove(&name).context("a file")?;
                all.insert(to.clone(), bytes);
                Ok(())
            })?;
        }
        for with in (0..number).map(segment) {
            self.expect(format!("{name} and {with} swapped"), |all| {
                let (a, b) = (all[&name].clone(), all[&with].clone());
                all.insert(name.clone(), b);
                all.insert(with.clone(), a);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Swaps two whole frames, removes one, and repeats one.
    fn rearrange_frames(&mut self) -> Tested {
        let name = segment(1);
        let bytes = self.ours[&name].clone();
        let at = frames(&bytes);
        let piece = |i: usize| bytes[at[i]..at[i + 1]].to_vec();
        for (what, pieces) in [
            ("frames swapped", [1, 2, 4, 3, 5, 6, 7].map(piece).to_vec()),
            ("a frame removed", [1, 2, 4, 5, 6, 7].map(piece).to_vec()),
            (
                "a frame doubled",
                [1, 2, 3, 3, 4, 5, 6, 7].map(piece).to_vec(),
            ),
        ] {
            self.expect(what.to_owned(), |all| {
                let mut changed = bytes[..at[1]].to_vec();
                changed.extend(pieces.concat());
                changed.extend(&bytes[at[8]..]);
                all.insert(name.clone(), changed);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Edits the manifest and gives it a matching seal, so that only its contradiction with the segments is left.
    fn edit_manifest(&mut self) -> Tested {
        let edits: [(&str, &str, &str); 3] = [
            ("a digest", "\"digest\": \"", "\"digest\": \"00"),
            ("one more step", "\"end_step\": 16", "\"end_step\": 17"),
            ("no final state", "\"final\": true", "\"final\": false"),
        ];
        for (what, from, to) in edits {
            self.expect(format!("manifest, {what}"), |all| {
                reseal(all, |text| match what {
                    "a digest" => {
                        let at = text.rfind(from).unwrap_or(0) + from.len();
                        // One in 256 digests begins with these two zeros already.
                        let other = if text[at..].starts_with("00") {
                            "11"
                        } else {
                            "00"
                        };
                        format!("{}{other}{}", &text[..at], &text[at + 2..])
                    }
                    _ => text.replacen(from, to, 1),
                })
            })?;
        }
        Ok(())
    }
}

/// `verify` accepts a run that is consistent in itself. With the head digest of `ours` it reports that the run is a
/// different one.
fn only_the_head_digest_reveals_a_consistent_run(dir: &Path, runs: &Runs) -> Tested {
    let mut noted = runs.ours.clone();
    reseal(&mut noted, |text| {
        text.replacen("\"written\": 30", "\"written\": 29", 1)
    })?;
    let consistent = [
        ("the training recorded again", &runs.again),
        ("another model's run", &runs.other),
        ("one weight of one step changed", &runs.forged),
        ("the last ten steps left out", &runs.shorter),
        ("a counter changed", &noted),
    ];
    for (what, files) in consistent {
        write(&dir.join("run"), files)?;
        fine(dir, &["verify", "run"]);
        let (said, _) = exits(dir, &["verify", "run", "--head", &runs.head], 3);
        ensure!(
            said.contains("another trace, or an altered one"),
            "{what}: {said}"
        );
    }
    println!(
        "{} runs that are consistent in themselves: verify --head exits with 3 for each",
        consistent.len()
    );
    Ok(())
}

#[test]
fn verify_exits_with_3_for_every_mutation_of_a_finished_run() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let runs = Runs::record(dir)?;
    let (ours, head) = (&runs.ours, &runs.head);
    ensure!(ours.len() == 6, "{:?}", ours.keys());
    ensure!(
        fine(dir, &["verify", "ours", "--head", head])
            .contains("ok: 30 steps in 5 segments are whole")
    );

    let mut mutator = Mutator {
        dir,
        ours,
        found: 0,
    };
    for name in ours.keys() {
        mutator.edit(name)?;
        mutator.replace(name, &runs)?;
    }
    for number in 0..5 {
        mutator.rearrange(number)?;
    }
    mutator.rearrange_frames()?;
    mutator.edit_manifest()?;
    let found = mutator.found;
    println!("{found} mutations of a finished run: verify exits with 3 for each");

    only_the_head_digest_reveals_a_consistent_run(dir, &runs)?;
    write(&dir.join("run"), ours)?;
    fine(dir, &["verify", "run", "--head", head]);
    Ok(())
}

/// A foreign file next to a run does not change the verdict, and is named.
#[test]
fn a_file_that_does_not_belong_to_a_run_is_named() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let head = record(&dir.join("run"), HIDDEN)?;
    let run = dir.join("run");
    for stray in [segment(5), segment(0).replace(".hcs", ".f1.hcs")] {
        fs::copy(run.join(segment(1)), run.join(&stray))?;
        let said = fine(dir, &["verify", "run", "--head", &head]);
        ensure!(
            said.contains(&format!("{stray}: not part of the run")),
            "{said}"
        );
        fs::remove_file(run.join(&stray))?;
    }
    Ok(())
}
