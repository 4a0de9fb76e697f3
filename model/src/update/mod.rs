//! Update rules: how a gradient changes the parameters, and how a derivative propagates back through the update.
//!
//! Training, the check of a trace and counterfactual retraining share the arithmetic of [`UpdateRule::step`], so equal
//! inputs give equal bits. [`UpdateRule::linearize`] computes the reverse of a step. From it, the sweep takes the direction
//! `s`, with which it multiplies the per-example gradients and the Hessian.
//!
//! All vectors are flat, with the parameters in the order of the trace's layout. [`Blocks`] holds the range and the group
//! of each tensor. [`Settings`] holds the hyperparameters of a step.

mod adjoint;
mod clip;
mod describe;
mod error;
mod local;
mod moments;
mod muon;
mod rewind;
mod rounding;
mod rule;
mod settings;
mod state;
mod step;
mod validate;

pub use adjoint::{Adjoint, Linearized};
pub use clip::{CLIP_EPSILON, Clip};
pub use error::UpdateError;
pub use rewind::Hidden;
pub use rounding::Rounding;
pub use rule::UpdateRule;
pub use settings::{Block, Blocks, GroupHyper, Settings};
pub use state::StateTensor;
pub use step::StepPoint;
