//! Texts of a table, converted to category and class numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};

use super::DataError;
use super::numbers::{Number, all_numbers, same_number};

/// Largest number of distinct texts in a column of categories or classes.
pub(super) const MAX_DISTINCT: usize = 1000;

/// Texts that programs write for a missing value, in lower case.
const MISSING: [&str; 12] = [
    "?", "-", ".", "na", "n/a", "#n/a", "<na>", "nan", "nil", "none", "null", "missing",
];

/// Distinct texts of a column, numbered in the order of their first occurrence.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) numbers: HashMap<String, u32>,
}

/// The categories of a column, sorted.
pub(super) struct Sorted {
    /// The name of each category.
    pub(super) names: Vec<String>,
    /// For each number of [`Texts`], the position of its category in `names`.
    pub(super) places: Vec<u32>,
    /// Categories with several spellings.
    merged: Vec<Merged>,
}

/// A category with several spellings.
struct Merged {
    name: String,
    others: Vec<String>,
    /// What they have in common.
    same: &'static str,
}

/// The classes of a source whose labels are texts.
#[derive(Default)]
pub(super) struct Numbered {
    /// The names, by class number.
    pub(super) names: Vec<String>,
    /// For each number of [`Texts`], its class.
    pub(super) places: Vec<u32>,
    /// Notes for users about combined names.
    pub(super) notes: Vec<String>,
}

/// Whether programs write this text for a missing value: an empty one, `NA`, `NaN`, `?` and the like.
pub fn is_missing(text: &str) -> bool {
    text.is_empty() || MISSING.contains(&text.to_lowercase().as_str())
}

impl Texts {
    /// The classes: in the order of `given`, the names in the Task, or sorted if it names none. If the texts are numbers and the
    /// names aren't, the texts are the numbers of the names, from 0. `place` says where the texts stand, for notes.
    pub(super) fn numbered(&self, place: &str, given: &[String]) -> Result<Numbered, DataError> {
        if given.is_empty() {
            let sorted = self.sorted();
            return Ok(Numbered {
                notes: sorted.class_notes(place),
                names: sorted.names,
                places: sorted.places,
            });
        }
        let mut places = vec![0; self.numbers.len()];
        let by_number = spell_numbers_of(given, self.numbers.keys());
        for (text, n) in &self.numbers {
            let at = if by_number {
                number_of(text, given)
            } else {
                place_of(text, given)
            };
            let at = at.ok_or_else(|| not_among(text, given, by_number))?;
            if let Some(slot) = places.get_mut(*n as usize) {
                *slot = at as u32;
            }
        }
        Ok(Numbered {
            names: given.to_vec(),
            places,
            notes: Vec::new(),
        })
    }

    /// The number of a text. `None` if there would be more than [`MAX_DISTINCT`].
    pub(super) fn number(&mut self, text: &str) -> Option<u32> {
        if let Some(n) = self.numbers.get(text) {
            return Some(*n);
        }
        let next = self.numbers.len();
        if next == MAX_DISTINCT {
            return None;
        }
        self.numbers.insert(text.to_string(), next as u32);
        Some(next as u32)
    }

    /// If all texts are numbers or stand for a missing value: the first text for a missing value, with its number.
    /// `None` if there is no such text or no number.
    pub(super) fn missing_among_numbers(&self) -> Option<(&str, u32)> {
        let (numbers, others): (Vec<_>, Vec<_>) = self
            .numbers
            .iter()
            .partition(|(text, _)| Number::of(text).is_some());
        let all_missing = others
            .iter()
            .all(|(text, _)| MISSING.contains(&text.to_lowercase().as_str()));
        let first = others.into_iter().min_by_key(|(_, n)| **n)?;
        (!numbers.is_empty() && all_missing).then_some((first.0.as_str(), *first.1))
    }

    /// The sorted categories. If all texts are numbers, they are sorted by value. Texts for the same number, such as
    /// `1` and `1.0`, are then one category, named by the shortest text. Other texts are one category if they differ only in
    /// their Unicode normal form.
    pub(super) fn sorted(&self) -> Sorted {
        let mut texts: Vec<(&String, u32)> = self.numbers.iter().map(|(t, n)| (t, *n)).collect();
        texts.sort();
        let values: Option<Vec<Number>> = texts.iter().map(|(t, _)| Number::of(t)).collect();
        let same = match values {
            None => "the same letters in two Unicode forms",
            Some(_) => "the same number",
        };
        let mut categories: Vec<Vec<(&String, u32)>> = Vec::new();
        match values {
            None => categories.extend(by_composed(texts)),
            Some(values) => {
                let mut valued: Vec<_> = values.into_iter().zip(texts).collect();
                valued.sort_by(|(a, (s, _)), (b, (t, _))| {
                    a.order(*b)
                        .then_with(|| s.len().cmp(&t.len()))
                        .then_with(|| s.cmp(t))
                });
                for same in valued.chunk_by(|(a, _), (b, _)| a == b) {
                    categories.push(same.iter().map(|(_, text)| *text).collect());
                }
            }
        }
        let mut sorted = Sorted {
            names: Vec::with_capacity(categories.len()),
            places: vec![0; self.numbers.len()],
            merged: Vec::new(),
        };
        for (at, texts) in categories.into_iter().enumerate() {
            for (_, n) in &texts {
                if let Some(place) = sorted.places.get_mut(*n as usize) {
                    *place = at as u32;
                }
            }
            let mut texts = texts.into_iter().map(|(text, _)| text.clone());
            let name = texts.next().unwrap_or_default();
            let others: Vec<String> = texts.collect();
            if !others.is_empty() {
                sorted.merged.push(Merged {
                    name: name.clone(),
                    others,
                    same,
                });
            }
            sorted.names.push(name);
        }
        sorted
    }
}

