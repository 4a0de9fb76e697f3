//! The list of methods, and a method with its options chosen.

use std::collections::BTreeMap;

use super::Estimator;
use crate::error::{AnalysisError, Result, Unknown};

/// A method that can be asked for by name.
#[derive(Debug)]
pub struct Method {
    /// The name on the command line and in a table's metadata.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// What it takes: which run, which data, how long.
    pub needs: &'static str,
    /// The paper that it comes from.
    pub source: &'static str,
    /// Whether a score is meant as the change of the query when the example is left out, so that scores add up and can be
    /// held against retraining. Other methods only rank.
    pub predicts: bool,
    /// Whether scores belong to a window of steps.
    pub windowed: bool,
    /// What can be set.
    pub options: &'static [MethodOption],
    /// Makes the estimator from values for all options.
    pub(super) build: fn(&Choices) -> Result<Box<dyn Estimator>>,
}

/// Something that can be set for a method.
#[derive(Debug)]
pub struct MethodOption {
    /// Its name, as in `KEY=VALUE`.
    pub key: &'static str,
    /// What it is where nobody says.
    pub default: &'static str,
    /// What it means.
    pub about: &'static str,
}

/// All methods, in the order in which they are listed.
static METHODS: &[&Method] = &[
    &super::sweeps::SGD,
    &super::sweeps::HESSIAN_FREE,
    &super::sweeps::RELEASED_RULE,
    &super::accumulative::ACCUMULATIVE,
    &super::accumulative::FORWARD,
    &super::tracin::TRACIN,
    &super::tracin::TRACIN_STEPS,
    &super::koh_liang::CG,
    &super::koh_liang::SGD,
    &super::koh_liang::LISSA,
    &super::autoencoder::METHOD,
    &super::outliers::METHOD,
    &super::random::METHOD,
];

/// All methods, the sweep first.
pub fn methods() -> &'static [&'static Method] {
    METHODS
}

/// The method of that name.
///
/// # Errors
/// [`Unknown::Method`] with the names of the methods.
pub fn method(name: &str) -> Result<&'static Method> {
    let found = methods().iter().find(|m| m.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<&str> = methods().iter().map(|m| m.name).collect();
        AnalysisError::Unknown(Unknown::Method {
            name: name.to_owned(),
            known: names,
        })
    })
}

/// A value for each option of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choices {
    method: &'static str,
    values: BTreeMap<String, String>,
}

impl Choices {
    /// The value as it was written; empty for an option that the method doesn't have.
    pub fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or("", String::as_str)
    }

    /// The value as a finite number of which `holds` is true; `wanted` says in words which those are.
    pub(super) fn number(
        &self,
        key: &str,
        wanted: &str,
        holds: impl Fn(f64) -> bool,
    ) -> Result<f64> {
        let number = self.text(key).parse().ok();
        number
            .filter(|x: &f64| x.is_finite() && holds(*x))
            .ok_or_else(|| self.wrong(key, wanted))
    }

    /// The value as a whole number of at least `least`.
    pub(super) fn count(&self, key: &str, least: u64) -> Result<u64> {
        let number = self.text(key).parse().ok();
        number
            .filter(|&n: &u64| n >= least)
            .ok_or_else(|| self.wrong(key, &format!("a whole number from {least} up")))
    }

    /// A value that isn't what the option takes.
    pub(super) fn wrong(&self, key: &str, wanted: &str) -> AnalysisError {
        self.refused(key, format!("expected {wanted}"))
    }

    /// An option whose value has this problem.
    pub(super) fn refused(&self, key: &str, problem: String) -> AnalysisError {
        AnalysisError::Unknown(Unknown::Value {
            method: self.method,
            key: key.to_owned(),
            value: self.text(key).to_owned(),
            problem,
        })
    }
}

/// A method with its options, ready to estimate.
pub struct Chosen {
    /// Which method.
    pub method: &'static Method,
    /// Every option with its value.
    pub choices: Choices,
    /// The estimator.
    pub estimator: Box<dyn Estimator>,
}

impl Chosen {
    /// Every option with its value, for a table's metadata.
    pub fn settings(&self) -> BTreeMap<String, String> {
        self.choices.values.clone()
    }
}

impl std::fmt::Debug for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chosen")
            .field("choices", &self.choices)
            .finish_non_exhaustive()
    }
}

/// A method by name, with some of its options set and the others as they are by default.
///
/// # Errors
/// [`AnalysisError::Unknown`] for a method or an option that isn't there, or a value that an option doesn't take.
pub fn choose(name: &str, set: &[(&str, &str)]) -> Result<Chosen> {
    let method = method(name)?;
    let options = method.options.iter();
    let mut choices = Choices {
        method: method.name,
        values: options
            .map(|o| (o.key.to_owned(), o.default.to_owned()))
            .collect(),
    };
    for (key, value) in set {
        match choices.values.get_mut(*key) {
            Some(slot) => (*value).clone_into(slot),
            None => {
                return Err(AnalysisError::Unknown(Unknown::Key {
                    method: name.to_owned(),
                    key: (*key).to_owned(),
                    known: choices.values.keys().cloned().collect(),
                }));
            }
        }
    }
    Ok(Chosen {
        estimator: (method.build)(&choices)?,
        choices,
        method,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_can_be_made_and_describes_itself() {
        for method in methods() {
            let chosen = choose(method.name, &[]).unwrap();
            assert_eq!(chosen.estimator.method().name, method.name);
            assert_eq!(chosen.settings().len(), method.options.len());
            for text in [method.about, method.needs, method.source] {
                assert!(!text.is_empty() && !text.ends_with('.'), "{text}");
            }
            assert!(
                method.about.len() < 110,
                "{}: more than a line",
                method.name
            );
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_what_is() {
        let message = choose("tracing", &[]).unwrap_err().to_string();
        assert!(message.contains("`tracing`"), "{message}");
        assert!(message.contains("sgd, hessian-free"), "{message}");
        let message = choose("random", &[("seeds", "3")]).unwrap_err().to_string();
        assert!(message.contains("no option `seeds`"), "{message}");
        assert!(message.contains("it has seed"), "{message}");
        let message = choose("random", &[("seed", "-3")]).unwrap_err().to_string();
        assert!(message.contains("seed=-3: expected"), "{message}");
        let message = choose("sgd", &[("damping", "1")]).unwrap_err().to_string();
        assert!(message.contains("has no options"), "{message}");
    }
}
