//! The float types of a run.

use candle_core::WithDType;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// f32 or f64: the type of parameters and gradients, and of the arithmetic of update rules.
pub trait Real: WithDType + Default + std::iter::Sum<Self> + sealed::Sealed {
    /// Rounds to the nearest value of this type.
    fn of(x: f64) -> Self;
    /// Converts to float64 without loss.
    fn wide(self) -> f64;
    /// Correctly rounded square root.
    fn root(self) -> Self;
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as f32
    }

    fn wide(self) -> f64 {
        f64::from(self)
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }

    fn wide(self) -> f64 {
        self
    }

    fn root(self) -> Self {
        self.sqrt()
    }
}
