//! Which file of a damaged folder holds which segment. Names are what copying tools change first ("… (1).hcs", swapped names, one file copied
//! over another), so a segment is known by what its own bytes say: its header, else its trailer's digest, else the steps in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::report::{Loss, LossKind};
use crate::FormatError;
use crate::decoder::Decoder;
use crate::encoder::Context;
use crate::frame::Frame;
use crate::info::RunInfo;
use crate::manifest::{MANIFEST, Manifest, SegmentRecord, Status};
use crate::segment::{self, Segment, Trust};
use crate::storage::{Claim, Entry, Mapped, ReadFile, Storage, WriteFile};
use crate::trace::{most_told, read_manifest};

/// A folder in which every segment has its own name again.
pub(super) struct Arranged {
    pub storage: Arc<dyn Storage>,
    /// What was found under another name, and copies that were passed over.
    pub remarks: Vec<String>,
    /// Files that were segments of the run by their place in it and hold something else now.
    pub losses: Vec<Loss>,
    /// Why the folder's manifest was passed over, where it was.
    pub no_manifest: Option<String>,
}

/// Number and fork of a segment.
type Id = (u64, u32);

/// A file, and the segment that it holds.
struct Found {
    file: String,
    id: Id,
}

/// Finds the segments of the run by their content. Where all of them have their names, the storage is given back as it is.
pub(super) fn arrange(source: &Arc<dyn Storage>) -> Result<Arranged, FormatError> {
    let mut arranged = Arranged {
        storage: Arc::clone(source),
        remarks: Vec::new(),
        losses: Vec::new(),
        no_manifest: None,
    };
    let mut manifest = read_manifest(source.as_ref()).ok().map(|(m, _)| m);
    // A folder that can't be listed is told by opening the run.
    let Ok(entries) = source.list() else {
        return Ok(arranged);
    };
    let files: Vec<String> = entries
        .into_iter()
        .map(|e| e.name)
        .filter(|name| name != MANIFEST && !name.ends_with('/'))
        .collect();
    let mut view = View {
        source: Arc::clone(source),
        shown: BTreeMap::new(),
        hidden: BTreeSet::new(),
    };
    let told = || {
        let headers = files
            .iter()
            .filter_map(|file| segment::header_of(source.as_ref(), file, None));
        headers.map(|header| header.info)
    };
    if let Some(foreign) = manifest.take_if(|m| foreign(m, told())) {
        arranged.no_manifest = Some(format!(
            "it is of another run (created {}), and no segment in the folder is of that run; the run was recovered by what its segments say",
            foreign.run.created
        ));
        view.hidden.insert(MANIFEST.to_owned());
    }
    let info = match &manifest {
        Some(manifest) => Some(Arc::new(manifest.run.clone())),
        None => most_told(told()),
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
    let mut strangers = BTreeSet::new();
    for file in files {
        match run.identify(&file)? {
            Some(found) => of_segment.entry(found.id).or_default().push(found.file),
            None if segment::parse_name(&file).is_some() => {
                strangers.insert(file);
            }
            None => {}
        }
    }
    for (id, files) in of_segment {
        run.place(id, files, &mut view, &mut arranged)?;
    }
    for file in strangers {
        arranged.stranger(&file, manifest.as_ref());
        view.hidden.insert(file);
    }
    if view.shown.iter().any(|(name, file)| name != file) || !view.hidden.is_empty() {
        arranged.storage = Arc::new(view);
    }
    Ok(arranged)
}

/// Whether no segment in the folder is of the manifest's run, and some are of another.
fn foreign(manifest: &Manifest, told: impl Iterator<Item = Arc<RunInfo>>) -> bool {
    let mut told = told.peekable();
    told.peek().is_some() && told.all(|info| info.salt != manifest.run.salt)
}

impl Arranged {
    /// A segment's name on something that is no segment of the run.
    fn stranger(&mut self, file: &str, manifest: Option<&Manifest>) {
        let Some((number, fork)) = segment::parse_name(file) else {
            return;
        };
        let why = "it holds a segment of another run, or something else than a file";
        let follows = manifest.is_none_or(|m| {
            m.status == Status::Open
                && fork as usize == m.forks.len()
                && m.segments.last().is_none_or(|s| s.number < number)
        });
        // A listed segment is missed by the manifest's own entry.
        match follows {
            true => self.losses.push(Loss::of_segment(file, why)),
            false => self.remarks.push(format!("{file}: {why}")),
        }
    }
}

struct Run<'a> {
    source: &'a dyn Storage,
    records: &'a [SegmentRecord],
    info: Arc<RunInfo>,
}

