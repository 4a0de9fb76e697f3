//! The name of a ranking: a method, its window and its sign.

use std::fmt;
use std::str::FromStr;

use hindcast_analyzer::estimators::{Chosen, choose, methods};
use hindcast_analyzer::{AnalysisError, Window};

/// Suffix of a ranking by the steps of the last epoch.
const LAST_EPOCH: &str = "-last-epoch";
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    name: String,
    method: String,
    window: Window,
    flipped: bool,
}

impl fmt::Display for Ranking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Ranking {
    type Err = AnalysisError;

    /// Parses a method's name, followed by `-last-epoch` (if the method has a window) and `-flipped`, both optional.
    fn from_str(text: &str) -> Result<Self, AnalysisError> {
        let name = text.trim();
        let (rest, flipped) = match name.strip_suffix(FLIPPED) {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let (rest, window) = match rest.strip_suffix(LAST_EPOCH) {
            Some(rest) => (rest, Window::LastEpoch),
            None => (rest, Window::All),
        };
        let method = hindcast_analyzer::estimators::method(rest)?;
        if window == Window::LastEpoch && !method.windowed {
            return Err(AnalysisError::other(format!(
                "`{name}`: method {rest} has no window, so it has no last epoch: write `{rest}`"
            )));
        }
        Ok(Ranking {
            name: name.to_owned(),
            method: method.name.to_owned(),
            window,
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
        let flipped = if self.flipped { FLIPPED } else { "" };
        let steps = match window {
            Window::All => String::new(),
            window => format!("-{window}"),
        };
        Ranking {
            name: format!("{}{steps}{flipped}", self.method),
            window: window.clone(),
            ..self
        }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The steps in which the use of an example counts.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The name of the scores, which this ranking shares with the reverse ranking.
    pub fn scores_name(&self) -> &str {
        self.name.strip_suffix(FLIPPED).unwrap_or(&self.name)
    }

    /// 1, or −1 for a reverse ranking.
    pub fn sign(&self) -> f64 {
        if self.flipped { -1.0 } else { 1.0 }
    }

    /// The method with the options of `task`'s protocol, and with `seed` for its random choices.
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
        choose(&self.method, &set)
    }
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
