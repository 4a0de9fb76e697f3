//! Opens the input files that a user names: regular files only, of at most a stated size.
//!
//! A path can lead to a named pipe without a writer, to an endless device, or to a sparse file of a terabyte. Reading
//! any of them would hang the program or exhaust its memory. All input files that a user names are therefore opened
//! here. The path is checked, opened without blocking, and checked again. A byte order mark is removed from text.
//!
//! The format's crate opens the files of a run by the same rule, in `format/src/storage/regular.rs`. The two crates don't
//! depend on each other, so a change here belongs there, too.
//!
//! ```
//! use hindcast_model::files;
//!
//! let error = files::read_text(std::path::Path::new("/"), files::TASK).unwrap_err();
//! assert!(error.to_string().contains("it is a folder"));
//! ```

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A kind of input file: its description and its largest size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its content, for messages: "a file with …".
    pub what: &'static str,
    /// Largest size in bytes.
    pub most: u64,
}

impl Kind {
    /// The same kind with another limit, for a caller that knows the largest possible size.
    pub const fn at_most(self, most: u64) -> Self {
        Self { most, ..self }
    }
}

/// A task, written by hand.
pub const TASK: Kind = Kind {
    what: "a task (TOML)",
    most: 16 * MIB,
};
/// A key, a signature, or the password of a key.
pub const KEY: Kind = Kind {
    what: "a key, a signature or a password (a few lines of text)",
    most: 1 << 16,
};
/// Names of examples: 40 bytes each for 100 million examples.
pub const NAMES: Kind = Kind {
    what: "names of examples",
    most: 4 * GIB,
};
/// Decisions about examples with wrong labels.
pub const DECISIONS: Kind = Kind {
    what: "decisions (CSV)",
    most: 4 * GIB,
};
/// Indices of examples, one per line.
pub const INDICES: Kind = Kind {
    what: "indices of examples",
    most: GIB,
};
/// A query's vector: a value of 8 bytes for each of 2³⁴ parameters, which is the largest model, and a header.
pub const VECTOR: Kind = Kind {
    what: "a query's vector (safetensors)",
    most: 129 * GIB,
};
/// A table of scores, which is read row by row.
pub const TABLE: Kind = Kind {
    what: "a table of scores",
    most: 4096 * GIB,
};
/// The metadata file of a table of scores.
pub const METADATA: Kind = Kind {
    what: "a table's metadata (JSON)",
    most: 256 * MIB,
};
/// Results written by another verb.
pub const RESULTS: Kind = Kind {
    what: "results (JSON or CSV)",
    most: GIB,
};
/// The state of an interrupted sweep: the adjoints of many queries.
pub const CHECKPOINT: Kind = Kind {
    what: "an interrupted sweep",
    most: 256 * GIB,
};
/// Examples of a data set, compressed or not.
pub const DATA: Kind = Kind {
    what: "examples",
    most: 64 * GIB,
};

/// Error for an input file.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The problem.
    pub problem: Problem,
}

/// The problem with a file, without its path. [`FileError`] is what a user should read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The system returned an error.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't a regular file.
    #[error("expected a regular file with {what}, but it is {found}{advice}")]
    Kind {
        /// The expected content.
        what: &'static str,
        /// The kind of the file.
        found: &'static str,
        /// Advice, if the remedy isn't obvious.
        advice: &'static str,
    },
    /// It is larger than the limit.
    #[error(
        "it has {size} bytes, but a file with {what} has at most {most}. Is it the right file?"
    )]
    Size {
        /// The expected content.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// Largest size in bytes.
        most: u64,
    },
    /// It isn't UTF-8 text.
    #[error("line {line} is not UTF-8 text. {advice}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// What to do.
        advice: &'static str,
    },
}

/// Opens a regular file of at most the kind's size.
///
/// # Errors
/// [`FileError`] if the path doesn't exist, isn't a regular file, or leads to a file that is too large. The call never
/// blocks on such a path.
pub fn open(path: &Path, kind: Kind) -> Result<File, FileError> {
    open_regular(path, kind).map_err(|problem| FileError {
        path: path.to_path_buf(),
        problem,
    })
}

/// Reads a whole file.
///
/// # Errors
/// As [`open`], and if reading fails.
pub fn read(path: &Path, kind: Kind) -> Result<Vec<u8>, FileError> {
    let failed = |problem: Problem| FileError {
        path: path.to_path_buf(),
        problem,
    };
    let file = open(path, kind)?;
    let mut bytes = Vec::new();
    // Some system files report no size, and a file can grow while it is read.
    let size = file
        .take(kind.most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| failed(e.into()))? as u64;
    if size > kind.most {
        return Err(failed(too_large(kind, size)));
    }
    Ok(bytes)
}

