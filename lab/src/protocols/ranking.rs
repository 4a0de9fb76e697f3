//! The name of a ranking: a method with its options, its window, the model that it asks about, and its sign.

use std::fmt;
use std::str::FromStr;

use hindcast_analyzer::estimators::{Chosen, choose, methods};
use hindcast_analyzer::{AnalysisError, QueryPoint, Window};

/// Suffix of a ranking by the steps of the last epoch.
const LAST_EPOCH: &str = "-last-epoch";
/// Separates the model that the query is asked about, such as `@mean:last-epoch`.
const AT: char = '@';
/// Separates the options of a method, such as `:discount=0.9`.
const OPTION: char = ':';
/// Suffix of a ranking in reverse order.
const FLIPPED: &str = "-flipped";
/// The name of the baseline, from which nothing is removed.
pub const NONE: &str = "none";

/// The default rankings: those of the paper's figures, with the correct rule and with the released one, and with both
/// signs of Koh and Liang's method.
const USUAL: [&str; 14] = [
    "sgd",
    "sgd-last-epoch",
    "released-rule",
    "released-rule-last-epoch",
    "hessian-free",
    "hessian-free-last-epoch",
    "tracin",
    "koh-liang-cg",
    "koh-liang-cg-flipped",
    "koh-liang-sgd",
    "koh-liang-sgd-flipped",
    "autoencoder",
    "isolation-forest",
    "random",
];

/// A way to rank the training examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    method: String,
    /// Options of the method that the name sets.
    options: Vec<(String, String)>,
    window: Window,
    /// The model that the query is asked about; `None` if the name doesn't say.
    at: Option<QueryPoint>,
    flipped: bool,
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_sign())?;
        f.write_str(if self.flipped { FLIPPED } else { "" })
    }
}

impl FromStr for Ranking {
    type Err = AnalysisError;

    /// Parses a method's name, followed by `:KEY=VALUE` for each option of the method that isn't to have its default,
    /// `-last-epoch` (if the method has a window), `@POINT` (the model that the query is asked about) and `-flipped`, all
    /// optional.
    fn from_str(text: &str) -> Result<Self, AnalysisError> {
        let name = text.trim();
        let (rest, flipped) = match name.strip_suffix(FLIPPED) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (rest, at) = match rest.split_once(AT) {
            Some((rest, at)) => (rest, Some(at.parse()?)),
            None => (rest, None),
        };
        let (rest, window) = match rest.strip_suffix(LAST_EPOCH) {
            Some(rest) => (rest, Window::LastEpoch),
            None => (rest, Window::All),
        };
        let mut parts = rest.split(OPTION);
        let method = hindcast_analyzer::estimators::method(parts.next().unwrap_or_default())?;
        let options: Vec<(String, String)> = parts
            .map(|part| match part.split_once('=') {
                Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
                None => Err(AnalysisError::other(format!(
                    "`{name}`: `{part}` is not an option: write KEY=VALUE, as in `discounted:discount=0.9`"
                ))),
            })
            .collect::<Result<_, _>>()?;
        // Refuses unknown options and values.
        choose(method.name, &borrowed(&options))?;
        if window == Window::LastEpoch && !method.windowed {
            return Err(AnalysisError::other(format!(
                "`{name}`: method {} has no window, so it has no last epoch: write `{rest}`",
                method.name
            )));
        }
        Ok(Ranking {
            method: method.name.to_owned(),
            options,
            window,
            at,
            flipped,
        })
    }
}

