//! Folders with valid checksums whose layouts, lists and texts are far larger than the folders. Readers need no more memory than the stated
//! bound, and refuse beforehand what may need more than is allowed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use hindcast_format::{
    Access, BatchWeights, Chunking, DType, Durability, FormatError, FsStorage, KeyState, Layout,
    MANIFEST, Role, RunInfo, RunWriter, State, StepMeta, Storage, Trace, Work, recover_within,
    verify_storage,
};

use crate::allocations::peak;
use crate::common::*;

/// Bytes of the bound's fixed part that a whole program needs and this test doesn't.
const PROGRAM: u64 = 56 << 20;

/// What a forger writes.
struct Forged {
    what: &'static str,
    info: RunInfo,
    /// Changes each step's metadata.
    meta: fn(&mut StepMeta),
    /// Damages each segment.
    damage: fn(&mut [u8]),
    /// Makes the manifest as short as possible.
    compact: bool,
}

impl Forged {
    fn new(what: &'static str, layout: Layout) -> Forged {
        Forged {
            what,
            info: info(&layout),
            meta: |_| {},
            damage: |_| {},
            compact: false,
        }
    }

    /// Writes a finished run of three steps whose tensors are zeros, one segment per step.
    fn write(&self, folder: &Path) {
        let layout = &self.info.layout;
        let storage = Arc::new(FsStorage::new(folder));
        let mut writer = RunWriter::create(storage, self.info.clone(), Durability::Os).unwrap();
        let mut encoder = writer.encoder().unwrap();
        let (state, key) = (State::zeros(layout), KeyState::zeros(layout));
        for step in 0..3 {
            let mut meta = meta(layout, step, 2);
            (self.meta)(&mut meta);
            if step > 0 {
                let link = encoder.link(step, step - 1, &state, &state).unwrap();
                writer.append(link).unwrap();
            }
            writer.seal().unwrap();
            writer.open_segment(step).unwrap();
            writer
                .append(encoder.keyframe(&meta, &state, &key).unwrap())
                .unwrap();
        }
        writer
            .append(encoder.link(3, 2, &state, &state).unwrap())
            .unwrap();
        writer.finish(&state, &key, BTreeMap::new()).unwrap();
        for number in 0..4 {
            let path = folder.join(format!("seg-{number:08}.hcs"));
            let mut bytes = std::fs::read(&path).unwrap();
            (self.damage)(&mut bytes);
            std::fs::write(&path, bytes).unwrap();
        }
        if self.compact {
            let path = folder.join(MANIFEST);
            std::fs::write(&path, compact(&std::fs::read_to_string(&path).unwrap())).unwrap();
        }
    }
}

/// A manifest without spaces, sealed again.
fn compact(text: &str) -> String {
    let mut json: serde_json::Value = serde_json::from_str(text).unwrap();
    json.as_object_mut().unwrap().remove("seal");
    let text = json.to_string();
    let body = text.strip_suffix('}').unwrap();
    let seal = blake3::hash(body.as_bytes()).to_hex();
    format!("{body},\n  \"seal\": \"{seal}\"\n}}\n")
}

/// Flips a bit in every byte of every frame's chunks.
fn damage_all_chunks(bytes: &mut [u8]) {
    let frames: Vec<usize> = (0..bytes.len() - 4)
        .filter(|&i| &bytes[i..i + 4] == b"HCFR")
        .collect();
    for at in frames {
        let length = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) as usize;
        let number =
            |i: usize| u32::from_le_bytes(bytes[at + i..at + i + 4].try_into().unwrap()) as usize;
        let chunks = at + 64 + number(32) + number(44);
        bytes[chunks..at + length - 12]
            .iter_mut()
            .for_each(|b| *b ^= 0x10);
    }
}

fn layout_of(tensors: impl IntoIterator<Item = (String, Role, usize)>) -> Layout {
    let specs = tensors
        .into_iter()
        .map(|(name, role, n)| tensor(&name, role, DType::F64, &[n]));
    Layout::new(specs.collect()).unwrap()
}

