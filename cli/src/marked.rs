//! Marks the tokens of a sequence that weigh most in its influence.

use hindcast_analyzer::scores::TokenRow;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

/// A piece of a sequence's text: tokens next to each other that weigh about the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub text: String,
    /// Sum of the tokens' influence.
    pub influence: f64,
    /// From 0, a light token, to [`STRENGTHS`], a token that weighs about as much as the heaviest one. The sign is that of
    /// the influence.
    pub strength: i8,
}

impl Piece {
    /// A text without scores.
    pub fn plain(text: String) -> Self {
        Piece {
            text,
            influence: 0.0,
            strength: 0,
        }
    }
}

/// The number of strengths above 0.
pub(crate) const STRENGTHS: i8 = 3;

/// Cuts a sequence into pieces, by the tokens' influence on query `q`. A token weighs by its influence, divided by the largest
/// one of the sequence.
pub(crate) fn pieces(tokens: &[TokenRow], q: usize) -> Vec<Piece> {
    let of = |token: &TokenRow| token.influence.get(q).copied().unwrap_or(0.0);
    let largest = tokens.iter().map(|t| of(t).abs()).fold(0.0, f64::max);
    let known = tokens.iter().any(|t| !t.text.is_empty());
    let mut out: Vec<Piece> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let influence = of(token);
        let strength = strength(influence, largest);
        let text = match token.token {
            _ if known => token.text.clone(),
            // Without a vocabulary, ids have spaces between them.
            Some(id) if at > 0 => format!(" {id}"),
            Some(id) => id.to_string(),
            None => format!(" [{}]", token.position),
        };
        match out.last_mut() {
            Some(last) if last.strength == strength => {
                last.text += &text;
                last.influence += influence;
            }
            _ => out.push(Piece {
                text,
                influence,
                strength,
            }),
        }
    }
    out
}

fn strength(influence: f64, largest: f64) -> i8 {
    let share = influence.abs() / largest;
    let size = if share >= 0.5 {
        3
    } else if share >= 0.25 {
        2
    } else if share >= 0.125 {
        1
    } else {
        0
    };
    if influence < 0.0 { -size } else { size }
}

/// Characters of unmarked text that are kept next to a marked piece.
const CONTEXT: usize = 24;
/// Number of characters after which a line ends.
const LINE: usize = 240;

/// A sequence on one line: the heaviest tokens in `[-…-]` if they harm and in `{+…+}` if they help, with the text next to them.
pub(crate) fn line(tokens: &[TokenRow], q: usize) -> String {
    let heavy = |piece: &Piece| piece.strength.abs() == STRENGTHS;
    let mut joined: Vec<(String, i8)> = Vec::new();
    for piece in pieces(tokens, q) {
        let mark = if heavy(&piece) {
            piece.strength.signum()
        } else {
            0
        };
        match joined.last_mut() {
            Some((text, last)) if *last == mark => *text += &piece.text,
            _ => joined.push((piece.text, mark)),
        }
    }
    let last = joined.len().saturating_sub(1);
    let mut out = String::new();
    for (at, (text, mark)) in joined.into_iter().enumerate() {
        match mark {
            0 => out += &cut(&text, at == 0, at == last),
            harm if harm < 0 => out += &format!("[-{text}-]"),
            _ => out += &format!("{{+{text}+}}"),
        }
        if at < last && out.chars().count() > LINE {
            return out + "…";
        }
    }
    out
}

/// A text between two marked ones, without its middle if it is long; at an end, without the part that is far away.
fn cut(text: &str, first: bool, last: bool) -> String {
    let chars: Vec<char> = text.chars().collect();
    let n = chars.len();
    if first && last {
        // Nothing is marked.
        return chars.into_iter().take(LINE).collect();
    }
    let before = if first { 0 } else { CONTEXT };
    let after = if last { 0 } else { CONTEXT };
    if n <= before + after + 1 {
        return text.to_owned();
    }
    let head: String = chars.iter().take(before).collect();
    let tail: String = chars.iter().skip(n - after).collect();
    format!("{head}…{tail}")
}

/// The text of an example. `None` if its label, a sequence with target tokens, is the text already.
pub(crate) fn text_of(data: &dyn DataSet, split: Split, index: u64) -> Option<String> {
    match data.tokens(split, index) {
        Some(_) => None,
        None => data.text(split, index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(scores: &[(&str, f64)]) -> Vec<TokenRow> {
        let row = |(at, (text, influence)): (usize, &(&str, f64))| TokenRow {
            index: 0,
            position: at as u64,
            token: Some(at as i64),
            text: (*text).to_owned(),
            influence: vec![*influence],
        };
        scores.iter().enumerate().map(row).collect()
    }

    #[test]
    fn the_heaviest_tokens_are_marked_by_their_sign() {
        let tokens = tokens(&[
            ("to", -1.0),
            ("ge", -0.8),
            ("ther", 0.01),
            (" we", 0.6),
            (" stand", -0.3),
        ]);
        assert_eq!(line(&tokens, 0), "[-toge-]ther{+ we+} stand");
        let strengths: Vec<i8> = pieces(&tokens, 0).iter().map(|p| p.strength).collect();
        assert_eq!(strengths, [-3, 0, 3, -2]);
        assert!((pieces(&tokens, 0)[0].influence + 1.8).abs() < 1e-12);
    }

    #[test]
    fn text_far_from_a_mark_is_left_out() {
        let far = "x".repeat(100);
        let line = line(
            &tokens(&[
                (&far, 0.0),
                ("A", 1.0),
                (&far, 0.0),
                ("B", -1.0),
                (&far, 0.0),
            ]),
            0,
        );
        let (x, y) = ("x".repeat(CONTEXT), "x".repeat(CONTEXT));
        assert_eq!(line, format!("…{x}{{+A+}}{x}…{y}[-B-]{y}…"));
    }

    #[test]
    fn ids_stand_for_texts_that_are_not_known_and_nothing_is_marked_without_scores() {
        let mut unnamed = tokens(&[("", 0.0), ("", 2.0)]);
        assert_eq!(line(&unnamed, 0), "0{+ 1+}");
        unnamed[1].token = None;
        assert_eq!(line(&unnamed, 0), "0{+ [1]+}");
        assert_eq!(line(&tokens(&[("a", 0.0), ("b", 0.0)]), 0), "ab");
        assert_eq!(line(&[], 0), "");
    }
}