/// Reads a whole file of UTF-8 text, without its byte order mark.
///
/// # Errors
/// As [`read`], and if the file isn't UTF-8.
pub fn read_text(path: &Path, kind: Kind) -> Result<String, FileError> {
    let mut bytes = read(path, kind)?;
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    String::from_utf8(bytes).map_err(|e| FileError {
        path: path.to_path_buf(),
        problem: not_text(e.as_bytes(), e.utf8_error().valid_up_to()),
    })
}

/// Opens a file of text for reading line by line. Its byte order mark is left out.
///
/// # Errors
/// As [`open`], and if reading fails.
pub fn open_text(path: &Path, kind: Kind) -> Result<impl BufRead + use<>, FileError> {
    let file = open(path, kind)?;
    let unmarked = without_mark(Limited {
        file,
        kind,
        left: kind.most,
    })
    .map_err(|e| FileError {
        path: path.to_path_buf(),
        problem: e.into(),
    })?;
    Ok(BufReader::new(unmarked))
}

/// A reader that returns an error after the largest size of its kind. A file can grow while it is read, and some files
/// report no size.
struct Limited {
    file: File,
    kind: Kind,
    left: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it has more than {} bytes, the limit for a file with {}",
                self.kind.most, self.kind.what
            ))
        })?;
        Ok(read)
    }
}

/// UTF-8's byte order mark, which some editors and spreadsheets write at the beginning of a text.
pub(crate) const MARK: &[u8] = b"\xef\xbb\xbf";

/// The reader's text without a byte order mark.
pub(crate) fn without_mark<R: Read>(mut from: R) -> io::Result<Chain<Cursor<Vec<u8>>, R>> {
    let mut start = Vec::with_capacity(MARK.len());
    from.by_ref()
        .take(MARK.len() as u64)
        .read_to_end(&mut start)?;
    if start == MARK {
        start.clear();
    }
    Ok(Cursor::new(start).chain(from))
}

/// What a file is that isn't text, by its first bytes, and what to do. `None` if it may be text.
pub fn not_a_text(bytes: &[u8]) -> Option<String> {
    const KNOWN: [(&[u8], &str, &str); 8] = [
        (
            b"PK\x03\x04",
            "an Excel file or a ZIP archive",
            "save the table as CSV, or unpack the archive",
        ),
        (
            b"\xd0\xcf\x11\xe0",
            "an old Excel file",
            "save the table as CSV",
        ),
        (b"PAR1", "a Parquet file", "save the table as CSV"),
        (b"ARROW1", "an Arrow file", "save the table as CSV"),
        (
            b"SQLite format 3",
            "an SQLite database",
            "export the table as CSV",
        ),
        (b"%PDF", "a PDF file", "save the table as CSV"),
        (
            b"\x1f\x8b",
            "compressed by gzip",
            "give it a name that ends in .gz",
        ),
        (
            b"\xfd7zXZ",
            "compressed by xz",
            "give it a name that ends in .xz",
        ),
    ];
    let known = KNOWN.iter().find(|(mark, ..)| bytes.starts_with(mark));
    if let Some((_, what, advice)) = known {
        return Some(format!("this is {what}: {advice}"));
    }
    // Text has no zero byte, except in UTF-16, which begins with its byte order mark.
    let wide = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let start = &bytes[..bytes.len().min(1 << 16)];
    let odd = |byte: &&u8| matches!(byte, 0..=8 | 14..=26 | 28..=31);
    let few = start.iter().filter(odd).count() * 50 <= start.len();
    let zero = start.contains(&0);
    (!wide && (zero || !few)).then(|| {
        "this is no text: expected a table of text with separators, such as CSV".to_owned()
    })
}

/// The error for a text that isn't UTF-8, with the first bad line.
pub(crate) fn not_text(bytes: &[u8], valid: usize) -> Problem {
    let before = bytes.get(..valid).unwrap_or_default();
    let utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    Problem::Text {
        line: 1 + before.iter().filter(|b| **b == b'\n').count(),
        advice: if utf16 {
            "It looks like UTF-16: save it as UTF-8"
        } else {
            "Save the file as UTF-8"
        },
    }
}

fn open_regular(path: &Path, kind: Kind) -> Result<File, Problem> {
    // Checked before opening: opening a device can move a tape, and opening a socket fails with a message about
    // addresses.
    let metadata = std::fs::metadata(path).map_err(|e| match e.raw_os_error() {
        #[cfg(unix)]
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => Problem::Kind {
            what: kind.what,
            found: "a link that leads to itself",
            advice: "",
        },
        _ => e.into(),
    })?;
    check(&metadata, kind)?;
    let file = non_blocking().open(path)?;
    // Checked again, because the path may lead elsewhere by now.
    check(&file.metadata()?, kind)?;
    Ok(file)
}

fn non_blocking() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        options.custom_flags(flags.bits().cast_signed());
    }
    options
}

fn check(metadata: &Metadata, kind: Kind) -> Result<(), Problem> {
    if let Some((found, advice)) = other_kind(metadata) {
        return Err(Problem::Kind {
            what: kind.what,
            found,
            advice,
        });
    }
    if metadata.len() > kind.most {
        return Err(too_large(kind, metadata.len()));
    }
    Ok(())
}

