//! Which files a result may replace: earlier results of the same kind only.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::outside_of_runs;
use crate::scores::ScoreMetadata;

/// Number of bytes of a file that are read to recognise it. The first line of a JSON Lines table has to fit.
const HEAD: u64 = 1 << 20;

/// The kinds of result files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A table of scores. The metadata next to it is checked as well.
    Scores,
    /// The metadata of a table of scores.
    Metadata,
    /// A table of the scores of tokens.
    Tokens,
    /// The state of an interrupted sweep.
    Sweep,
    /// The JSON of counterfactual results.
    Removals,
    /// A table of bounds.
    Bounds,
    /// A table of training dynamics, with a row per use or per example, CSV or Parquet.
    Dynamics,
    /// A table of predictions: CSV, JSON lines or Parquet.
    Predictions,
    /// A table of the steps of a run, CSV or Parquet.
    History,
    /// A TensorBoard event file of this program.
    Events,
    /// A table of label issues. The metadata next to it is checked as well.
    Issues,
    /// The metadata of a table of label issues.
    IssuesMetadata,
    /// A file of decisions about labels, which a person may have edited.
    Decisions,
    /// A file of labels for a recording.
    Labels,
    /// A report's page.
    Page,
    /// A PNG of examples.
    Picture,
    /// A figure of an experiment, SVG.
    Figure,
    /// A manual page.
    Manual,
    /// A file that must not exist yet.
    New,
}

/// Path of the metadata of the table at `path`: `scores.csv.meta.json` next to `scores.csv`.
pub fn sidecar_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".meta.json");
    PathBuf::from(name)
}

/// First columns of a table of scores, without and with names. The next column is an influence.
const SCORES: [&str; 2] = [
    "index,row,label,occurrences,",
    "index,row,name,label,occurrences,",
];
/// First columns of a table of tokens. The next column is an influence.
const TOKENS: &str = "index,position,token,text,";
/// First columns of a table of bounds.
const BOUNDS: &str = "index,row,label,step,gradient,lower,upper,estimate";
/// Columns of a long table of training dynamics.
pub(crate) const DYNAMICS: &str = "step,epoch,example,loss,margin,probability";
/// Columns of a table of training dynamics with one row per example.
pub(crate) const EXAMPLE_DYNAMICS: &str = "index,row,label,occurrences,mean_loss,margin,probability,forgotten,epochs_since_forgotten,self_influence,file";
/// Columns of a table of predictions, without and with names.
pub(crate) const PREDICTIONS: [&str; 2] = [
    "index,row,file,label,predicted,probability,label_probability,loss",
    "index,row,file,name,label,predicted,probability,label_probability,loss",
];
/// Key in the metadata at the end of a Parquet file with a table of predictions. Its value is the run's head digest.
pub(crate) const PREDICTIONS_KEY: &str = "hindcast predictions of run";
/// First columns of a table of steps.
pub(crate) const HISTORY: &str = "step,epoch,learning_rate,batch_size,loss";
/// Key in the metadata at the end of a Parquet file with a table of steps. Its value is the run's head digest.
pub(crate) const HISTORY_KEY: &str = "hindcast history of run";
/// Version in the first event of every TensorBoard event file.
pub(crate) const EVENTS_VERSION: &str = "brain.Event:2";
/// The writer that the first event names.
pub(crate) const EVENTS_WRITER: &str = "hindcast";
/// Columns of a table of label issues.
pub(crate) const ISSUES: &str = "index,row,file,is_label_issue,label_score,given_label,predicted_label,given_probability,predicted_probability,rank_score";
/// What the metadata of such a table calls its format.
pub(crate) const ISSUES_FORMAT: &str = "hindcast label issues";
/// First columns of a file of decisions about labels.
pub(crate) const DECISIONS: &str = "index,row,file,given,suggested,decision";
/// Columns of a file of labels for a recording.
pub(crate) const LABELS: &str = "row,file,label";
/// Key in the metadata at the end of a Parquet file with a table of training dynamics. Its value is the run's head digest.
pub(crate) const DYNAMICS_KEY: &str = "hindcast dynamics of run";
/// Number of bytes at the end of a Parquet file that hold its metadata of this kind.
const TAIL: u64 = 4096;
/// Key of the header in a checkpoint of a sweep.
const SWEEP: &str = "\"hindcast-sweep\"";
/// First property of a file of counterfactual results.
const REMOVALS: &str = "\"format\": \"hindcast counterfactual\"";
/// Tag in a page's head that names the program.
const PAGE: &str = "<meta name=\"generator\" content=\"hindcast ";
/// Comment after a figure's opening tag.
pub const FIGURE: &str = "<!-- drawn by hindcast -->";
/// Title line of a manual page.
const MANUAL: &str = ".TH hindcast";

