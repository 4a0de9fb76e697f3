//! Query words that expand to many queries: one per example or one per class.

use std::str::FromStr;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::error::{AnalysisError, Result};
use crate::query::one::{Query, empty_split, indices};

/// One query, or a word that expands to many queries in one sweep.
///
/// | text | queries |
/// |---|---|
/// | `validation`, `validation:3,17`, `vector:FILE` | one; see [`Query`] |
/// | `validation:0..99` | one per example, named `validation:0`, `validation:1` … |
/// | `each:validation:3,17,20..30`, `each:test` | one per example |
/// | `mean:validation:0..99` | one, the mean over the range |
/// | `per-class`, `per-class:test` | one per class, the mean over its examples, named `validation:class-NAME` |
/// | `validation:class-NAME` | one, the mean over the examples of this class |
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Queries {
    /// A single query.
    One(Query),
    /// One query per example.
    Each {
        /// The split of the examples.
        split: Split,
        /// Their indices; `None` for the whole split.
        examples: Option<Vec<u64>>,
        /// As the user wrote it.
        text: String,
    },
    /// One query per class: the mean loss of its examples.
    PerClass {
        /// The split of the examples.
        split: Split,
        /// Name of a single class; `None` for all classes.
        only: Option<String>,
        /// As the user wrote it.
        text: String,
    },
}

impl FromStr for Queries {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = |problem: String| AnalysisError::Query {
            query: text.to_owned(),
            problem,
        };
        let split = |name: &str| {
            Split::of_name(name).ok_or_else(|| {
                bad(format!(
                    "`{name}` is not a split: write validation, train or test"
                ))
            })
        };
        let (head, tail) = match text.split_once(':') {
            Some((head, tail)) => (head.trim(), Some(tail.trim())),
            None => (text, None),
        };
        let each = |split, list: Option<&str>| {
            Ok(Queries::Each {
                split,
                examples: list.map(|list| indices(list).map_err(bad)).transpose()?,
                text: text.to_owned(),
            })
        };
        match (head, tail) {
            ("each", Some(tail)) => match tail.split_once(':') {
                Some((name, list)) => each(split(name.trim())?, Some(list)),
                None => each(split(tail)?, None),
            },
            ("mean", Some(tail)) => {
                let mut query: Query = tail.parse()?;
                match &mut query {
                    // The name of its column shows that it is a mean.
                    Query::Loss { text: name, .. } => text.clone_into(name),
                    Query::Vector { .. } => {
                        return Err(bad("a vector has no mean: leave out `mean:`".to_owned()));
                    }
                }
                Ok(Queries::One(query))
            }
            ("each" | "mean", None) => Err(bad(format!(
                "it names no examples: write `{head}:validation:0..99` or `{head}:validation`"
            ))),
            ("per-class", name) => Ok(Queries::PerClass {
                split: name.map_or(Ok(Split::Validation), split)?,
                only: None,
                text: text.to_owned(),
            }),
            (name, Some(tail)) if Split::of_name(name).is_some() => {
                match tail.strip_prefix("class-") {
                    Some(class) => Ok(Queries::PerClass {
                        split: split(name)?,
                        only: Some(class.to_owned()),
                        text: text.to_owned(),
                    }),
                    None if tail.contains("..") && !tail.contains(',') => {
                        each(split(name)?, Some(tail))
                    }
                    None => text.parse().map(Queries::One),
                }
            }
            _ => text.parse().map(Queries::One).map_err(|error| match error {
                AnalysisError::Query { query, problem }
                    if Split::of_name(head).is_none() && head != "vector" =>
                {
                    AnalysisError::Query {
                        query,
                        problem: format!(
                            "{problem}; or `mean:validation:0..99`, or several queries at once: `validation:0..99`, `each:validation` or `per-class`"
                        ),
                    }
                }
                error => error,
            }),
        }
    }
}

impl Queries {
    /// The queries, in the order of their examples or classes.
    ///
    /// # Errors
    /// If the data doesn't have an example or a class, or its labels aren't classes.
    pub fn expand(&self, data: &dyn DataSet) -> Result<Vec<Query>> {
        match self {
            Queries::One(query) => Ok(vec![query.clone()]),
            Queries::Each {
                split,
                examples,
                text,
            } => {
                let whole = Query::Loss {
                    split: *split,
                    examples: examples.clone(),
                    text: text.clone(),
                };
                let one = |i: u64| Query::of_example(*split, i);
                Ok(whole.examples(data)?.into_iter().map(one).collect())
            }
            Queries::PerClass { split, text, .. } if data.len(*split) == 0 => {
                Err(empty_split(text.clone(), *split, data))
            }
            Queries::PerClass { split, only, text } => per_class(*split, only.as_deref(), data)
                .map_err(|problem| AnalysisError::Query {
                    query: text.clone(),
                    problem,
                }),
        }
    }
}

/// One query for each class of the split's examples, in the order of the classes' numbers.
fn per_class(split: Split, only: Option<&str>, data: &dyn DataSet) -> Result<Vec<Query>, String> {
    let mut classes: std::collections::BTreeMap<usize, Vec<u64>> = Default::default();
    for i in 0..data.len(split) {
        if let Some(class) = data.class(split, i) {
            classes.entry(class).or_default().push(i);
        }
    }
    let split_name = split.name();
    if classes.is_empty() {
        return Err("the data's labels aren't classes".to_owned());
    }
    let name = |class: usize| {
        let names = data.class_names();
        names.get(class).cloned().unwrap_or(class.to_string())
    };
    let known: Vec<String> = classes.keys().map(|&c| name(c)).collect();
    let queries: Vec<Query> = classes
        .into_iter()
        .map(|(class, examples)| (name(class), examples))
        .filter(|(name, _)| only.is_none_or(|only| only == name))
        .map(|(name, examples)| Query::Loss {
            split,
            examples: Some(examples),
            text: format!("{split_name}:class-{name}"),
        })
        .collect();
    match (queries.is_empty(), only) {
        (true, Some(only)) => Err(format!(
            "no {split_name} example is of the class `{only}`; the classes are {}",
            known.join(", ")
        )),
        _ => Ok(queries),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Queries {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_is_one_query_per_example_and_its_mean_is_a_single_query() {
        let range = |text: &str| Queries::Each {
            split: Split::Validation,
            examples: Some((3..6).collect()),
            text: text.to_owned(),
        };
        for text in [
            "validation:3..6",
            "each:validation:3..6",
            "each:validation:3,4,5",
        ] {
            assert_eq!(read(text), range(text));
        }
        for (text, examples) in [
            ("mean:validation:3..6", Some(vec![3, 4, 5])),
            ("validation:3,4", Some(vec![3, 4])),
            ("validation:3,10..12", Some(vec![3, 10, 11])),
            ("validation", None),
        ] {
            let one = Query::Loss {
                split: Split::Validation,
                examples,
                text: text.to_owned(),
            };
            assert_eq!(read(text), Queries::One(one));
        }
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        for (text, hint) in [
            ("each", "each:validation:0..99"),
            ("mean", "mean:validation:0..99"),
            ("each:vector:u.safetensors", "is not a split"),
            ("mean:vector:u.safetensors", "leave out `mean:`"),
            ("per-class:valid", "is not a split"),
            ("valid", "`each:validation` or `per-class`"),
            ("validation:5..5", "end is excluded"),
            ("each:test:x", "not an example's index"),
            ("valid", "neither a split"),
        ] {
            let message = text.parse::<Queries>().unwrap_err().to_string();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
