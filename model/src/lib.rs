//! What was trained: tasks, models, update rules, data and seeded random numbers.
//!
//! Whoever analyses a run must be able to compute with it again: the same losses at the same parameters, the same batches,
//! the same masks and crops, the same step. This crate is where that is written down once, for training, for the check of
//! a trace, for the reverse sweep and for counterfactual retraining.
//!
//! | module | what |
//! |---|---|
//! | [`task`] | a TOML file that says all that decides a run, and the five that ship |
//! | [`data`] | the examples: files, digits drawn by code, splits, scaling, augmentation, fingerprints |
//! | [`csv_rows`] | rows of a CSV file, with line numbers as an editor counts them |
//! | [`files`] | opening input files: regular files only, with a size limit |
//! | [`objective`] | the trait that an analysis needs of a model: per-example losses |
//! | [`net`] | the model of a task, which is an [`objective::Objective`] |
//! | [`own`] | a candle model of one's own as an objective |
//! | [`ops`] | its layers on candle tensors, right to the second derivative |
//! | [`batches`], [`schedule`] | which examples stand in which step, with which weights and learning rate |
//! | [`update`] | SGD, Adam and AdamW: the step forward, and its exact reverse |
//! | [`train`] | gradients on flat vectors, one step, the loop over them |
//! | [`vectors`] | dot products, norms and sums of float64 vectors |
//! | [`random`] | random numbers as a function of seed, step, example and purpose |
//!
//! Formulas and their sources are in docs/math.md.

pub mod batches;
pub mod csv_rows;
pub mod data;
pub mod files;
pub mod net;
pub mod objective;
pub mod ops;
pub mod own;
pub mod random;
pub mod real;
pub mod schedule;
pub mod task;
pub mod train;
pub mod update;
pub mod vectors;
