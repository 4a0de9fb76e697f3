//! Removes the parts of a newsgroup post that aren't its author's text, by scikit-learn's rules for 20 Newsgroups.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of a post that can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strip {
    /// Everything up to the first blank line.
    Headers,
    /// Everything from the last line that is blank or consists of hyphens. Usually this is a signature.
    Footers,
    /// Lines that quote another post or introduce a quotation.
    Quotes,
}

/// Removes these parts from the text.
pub(super) fn strip(text: &str, what: &[Strip]) -> String {
    let mut text = text.to_owned();
    for (part, cut) in [
        (Strip::Headers, without_headers as fn(&str) -> String),
        (Strip::Footers, without_footers),
        (Strip::Quotes, without_quotes),
    ] {
        if what.contains(&part) {
            text = cut(&text);
        }
    }
    text
}

/// The text after the header. A post without a blank line is only a header.
fn without_headers(text: &str) -> String {
    text.split_once("\n\n")
        .map_or("", |(_, body)| body)
        .to_owned()
}

fn without_footers(text: &str) -> String {
    let lines: Vec<&str> = text.trim().split('\n').collect();
    match lines
        .iter()
        .rposition(|line| line.trim().trim_matches('-').is_empty())
    {
        // A blank first line doesn't begin a footer.
        None | Some(0) => text.to_owned(),
        Some(at) => lines[..at].join("\n"),
    }
}

fn without_quotes(text: &str) -> String {
    let begins = ["In article", "Quoted from", "|", ">"];
    let says = ["writes in", "writes:", "wrote:", "says:", "said:"];
    let kept: Vec<&str> = text
        .split('\n')
        .filter(|line| {
            !begins.iter().any(|b| line.starts_with(b)) && !says.iter().any(|s| line.contains(s))
        })
        .collect();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: &str = "From: a@b\nSubject: SCSI\n\nIn article <1> c@d writes:\n> My disk is dead.\n\nBuy another.\n\n-- \nA. Person\n";

    #[test]
    fn each_part_is_cut_by_itself() {
        let body = strip(POST, &[Strip::Headers]);
        assert!(body.starts_with("In article"), "{body:?}");
        assert!(body.ends_with("A. Person\n"), "{body:?}");
        let text = strip(POST, &[Strip::Quotes, Strip::Headers, Strip::Footers]);
        assert_eq!(text.trim(), "Buy another.");
        assert_eq!(strip(POST, &[]), POST);
    }

    #[test]
    fn footers_begin_at_the_last_blank_or_hyphenated_line() {
        assert_eq!(without_footers("a\n\nb\n---\nc\n\n"), "a\n\nb");
        assert_eq!(without_footers("a\nb"), "a\nb");
        assert_eq!(without_footers("---\nb"), "---\nb");
        assert_eq!(without_footers(""), "");
    }

    #[test]
    fn a_post_without_a_blank_line_is_only_a_header() {
        assert_eq!(without_headers("From: a\nSubject: b"), "");
        assert_eq!(without_headers("From: a\n\nb\n\nc"), "b\n\nc");
    }
}
