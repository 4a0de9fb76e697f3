//! What several verbs read from the command line.

use std::path::Path;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_format::Trace;

use super::Usage;
use super::memory::Limit;
use crate::cli::{NamesArgs, NamesBy};
use crate::{NameKey, Names};

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

/// `--memory`; a mistake is wrong usage.
pub(crate) fn memory(text: Option<&str>) -> anyhow::Result<Option<Limit>> {
    Ok(text
        .map(|text| text.parse().map_err(|e| Usage(format!("--memory: {e}"))))
        .transpose()?)
}

/// `--names`.
pub(crate) fn names(args: &NamesArgs) -> anyhow::Result<Option<Names>> {
    let by = args.names_by.map(|by| match by {
        NamesBy::Row => NameKey::Row,
        NamesBy::Index => NameKey::Index,
    });
    let Some(path) = &args.names else {
        return Ok(None);
    };
    let names = Names::read(path, by, args.name_column.as_deref()).context("--names")?;
    Ok(Some(names))
}
