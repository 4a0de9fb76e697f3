//! Finds out which file of a damaged folder holds which segment. Copying tools often change names: they add "(1)", swap names, or copy one
//! file over another. So a segment is identified by its content: its header, or its trailer's digest, or the steps in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::report::Loss;
use super::view::View;
use crate::FormatError;
use crate::context::Context;
use crate::decoder::Decoder;
use crate::frame::Frame;
use crate::info::RunInfo;
use crate::manifest::{MANIFEST, Manifest, SegmentRecord, Status};
use crate::segment::{self, Segment, Trust};
use crate::storage::Storage;
use crate::trace::{most_repeated, read_manifest};

/// A folder in which every segment has its proper name.
pub(super) struct Arranged {
    pub storage: Arc<dyn Storage>,
    /// Segments found under other names, and copies that were not used.
    pub remarks: Vec<String>,
    /// Files that should be segments of the run and hold something else.
    pub losses: Vec<Loss>,
    /// Why the folder's manifest was not used, if it wasn't.
    pub no_manifest: Option<String>,
}

/// Number and fork of a segment.
type Id = (u64, u32);

/// A file, and the segment that it holds.
struct Found {
    file: String,
    id: Id,
}

/// Finds the segments of the run by their content. If all of them have their proper names, the storage is returned unchanged.
pub(super) fn arrange(source: &Arc<dyn Storage>) -> Result<Arranged, FormatError> {
    let mut arranged = Arranged {
        storage: Arc::clone(source),
        remarks: Vec::new(),
        losses: Vec::new(),
        no_manifest: None,
    };
    let mut manifest = read_manifest(source.as_ref()).ok().map(|(m, _)| m);
    // If the folder can't be listed, opening the run reports it.
    let Ok(entries) = source.list() else {
        return Ok(arranged);
    };
    let files: Vec<String> = entries
        .into_iter()
        .map(|e| e.name)
        .filter(|name| name != MANIFEST && !name.ends_with('/'))
        .collect();
    let mut view = View::of(source);
    let descriptions = || {
        let headers = files
            .iter()
            .filter_map(|file| segment::header_of(source.as_ref(), file, None));
        headers.map(|header| header.info)
    };
    if let Some(foreign) = manifest.take_if(|m| foreign(m, descriptions())) {
        arranged.no_manifest = Some(format!(
            "it is the manifest of another run (created {}), and the folder has no segment of that run; what the folder has was recovered from its segments alone",
            foreign.run.created
        ));
        view.hidden.insert(MANIFEST.to_owned());
    }
    let info = match &manifest {
        Some(manifest) => Some(Arc::new(manifest.run.clone())),
        None => most_repeated(descriptions()),
    };
    let Some(info) = info else {
        return Ok(arranged);
    };
    let run = Run {
        source: source.as_ref(),
        records: manifest.as_ref().map_or(&[][..], |m| &m.segments),
        info,
    };
    let mut of_segment: BTreeMap<Id, Vec<String>> = BTreeMap::new();
    let mut others = BTreeSet::new();
    for file in files {
        match run.identify(&file)? {
            Some(found) => of_segment.entry(found.id).or_default().push(found.file),
            None if segment::parse_name(&file).is_some() => {
                others.insert(file);
            }
            None => {}
        }
    }
    for (id, files) in of_segment {
        run.place(id, files, &mut view, &mut arranged)?;
    }
    for file in others {
        arranged.report_other(&file, manifest.as_ref());
        view.hidden.insert(file);
    }
    if view.differs() {
        arranged.storage = Arc::new(view);
    }
    Ok(arranged)
}

/// Whether segments of another run are in the folder, and none of the manifest's run.
fn foreign(manifest: &Manifest, descriptions: impl Iterator<Item = Arc<RunInfo>>) -> bool {
    let mut descriptions = descriptions.peekable();
    descriptions.peek().is_some() && descriptions.all(|info| info.salt != manifest.run.salt)
}

impl Arranged {
    /// Reports a file that has a segment's name and doesn't hold a segment of the run.
    fn report_other(&mut self, file: &str, manifest: Option<&Manifest>) {
        let Some((number, fork)) = segment::parse_name(file) else {
            return;
        };
        let why = "it holds a segment of another run, or isn't a regular file";
        let follows = manifest.is_none_or(|m| {
            m.status == Status::Open
                && fork as usize == m.forks.len()
                && m.segments.last().is_none_or(|s| s.number < number)
        });
        // If the manifest lists the segment, its entry reports the loss.
        if follows {
            self.losses.push(Loss::of_segment(file, why));
        } else {
            self.remarks.push(format!("{file}: {why}"));
        }
    }
}

