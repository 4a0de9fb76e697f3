//! Encodings of text files, by their names in the Encoding Standard.

use super::DataError;
use encoding_rs::Encoding;
use std::path::Path;

/// What to do about a text that isn't UTF-8.
pub(super) const ADVICE: &str = "or name its encoding in [data]: encoding = \"windows-1252\" for Western European texts (Latin-1), \
     or for example \"utf-16\", \"windows-1251\" or \"gbk\"";

/// The encoding with this name, the Task's `data.encoding`. `None` for UTF-8, which is also the default.
pub(super) fn named(name: Option<&str>) -> Result<Option<&'static Encoding>, DataError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let found = Encoding::for_label_no_replacement(name.as_bytes()).ok_or_else(|| {
        DataError::spec(
            "encoding",
            format!(
                "there is no encoding {name:?}; there are for example \"utf-8\", \"windows-1252\" (also called \"latin1\"), \
                 \"iso-8859-15\", \"utf-16\", \"windows-1251\", \"shift_jis\" and \"gbk\""
            ),
        )
    })?;
    Ok(Some(found).filter(|found| *found != encoding_rs::UTF_8))
}

/// The text of a file. A byte order mark is left out, and decides between UTF-8 and UTF-16 if there is one.
pub(super) fn decode(
    path: &Path,
    bytes: &[u8],
    encoding: &'static Encoding,
) -> Result<String, DataError> {
    let (text, used, malformed) = encoding.decode(bytes);
    if malformed {
        // A file that holds the replacement character itself has it before the malformed bytes, too. Only the line is then too early.
        let before = text.split(char::REPLACEMENT_CHARACTER).next();
        let line = 1 + before.unwrap_or_default().matches('\n').count();
        return Err(DataError::malformed(
            path,
            format!(
                "line {line} has bytes that are no text in the encoding {:?}: is data.encoding the right one?",
                used.name()
            ),
        ));
    }
    Ok(text.into_owned())
}