/// The PNG chunk `tEXt` with `Software: hindcast`: length, type, text, checksum. It follows the header.
pub const PICTURE: &[u8] = b"\0\0\0\x11tEXtSoftware\0hindcast\x58\x28\xb7\x22";
/// Offset of the chunk after a PNG's header. Signature and header have a fixed size.
pub const AFTER_PNG_HEADER: usize = 33;

impl Kind {
    /// This kind if such a file may be replaced, or else a file that must not exist yet.
    pub(crate) fn or_new(self, may_replace: bool) -> Self {
        if may_replace { self } else { Kind::New }
    }

    fn words(self) -> &'static str {
        match self {
            Kind::Scores => "a table of scores",
            Kind::Metadata => "the metadata of a table of scores",
            Kind::Tokens => "a table of tokens",
            Kind::Sweep => "an interrupted sweep",
            Kind::Removals => "a file of counterfactual results",
            Kind::Bounds => "a table of bounds",
            Kind::Dynamics => "a table of training dynamics",
            Kind::Predictions => "a table of predictions",
            Kind::History => "a table of steps",
            Kind::Events => "an event file of this program",
            Kind::Issues => "a table of label issues",
            Kind::IssuesMetadata => "the metadata of a table of label issues",
            Kind::Decisions => "a file of decisions",
            Kind::Labels => "a file of labels",
            Kind::Page => "a report",
            Kind::Picture => "a picture of this program (earlier versions left no mark in theirs)",
            Kind::Figure => "a figure of this program (earlier versions left no mark in theirs)",
            Kind::Manual => "a manual page of this program",
            Kind::New => "new",
        }
    }

    /// Whether the file at `path`, which starts with `head`, is of this kind.
    fn matches(self, path: &Path, head: &[u8]) -> bool {
        let text = String::from_utf8_lossy(head);
        match self {
            Kind::Scores => {
                let header = text.trim_start_matches('\u{feff}');
                SCORES.iter().any(|columns| {
                    // A column is quoted if its query's name contains a comma or a quote.
                    let next = header.strip_prefix(columns).unwrap_or_default();
                    next.trim_start_matches('"').starts_with("influence")
                })
                    || has_keys(header, &["index", "row", "label", "occurrences", "influence"])
                    // A Parquet file names its columns at its end.
                    || (head.starts_with(b"PAR1") && is_metadata_file(&sidecar_path(path)))
            }
            Kind::Metadata => is_metadata(head),
            Kind::Tokens => {
                text.starts_with(TOKENS)
                    || has_keys(&text, &["index", "position", "token", "text", "influence"])
            }
            Kind::Sweep => has(&text, SWEEP),
            Kind::Removals => has(&text, REMOVALS),
            Kind::Bounds => {
                text.starts_with(BOUNDS)
                    || has_keys(&text, &["index", "row", "step", "gradient", "estimate"])
            }
            Kind::Dynamics => {
                let header = text.lines().next();
                [DYNAMICS, EXAMPLE_DYNAMICS].map(Some).contains(&header)
                    || is_parquet_of(DYNAMICS_KEY, path, head)
            }
            Kind::Predictions => {
                let header = text.lines().next();
                PREDICTIONS.map(Some).contains(&header)
                    || has_keys(
                        &text,
                        &["index", "row", "predicted", "label_probability", "loss"],
                    )
                    || is_parquet_of(PREDICTIONS_KEY, path, head)
            }
            Kind::History => {
                let header = text.lines().next();
                let rest = header.and_then(|header| header.strip_prefix(HISTORY));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(','))
                    || is_parquet_of(HISTORY_KEY, path, head)
            }
            Kind::Events => has(&text, EVENTS_VERSION) && has(&text, EVENTS_WRITER),
            Kind::Issues => text.lines().next() == Some(ISSUES),
            Kind::IssuesMetadata => has(&text, &format!("\"format\": \"{ISSUES_FORMAT}\"")),
            Kind::Decisions => text.starts_with(DECISIONS),
            Kind::Labels => text.lines().next() == Some(LABELS),
            Kind::Page => has(&text, PAGE),
            Kind::Picture => head
                .get(AFTER_PNG_HEADER..)
                .is_some_and(|rest| head.starts_with(b"\x89PNG") && rest.starts_with(PICTURE)),
            Kind::Figure => text.starts_with("<svg") && has(&text, FIGURE),
            Kind::Manual => has(&text, MANUAL),
            Kind::New => false,
        }
    }
}

