//! The folder that all parts share, and the request that they agree on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Shard;
use super::files::{problem, read_json, write_json};
use super::place::ShardPlace;
use super::record::ShardRecord;
use crate::error::{AnalysisError, Result};
use crate::output::{WRITER, outside_of_runs};

/// Value of [`Request::format`].
const FORMAT: &str = "hindcast shards";
/// Version of the folder's files.
const VERSION: u32 = 1;
/// Name of the request in the folder.
pub(super) const REQUEST: &str = "shards.json";

/// What all parts have in common. The first one writes it, and the others must have the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Identifies the file.
    pub format: String,
    /// Version of the file, 1.
    pub version: u32,
    /// Program and version that compute the parts. Another version may compute other bits.
    pub writer: String,
    /// Which verb.
    pub verb: String,
    /// Number of parts.
    pub of: u32,
    /// Name of the file that the parts are merged to.
    pub out: String,
    /// What a unit of work is: queries, removals, seeds.
    pub unit: String,
    /// The units of work of all parts, in order.
    pub units: Vec<String>,
    /// Everything else that the result depends on, by name.
    pub question: BTreeMap<String, Value>,
}

impl Request {
    /// The request of a verb whose `units` of work are divided into `of` parts. The parts are merged to a file named `out`.
    pub fn new(verb: &str, out: &str, of: u32, unit: &str, units: Vec<String>) -> Self {
        Request {
            format: FORMAT.to_owned(),
            version: VERSION,
            writer: WRITER.to_owned(),
            verb: verb.to_owned(),
            of,
            out: out.to_owned(),
            unit: unit.to_owned(),
            units,
            question: BTreeMap::new(),
        }
    }

    /// Adds something that the result depends on.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.question.insert(name.to_owned(), value.into());
        self
    }

    /// The first thing in which another request differs: its name, this one's value and the other's.
    fn difference(&self, other: &Request) -> Option<(String, String, String)> {
        let own = [
            ("writer", &self.writer, &other.writer),
            ("verb", &self.verb, &other.verb),
            ("out", &self.out, &other.out),
            ("unit of work", &self.unit, &other.unit),
        ];
        if let Some((name, a, b)) = own.into_iter().find(|(_, a, b)| a != b) {
            return Some((name.to_owned(), a.clone(), b.clone()));
        }
        if self.of != other.of {
            let (a, b) = (self.of.to_string(), other.of.to_string());
            return Some(("number of shards".to_owned(), a, b));
        }
        if self.units != other.units {
            return Some((self.unit.clone(), listed(&self.units), listed(&other.units)));
        }
        let names = self.question.keys().chain(other.question.keys());
        names
            .map(|name| (name, self.question.get(name), other.question.get(name)))
            .find(|(_, a, b)| a != b)
            .map(|(name, a, b)| {
                let (a, b) = first_difference(a, b);
                (name.clone(), told(a), told(b))
            })
    }
}

/// Of two lists of the same length, the first entries that differ; otherwise the values themselves.
fn first_difference<'a>(
    a: Option<&'a Value>,
    b: Option<&'a Value>,
) -> (Option<&'a Value>, Option<&'a Value>) {
    if let (Some(Value::Array(all)), Some(Value::Array(others))) = (a, b)
        && all.len() == others.len()
        && let Some((one, other)) = all.iter().zip(others).find(|(one, other)| one != other)
    {
        return first_difference(Some(one), Some(other));
    }
    (a, b)
}

/// A value in a few words.
fn told(value: Option<&Value>) -> String {
    const SHOWN: usize = 200;
    let text = value.map_or("nothing".to_owned(), Value::to_string);
    if text.chars().count() <= SHOWN {
        return text;
    }
    text.chars().take(SHOWN).chain(['…']).collect()
}

/// A list in a few words.
fn listed(units: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown = units.iter().take(SHOWN).cloned().collect::<Vec<_>>();
    let more = if units.len() > SHOWN { ", …" } else { "" };
    format!("{} ({}{more})", units.len(), shown.join(", "))
}

/// A folder that the parts of one request share.
#[derive(Debug, Clone)]
pub struct ShardFolder {
    path: PathBuf,
}

/// What a process that is to compute a part finds.
#[derive(Debug)]
pub enum Begun {
    /// The part is complete.
    Complete(Box<ShardRecord>),
    /// The part is to be computed here.
    Here(ShardPlace),
}

impl ShardFolder {
    /// The folder at this path. Nothing is read or written yet.
    pub fn at(path: &Path) -> Self {
        ShardFolder {
            path: path.to_owned(),
        }
    }

