//! Tasks, models, update rules, data and seeded random numbers: everything that defines a training run.
//!
//! An analysis repeats the computations of a run: the same losses at the same parameters, the same batches, dropout masks
//! and crops, and the same update steps. Training, the check of a trace, the reverse sweep and counterfactual retraining
//! all use this crate for them.
//!
//! | module | contents |
//! |---|---|
//! | [`task`] | the TOML file that defines a run, and the built-in tasks |
//! | [`data`] | the examples: data files, generated digits, splits, scaling, augmentation, fingerprints |
//! | [`csv_rows`] | rows of a CSV file, with line numbers as an editor counts them |
//! | [`files`] | opening input files: regular files only, with a size limit |
//! | [`objective`] | the trait through which an analysis uses a model: per-example losses |
//! | [`net`] | the model of a task, which is an [`objective::Objective`] |
//! | [`own`] | a user's own candle model as an objective |
//! | [`ops`] | layers on candle tensors with correct first and second derivatives |
//! | [`batches`], [`schedule`] | the examples of each step, their weights and the learning rate |
//! | [`update`] | SGD, Adam, AdamW, RMSprop, Adagrad, LAMB, Lion and Muon: the step, and its exact backward pass (Lion has none) |
//! | [`train`] | gradients on flat vectors, a training step, the training loop |
//! | [`vectors`] | dot products, norms and sums of float64 vectors |
//! | [`wide`] | loops compiled for the widest vectors of the processor |
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
pub mod wide;