/// Whether a file is Parquet with this key in its metadata.
fn is_parquet_of(key: &str, path: &Path, head: &[u8]) -> bool {
    let named = |tail: Vec<u8>| tail.windows(key.len()).any(|bytes| bytes == key.as_bytes());
    head.starts_with(b"PAR1") && end(path).is_ok_and(named)
}

/// Whether the text contains a mark near its beginning.
fn has(text: &str, mark: &str) -> bool {
    const NEAR: usize = 2048;
    text.find(mark).is_some_and(|at| at < NEAR)
}

/// Whether the first line is a JSON object with these keys, alone or followed by a query's name.
fn has_keys(text: &str, keys: &[&str]) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let Ok(object) = serde_json::from_str::<Map<String, Value>>(line) else {
        return false;
    };
    keys.iter().all(|key| {
        object.keys().any(|name| {
            let rest = name.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
        })
    })
}

fn is_metadata(bytes: &[u8]) -> bool {
    // The metadata of many queries may be longer than the part that was read.
    const KEYS: [&str; 4] = ["\"version\"", "\"writer\"", "\"run_digest\"", "\"window\""];
    serde_json::from_slice::<ScoreMetadata>(bytes).is_ok()
        || (bytes.len() as u64 == HEAD
            && KEYS
                .iter()
                .all(|key| has(&String::from_utf8_lossy(bytes), key)))
}

fn is_metadata_file(path: &Path) -> bool {
    let regular = std::fs::metadata(path).is_ok_and(|m| m.is_file());
    regular && beginning(path).is_ok_and(|head| is_metadata(&head))
}

fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

fn end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Refuses a path where a result of this kind can't be written: inside a run's folder, or where a file of another
/// kind exists. An empty file may be replaced.
///
/// # Errors
/// The text says what exists at the path and what to do.
pub fn replaceable(path: &Path, kind: Kind) -> io::Result<()> {
    outside_of_runs(path)?;
    let beside = match kind {
        Kind::Scores => Some(Kind::Metadata),
        Kind::Issues => Some(Kind::IssuesMetadata),
        _ => None,
    };
    if let Some(metadata) = beside {
        let sidecar = sidecar_path(path);
        replaceable(&sidecar, metadata).map_err(|e| match e.raw_os_error() {
            // The system would say the same of the table.
            Some(_) => e,
            None => io::Error::new(e.kind(), format!("{}: {e}", sidecar.display())),
        })?;
    }
    let there = match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    let found = if !there.is_file() {
        "it is not a regular file".to_owned()
    } else if there.len() == 0 {
        return Ok(());
    } else {
        let head = beginning(path)?;
        if kind.matches(path, &head) {
            return Ok(());
        }
        described(&head, there.len())
    };
    let what = if kind == Kind::New {
        format!("the file exists ({found})")
    } else {
        format!("the file exists and isn't {} ({found})", kind.words())
    };
    let said = format!("{what}; name another file");
    Err(io::Error::new(io::ErrorKind::AlreadyExists, said))
}

/// The beginning of a file in a few words.
fn described(head: &[u8], length: u64) -> String {
    const LONGEST: usize = 50;
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    match std::str::from_utf8(line) {
        Ok(line) if !line.contains('\0') => {
            let line = line.trim_end();
            let short: String = line.chars().take(LONGEST).collect();
            let more = if short.len() < line.len() { "…" } else { "" };
            format!("it begins with `{short}{more}`")
        }
        _ => format!("{length} bytes that are not text"),
    }
}

