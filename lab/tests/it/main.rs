//! Records and analyses runs, end to end, without the command line.

#[path = "../../../analyzer/tests/it/numbers.rs"]
mod numbers;

mod counterfactuals_by_kernels;
mod end_to_end;
mod exactness_matrix;
mod frozen_parts;
mod gpu_check;
mod own_models;
mod parity_with_pytorch;
mod sweeps_resume;
mod sweeps_scale;
mod usefulness;
