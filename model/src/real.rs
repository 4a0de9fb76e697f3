//! The float types of a run.

use candle_core::WithDType;
pub use half::{bf16, f16};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for super::bf16 {}
    impl Sealed for super::f16 {}
}

/// f32, f64, bf16 or f16: the type of parameters and gradients, and of the arithmetic of update rules. The arithmetic of bf16
/// and f16 rounds each operation, as candle's does on the CPU.
pub trait Real: WithDType + Default + std::iter::Sum<Self> + sealed::Sealed {
    /// The type in which a model with parameters of this type is evaluated: float32 for bf16 and f16, whose losses would be
    /// rounded too much to compare, else the type itself.
    type Evaluated: Real;
    /// Distance from 1 to the next larger value.
    const SPACING: f64;
    /// Rounds to the nearest value of this type.
    fn of(x: f64) -> Self;
    /// Converts to float64 without loss.
    fn wide(self) -> f64;
    /// Correctly rounded square root.
    fn root(self) -> Self;
}

impl Real for f32 {
    type Evaluated = f32;
    const SPACING: f64 = f32::EPSILON as f64;

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
    type Evaluated = f64;
    const SPACING: f64 = f64::EPSILON;

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

macro_rules! half {
    ($t:ty, $bits:expr) => {
        impl Real for $t {
            type Evaluated = f32;
            const SPACING: f64 = 1.0 / (1u32 << $bits) as f64;

            fn of(x: f64) -> Self {
                Self::from_f64(x)
            }

            fn wide(self) -> f64 {
                self.to_f64()
            }

            fn root(self) -> Self {
                Self::from_f32(self.to_f32().sqrt())
            }
        }
    };
}
half!(bf16, 7);
half!(f16, 10);