fn too_large(kind: Kind, size: u64) -> Problem {
    Problem::Size {
        what: kind.what,
        size,
        most: kind.most,
    }
}

/// The kind of a file that isn't regular, and what to do about it.
fn other_kind(metadata: &Metadata) -> Option<(&'static str, &'static str)> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some(("a folder", ""));
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some((
                "a pipe",
                ". Piped input and <(…) are not read: write the text to a file first, and name that file",
            ));
        }
        if kind.is_char_device() || kind.is_block_device() {
            return Some(("a device", ""));
        }
        if kind.is_socket() {
            return Some(("a socket", ""));
        }
    }
    Some(("something else", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path, kind: Kind) -> String {
        read_text(path, kind).unwrap_err().to_string()
    }

    #[test]
    fn a_text_that_grows_past_its_limit_is_an_error_and_not_truncated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.txt");
        std::fs::write(&path, "abcdefgh").unwrap();
        let read = |left: u64| {
            let mut text = String::new();
            let file = File::open(&path).unwrap();
            let kind = NAMES;
            Limited { file, kind, left }
                .read_to_string(&mut text)
                .map(|_| text)
        };
        assert_eq!(read(8).unwrap(), "abcdefgh");
        let error = read(7).unwrap_err().to_string();
        assert!(
            error.contains("the limit for a file with names of examples"),
            "{error}"
        );
    }

    #[test]
    fn only_regular_files_are_read_and_opening_never_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let folder = message(dir.path(), NAMES);
        assert!(
            folder.contains("a regular file with names of examples, but it is a folder"),
            "{folder}"
        );
        let missing = message(&dir.path().join("none"), NAMES);
        assert!(missing.contains("No such file"), "{missing}");
        #[cfg(unix)]
        {
            let zero = message(Path::new("/dev/zero"), TASK);
            assert!(zero.contains("it is a device"), "{zero}");
            let pipe = dir.path().join("pipe");
            let made = std::process::Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .unwrap();
            assert!(made.success());
            let pipe = message(&pipe, INDICES);
            assert!(
                pipe.contains("it is a pipe") && pipe.contains("<(…)"),
                "{pipe}"
            );
            let socket = dir.path().join("socket");
            let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
            assert!(message(&socket, TABLE).contains("it is a socket"));
            let circle = dir.path().join("circle");
            std::os::unix::fs::symlink("circle", &circle).unwrap();
            let circle = message(&circle, NAMES);
            assert!(
                circle.contains("it is a link that leads to itself"),
                "{circle}"
            );
            let link = dir.path().join("link");
            std::fs::write(dir.path().join("text"), "held").unwrap();
            std::os::unix::fs::symlink("text", &link).unwrap();
            assert_eq!(read_text(&link, NAMES).unwrap(), "held");
        }
    }

    #[test]
    fn a_file_larger_than_its_limit_is_refused_before_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let large = message(&path, TASK);
        for part in ["1099511627776 bytes", "a task (TOML)", "16777216"] {
            assert!(large.contains(part), "{large}");
        }
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, TASK.at_most(4)).unwrap(), "four");
        assert!(message(&path, TASK.at_most(3)).contains("at most 3"));
        // System files report no size, so the bytes are counted while reading.
        #[cfg(target_os = "linux")]
        assert!(message(Path::new("/proc/self/status"), TASK.at_most(3)).contains("at most 3"));
    }

    #[test]
    fn a_byte_order_mark_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let marked = [
            "\u{feff}first\nsecond",
            "first\nsecond",
            "\u{feff}",
            "",
            "x",
        ];
        for text in marked {
            std::fs::write(&path, text).unwrap();
            let bare = text.trim_start_matches('\u{feff}');
            assert_eq!(read_text(&path, NAMES).unwrap(), bare);
            let mut read = String::new();
            open_text(&path, NAMES)
                .unwrap()
                .read_to_string(&mut read)
                .unwrap();
            assert_eq!(read, bare);
        }
        std::fs::write(&path, b"a\nb\xe9\n").unwrap();
        assert!(message(&path, NAMES).contains("line 2 is not UTF-8"));
        for (bytes, said) in [
            (&b"PK\x03\x04\x14\0"[..], "Excel"),
            (b"\xd0\xcf\x11\xe0", "old Excel"),
            (b"a,b\n1\x002\n", "no text"),
            (b"\x01\x02\xa9\x03abc", "no text"),
        ] {
            let found = not_a_text(bytes).unwrap();
            assert!(found.contains(said), "{found}");
        }
        for text in [
            &b""[..],
            b"a;b\r\n\t1",
            b"caf\xe9",
            b"\xff\xfea\0",
            "größer".as_bytes(),
        ] {
            assert_eq!(not_a_text(text), None, "{text:?}");
        }
        std::fs::write(&path, b"\xff\xfea\0").unwrap();
        assert!(message(&path, NAMES).contains("UTF-16"));
    }
}
