//! Tests of the crate through its public interface, in one binary so that candle is linked once.

mod adjoint;
mod data;
mod ops;
mod tanh_net;
mod task;