fn forgeries() -> Vec<Forged> {
    let small = || layout_of([("w".to_owned(), Role::Parameter, 50)]);
    let large = layout_of([
        ("w".to_owned(), Role::Parameter, 6 << 20),
        ("m".to_owned(), Role::OptimizerState, 8 << 20),
        ("b".to_owned(), Role::Buffer, 1 << 20),
    ]);
    let mut crumbs = Forged::new(
        "chunks of one number",
        layout_of([("w".to_owned(), Role::Parameter, 80_000)]),
    );
    crumbs.info.chunks = Chunking {
        state: vec![1; 80_000],
        key: vec![],
    };
    let names = (0..1000).map(|i| (format!("{i:04}{}", "n".repeat(4092)), Role::Parameter, 1));
    let mut notes = Forged::new("notes", small());
    notes.info.notes = (0..100_000)
        .map(|i| (i.to_string(), String::new()))
        .collect();
    let forged = |what, layout, meta: fn(&mut StepMeta)| Forged {
        meta,
        ..Forged::new(what, layout)
    };
    let damaged = |what, forged: Forged| Forged {
        what,
        damage: damage_all_chunks,
        ..forged
    };
    let crumbs_again = Forged {
        info: crumbs.info.clone(),
        ..Forged::new("", small())
    };
    vec![
        Forged::new("a large layout of zeros", large.clone()),
        damaged("a large layout, damaged", Forged::new("", large)),
        Forged {
            compact: true,
            ..crumbs
        },
        damaged("chunks of one number, damaged", crumbs_again),
        Forged::new("long names", layout_of(names.clone())),
        damaged("long names, damaged", Forged::new("", layout_of(names))),
        Forged {
            compact: true,
            ..notes
        },
        forged("a large batch", small(), |m| m.indices = vec![7; 2_000_000]),
        forged("a weight for each index", small(), |m| {
            m.indices = vec![7; 100_000];
            m.weights = BatchWeights::Each(vec![0.5; 100_000]);
        }),
        forged("micro-batches of one", small(), |m| {
            m.indices = vec![7; 200_000];
            m.micro_batches = vec![1; 200_000];
        }),
        forged("numbers without a name", small(), |m| {
            m.scalars = vec![(String::new(), 1.0); 100_000];
        }),
        forged("empty extensions", small(), |m| {
            m.extensions = vec![
                hindcast_format::Extension {
                    id: 9,
                    bytes: vec![]
                };
                100_000
            ];
        }),
    ]
}

/// The longest metadata of a step, from the frames' headers.
fn longest_metadata(folder: &Path) -> u64 {
    let mut longest = 0;
    for number in 0..4 {
        let bytes = std::fs::read(folder.join(format!("seg-{number:08}.hcs"))).unwrap();
        for at in (0..bytes.len() - 36).filter(|&i| &bytes[i..i + 4] == b"HCFR") {
            let length = u32::from_le_bytes(bytes[at + 32..at + 36].try_into().unwrap());
            longest = longest.max(u64::from(length));
        }
    }
    longest
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

/// Reads a run in the ways that the commands use.
fn read(storage: &Arc<dyn Storage>) -> Result<(), FormatError> {
    let trace = Trace::open_storage(Arc::clone(storage))?;
    let damage = |e: FormatError| if e.is_damage() { Ok(()) } else { Err(e) };
    trace.epochs().map(drop).or_else(damage)?;
    trace.readable(0..u64::MAX)?;
    let mut steps = trace.reverse(0..u64::MAX);
    loop {
        match steps.next() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(e) => break damage(e)?,
        }
    }
    drop(steps);
    trace.checkpoint(1).map(drop).or_else(damage)?;
    trace.final_state().map(drop).or_else(damage)
}

