//! An error as one message: its causes, none said twice, and the advice for them.

use hindcast_analyzer::error::without_backtrace;

use super::advice::{self, Remedy};

/// The chain of causes and the advice for them. A cause that an earlier message quotes is not repeated, nor is the name of a file.
pub(crate) fn in_one_line(error: &anyhow::Error) -> String {
    let given = error.downcast_ref::<Remedy>().map(ToString::to_string);
    let mut text = String::new();
    for cause in error.chain() {
        // candle's errors carry the stack if RUST_BACKTRACE is set, which would hide the message.
        let cause = without_backtrace(&cause.to_string());
        if Some(&cause) == given.as_ref() {
            continue;
        }
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    let mut text = without_repetitions(&text);
    for advice in given.into_iter().chain(advice::advice(error)) {
        text.push_str("; ");
        text.push_str(&advice);
    }
    text
}

/// A message whose parts, which colons separate, name each thing once. The verb says which option or run an error is about, and
/// the library's error names the file again.
fn without_repetitions(text: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in text.split(": ") {
        let Some(last) = kept.last().copied() else {
            kept.push(part);
            continue;
        };
        // "cannot write s.csv: s.csv: the disk is full". A number is no name.
        let named = part.contains(char::is_alphabetic)
            && last
                .strip_suffix(part)
                .is_some_and(|before| before.ends_with(' '));
        let again = last == part && (part.starts_with("--") || part.contains(['/', '.']));
        if named || again {
            continue;
        }
        // "task t.toml: cannot read t.toml: it is a folder". Also "the run r failed at step 3: cannot write r/s at step 3".
        if part.starts_with("cannot ")
            && let Some(before) = before_common_name(last, part)
        {
            kept.pop();
            kept.extend(Some(before).filter(|word| word.starts_with("--")));
        }
        kept.push(part);
    }
    kept.join(": ")
}

/// What precedes the name at the end of `text`, if `other` ends with the same name.
fn before_common_name<'a>(text: &'a str, other: &str) -> Option<&'a str> {
    let words = std::iter::once(0).chain(text.match_indices(' ').map(|(space, _)| space + 1));
    words
        .map(|start| text.split_at(start))
        .find(|(_, name)| {
            other
                .strip_suffix(name)
                .is_some_and(|before| before.ends_with(' '))
        })
        .map(|(before, _)| before.trim_end())
}

#[cfg(test)]
mod tests {
    use std::backtrace::Backtrace;

    use super::*;

    fn joined(links: &[&str]) -> String {
        let mut links = links.iter().rev().map(|&link| link.to_owned());
        let innermost = anyhow::anyhow!(links.next().unwrap());
        in_one_line(&links.fold(innermost, anyhow::Error::context))
    }

    #[test]
    fn a_file_is_named_once() {
        for (links, expected) in [
            (
                &["cannot write a/s.csv", "a/s.csv: no space"][..],
                "cannot write a/s.csv: no space",
            ),
            (
                &["cannot write a/s.csv", "s.csv: no space"],
                "cannot write a/s.csv: s.csv: no space",
            ),
            (
                &["cannot write a/s.csv", "no space"],
                "cannot write a/s.csv: no space",
            ),
            (
                &["task my t.toml", "cannot read my t.toml: it is a folder"],
                "cannot read my t.toml: it is a folder",
            ),
            (
                &["--key k", "cannot read k: no such file"],
                "--key: cannot read k: no such file",
            ),
            (
                &[
                    "recording r/x",
                    "cannot open the run r/x: cannot create the run r/x: no space",
                ],
                "cannot create the run r/x: no space",
            ),
            (
                &["r/x", "cannot list r/x: denied"],
                "cannot list r/x: denied",
            ),
            (
                &[
                    "--out",
                    "--out: cannot write a.npy",
                    "a.npy: it is a folder",
                ],
                "--out: cannot write a.npy: it is a folder",
            ),
            // Two files are both named, and numbers are no names.
            (
                &["cannot write a/s.csv", "cannot read s.csv: denied"],
                "cannot write a/s.csv: cannot read s.csv: denied",
            ),
            (&["step 3", "3: no space"], "step 3: 3: no space"),
        ] {
            assert_eq!(joined(links), expected, "{links:?}");
        }
    }

    #[test]
    fn advice_follows_the_causes() {
        let error = anyhow::anyhow!("the file exists").context("cannot write d.csv");
        let error = error.context(Remedy("--replace replaces it".to_owned()));
        let said = "cannot write d.csv: the file exists; --replace replaces it";
        assert_eq!(in_one_line(&error), said);
        assert_eq!(
            in_one_line(&error.context("task t")),
            format!("task t: {said}")
        );
    }

    #[test]
    fn a_message_has_no_backtrace() {
        // As candle makes its errors if RUST_BACKTRACE is set.
        let inner = candle_core::Error::Msg("unsupported dtype for rmsnorm F64".to_owned());
        let error = candle_core::Error::WithBacktrace {
            inner: Box::new(inner),
            backtrace: Box::new(Backtrace::force_capture()),
        };
        assert!(error.to_string().lines().count() > 10, "{error}");
        let error = error.context("building the model");
        let error = anyhow::Error::from(error).context("checking the model's derivatives");
        assert_eq!(
            in_one_line(&error),
            "checking the model's derivatives: building the model\nunsupported dtype for rmsnorm F64"
        );
    }
}
