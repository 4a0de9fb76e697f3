//! Opens a run: the manifest, the segments that it lists, and the segments that it doesn't list yet.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::damage::{SEGMENT_FILE, SEGMENT_LENGTH};
use super::overview::{Reading, Trace};
use super::part::{Part, part};
use crate::FormatError;
use crate::context::Context;
use crate::manifest::{MANIFEST, MAX_MANIFEST, Manifest};
use crate::segment::{self, Segment, Trust};
use crate::storage::{FsStorage, Storage};

/// A manifest and its seal, or what is wrong with it.
type ReadManifest = Result<(Manifest, [u8; 32]), FormatError>;

/// How many times to open a run whose segments a recorder drops or seals between reading the manifest and listing the folder.
const ATTEMPTS: usize = 5;

pub(crate) fn read_manifest(storage: &dyn Storage) -> ReadManifest {
    let bytes = manifest_bytes(storage)?;
    Manifest::from_bytes(&bytes, storage.keys().as_deref())
        .map_err(|e| e.of_run(|| storage.location()))
}

/// The bytes of the manifest's file. They aren't checked.
pub(crate) fn manifest_bytes(storage: &dyn Storage) -> Result<Vec<u8>, FormatError> {
    let path = || format!("{}/{MANIFEST}", storage.location());
    let file = storage
        .open(MANIFEST)
        .map_err(|e| FormatError::opening(&path(), e).within(MANIFEST, None))?;
    let length = file
        .length()
        .map_err(|e| FormatError::io(path(), "get the size of", e))?;
    if length > MAX_MANIFEST {
        return Err(FormatError::Limit {
            what: "bytes of the manifest",
            found: length,
            limit: MAX_MANIFEST,
        });
    }
    crate::memory::json(storage, "a manifest", length)?;
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes)
        .map_err(|e| FormatError::io(path(), "read", e))?;
    Ok(bytes)
}

impl Trace {
    /// Opens the run in that storage.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn open_storage(storage: Arc<dyn Storage>) -> Result<Trace, FormatError> {
        Trace::open_for(storage, Reading::Recorded)
    }

    pub(crate) fn open_for(
        storage: Arc<dyn Storage>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let manifest = read_manifest(storage.as_ref());
            let files = list(storage.as_ref())?;
            let vanished = manifest.as_ref().is_ok_and(|(m, _)| {
                m.segments
                    .iter()
                    .any(|s| !s.dropped && !files.contains_key(&s.file))
            });
            if !vanished || attempt == ATTEMPTS {
                return Trace::assemble(storage, manifest, &files, reading);
            }
        }
    }

    /// Opens the run in that folder.
    ///
    /// # Errors
    /// [`FormatError::NotARun`], a newer version, or damage that leaves nothing to read.
    pub fn open(path: impl AsRef<std::path::Path>) -> Result<Trace, FormatError> {
        Trace::open_storage(Arc::new(FsStorage::new(path.as_ref())))
    }

    fn assemble(
        storage: Arc<dyn Storage>,
        manifest: ReadManifest,
        files: &BTreeMap<String, u64>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        let mut problems = Vec::new();
        // A valid seal doesn't prove that the chunks fit the layout. A manifest that contradicts itself counts as lost.
        let manifest = manifest.and_then(|(manifest, seal)| {
            let context = Context::new(&manifest.run).map_err(|e| e.within(MANIFEST, None))?;
            Ok((manifest, seal, context))
        });
        match manifest {
            Ok((manifest, seal, context)) => {
                let mut parts = listed(&manifest, storage.as_ref(), files, &mut problems);
                if reading == Reading::Salvage {
                    prefer_content(&mut parts, &manifest, storage.as_ref())?;
                }
                let mut trace = Trace {
                    info: Arc::new(manifest.run.clone()),
                    manifest_bytes: files.get(MANIFEST).copied().unwrap_or(0),
                    context,
                    status: manifest.status,
                    parts,
                    problems,
                    end_problem: None,
                    manifest: Some((manifest, seal)),
                    storage,
                    reading,
                };
                trace.add_unlisted(files)?;
                trace.note_final();
                Ok(trace)
            }
            Err(e) if e.is_refusal() => Err(e),
            Err(e) => {
                let found: Vec<(u64, u32)> = files
                    .keys()
                    .filter_map(|name| segment::parse_name(name))
                    .collect();
                let missing = matches!(&e, FormatError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                if found.is_empty() {
                    let why = match (missing, files.is_empty()) {
                        _ if e.is_damage() => return Err(e),
                        (true, true) => "the folder is empty".to_owned(),
                        (true, false) => format!("there is no {MANIFEST} and no segment in it"),
                        (false, _) => format!("no readable {MANIFEST} and no segment in it ({e})"),
                    };
                    return Err(FormatError::NotARun {
                        path: storage.location(),
                        why,
                    });
                }
                // Without a manifest, segments are a damaged run.
                problems.push(if missing {
                    FormatError::corrupt("manifest", "present", "missing").within(MANIFEST, None)
                } else {
                    e
                });
                Trace::without_manifest(storage, found, problems, reading)
            }
        }
    }

    /// Adds the problem of a final state that can't be the run's end.
    pub(super) fn note_final(&mut self) {
        if let Err(problem) = self.final_in_place() {
            self.end_problem = Some(self.problems.len());
            self.problems.push(problem);
        }
    }
}