#[test]
fn forged_folders_take_no_more_memory_than_is_stated() {
    println!("| folder | its size | read | verify | recover | bounds: read and verify | recover |");
    for forged in forgeries() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        forged.write(&run);
        let layout = forged.info.layout.clone();
        let what = forged.what;
        drop(forged);
        let manifest = std::fs::metadata(run.join(MANIFEST)).unwrap().len();
        let metadata = 16 * longest_metadata(&run);
        let bound = |work: Work| work.bound(&layout, manifest) + metadata;
        // The test allocates far less than a program that has not read anything yet, so that share isn't allowed here.
        let allocated = |work: Work| bound(work) - PROGRAM;
        let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&run));
        let (reading, result) = peak(|| read(&storage));
        result.unwrap();
        let (verifying, report) = peak(|| verify_storage(&storage).unwrap());
        let damaged = !report.is_ok();
        drop(report);
        let (recovering, report) = peak(|| {
            recover_within(
                &run,
                dir.path().join("new"),
                &Access::default(),
                &mut |_, _| ControlFlow::Continue(()),
            )
        });
        assert_eq!(report.is_ok_and(|r| r.is_lossless()), !damaged, "{what}");
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        println!(
            "| {what} | {} | {} | {} | {} | {} | {} |",
            mib(size_of(&run)),
            mib(reading as u64),
            mib(verifying as u64),
            mib(recovering as u64),
            mib(bound(Work::Read)),
            mib(bound(Work::Recover)),
        );
        for (taken, work) in [
            (reading, Work::Read),
            (verifying, Work::Verify),
            (recovering, Work::Recover),
        ] {
            assert!(
                taken as u64 <= allocated(work),
                "{what}, {work:?}: {taken} bytes of {}",
                allocated(work)
            );
        }
        // Work that may need more than is allowed is refused before it begins.
        for (limit, work) in [
            (bound(Work::Read) - metadata - 1, Work::Read),
            (bound(Work::Verify) - metadata - 1, Work::Verify),
            (bound(Work::Recover) - metadata - 1, Work::Recover),
        ] {
            let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&run).within(Some(limit)));
            let (taken, result) = peak(|| match work {
                Work::Read => read(&storage),
                Work::Verify => verify_storage(&storage).map(drop),
                Work::Recover => {
                    let new = dir.path().join("refused");
                    let report = recover_within(
                        &run,
                        &new,
                        &Access {
                            memory: Some(limit),
                            keys: None,
                        },
                        &mut |_, _| ControlFlow::Continue(()),
                    );
                    assert!(!new.exists());
                    report.map(drop)
                }
            });
            let error = result.unwrap_err();
            assert!(
                matches!(error, FormatError::Memory { needs, limit: l, .. } if needs > l),
                "{what}, {work:?}: {error}"
            );
            assert!(!error.is_damage());
            let text =
                allocated(work) - metadata - (layout.frame_bytes() + layout.key_bytes()) as u64;
            assert!(
                taken as u64 <= text,
                "{what}, {work:?}: {taken} bytes before it was refused"
            );
        }
    }
}

/// A batch so large that its own metadata doesn't fit.
#[test]
fn metadata_that_does_not_fit_is_refused_by_its_length() {
    let forged = forgeries()
        .into_iter()
        .find(|f| f.what == "a large batch")
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    forged.write(&run);
    let limit = 100 << 20;
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&run).within(Some(limit)));
    for result in [
        read(&storage),
        verify_storage(&storage).map(drop),
        recover_within(
            &run,
            dir.path().join("new"),
            &Access {
                memory: Some(limit),
                keys: None,
            },
            &mut |_, _| ControlFlow::Continue(()),
        )
        .map(drop),
    ] {
        let error = result.unwrap_err();
        assert!(
            matches!(&error, FormatError::Memory { what, .. } if what.contains("metadata")),
            "{error}"
        );
    }
    let enough = Some(200 << 20);
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(&run).within(enough));
    read(&storage).unwrap();
    assert!(verify_storage(&storage).unwrap().is_ok());
    recover_within(
        &run,
        dir.path().join("new"),
        &Access {
            memory: enough,
            keys: None,
        },
        &mut |_, _| ControlFlow::Continue(()),
    )
    .unwrap();
}

/// No version of Hindcast ever wrote version 0.
#[test]
fn version_0_is_refused_by_its_number() {
    let (storage, _) = recorded(&Plan::new(20));
    let files: BTreeMap<String, Vec<u8>> = storage.files().into_iter().collect();
    let text = String::from_utf8(files[MANIFEST].clone()).unwrap();
    let body = text.split(",\n  \"seal\": \"").next().unwrap();
    let body = body.replacen("\"format\": 1,", "\"format\": 0,", 1);
    let seal = blake3::hash(body.as_bytes()).to_hex();
    let forged = format!("{body},\n  \"seal\": \"{seal}\"\n}}\n");
    storage.edit(MANIFEST, |b| *b = forged.into_bytes());
    let told = |e: FormatError| {
        assert!(
            matches!(e, FormatError::NewerVersion { found: 0, .. }),
            "{e}"
        );
        assert!(e.to_string().contains("never existed"), "{e}");
        assert!(!e.to_string().contains("newer hindcast"), "{e}");
    };
    told(open(&storage).unwrap_err());
    // In a segment, the first 16 bytes have a checksum of their own.
    storage.edit(MANIFEST, |b| b.clone_from(&files[MANIFEST]));
    storage.edit("seg-00000000.hcs", |b| {
        b[8] = 0;
        let crc = crc32c::crc32c(&b[..16]).to_le_bytes();
        b[16..20].copy_from_slice(&crc);
    });
    told(open(&storage).unwrap().read(0).unwrap_err());
}
