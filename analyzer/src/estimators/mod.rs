//! Estimators: ways to compute how much each training example matters to a query, behind one trait.
//!
//! All methods give the same kind of table. Their scores L_j follow one convention: `L_j > 0` means that removing
//! example j raises the query's loss, so the most harmful examples have the lowest scores. Methods that find outliers
//! use no query. Their score is the negative of an example's outlierness, the same for every query.
//!
//! [`choose`] makes an estimator from its name and options, and [`methods`] lists all of them. [`answer`] takes a
//! [`Question`] and returns a table. Formulas and sources are in docs/math.md.

mod accumulative;
mod answer;
mod autoencoder;
mod choices;
pub mod cleaning;
pub mod dynamics;
mod estimate;
mod estimator;
mod forward;
mod isolation;
mod koh_liang;
mod outliers;
mod predicted;
mod random;
pub(crate) mod refine;
mod scored;
mod still;
mod sweeps;
mod tracin;

pub use accumulative::accumulative_changes;
pub use answer::{Answer, Planned, SweepSummary, answer, plan};
pub use choices::{Chosen, choose, method, methods};
pub use estimate::{Estimate, Scores, TableOrigin};
pub use estimator::{Choices, Estimator, Method, MethodOption, Plan, Question};
pub use forward::{ForwardChanges, OwnTerm, forward_changes};
pub use forward::{defined, plain};
pub use refine::{Refinement, refine};
pub use scored::Scored;
