//! File names as text, without loss. A name on a Unix file system is any bytes; the rest of the crate uses text.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The name as text. Each byte that isn't UTF-8 becomes `\xNN`. Each backslash is doubled, so that different names have different texts.
/// All other characters are unchanged.
pub(super) fn encode(name: &OsStr) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(&chunk.valid().replace('\\', "\\\\"));
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The inverse of [`encode`]. Text that `encode` can't produce is taken literally.
pub(super) fn decode(text: &str) -> OsString {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        name.extend_from_slice(before.as_bytes());
        let byte = after
            .strip_prefix('x')
            .and_then(|digits| digits.get(..2))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match (byte, after.strip_prefix('\\')) {
            (Some(byte), _) => {
                name.push(byte);
                after.get(3..).unwrap_or_default()
            }
            (None, Some(behind)) => {
                name.push(b'\\');
                behind
            }
            (None, None) => {
                name.push(b'\\');
                after
            }
        };
    }
    name.extend_from_slice(rest.as_bytes());
    OsString::from_vec(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_and_no_two_have_the_same_text() {
        let names: [&[u8]; 8] = [
            b"seg-00000001.hcs",
            b"seg-\xff.hcs",
            b"seg-\\xff.hcs",
            b"seg-\\\xff.hcs",
            b"\xc3",
            "\u{e4}\n\u{1b}".as_bytes(),
            b"\\",
            b"\xf0\x9f\\\\x41",
        ];
        let mut texts = std::collections::BTreeSet::new();
        for name in names {
            let text = encode(OsStr::from_bytes(name));
            assert_eq!(decode(&text).as_bytes(), name, "{text}");
            assert!(texts.insert(text));
        }
        assert_eq!(encode(OsStr::from_bytes(names[0])), "seg-00000001.hcs");
        assert_eq!(encode(OsStr::from_bytes(names[1])), "seg-\\xff.hcs");
    }
}
