//! Tests of the crate through its public interface, in one binary so that candle is linked once.

mod adjoint;
mod data;
mod fit;
mod net;
mod ops;
mod optimizers;
mod own_layers;
mod rounding;
mod tanh_net;
mod task;
mod tokens;
mod training;