impl Sorted {
    /// A note for each class with several spellings, and for names that differ only in upper and lower case.
    pub(super) fn class_notes(&self, place: &str) -> Vec<String> {
        let mut notes = self.notes(place);
        let mut lower: HashMap<String, &str> = HashMap::new();
        for name in &self.names {
            if let Some(other) = lower.insert(composed(name).to_lowercase(), name) {
                notes.push(format!(
                    "note: {place}: {other:?} and {name:?} differ only in upper and lower case. They are two classes: if one is meant, write both alike, or combine them with the key data.merge"
                ));
            }
        }
        notes
    }

    /// A note for each category with several spellings. `place` says where they stand.
    pub(super) fn notes(&self, place: &str) -> Vec<String> {
        let quoted = |texts: &[String]| {
            let texts: Vec<String> = texts.iter().map(|t| format!("{t:?}")).collect();
            texts.join(", ")
        };
        let note = |Merged { name, others, same }: &Merged| {
            format!(
                "note: {place}: {name:?} and {} are {same}. They are combined as {name:?}",
                quoted(others)
            )
        };
        self.merged.iter().map(note).collect()
    }
}

/// The position of a class in a list of names: the name itself, or the first that means the same.
pub(super) fn place_of(text: &str, names: &[String]) -> Option<usize> {
    let exactly = names.iter().position(|name| name == text);
    exactly.or_else(|| names.iter().position(|name| same_name(name, text)))
}

/// Whether texts of labels are the numbers of classes with these names: they are numbers, and the names aren't.
pub(super) fn spell_numbers_of<'a>(
    names: &[String],
    texts: impl IntoIterator<Item = &'a String>,
) -> bool {
    !all_numbers(names) && texts.into_iter().all(|text| Number::of(text).is_some())
}

/// The position of the class with this number, from 0. `None` if there are fewer, or the text isn't a whole number.
pub(super) fn number_of(text: &str, names: &[String]) -> Option<usize> {
    (0..names.len()).find(|at| same_number(&at.to_string(), text))
}

fn not_among(text: &str, names: &[String], by_number: bool) -> DataError {
    let text = shortened(text);
    let names = if by_number {
        format!(
            "no class of class_names, whose classes have the numbers from 0 to {}: {}",
            names.len().saturating_sub(1),
            listed(names)
        )
    } else {
        format!("not in class_names: {}", listed(names))
    };
    DataError::spec(
        "class_names",
        format!("the files have the label {text:?}, which is {names}"),
    )
}

/// Whether two names of classes spell the same number, or differ only in their Unicode normal form.
pub(super) fn same_name(a: &str, b: &str) -> bool {
    same_number(a, b) || composed(a) == composed(b)
}

/// The text in Unicode's normal form C, in which an accent and its letter are one character. Names of files on a Mac often
/// have them as two.
fn composed(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc(text) {
        Cow::Borrowed(text)
    } else {
        text.nfc().collect()
    }
}

/// Groups sorted texts by their composed form. In each group, the composed text comes first.
fn by_composed(texts: Vec<(&String, u32)>) -> Vec<Vec<(&String, u32)>> {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<(&String, u32)>> = Vec::new();
    for text in texts {
        let name = composed(text.0);
        let is_composed = matches!(name, Cow::Borrowed(_));
        let at = *places.entry(name).or_insert(groups.len());
        match groups.get_mut(at) {
            Some(group) if is_composed => group.insert(0, text),
            Some(group) => group.push(text),
            None => groups.push(vec![text]),
        }
    }
    groups.sort();
    groups
}

/// The beginning of a text, for a message.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_string(),
    }
}