struct Run<'a> {
    source: &'a dyn Storage,
    records: &'a [SegmentRecord],
    info: Arc<RunInfo>,
}

impl Run<'_> {
    /// The segment of the run that a file holds, if any.
    fn identify(&self, file: &str) -> Result<Option<Found>, FormatError> {
        let named = segment::parse_name(file);
        let found = |id| {
            Ok(Some(Found {
                file: file.to_owned(),
                id,
            }))
        };
        if let Some(header) = segment::header_of(self.source, file, Some(&self.info)) {
            return if header.info.salt == self.info.salt {
                found((header.number, header.fork))
            } else {
                Ok(None)
            };
        }
        match self.source.open(file) {
            Ok(_) => {}
            Err(e) if crate::storage::not_regular(&e).is_some() => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // If a file with a segment's name can't be read, reading the segment reports it.
            Err(_) => return named.map_or(Ok(None), found),
        }
        let ends = segment::trailer_of(self.source, file);
        let id = |r: &SegmentRecord| segment::parse_name(&r.file);
        if let Some(digest) = ends.map(|t| t.digest)
            && let Some(record) = self.records.iter().find(|r| r.digest == digest)
            && let Some(id) = id(record)
        {
            return found(id);
        }
        if named.is_none() && !file.contains(".hcs") {
            return Ok(None);
        }
        // Header and trailer are both damaged. The steps identify the segment.
        let loaded = Segment::load(self.source, file, Some(&self.info), Trust::Orphan);
        let step = loaded.ok().and_then(|s| s.entries.first().map(|e| e.step));
        let record = step.and_then(|step| {
            self.records.iter().find(|r| {
                if r.is_final {
                    r.first_step == step
                } else {
                    (r.first_step..r.end_step).contains(&step)
                }
            })
        });
        match (record.and_then(id), named) {
            (Some(id), _) | (None, Some(id)) => found(id),
            (None, None) => Ok(None),
        }
    }

    /// Gives the segment's name to the best of the files that hold it.
    fn place(
        &self,
        id: Id,
        files: Vec<String>,
        view: &mut View,
        arranged: &mut Arranged,
    ) -> Result<(), FormatError> {
        let name = segment::name(id.0, id.1);
        let mut best: Option<(Grade, &String)> = None;
        for file in &files {
            let own_name = *file == name;
            let grade = match files.len() {
                1 => Grade {
                    own_name,
                    ..Grade::default()
                },
                _ => self.grade(file, &name, own_name)?,
            };
            if best.as_ref().is_none_or(|(b, _)| *b < grade) {
                best = Some((grade, file));
            }
        }
        let Some((_, best)) = best else {
            return Ok(());
        };
        if *best != name {
            arranged.remarks.push(format!(
                "{best}: it contains segment {} of the run, and was read as {name}",
                id.0
            ));
        }
        for file in files.iter().filter(|file| *file != best) {
            arranged.remarks.push(format!(
                "{file}: it also contains segment {} and was not used: the copy in {best} is at least as complete",
                id.0
            ));
            if segment::parse_name(file).is_some() {
                view.hidden.insert(file.clone());
            }
        }
        view.shown.insert(name, best.clone());
        Ok(())
    }

    fn grade(&self, file: &str, name: &str, own_name: bool) -> Result<Grade, FormatError> {
        let record = self.records.iter().find(|r| r.file == name);
        let trust = match record {
            Some(record) => Trust::Listed {
                bytes: record.bytes,
            },
            None => Trust::Orphan,
        };
        let mut grade = Grade {
            own_name,
            ..Grade::default()
        };
        let Ok(segment) = Segment::load(self.source, file, Some(&self.info), trust) else {
            return Ok(grade);
        };
        let expected = record.map(|r| r.digest).or(segment.digest);
        grade.whole = expected.is_some()
            && crate::verify::hash(&segment.source).ok() == expected
            && segment.file_length == record.map_or(segment.file_length, |r| r.bytes);
        let context = Context::new(&self.info)?;
        let salt = context.salt;
        let decoder = Decoder::new(context)?;
        let mut scratch = Vec::new();
        for entry in &segment.entries {
            let sound = segment
                .frame(entry, &mut scratch)
                .and_then(|bytes| Frame::read(bytes, salt))
                .is_ok_and(|frame| decoder.check(&frame).is_empty());
            grade.sound += u64::from(sound);
        }
        Ok(grade)
    }
}

/// The quality of a segment's copy. Better copies compare greater.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    /// Whether its bytes have the digest that the manifest lists or, without a manifest, the digest that its trailer states.
    whole: bool,
    /// Number of frames with valid checksums.
    sound: u64,
    own_name: bool,
}
