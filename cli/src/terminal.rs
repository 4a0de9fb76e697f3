//! Makes text from files safe to print on a terminal.
//!
//! Notes, labels, names and paths may come from somebody else's files. Printed unchanged, they can clear the screen, colour or
//! hide text, reverse its direction, or start a line that looks like the program's own. Everything that is printed passes
//! through this module:
//!
//! - [`stdout`] and `say!` escape control characters and invisible characters, except line breaks and tabs;
//! - [`field`] escapes line breaks and tabs too, so that a text from a file stays on one line.
//!
//! Characters are escaped as in JSON (`\u001b`), so the output of `--json` still denotes the same text.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Whether a character is a control character, changes the writing direction, or is invisible.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Appends a character as JSON escapes it.
fn escape(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

fn escaped(text: &str, keep: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unsafe(c) && !keep.contains(&c) {
            escape(c, &mut out);
        } else {
            out.push(c);
        }
    }
    out
}

/// Characters that stay in the program's own text.
const OURS: [char; 2] = ['\n', '\t'];

/// Escapes a text whose line breaks and tabs are the program's own.
pub(crate) fn lines(text: &str) -> String {
    escaped(text, &OURS)
}

/// Escapes an error's text. Lines after the first are indented, because an error may quote a file that has line breaks.
pub(crate) fn message(text: &str) -> String {
    lines(text).replace('\n', "\n  ")
}

/// Escapes a text from a file, which then fits on a line.
pub(crate) fn field(text: impl Display) -> Field {
    Field(escaped(&text.to_string(), &[]))
}

/// A text without line breaks, control characters and invisible characters. It can be padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field(String);

impl Field {
    /// Number of characters.
    pub fn width(&self) -> usize {
        self.0.chars().count()
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Standard output, with escaping. Writing to it never fails, so a command runs to its end in any case. [`unprinted`] says
/// at the end whether everything was written.
pub(crate) fn stdout() -> Escaping<Lasting<io::StdoutLock<'static>>> {
    Escaping::new(Lasting {
        to: io::stdout().lock(),
        failed: &FAILED,
    })
}

/// Why standard output could not be written. `None` if it was, or if its reader closed it (`| head`).
pub(crate) fn unprinted() -> Option<String> {
    // Last chance to write what is still in the buffer.
    let _ = stdout().flush();
    let failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    let error = failed.as_ref()?;
    (error.kind() != io::ErrorKind::BrokenPipe).then(|| error.to_string())
}

/// The first failure of standard output.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// A writer that remembers its first failure and writes nothing after it.
pub(crate) struct Lasting<W> {
    to: W,
    failed: &'static Mutex<Option<io::Error>>,
}

impl<W: Write> Lasting<W> {
    fn attempt(&mut self, action: impl FnOnce(&mut W) -> io::Result<()>) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none() {
            *failed = action(&mut self.to).err();
        }
    }
}

impl<W: Write> Write for Lasting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(|to| to.write_all(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt(Write::flush);
        Ok(())
    }
}

/// Prints a line to standard error, escaped like [`stdout`].
pub(crate) fn say_line(text: fmt::Arguments<'_>) {
    // If standard error is closed, there is nowhere to report it.
    let _ = writeln!(io::stderr().lock(), "{}", lines(&text.to_string()));
}

/// Prints a line to standard error.
macro_rules! say {
    ($($text:tt)*) => { $crate::terminal::say_line(format_args!($($text)*)) };
}
pub(crate) use say;

/// A writer that escapes control characters in the text that it writes.
pub(crate) struct Escaping<W: Write> {
    to: W,
    /// The first bytes of a character whose remaining bytes have not been written yet.
    begun: Vec<u8>,
}

impl<W: Write> Escaping<W> {
    pub fn new(to: W) -> Self {
        Escaping {
            to,
            begun: Vec::new(),
        }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let joined;
        let mut rest = if self.begun.is_empty() {
            bytes
        } else {
            joined = [&std::mem::take(&mut self.begun), bytes].concat();
            &joined
        };
        let mut out = String::with_capacity(rest.len());
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(&lines(text));
                    break;
                }
                Err(e) => {
                    let (text, after) = rest.split_at(e.valid_up_to());
                    out.push_str(&lines(&String::from_utf8_lossy(text)));
                    let Some(wrong) = e.error_len() else {
                        self.begun = after.to_vec();
                        break;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
        self.to.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_field_takes_one_line_and_moves_no_cursor() {
        for (text, shown) in [
            ("plain, ä, 日本, עברית", "plain, ä, 日本, עברית"),
            ("\u{1b}[2Jgone", "\\u001b[2Jgone"),
            ("a\nok: 5 steps are whole", "a\\nok: 5 steps are whole"),
            ("over\rwritten\ttab", "over\\rwritten\\ttab"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("cod\u{202e}gpj.exe", "cod\\u202egpj.exe"),
            (
                "\u{2066}x\u{2069}\u{200b}\u{feff}",
                "\\u2066x\\u2069\\u200b\\ufeff",
            ),
            ("\u{2028}\u{85}", "\\u2028\\u0085"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(field(text).to_string(), shown);
        }
        assert_eq!(format!("{:<5}|", field("a\n")), "a\\n  |");
        assert_eq!(field("a\n").width(), 3);
        assert_eq!(lines("a\n\tb\u{7}"), "a\n\tb\\u0007");
        assert_eq!(message("a\nok: whole"), "a\n  ok: whole");
    }

    /// The output is still JSON, and denotes the same text.
    #[test]
    fn json_stays_the_same_text() {
        let text = "a\u{9b}\u{202e}\u{2028}\u{e0041}\\\u{7f}\n\u{1b}é";
        let mut out = Escaping::new(Vec::new());
        serde_json::to_writer_pretty(&mut out, &[text]).unwrap();
        let printed = String::from_utf8(out.to).unwrap();
        assert!(
            !printed.chars().any(|c| is_unsafe(c) && c != '\n'),
            "{printed}"
        );
        let back: Vec<String> = serde_json::from_str(&printed).unwrap();
        assert_eq!(back, [text]);
    }

    /// A full disk or a closed pipe doesn't stop the command that prints.
    #[test]
    fn a_writer_that_lasts_keeps_its_first_failure() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                self.0 += 1;
                Err(io::Error::new(io::ErrorKind::StorageFull, "full"))
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);
        let mut out = Escaping::new(Lasting {
            to: Full(0),
            failed: &FAILED,
        });
        for _ in 0..3 {
            writeln!(out, "text").unwrap();
        }
        out.flush().unwrap();
        assert_eq!(out.to.to.0, 1, "nothing is tried again");
        let failed = FAILED.lock().unwrap();
        assert_eq!(failed.as_ref().unwrap().kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #[test]
        fn text_may_come_in_any_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..40), cut in 0usize..40) {
            let write = |pieces: &[&[u8]]| {
                let mut out = Escaping::new(Vec::new());
                for piece in pieces {
                    out.write_all(piece).unwrap();
                }
                String::from_utf8(out.to).unwrap()
            };
            let cut = cut.min(bytes.len());
            let whole = write(&[&bytes]);
            prop_assert_eq!(&write(&[&bytes[..cut], &bytes[cut..]]), &whole);
            prop_assert!(!whole.chars().any(|c| is_unsafe(c) && !OURS.contains(&c)));
        }
    }
}