/// Names for a message: the first few, and their total number.
pub(crate) fn listed(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let first = names.get(..SHOWN.min(names.len())).unwrap_or_default();
    let mut text = first.join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(", … ({} in all)", names.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Texts {
        let mut texts = Texts::default();
        for text in list {
            texts.number(text).unwrap();
        }
        texts
    }

    #[test]
    fn equal_numbers_are_one_category_and_others_stay_apart() {
        let sorted = texts(&["1.0", "10", "1", "0", "-0.0", "01", "2.5"]).sorted();
        assert_eq!(sorted.names, ["0", "1", "2.5", "10"]);
        assert_eq!(sorted.places, [1, 3, 1, 0, 0, 1, 2]);
        assert_eq!(sorted.merged.len(), 2);
        let note = sorted.notes("column \"y\"").concat();
        assert!(
            note.contains("column \"y\": \"1\" and \"01\", \"1.0\" are the same number"),
            "{note}"
        );
        // If one text isn't a number, none counts as a number.
        let sorted = texts(&["1.0", "1", "b"]).sorted();
        assert_eq!(sorted.names, ["1", "1.0", "b"]);
        assert!(sorted.merged.is_empty());
        // As floats these are equal.
        let large = texts(&["9007199254740993", "9007199254740992"]).sorted();
        assert_eq!(large.names, ["9007199254740992", "9007199254740993"]);
        assert_eq!(large.places, [1, 0]);
        // A single spelling keeps its name.
        assert_eq!(texts(&["2.0", "1.0"]).sorted().names, ["1.0", "2.0"]);
    }

    #[test]
    fn numbers_are_those_of_the_names() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let given = names(&["no", "yes"]);
        let found = texts(&["1", "0", "1.0"]).numbered("", &given).unwrap();
        assert_eq!((found.places, found.names), (vec![1, 0, 1], given.clone()));
        // A class that no row has keeps its number.
        let found = texts(&["1"]).numbered("", &given).unwrap();
        assert_eq!(found.places, [1]);
        // Numbers that are names are names.
        let found = texts(&["1", "0"])
            .numbered("", &names(&["1", "0"]))
            .unwrap();
        assert_eq!(found.places, [0, 1]);
        let refused = |list: &[&str], given: &[&str]| {
            let found = texts(list).numbered("", &names(given));
            found.map(|_| ()).unwrap_err().to_string()
        };
        let wrong = refused(&["1", "2"], &["no", "yes"]);
        assert!(
            wrong.contains("\"2\", which is no class of class_names"),
            "{wrong}"
        );
        assert!(wrong.contains("from 0 to 1: no, yes"), "{wrong}");
        // A number among texts is probably a mistake.
        let wrong = refused(&["1", "no"], &["no", "yes"]);
        assert!(
            wrong.contains("\"1\", which is not in class_names: no, yes"),
            "{wrong}"
        );
    }

    #[test]
    fn letters_in_two_unicode_forms_are_one_category() {
        let (one, two) = ("K\u{e4}se", "Ka\u{308}se");
        let sorted = texts(&[two, "Brot", one, "kiwi"]).sorted();
        assert_eq!(sorted.names, ["Brot", one, "kiwi"]);
        assert_eq!(sorted.places, [1, 0, 1, 2]);
        let note = sorted.class_notes("column \"food\"").concat();
        assert!(
            note.contains("\"Käse\" and \"Ka\\u{308}se\" are the same letters"),
            "{note}"
        );
        // A single spelling keeps its name.
        assert_eq!(texts(&[two]).sorted().names, [two]);
        assert_eq!(place_of(two, &["Brot".into(), one.into()]), Some(1));
        // Letters that only look alike are others.
        assert_eq!(texts(&["A", "\u{391}"]).sorted().names.len(), 2);
    }

    #[test]
    fn names_that_differ_only_in_case_stay_apart_with_a_note() {
        let sorted = texts(&["cat", "Äpfel", "Cat", "äpfel", "dog"]).sorted();
        assert_eq!(sorted.names.len(), 5);
        let notes = sorted.class_notes("the folders of classes");
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(
            notes[0].contains("the folders of classes: \"Cat\" and \"cat\" differ only"),
            "{notes:?}"
        );
        assert!(sorted.notes("column").is_empty());
    }

    #[test]
    fn missing_values_among_numbers_are_found() {
        let found = |list: &[&str]| {
            let texts = texts(list);
            texts
                .missing_among_numbers()
                .map(|(text, n)| (text.to_string(), n))
        };
        assert_eq!(found(&["1", "NaN", "0", "NA"]), Some(("NaN".into(), 1)));
        assert_eq!(found(&["1", "0"]), None);
        assert_eq!(found(&["1", "other"]), None);
        assert_eq!(found(&["cat", "NA"]), None);
        assert_eq!(found(&["NA", "none"]), None);
    }

    #[test]
    fn long_lists_are_cut_in_messages() {
        let names: Vec<String> = (0..60_000).map(|i| i.to_string()).collect();
        assert!(listed(&names).ends_with("18, 19, … (60000 in all)"));
        assert_eq!(listed(&names[..3]), "0, 1, 2");
    }
}