/// Refuses to write a result over a file that the same command reads. `inputs` are the files and their roles.
///
/// # Errors
/// The text names the role of the file.
pub fn apart(path: &Path, inputs: &[(&str, Option<&Path>)]) -> io::Result<()> {
    for (what, input) in inputs {
        let Some(input) = input else { continue };
        if is_same(path, input) {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("it is {what}, which this command reads; name another file"),
            ));
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, also through links.
pub fn is_same(a: &Path, b: &Path) -> bool {
    let resolved = |path: &Path| super::resolved(path).ok();
    if resolved(a).is_some_and(|a| Some(a) == resolved(b)) {
        return true;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        id(a).is_some_and(|a| Some(a) == id(b))
    }
    #[cfg(not(unix))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 18] = [
        Kind::Scores,
        Kind::Metadata,
        Kind::Tokens,
        Kind::Sweep,
        Kind::Removals,
        Kind::Bounds,
        Kind::Dynamics,
        Kind::Predictions,
        Kind::History,
        Kind::Events,
        Kind::Issues,
        Kind::Decisions,
        Kind::Labels,
        Kind::Page,
        Kind::Picture,
        Kind::Figure,
        Kind::Manual,
        Kind::New,
    ];

    /// Whether a file with these bytes is replaced by results of these kinds, and refused to all others.
    fn is_replaced_by_only(bytes: &[u8], fitting: &[Kind]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        for kind in KINDS {
            let said = replaceable(&path, kind).map_err(|e| e.to_string());
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(
                said.is_ok(),
                fitting.contains(&kind),
                "{shown}: {kind:?}: {said:?}"
            );
            if let Err(said) = said {
                assert!(said.ends_with("; name another file"), "{said}");
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn only_a_result_of_the_same_kind_is_replaced() {
        let png = [b"\x89PNG\r\n\x1a\n".as_slice(), &[7; 25], PICTURE, &[1; 9]].concat();
        let plain = [b"\x89PNG\r\n\x1a\n".as_slice(), &[7; 60]].concat();
        let files: [(&[u8], &[Kind]); 36] = [
            (b"x1,x2,y\n1,2,3\n", &[]),
            (b"index,name\n0,a\n", &[]),
            (b"index,influence,remark\n0,a\n", &[]),
            (b"a line without an end", &[]),
            (b"{\"index\":0,\"row\":1,\"name\":\"x\"}\n", &[]),
            (b"{\"format\": \"of somebody\"}", &[]),
            (&plain, &[]),
            (b"\0\x01\xff", &[]),
            (b"index,row,label,occurrences,influence,file\n", &[Kind::Scores]),
            (
                b"index,row,name,label,occurrences,influence[a],file\n",
                &[Kind::Scores],
            ),
            (
                b"index,row,label,occurrences,\"influence[a,b]\",file\n",
                &[Kind::Scores],
            ),
            (
                b"{\"index\":0,\"row\":1,\"label\":\"3\",\"occurrences\":2,\"influence[a]\":null}\n",
                &[Kind::Scores],
            ),
            (b"index,position,token,text,influence\n", &[Kind::Tokens]),
            (
                b"{\"index\":0,\"position\":1,\"token\":7,\"text\":\"a\",\"influence[a]\":0.5}\n",
                &[Kind::Tokens],
            ),
            (
                b"index,row,label,step,gradient,lower,upper,estimate,real\n",
                &[Kind::Bounds],
            ),
            (
                b"step,epoch,example,loss,margin,probability\n0,0,5,2.3,,\n",
                &[Kind::Dynamics],
            ),
            (
                b"index,row,label,occurrences,mean_loss,margin,probability,forgotten,epochs_since_forgotten,self_influence,file\n0,",
                &[Kind::Dynamics],
            ),
            (b"step,epoch,example,loss,margin,probability,mine\n", &[]),
            (
                b"index,row,file,label,predicted,probability,label_probability,loss\n0,",
                &[Kind::Predictions],
            ),
            (
                b"{\"index\":0,\"row\":0,\"file\":\"a\",\"label\":\"1\",\"predicted\":\"1\",\"probability\":0.9,\"label_probability\":0.9,\"loss\":0.1}\n",
                &[Kind::Predictions],
            ),
            (
                b"index,row,file,is_label_issue,label_score,given_label,predicted_label,given_probability,predicted_probability,rank_score\n0,",
                &[Kind::Issues],
            ),
            (b"index,row,file,is_label_issue,label_score\n", &[]),
            (
                b"index,row,file,given,suggested,decision,given_probability\n0,",
                &[Kind::Decisions],
            ),
            (b"row,file,label\n0,", &[Kind::Labels]),
            (b"row,file,label,mine\n0,", &[]),
            (b"step,epoch,learning_rate,batch_size,loss\n0,0,", &[Kind::History]),
            (
                b"step,epoch,learning_rate,batch_size,loss,update_norm\n0,0,",
                &[Kind::History],
            ),
            (
                b"\x24\0\0\0\0\0\0\0\x01\x02\x03\x04\x1a\x0dbrain.Event:2\x52\x0a\x0a\x08hindcast",
                &[Kind::Events],
            ),
            (b"\x24\0\0\0\0\0\0\0\x01\x02\x03\x04\x1a\x0dbrain.Event:2", &[]),
            (
                b"{\n  \"format\": \"hindcast counterfactual\",\n",
                &[Kind::Removals],
            ),
            (
                b"<!DOCTYPE html><html><head><meta name=\"generator\" content=\"hindcast 0.1.0\">",
                &[Kind::Page],
            ),
            (&png, &[Kind::Picture]),
            (
                b"<svg xmlns=\"http://www.w3.org/2000/svg\">\n<!-- drawn by hindcast -->\n",
                &[Kind::Figure],
            ),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\">\n<!-- mine -->\n", &[]),
            (b".TH hindcast 1\n", &[Kind::Manual]),
            (b"", &KINDS),
        ];
        for (bytes, fitting) in files {
            is_replaced_by_only(bytes, fitting);
        }
    }

    #[test]
    fn a_folder_and_a_foreign_file_next_to_a_table_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("s.csv");
        assert!(replaceable(folder.path(), Kind::Scores).is_err());
        replaceable(&table, Kind::Scores).unwrap();
        std::fs::write(sidecar_path(&table), "{\"mine\": 1}").unwrap();
        let said = replaceable(&table, Kind::Scores).unwrap_err().to_string();
        assert!(
            said.contains("s.csv.meta.json") && said.contains("{\"mine\": 1}"),
            "{said}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_input_is_recognised_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.csv"), "").unwrap();
        std::fs::hard_link(at("a.csv"), at("hard.csv")).unwrap();
        std::os::unix::fs::symlink("a.csv", at("soft.csv")).unwrap();
        for out in ["a.csv", "hard.csv", "soft.csv", "none/../a.csv"] {
            let input = at("a.csv");
            let inputs = [("no input", None), ("the table", Some(input.as_path()))];
            let said = apart(&at(out), &inputs).unwrap_err().to_string();
            assert!(
                said.contains("it is the table, which this command reads"),
                "{said}"
            );
        }
        apart(&at("b.csv"), &[("the table", Some(&at("a.csv")))]).unwrap();
    }

    /// A table is recognised by the columns that are written.
    #[test]
    fn a_table_of_bounds_is_recognised_by_its_columns() {
        let row = crate::bounds::BoundsRow {
            index: 0,
            row: 0,
            label: String::new(),
            step: 0,
            gradient: 0.0,
            lower: None,
            upper: None,
            estimate: 0.0,
            real: 0.0,
            gap: 0.0,
            theorem5: None,
            always: None,
            theorem6: None,
            file: String::new(),
        };
        let json = serde_json::to_vec(&row).unwrap();
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.serialize(row).unwrap();
        for head in [csv.into_inner().unwrap(), json] {
            assert!(Kind::Bounds.matches(Path::new("b"), &head));
        }
    }

    /// PNG readers compare each chunk's checksum.
    #[test]
    fn the_mark_of_a_picture_has_its_checksum() {
        let (body, checksum) = PICTURE[4..].split_at(4 + 17);
        let mut crc = u32::MAX;
        for byte in body {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
            }
        }
        assert_eq!((!crc).to_be_bytes(), checksum);
        assert_eq!(PICTURE[..4], 17_u32.to_be_bytes());
    }
}