fn list(storage: &dyn Storage) -> Result<BTreeMap<String, u64>, FormatError> {
    match storage.list() {
        Ok(entries) => Ok(entries.into_iter().map(|e| (e.name, e.length)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FormatError::NotARun {
            path: storage.location(),
            why: "there is no such folder".to_owned(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(FormatError::NotARun {
            path: storage.location(),
            why: "it is a file, and a run is a folder".to_owned(),
        }),
        Err(e) => Err(FormatError::io(storage.location(), "list", e)),
    }
}

fn listed(
    manifest: &Manifest,
    storage: &dyn Storage,
    files: &BTreeMap<String, u64>,
    problems: &mut Vec<FormatError>,
) -> Vec<Part> {
    let live = manifest.segments.iter().filter(|s| !s.dropped);
    live.map(|s| {
        let problem = match files.get(&s.file) {
            None => Some(FormatError::corrupt(SEGMENT_FILE, "present", "missing")),
            Some(&length) if length != s.bytes => Some(match storage.open(&s.file) {
                // An entry that isn't a file has no valid length.
                Err(e) => FormatError::opening(&s.file, e),
                Ok(_) => FormatError::corrupt(SEGMENT_LENGTH, s.bytes, length),
            }),
            Some(_) => None,
        };
        problems.extend(problem.map(|p| p.within(&s.file, Some(s.number))));
        Part {
            number: s.number,
            name: s.file.clone(),
            range: s.first_step..s.end_step,
            steps: s.steps,
            gaps: s.gaps,
            bytes: s.bytes,
            sealed: true,
            is_final: s.is_final,
            loaded: None,
        }
    })
    .collect()
}

/// Replaces the manifest's entry by the segment's own content, if the segment has the listed digest. An entry that lists fewer steps would
/// hide the others from a recovery.
fn prefer_content(
    parts: &mut [Part],
    manifest: &Manifest,
    storage: &dyn Storage,
) -> Result<(), FormatError> {
    let info = Arc::new(manifest.run.clone());
    for p in parts {
        let Some(record) = manifest.segments.iter().find(|s| s.file == p.name) else {
            continue;
        };
        let trust = Trust::Listed { bytes: p.bytes };
        let segment = match Segment::load(storage, &p.name, Some(&info), trust) {
            Ok(segment) => segment,
            Err(e) if e.is_refusal() => return Err(e),
            // Reading its steps reports what is wrong with it.
            Err(_) => continue,
        };
        let same = segment.header.as_ref().is_some_and(|h| {
            h.info.salt == info.salt && segment::parse_name(&p.name) == Some((h.number, h.fork))
        });
        if same && segment.problems.is_empty() && segment.digest == Some(record.digest) {
            *p = Part {
                loaded: None,
                ..part(p.number, segment)
            };
        }
    }
    Ok(())
}
