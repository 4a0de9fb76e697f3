//! A recorder continues to write while a reader reads. A frame that is half written in one read and complete in the next isn't damage.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hindcast_format::{
    FileEntry, Mapped, MemStorage, ReadFile, RunWriter, Severity, Storage, Trace, WriteFile,
    verify_storage,
};

use crate::common::*;
use crate::damage::small_plan;

/// The segment that the recorder is writing.
const OPEN: &str = "seg-00000000.hcs";

/// A run whose open segment is in one state for the first `at` reads, and in a later state from then on.
#[derive(Debug)]
struct Moving {
    files: MemStorage,
    later: Arc<Vec<u8>>,
    reads: Arc<AtomicU64>,
    at: u64,
}

impl Moving {
    fn new(manifest: &[u8], earlier: &[u8], later: &Arc<Vec<u8>>, at: u64) -> Moving {
        let files = [
            ("manifest.json".to_owned(), manifest.to_vec()),
            (OPEN.to_owned(), earlier.to_vec()),
        ];
        Moving {
            files: MemStorage::from_files(files),
            later: Arc::clone(later),
            reads: Arc::default(),
            at,
        }
    }
}

struct MovingFile {
    file: Box<dyn ReadFile>,
    files: MemStorage,
    later: Arc<Vec<u8>>,
    reads: Arc<AtomicU64>,
    at: u64,
}

impl ReadFile for MovingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.reads.fetch_add(1, Ordering::SeqCst) == self.at {
            self.files.edit(OPEN, |bytes| bytes.clone_from(&self.later));
        }
        self.file.read_at(offset, buffer)
    }
}

impl Storage for Moving {
    fn location(&self) -> String {
        "a run in use".to_owned()
    }
    fn list(&self) -> io::Result<Vec<FileEntry>> {
        self.files.list()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(MovingFile {
            file: self.files.open(name)?,
            files: self.files.clone(),
            later: Arc::clone(&self.later),
            reads: Arc::clone(&self.reads),
            at: self.at,
        }))
    }
    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.files.map(name)
    }
    fn create_run(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn create(&self, _: &str) -> io::Result<Box<dyn WriteFile>> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn sync(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

/// The manifest of a run without sealed segments, the bytes of its first segment once it is sealed, and the length of that file after each
/// step.
fn parts() -> (Vec<u8>, Vec<u8>, Vec<u64>) {
    let plan = Plan {
        end: End::Leave,
        ..small_plan()
    };
    let storage = MemStorage::new();
    let truth = truth(&plan);
    let writer = RunWriter::create(
        Arc::new(storage.clone()),
        info(&plan.layout),
        plan.durability,
    )
    .unwrap();
    let file = |name: &str| {
        let files = storage.files();
        files.into_iter().find(|(n, _)| n == name).map(|(_, b)| b)
    };
    let manifest = file("manifest.json").unwrap();
    let mut ends = Vec::new();
    record_from(writer, &plan, &truth, 0, |_, _| {
        ends.extend(file(OPEN).map(|bytes| bytes.len() as u64));
    })
    .unwrap();
    (manifest, file(OPEN).unwrap(), ends)
}

fn reserved(bytes: &[u8], written: usize, whole: usize) -> Vec<u8> {
    let mut file = bytes[..written].to_vec();
    file.resize(whole + 4096, 0);
    file
}

#[test]
fn nothing_that_a_recorder_does_between_two_reads_looks_like_damage() {
    let (manifest, sealed, _) = parts();
    let whole = sealed.len();
    let footer = sealed.windows(4).rposition(|w| w == b"HCIX").unwrap();
    let header = sealed.windows(4).position(|w| w == b"HCFR").unwrap();
    // Headers and footers are stored word by word. Their last words, checksums among them, are stored in one piece.
    let places: Vec<usize> = (0..256)
        .step_by(8)
        .chain([header - 8, header])
        .chain((header + 1..footer).step_by(61))
        .chain((footer..whole - 8).step_by(8))
        .chain([whole - 8])
        .collect();
    let mut opened = 0;
    for &place in &places {
        let mut earlier = vec![reserved(&sealed, place, whole)];
        if place > footer && place + 16 < whole {
            // An interrupted copy left a word out.
            let mut hole = reserved(&sealed, whole - 8, whole);
            hole[place..place + 8].fill(0);
            earlier.push(hole);
        }
        let later = [
            reserved(&sealed, footer, whole),
            reserved(&sealed, whole, whole),
            sealed.clone(),
        ]
        .map(Arc::new);
        for earlier in &earlier {
            for later in &later {
                for at in 0.. {
                    let run = Arc::new(Moving::new(&manifest, earlier, later, at));
                    let trace = Trace::open_storage(Arc::clone(&run) as _).unwrap();
                    opened += 1;
                    assert!(
                        trace.problems().is_empty(),
                        "{place} of {whole} bytes, then {}, read {at}: {:?}",
                        later.len(),
                        trace.problems()
                    );
                    if run.reads.load(Ordering::SeqCst) <= at {
                        break;
                    }
                    let run = Arc::new(Moving::new(&manifest, earlier, later, at));
                    let report = verify_storage(&(run as Arc<dyn Storage>)).unwrap();
                    // A tail that is being written is a warning.
                    assert!(
                        report
                            .findings
                            .iter()
                            .all(|f| f.severity == Severity::Warning),
                        "{place} of {whole} bytes, then {}, read {at}: {:?}",
                        later.len(),
                        report.findings
                    );
                }
            }
        }
    }
    println!("opened {opened} times");
}

#[test]
fn damage_that_every_read_of_an_open_segment_finds_is_reported() {
    let (manifest, sealed, ends) = parts();
    let (whole, first) = (sealed.len(), *ends.first().unwrap() as usize);
    for place in [9, 40, first - 20, first + 30, whole - 70, whole - 3] {
        let mut damaged = reserved(&sealed, whole, whole);
        damaged[place] ^= 4;
        let run = Moving::new(&manifest, &damaged, &Arc::new(damaged.clone()), u64::MAX);
        let trace = Trace::open_storage(Arc::new(run)).unwrap();
        assert!(!trace.problems().is_empty(), "byte {place} of {whole}");
    }
}