    /// The folder of the parts of the file at `out`: `scores.csv.shards` for `scores.csv`.
    pub fn beside(out: &Path) -> Self {
        let mut name = out.as_os_str().to_owned();
        name.push(".shards");
        ShardFolder::at(Path::new(&name))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of a complete part.
    pub(super) fn of(&self, index: u32) -> PathBuf {
        self.path.join(format!("shard-{index}"))
    }

    /// Begins a part: makes the folder, agrees on the request with the other parts, and takes the part's place unless it is
    /// complete.
    ///
    /// # Errors
    /// The folder lies in a run or holds something else, its request is another one, another process computes the part at the
    /// moment, or a file can't be written.
    pub fn begin(&self, request: &Request, shard: Shard) -> Result<Begun> {
        outside_of_runs(&self.path.join(REQUEST))
            .map_err(|e| problem(&self.path, &e.to_string()))?;
        std::fs::create_dir_all(&self.path)
            .map_err(|e| problem(&self.path, &format!("cannot be made: {e}")))?;
        let path = self.path.join(REQUEST);
        let mut entries = std::fs::read_dir(&self.path)
            .map_err(|e| problem(&self.path, &format!("cannot be read: {e}")))?;
        let foreign = |entry: &io::Result<std::fs::DirEntry>| {
            let name = entry.as_ref().map(std::fs::DirEntry::file_name);
            name.is_ok_and(|name| !name.to_string_lossy().starts_with(REQUEST))
        };
        if !path.exists() && entries.any(|entry| foreign(&entry)) {
            return Err(problem(
                &self.path,
                &format!(
                    "there is no {REQUEST} in it, and other files are: put that file back if these are shards, or name another --out"
                ),
            ));
        }
        agree(&path, request).map_err(|e| self.with_advice(e))?;
        if self.of(shard.index).exists() {
            let record = ShardRecord::read(&self.of(shard.index))?;
            return Ok(Begun::Complete(Box::new(record)));
        }
        match ShardPlace::take(&self.path, self.of(shard.index), shard)? {
            Some(place) => Ok(Begun::Here(place)),
            None => {
                let record = ShardRecord::read(&self.of(shard.index))?;
                Ok(Begun::Complete(Box::new(record)))
            }
        }
    }

    /// The error of another request, with the advice to start over if no part is complete.
    fn with_advice(&self, error: AnalysisError) -> AnalysisError {
        let nothing = self.complete().is_ok_and(|(_, done)| done.is_empty());
        match error {
            AnalysisError::Mismatch {
                what,
                expected,
                got,
                hint,
            } if nothing => AnalysisError::Mismatch {
                what,
                expected,
                got,
                hint: format!(
                    "{hint}; no shard is complete yet, so {} may be removed to start over",
                    self.path.display()
                ),
            },
            other => other,
        }
    }

    /// The parts that are complete, of all parts of the request.
    ///
    /// # Errors
    /// There is no request.
    pub fn complete(&self) -> Result<(Request, Vec<u32>)> {
        let request = read_request(&self.path.join(REQUEST))?;
        let entries = std::fs::read_dir(&self.path)
            .map_err(|e| problem(&self.path, &format!("cannot be read: {e}")))?;
        let number = |entry: io::Result<std::fs::DirEntry>| {
            let name = entry.ok()?.file_name();
            let k = name.to_str()?.strip_prefix("shard-")?.parse().ok()?;
            // Only names that a part gets.
            (self.of(k).file_name() == Some(&name) && k < request.of).then_some(k)
        };
        let mut done: Vec<u32> = entries.filter_map(number).collect();
        done.sort_unstable();
        Ok((request, done))
    }
}

/// Writes the request to `path`, or compares it with the one that is there.
///
/// # Errors
/// The other request differs, or the file can't be read or written. The text says what differs.
pub fn agree(path: &Path, request: &Request) -> Result<()> {
    if !path.exists() && first(path, request)? {
        return Ok(());
    }
    let there = read_request(path)?;
    match there.difference(request) {
        None => Ok(()),
        Some((what, expected, got)) => Err(AnalysisError::Mismatch {
            what: format!(
                "{} belongs to the shards of another command: its {what}",
                path.display()
            ),
            expected,
            got,
            hint: "give all shards the same command, or name another --out".to_owned(),
        }),
    }
}

/// Writes the request unless another process has done so. The file appears with its whole content: it is written under
/// another name and linked.
fn first(path: &Path, request: &Request) -> Result<bool> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let written = PathBuf::from(name);
    write_json(&written, request)?;
    let linked = std::fs::hard_link(&written, path);
    // The link is what counts.
    let removed = std::fs::remove_file(&written);
    match linked {
        Ok(()) => removed
            .map(|()| true)
            .map_err(|e| problem(&written, &e.to_string())),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // File systems without links: two processes that begin at the same moment write the same, or the comparison of the next
        // part shows the difference.
        Err(_) => write_json(path, request).map(|()| true),
    }
}

fn read_request(path: &Path) -> Result<Request> {
    if !path.exists() {
        return Err(problem(
            path,
            "there is no such file: expected the folder of shards that a command with --shard has made",
        ));
    }
    let value: Value = read_json(path).map_err(|e| {
        problem(
            path,
            &format!("it isn't the request of shards, or was cut off ({e}): put the file back, or remove the folder to start over"),
        )
    })?;
    let format = value.get("format").and_then(Value::as_str);
    let version = value.get("version").and_then(Value::as_u64);
    if format != Some(FORMAT) {
        return Err(problem(path, "not the request of shards"));
    }
    if version != Some(u64::from(VERSION)) {
        return Err(problem(
            path,
            &format!(
                "version {} of the file; this program reads version {VERSION}",
                version.map_or("?".to_owned(), |v| v.to_string())
            ),
        ));
    }
    serde_json::from_value(value).map_err(|e| problem(path, &e.to_string()))
}
