//! The texts of token ids.

use std::collections::HashMap;

/// The texts of token ids 0, 1, …. Tables and reports show sequences with it.
///
/// ```
/// use hindcast_model::data::Vocabulary;
///
/// assert_eq!(Vocabulary::bytes().text(&[104, 105, -100]), "hi"); // an id below 0 is padding and has no text
/// assert_eq!(Vocabulary::chars("abc".chars()).text(&[2, 0, 1]), "cab");
/// assert_eq!(Vocabulary::words(["the", "cat"]).text(&[0, 1]), "the cat");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vocabulary(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Bytes,
    Pieces(Vec<String>),
    Words(Vec<String>),
}

impl Vocabulary {
    /// Token b is the byte b of a UTF-8 text.
    pub fn bytes() -> Self {
        Self(Kind::Bytes)
    }

    /// Token i is the i-th of these characters.
    pub fn chars(chars: impl IntoIterator<Item = char>) -> Self {
        Self::pieces(chars)
    }

    /// Token i is the i-th of these texts. A sequence's text is theirs, one directly after the other, as most tokenizers of
    /// language models cut texts.
    pub fn pieces(texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Kind::Pieces(texts.into_iter().map(Into::into).collect()))
    }

    /// Token i is the i-th of these words. There is a space between the words of a sequence.
    pub fn words(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(Kind::Words(words.into_iter().map(Into::into).collect()))
    }

    /// Number of tokens.
    pub fn size(&self) -> usize {
        match &self.0 {
            Kind::Bytes => 256,
            Kind::Pieces(texts) | Kind::Words(texts) => texts.len(),
        }
    }

    /// The ids of a text's characters, or bytes. `None` if a character isn't in the vocabulary, or the vocabulary doesn't
    /// consist of single characters.
    pub fn ids(&self, text: &str) -> Option<Vec<u32>> {
        match &self.0 {
            Kind::Bytes => Some(text.bytes().map(u32::from).collect()),
            Kind::Words(_) => None,
            Kind::Pieces(texts) => {
                let numbered = texts.iter().zip(0u32..).map(|(text, id)| {
                    let mut chars = text.chars();
                    Some((chars.next().filter(|_| chars.next().is_none())?, id))
                });
                let ids: HashMap<char, u32> = numbered.collect::<Option<_>>()?;
                text.chars().map(|c| ids.get(&c).copied()).collect()
            }
        }
    }

    /// The text of each token, which together are the sequence's text. A word has the space before it. A character of
    /// several bytes belongs to its last byte. Bytes that aren't UTF-8 are `�`. An id that the vocabulary doesn't have is
    /// `<id>`, and an id below 0, which is padding, has no text.
    pub fn texts(&self, ids: &[i64]) -> Vec<String> {
        let listed = |texts: &[String], id: i64, before: &str| {
            let at = usize::try_from(id).unwrap_or(usize::MAX);
            let text = texts.get(at).cloned();
            format!("{before}{}", text.unwrap_or_else(|| format!("<{id}>")))
        };
        let text = |id: i64| match &self.0 {
            Kind::Pieces(texts) => listed(texts, id, ""),
            Kind::Words(words) => listed(words, id, " "),
            Kind::Bytes => format!("<{id}>"),
        };
        let mut out: Vec<String> = ids
            .iter()
            .map(|&id| if id < 0 { String::new() } else { text(id) })
            .collect();
        if self.0 == Kind::Bytes {
            decode(ids, &mut out);
        }
        out
    }

    /// The text of a sequence.
    pub fn text(&self, ids: &[i64]) -> String {
        let text = self.texts(ids).concat();
        match self.0 {
            Kind::Words(_) => text.trim_start().to_owned(),
            _ => text,
        }
    }
}

/// Sets the texts of ids that are bytes.
fn decode(ids: &[i64], texts: &mut [String]) {
    // Runs of bytes; other ids keep their texts.
    let bytes: Vec<Option<u8>> = ids.iter().map(|&id| u8::try_from(id).ok()).collect();
    let mut start = 0;
    while start < bytes.len() {
        let run: Vec<u8> = bytes[start..].iter().map_while(|&byte| byte).collect();
        let mut at = start;
        for chunk in run.utf8_chunks() {
            for c in chunk.valid().chars() {
                let end = at + c.len_utf8();
                texts[at..end].iter_mut().for_each(String::clear);
                texts[end - 1].push(c);
                at = end;
            }
            let end = at + chunk.invalid().len();
            for text in &mut texts[at..end] {
                *text = char::REPLACEMENT_CHARACTER.to_string();
            }
            at = end;
        }
        start = at.max(start + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_bytes_are_those_of_their_characters() {
        let bytes = Vocabulary::bytes();
        let text = "aé日!";
        let ids: Vec<i64> = text.bytes().map(i64::from).collect();
        assert_eq!(bytes.text(&ids), text);
        assert_eq!(bytes.texts(&ids), ["a", "", "é", "", "", "日", "!"]);
        // A character that is cut, a byte alone, padding, and an id that is no byte.
        assert_eq!(bytes.texts(&[0xc3, 98]), ["\u{fffd}", "b"]);
        assert_eq!(
            bytes.texts(&[97, -100, 0xff, 300, 0xc3]),
            ["a", "", "\u{fffd}", "<300>", "\u{fffd}"]
        );
        assert_eq!(bytes.ids("é"), Some(vec![0xc3, 0xa9]));
    }

    #[test]
    fn ids_of_a_text_need_a_vocabulary_of_characters() {
        let chars = Vocabulary::chars("ab\n".chars());
        assert_eq!((chars.size(), chars.ids("b\na")), (3, Some(vec![1, 2, 0])));
        assert_eq!(chars.ids("abc"), None);
        assert_eq!(Vocabulary::pieces(["a", "bc"]).ids("a"), None);
        assert_eq!(Vocabulary::words(["a"]).ids("a"), None);
    }

    #[test]
    fn a_word_has_the_space_before_it() {
        let words = Vocabulary::words(["the", "cat"]);
        assert_eq!(words.texts(&[0, 1, -1, 2]), [" the", " cat", "", " <2>"]);
        assert_eq!(words.text(&[0, 1, -1, 2]), "the cat <2>");
    }
}