impl Run<'_> {
    /// Which segment of the run a file holds; `None` where it holds none.
    fn identify(&self, file: &str) -> Result<Option<Found>, FormatError> {
        let named = segment::parse_name(file);
        let found = |id| {
            Ok(Some(Found {
                file: file.to_owned(),
                id,
            }))
        };
        if let Some(header) = segment::header_of(self.source, file, Some(&self.info)) {
            return match header.info.salt == self.info.salt {
                true => found((header.number, header.fork)),
                false => Ok(None),
            };
        }
        match self.source.open(file) {
            Ok(_) => {}
            Err(e) if crate::storage::not_regular(&e).is_some() => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            // What has a segment's name and can't be read is told by reading it.
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
        // Header and trailer are both damaged: the steps tell.
        let loaded = Segment::load(self.source, file, Some(&self.info), Trust::Orphan);
        let step = loaded.ok().and_then(|s| s.entries.first().map(|e| e.step));
        let record = step.and_then(|step| {
            self.records.iter().find(|r| match r.is_final {
                true => r.first_step == step,
                false => (r.first_step..r.end_step).contains(&step),
            })
        });
        match (record.and_then(id), named) {
            (Some(id), _) | (None, Some(id)) => found(id),
            (None, None) => Ok(None),
        }
    }

    /// Gives the best of the files that hold a segment its name.
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
                "{best}: it holds segment {} of the run, and was read as {name}",
                id.0
            ));
        }
        for file in files.iter().filter(|file| *file != best) {
            arranged.remarks.push(format!(
                "{file}: it holds segment {}, too, and was passed over: {best} is as good or better",
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

/// How good a copy of a segment is; better ones are greater.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Grade {
    /// Its bytes have the digest that the manifest lists, or its own where there is no manifest.
    whole: bool,
    /// Frames whose checksums agree.
    sound: u64,
    own_name: bool,
}

/// A folder seen under other names. It is only read.
#[derive(Debug)]
struct View {
    source: Arc<dyn Storage>,
    /// File by the name that it is shown under.
    shown: BTreeMap<String, String>,
    /// Files that are not shown at all.
    hidden: BTreeSet<String>,
}

impl View {
    fn file<'a>(&'a self, name: &'a str) -> io::Result<&'a str> {
        match self.shown.get(name) {
            Some(file) => Ok(file),
            None if self.hidden.contains(name) || self.shown.values().any(|f| f == name) => {
                Err(io::ErrorKind::NotFound.into())
            }
            None => Ok(name),
        }
    }

    fn read_only<T>() -> io::Result<T> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

impl Storage for View {
    fn location(&self) -> String {
        self.source.location()
    }

    fn memory(&self) -> Option<u64> {
        self.source.memory()
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let names: BTreeMap<&str, &str> = self
            .shown
            .iter()
            .map(|(name, file)| (file.as_str(), name.as_str()))
            .collect();
        let mut entries: Vec<Entry> = self
            .source
            .list()?
            .into_iter()
            .filter_map(|entry| match names.get(entry.name.as_str()) {
                Some(name) => Some(Entry {
                    name: (*name).to_owned(),
                    ..entry
                }),
                None => (!self.hidden.contains(&entry.name)).then_some(entry),
            })
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        self.source.open(self.file(name)?)
    }

    fn map(&self, name: &str) -> io::Result<Mapped> {
        self.source.map(self.file(name)?)
    }

    fn map_first(&self, name: &str, length: u64) -> io::Result<Mapped> {
        self.source.map_first(self.file(name)?, length)
    }

    fn create_run(&self, _: &[u8]) -> io::Result<()> {
        View::read_only()
    }

    fn claim(&self) -> io::Result<Option<Claim>> {
        View::read_only()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn WriteFile>> {
        View::read_only()
    }

    fn replace(&self, _: &str, _: &[u8]) -> io::Result<()> {
        View::read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        View::read_only()
    }

    fn sync(&self, _: &str) -> io::Result<()> {
        View::read_only()
    }

    fn sync_dir(&self) -> io::Result<()> {
        View::read_only()
    }
}

impl Loss {
    /// A segment of which it isn't known which steps it held.
    pub(super) fn of_segment(file: &str, why: &str) -> Loss {
        Loss {
            kind: LossKind::Segment,
            steps: 0..0,
            file: file.to_owned(),
            tensors: vec![],
            why: why.to_owned(),
            others: 0,
        }
    }
}
