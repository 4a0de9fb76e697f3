//! Measures of rankings of training examples: rank correlation, agreement of extremes, detection of planted faults, and
//! a verdict on how far scores can be trusted.

pub(crate) mod agreement;
pub(crate) mod compare;
mod detection;
mod evidence;
mod lists;
mod moments;
mod rank;
mod share;
mod trust;

pub use agreement::{jaccard_of_extremes, kendall_tau};
pub use compare::Comparison;
pub use detection::{precision_at, roc_auc};
pub use evidence::{Evidence, Growth, Level, SetChange};
pub use lists::{same_length, without_nan};
pub use moments::{mean, mean_sd, sample_sd};
pub use rank::spearman;
pub use share::wilson;
pub use trust::{Finding, Judgement, Order, Verdict};
