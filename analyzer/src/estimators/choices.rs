//! The list of methods, and the choice of one of them with its options.

use std::collections::BTreeMap;

use super::estimator::{Choices, Estimator, Method};
use crate::error::{AnalysisError, Result, Unknown};

/// All methods, in the order in which they are listed.
static METHODS: &[&Method] = &[
    &super::sweeps::SGD,
    &super::sweeps::DISCOUNTED,
    &super::sweeps::HESSIAN_FREE,
    &super::sweeps::RELEASED_RULE,
    &super::accumulative::ACCUMULATIVE,
    &super::accumulative::FORWARD,
    &super::tracin::TRACIN,
    &super::tracin::TRACIN_STEPS,
    &super::koh_liang::CG,
    &super::koh_liang::SGD,
    &super::koh_liang::LISSA,
    &super::dynamics::MEAN_LOSS,
    &super::dynamics::MARGIN,
    &super::dynamics::FORGETTING,
    &super::dynamics::SELF_INFLUENCE,
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

/// A method with its options, ready to estimate.
pub struct Chosen {
    /// The method.
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

/// A method by name, with some of its options set and the others at their defaults.
///
/// # Errors
/// [`AnalysisError::Unknown`] if a method or option is unknown, or an option doesn't take a value.
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
    fn errors_list_the_known_methods_and_options() {
        let message = choose("tracing", &[]).unwrap_err().to_string();
        assert!(message.contains("`tracing`"), "{message}");
        assert!(
            message.contains("sgd, discounted, hessian-free"),
            "{message}"
        );
        let message = choose("random", &[("seeds", "3")]).unwrap_err().to_string();
        assert!(message.contains("no option `seeds`"), "{message}");
        assert!(message.contains("it has seed"), "{message}");
        let message = choose("random", &[("seed", "-3")]).unwrap_err().to_string();
        assert!(message.contains("seed=-3: expected"), "{message}");
        for discount in ["1.1", "-0.1", "NaN", "many"] {
            let wrong = choose("discounted", &[("discount", discount)]).unwrap_err();
            let message = wrong.to_string();
            assert!(message.contains("a number from 0 to 1"), "{message}");
        }
        let message = choose("sgd", &[("damping", "1")]).unwrap_err().to_string();
        assert!(message.contains("has no options"), "{message}");
    }
}
