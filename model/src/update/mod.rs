//! Update rules: how a gradient moves the parameters, and how a sensitivity to the parameters moves back.
//!
//! [`UpdateRule::step`] is the one piece of arithmetic that training, the check of a trace and counterfactual
//! retraining share: the same inputs give the same bits. [`UpdateRule::linearize`] gives the reverse of one step, from
//! which the sweep takes the direction `s` that it multiplies with per-example gradients and the Hessian.
//!
//! All vectors are flat: the parameters one after another in the order of the trace's layout. [`Blocks`] says which
//! range belongs to which tensor and group, and [`Settings`] what was in force in a step.

mod adjoint;
mod clip;
mod error;
mod rule;
mod settings;
mod step;

pub use adjoint::{Adjoint, Direction, Linearized};
pub use clip::{CLIP_EPSILON, Clip};
pub use error::UpdateError;
pub use rule::{StateTensor, UpdateRule};
pub use settings::{Block, Blocks, GroupHyper, Settings};
pub use step::StepPoint;
