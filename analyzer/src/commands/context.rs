//! What several verbs read from the command line.

use std::path::Path;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_format::Trace;

use super::Usage;
use crate::Subject;
use crate::cli::OwnProgram;

/// Where a run's model and data come from.
pub(crate) enum Models {
    /// From the task that the run carries.
    Recorded,
    /// From the program that this is.
    Own(OwnProgram),
}

impl Models {
    /// Opens a run with its model and data.
    pub(crate) fn open(&self, run: &Path, data: Option<&Path>) -> anyhow::Result<Subject> {
        match self {
            Models::Recorded => Subject::open(run, data),
            Models::Own(program) => Subject::open_own(program, run, data),
        }
    }
}

/// Opens a trace, saying what to do when the folder holds none.
pub(crate) fn open_trace(run: &Path) -> anyhow::Result<Trace> {
    Trace::open(run).with_context(|| format!("cannot open {}", run.display()))
}

/// `cpu`, `cuda`, `cuda:1`.
pub(crate) fn device(text: &str) -> anyhow::Result<Device> {
    let ordinal = match text {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => 0,
        _ => match text.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
            Some(n) => n,
            None => {
                return Err(Usage(format!(
                    "--device: expected cpu, cuda or cuda:N, got {text:?}"
                ))
                .into());
            }
        },
    };
    Device::new_cuda(ordinal).with_context(|| {
        if cfg!(feature = "cuda") {
            format!("--device {text}: no such CUDA device can be used here")
        } else {
            format!("--device {text}: this build has no CUDA in it; build with `--features cuda`")
        }
    })
}
