//! The engine and the float type of a replay.

use clap::ValueEnum;
use hindcast_analyzer::EngineKind;

/// The engine that replays a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// Kernels for the models of tasks, on the CPU.
    Kernels,
    /// Automatic differentiation, for any model on any device.
    Autodiff,
}

impl From<Engine> for EngineKind {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Kernels => EngineKind::Kernels,
            Engine::Autodiff => EngineKind::Autodiff,
        }
    }
}

/// Float type of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Precision {
    /// The float type that the run trained in.
    #[default]
    Recorded,
    /// 32 bits.
    F32,
    /// 64 bits: the reference.
    F64,
}

impl Precision {
    /// The float type, unless it is the recorded one.
    pub fn dtype(self) -> Option<candle_core::DType> {
        match self {
            Precision::Recorded => None,
            Precision::F32 => Some(candle_core::DType::F32),
            Precision::F64 => Some(candle_core::DType::F64),
        }
    }
}
