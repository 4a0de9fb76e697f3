//! The paper's six settings, and the methods that are measured in them.

use hindcast_analyzer::estimators::{Chosen, choose};

/// One of the paper's six settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// `adult`, `20news` or `mnist`.
    pub data: &'static str,
    /// `logreg` or `dnn`.
    pub model: &'static str,
    /// Name of its built-in task.
    pub task: &'static str,
}

/// The six settings, in the paper's order.
pub const SETTINGS: [Setting; 6] = [
    setting("adult", "logreg", "adult-logreg"),
    setting("20news", "logreg", "news-logreg"),
    setting("mnist", "logreg", "mnist-logreg"),
    setting("adult", "dnn", "adult-dnn"),
    setting("20news", "dnn", "news-dnn"),
    setting("mnist", "dnn", "mnist-dnn"),
];

const fn setting(data: &'static str, model: &'static str, task: &'static str) -> Setting {
    Setting { data, model, task }
}

/// A method to measure: one of [`hindcast_analyzer::estimators::methods`], with options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// Its name in rows.
    pub name: &'static str,
    /// The estimator's name.
    pub method: &'static str,
    /// Options that differ from the defaults: (model, or empty for both; key; value). The value `alpha` stands for the
    /// penalty of the run.
    pub set: &'static [(&'static str, &'static str, &'static str)],
}

/// The methods that are measured by default.
pub const METHODS: &[Measured] = &[
    plain("sgd"),
    plain("hessian-free"),
    plain("released-rule"),
    plain("accumulative"),
    plain("tracin"),
    // As in the repository from which the paper took Koh and Liang's method: heavy ball on the Hessian over all
    // examples, starting at u, with the damping in place of the penalty.
    Measured {
        name: "koh-liang-sgd",
        method: "koh-liang-sgd",
        set: &[
            ("", "penalty", "0"),
            ("logreg", "damping", "alpha"),
            ("dnn", "damping", "1"),
            ("", "start", "query"),
            ("", "epochs", "100"),
            ("", "lr", "0.01"),
            ("", "momentum", "0.9"),
        ],
    },
    // The same quadratic, solved exactly.
    Measured {
        name: "koh-liang-cg",
        method: "koh-liang-cg",
        set: &[
            ("", "penalty", "0"),
            ("logreg", "damping", "alpha"),
            ("dnn", "damping", "1"),
            ("", "iterations", "500"),
            ("", "tolerance", "1e-10"),
        ],
    },
    plain("random"),
];

/// The methods that are only measured if they are named.
pub const MORE_METHODS: &[Measured] = &[plain("discounted")];

impl Measured {
    /// The estimator with the options for a model with this penalty.
    ///
    /// # Errors
    /// If there is no such method, or it has no such option.
    pub fn chosen(&self, model: &str, penalty: f64) -> hindcast_analyzer::Result<Chosen> {
        let alpha = penalty.to_string();
        let set: Vec<(&str, &str)> = self
            .set
            .iter()
            .filter(|(of, ..)| of.is_empty() || *of == model)
            .map(|&(_, key, value)| (key, if value == "alpha" { &*alpha } else { value }))
            .collect();
        choose(self.method, &set)
    }
}

const fn plain(name: &'static str) -> Measured {
    Measured {
        name,
        method: name,
        set: &[],
    }
}