impl Ranking {
    /// The default rankings.
    pub fn usual() -> Vec<Ranking> {
        USUAL.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Like [`Ranking::usual`], but all methods that have a window use `window`, for retraining in that window.
    pub fn usual_of(window: &Window) -> Vec<Ranking> {
        let mut rankings: Vec<Ranking> = Vec::new();
        for ranking in Self::usual().into_iter().filter(|r| !r.flipped) {
            let ranking = if ranking.windowed() {
                ranking.within(window)
            } else {
                ranking
            };
            if !rankings.contains(&ranking) {
                rankings.push(ranking);
            }
        }
        rankings
    }

    /// The same ranking with `window`, unless its name has a window or its method has none.
    pub fn unless_named(self, window: &Window) -> Ranking {
        if self.window == Window::All && self.windowed() {
            self.within(window)
        } else {
            self
        }
    }

    /// Whether the method has a window.
    fn windowed(&self) -> bool {
        methods()
            .iter()
            .any(|m| m.name == self.method && m.windowed)
    }

    /// The same ranking with `window`.
    fn within(self, window: &Window) -> Ranking {
        Ranking {
            window: window.clone(),
            ..self
        }
    }

    /// The same ranking about the model `at`, unless its name has a model.
    pub fn unless_asked_at(self, at: &QueryPoint) -> Ranking {
        let named = self.at.clone();
        Ranking {
            at: named.or_else(|| Some(at.clone()).filter(|at| *at != QueryPoint::Final)),
            ..self
        }
    }

    /// The model that the query is asked about.
    pub fn at(&self) -> QueryPoint {
        self.at.clone().unwrap_or(QueryPoint::Final)
    }

    /// The name without the suffix of a reverse order.
    fn without_sign(&self) -> String {
        let mut name = self.method.clone();
        for (key, value) in &self.options {
            name.push_str(&format!("{OPTION}{key}={value}"));
        }
        if self.window != Window::All {
            name.push_str(&format!("-{}", self.window));
        }
        if let Some(at) = &self.at {
            name.push_str(&format!("{AT}{at}"));
        }
        name
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The steps in which the use of an example counts.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The name of the scores' file, which this ranking shares with the reverse ranking.
    pub fn scores_name(&self) -> String {
        self.without_sign().replace(':', "_")
    }

    /// 1, or −1 for a reverse ranking.
    pub fn sign(&self) -> f64 {
        if self.flipped { -1.0 } else { 1.0 }
    }

    /// The method with the options of `task`'s protocol, with `seed` for its random choices, and with the options of the name.
    pub fn chosen(&self, task: &str, seed: u64) -> Result<Chosen, AnalysisError> {
        let seed = seed.to_string();
        let has = |key: &str| {
            methods()
                .iter()
                .any(|m| m.name == self.method && m.options.iter().any(|o| o.key == key))
        };
        let mut set: Vec<(&str, &str)> = Vec::new();
        if has("seed") {
            set.push(("seed", &seed));
        }
        // The paper's damping is a hundred times larger for CIFAR-10 than for MNIST.
        if task.starts_with("cifar10") && has("damping") {
            set.push(("damping", "10"));
        }
        set.extend(borrowed(&self.options));
        choose(&self.method, &set)
    }
}

fn borrowed(options: &[(String, String)]) -> Vec<(&str, &str)> {
    let options = options.iter();
    options.map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

/// Positions by score, lowest first; equal scores by position. Examples without a score come last.
pub(super) fn order(scores: &[Option<f64>], sign: f64) -> Vec<u64> {
    let mut order: Vec<u64> = (0..scores.len() as u64).collect();
    order.sort_by(|&i, &j| match (scores[i as usize], scores[j as usize]) {
        (Some(a), Some(b)) => (sign * a).total_cmp(&(sign * b)).then(i.cmp(&j)),
        (a, b) => b.is_some().cmp(&a.is_some()).then(i.cmp(&j)),
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ranking_is_parsed_from_its_name() {
        let plain: Ranking = "sgd".parse().unwrap();
        assert_eq!((plain.method(), plain.window()), ("sgd", &Window::All));
        let turned: Ranking = "hessian-free-last-epoch-flipped".parse().unwrap();
        assert_eq!(turned.method(), "hessian-free");
        assert_eq!(turned.window(), &Window::LastEpoch);
        assert_eq!(turned.sign(), -1.0);
        assert_eq!(turned.scores_name(), "hessian-free-last-epoch");
        let averaged: Ranking = "sgd-last-epoch@mean:5-epochs-flipped".parse().unwrap();
        assert_eq!(averaged.window(), &Window::LastEpoch);
        assert_eq!(averaged.at(), QueryPoint::MeanOfEpochs(5));
        assert_eq!(averaged.sign(), -1.0);
        assert_eq!(averaged.to_string(), "sgd-last-epoch@mean:5-epochs-flipped");
        assert_eq!(averaged.scores_name(), "sgd-last-epoch@mean_5-epochs");
        assert!("sgd@mean:".parse::<Ranking>().is_err());
        let mean = QueryPoint::MeanOfLastEpoch;
        assert_eq!(plain.clone().unless_asked_at(&mean).at(), mean);
        assert_eq!(plain.unless_asked_at(&QueryPoint::Final).to_string(), "sgd");
        let end: Ranking = "sgd@final".parse().unwrap();
        assert_eq!(end.unless_asked_at(&mean).at(), QueryPoint::Final);
        let text = "discounted:discount=0.9-last-epoch@mean:5-epochs-flipped";
        let set: Ranking = text.parse().unwrap();
        assert_eq!(
            (set.method(), set.to_string().as_str()),
            ("discounted", text)
        );
        let chosen = set.chosen("digits", 3).unwrap();
        assert_eq!(chosen.choices.text("discount"), "0.9");
        assert_eq!(
            set.scores_name(),
            "discounted_discount=0.9-last-epoch@mean_5-epochs"
        );
        let seeded: Ranking = "random:seed=7".parse().unwrap();
        assert_eq!(
            seeded.chosen("digits", 3).unwrap().choices.text("seed"),
            "7"
        );
        for wrong in ["discounted:0.9", "discounted:discount=2", "sgd:discount=1"] {
            assert!(wrong.parse::<Ranking>().is_err(), "{wrong}");
        }
        assert!("random-last-epoch".parse::<Ranking>().is_err());
        assert!("best".parse::<Ranking>().is_err());
    }

    #[test]
    fn the_default_rankings_are_complete_and_unique_in_a_window() {
        let usual = Ranking::usual();
        for name in ["sgd", "sgd-last-epoch", "hessian-free", "random"] {
            assert!(usual.iter().any(|r| r.to_string() == name), "{name}");
        }
        let of_window = Ranking::usual_of(&Window::LastEpoch);
        let names: Vec<String> = of_window.iter().map(ToString::to_string).collect();
        assert_eq!(names[0], "sgd-last-epoch");
        assert!(names.contains(&"random".to_owned()), "{names:?}");
        assert!(!names.contains(&"sgd".to_owned()), "{names:?}");
        assert!(of_window.iter().all(|r| r.chosen("digits", 3).is_ok()));
    }

    #[test]
    fn a_window_applies_to_methods_whose_name_has_none() {
        let of = |name: &str, window: Window| {
            let ranking: Ranking = name.parse().unwrap();
            let ranking = ranking.unless_named(&window);
            (ranking.to_string(), ranking.window().clone())
        };
        let last = || Window::LastEpoch;
        assert_eq!(of("sgd", last()), ("sgd-last-epoch".into(), last()));
        assert_eq!(
            of("sgd-flipped", Window::Steps(3..7)),
            ("sgd-3..7-flipped".into(), Window::Steps(3..7))
        );
        assert_eq!(of("sgd", Window::All), ("sgd".into(), Window::All));
        let kept = of("sgd-last-epoch", Window::Steps(3..7));
        assert_eq!(kept, ("sgd-last-epoch".into(), last()));
        assert_eq!(of("random", last()), ("random".into(), Window::All));
    }

    #[test]
    fn order_puts_the_lowest_first_and_examples_without_a_score_last() {
        let scores = [Some(1.0), None, Some(-2.0), Some(1.0)];
        assert_eq!(order(&scores, 1.0), [2, 0, 3, 1]);
        assert_eq!(order(&scores, -1.0), [0, 3, 2, 1]);
    }
}
