//! Finds data files under their usual names, and reads them decompressed.

use super::{DataError, encoding};
use crate::files::{self, DATA};
use encoding_rs::Encoding;
use std::io::{BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

/// Largest memory of the decoder of an `.xz` file, in bytes. Files made by `xz -9` need 65 MiB.
const XZ_MEMORY: u64 = 128 << 20;
/// Largest decompressed size, in bytes.
const MAX_UNPACKED: u64 = 64 << 30;

/// A data folder, and the sub-folders in which common tools store the files.
pub(super) struct Folder<'a> {
    dir: &'a Path,
    below: &'static [&'static str],
}

impl<'a> Folder<'a> {
    pub(super) fn new(dir: &'a Path, below: &'static [&'static str]) -> Self {
        Self { dir, below }
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &'a Path {
        self.dir
    }

    /// The path of the first existing file among `names`. Each name is also tried with `.gz` and `.xz`.
    pub(super) fn find(&self, names: &[&str]) -> Result<PathBuf, DataError> {
        let mut tried = Vec::new();
        let mut unreadable = None;
        for below in std::iter::once("").chain(self.below.iter().copied()) {
            for name in names {
                for packed in ["", ".gz", ".xz"] {
                    let relative = Path::new(below).join(format!("{name}{packed}"));
                    let path = self.dir.join(&relative);
                    if path.is_file() {
                        return Ok(path);
                    }
                    // If the name is a pipe, a folder or a broken link, its error is clearer than that of a missing file.
                    if path.symlink_metadata().is_ok() && unreadable.is_none() {
                        unreadable = files::open(&path, DATA).err();
                    }
                    tried.push(relative.display().to_string());
                }
            }
        }
        if let Some(error) = unreadable {
            return Err(error.into());
        }
        let hint = if self.dir.is_dir() {
            "Give the folder that contains the file, or name the file in the task's [data] table"
                .to_string()
        } else {
            no_folder(self.dir)
        };
        let name = names.first().copied().unwrap_or_default().to_string();
        Err(DataError::Missing {
            folder: self.dir.to_path_buf(),
            name,
            tried,
            hint,
        })
    }
}

/// What is said about a data folder that isn't one.
fn no_folder(dir: &Path) -> String {
    let shown = dir.display();
    if dir.exists() {
        format!("{shown} is a file; give the folder that contains the data files")
    } else {
        format!("There is no folder {shown}")
    }
}

impl Folder<'_> {
    /// The path of a folder in the data folder.
    pub(super) fn find_folder(&self, name: &str) -> Result<PathBuf, DataError> {
        let path: PathBuf = self.dir.join(name).components().collect();
        if path.is_dir() {
            return Ok(path);
        }
        let hint = if path.exists() {
            "It is a file; name the folder that has one folder per class"
        } else if self.dir.is_dir() {
            "Give the folder that contains it, or name it in the task's [data] table"
        } else {
            &no_folder(self.dir)
        };
        Err(DataError::malformed(
            &path,
            format!(
                "expected a folder with one folder of images per class, but there is no such folder. {hint}"
            ),
        ))
    }
}

/// Opens a file. It is decompressed according to its extension.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read + Send>, DataError> {
    let file = files::open(path, DATA)?;
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        Some("xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY,
                liblzma::stream::CONCATENATED,
            )
            .map_err(|e| DataError::io(path, e.into()))?;
            Box::new(BufReader::new(liblzma::read::XzDecoder::new_stream(
                file, stream,
            )))
        }
        _ => Box::new(BufReader::new(file)),
    })
}

/// The content of a file with this name: compressed if the extension says so.
pub(super) fn pack(path: &Path, bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    /// Level of compression of `.xz` files: the default of `xz`.
    const XZ_LEVEL: u32 = 6;
    let packed = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => {
            let level = flate2::Compression::default();
            let mut to = flate2::write::GzEncoder::new(Vec::new(), level);
            to.write_all(bytes).and_then(|()| to.finish())
        }
        Some("xz") => {
            let mut to = liblzma::write::XzEncoder::new(Vec::new(), XZ_LEVEL);
            to.write_all(bytes).and_then(|()| to.finish())
        }
        _ => Ok(bytes.to_vec()),
    };
    packed.map_err(|e| DataError::io(path, e))
}

/// Opens a text file for reading as UTF-8. It is decompressed according to its extension, and a byte order mark is skipped.
pub(super) fn open_text(
    path: &Path,
    encoding: Option<&'static Encoding>,
) -> Result<Box<dyn Read + Send>, DataError> {
    Ok(match encoding {
        Some(_) => Box::new(Cursor::new(read_text(path, encoding)?.into_bytes())),
        None => {
            let unmarked = files::without_mark(open(path)?);
            Box::new(unmarked.map_err(|e| unpacking(path, e))?)
        }
    })
}

/// Reads a whole text file, decompressed and without a byte order mark.
pub(super) fn read_text(
    path: &Path,
    encoding: Option<&'static Encoding>,
) -> Result<String, DataError> {
    if let Some(encoding) = encoding {
        return encoding::decode(path, &read(path)?, encoding);
    }
    String::from_utf8(read_all(path, open_text(path, None)?)?).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        let problem = files::not_text(e.as_bytes(), valid);
        DataError::malformed(path, format!("{problem}, {}", encoding::ADVICE))
    })
}

/// Reads a whole file, decompressed. The buffer grows with the data and not with a size from a header.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, DataError> {
    read_all(path, open(path)?)
}

/// Reads a whole data file, decompressed if its name ends in `.gz` or `.xz`.
///
/// # Errors
/// If the file can't be read or decompressed, or is too large.
pub fn unpacked(path: &Path) -> Result<Vec<u8>, DataError> {
    read(path)
}

/// Reads a whole text file in UTF-8, decompressed if its name ends in `.gz` or `.xz`, without a byte order mark.
///
/// # Errors
/// As [`unpacked`], and if the text is not UTF-8.
pub fn unpacked_text(path: &Path) -> Result<String, DataError> {
    read_text(path, None)
}

fn read_all(path: &Path, reader: impl Read) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    let got = reader
        .take(MAX_UNPACKED)
        .read_to_end(&mut bytes)
        .map_err(|e| unpacking(path, e))?;
    if got as u64 == MAX_UNPACKED {
        return Err(DataError::malformed(
            path,
            format!("expected fewer than {MAX_UNPACKED} bytes when decompressed, got more"),
        ));
    }
    bytes.shrink_to_fit();
    Ok(bytes)
}

/// The error for a failed read. With a compressed file, the most likely cause is damage or truncation.
pub(super) fn unpacking(path: &Path, error: std::io::Error) -> DataError {
    let packed = matches!(path.extension().and_then(|e| e.to_str()), Some("gz" | "xz"));
    if packed {
        DataError::malformed(
            path,
            format!(
                "cannot be decompressed ({error}): fetch it again, or decompress it yourself and put the plain file next to it"
            ),
        )
    } else {
        DataError::io(path, error)
    }
}
