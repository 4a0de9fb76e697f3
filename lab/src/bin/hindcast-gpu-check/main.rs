//! Tests and measures Hindcast on a GPU, or the same on the CPU. Needs no data files.
//!
//! ```sh
//! LD_PRELOAD=libcuda.so.1 hindcast-gpu-check --out report.json
//! hindcast-gpu-check --device composed --quick     # what a GPU computes, without its kernels
//! ```

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use candle_core::Device;
use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use hindcast_analyzer::output::{Kind, replace, try_folder};
use hindcast_lab::devices::{DeviceReport, SECTIONS, Setting, check};
use hindcast_model::ops::compose_on_cpu;

/// Test and measure Hindcast on a device
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 if all tests passed, 1 if a test failed or the device isn't there, 2 for a wrong argument.\nA goal that isn't reached is reported, but isn't a failed test."
)]
struct Arguments {
    /// What is checked
    #[arg(long, value_enum, default_value = "cuda")]
    device: Kinds,
    /// Number of the GPU
    #[arg(long, default_value_t = 0)]
    gpu: usize,
    /// Small sizes and few tests, in seconds. Times of this form mean nothing
    #[arg(long)]
    quick: bool,
    /// Run only this section
    #[arg(long, value_name = "SECTION", value_parser = PossibleValuesParser::new(SECTIONS.map(|section| section.name)))]
    only: Option<String>,
    /// Write the report as JSON. The file must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Folder for the recorded runs, which are deleted at the end [default: the system's temporary folder]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kinds {
    /// A GPU
    Cuda,
    /// The CPU with its own operations
    Cpu,
    /// The CPU with the operations that a GPU runs
    Composed,
}

fn device(arguments: &Arguments) -> anyhow::Result<Device> {
    match arguments.device {
        Kinds::Cpu => Ok(Device::Cpu),
        Kinds::Composed => {
            compose_on_cpu();
            Ok(Device::Cpu)
        }
        Kinds::Cuda if !candle_core::utils::cuda_is_available() => anyhow::bail!(
            "this program was built without CUDA: build it with `--features cuda`, or check the CPU with `--device cpu`"
        ),
        Kinds::Cuda => Device::new_cuda(arguments.gpu).with_context(|| {
            format!(
                "GPU {} can't be used: is there a driver, and was the program started with LD_PRELOAD=libcuda.so.1? `--device cpu` checks the CPU",
                arguments.gpu
            )
        }),
    }
}

fn write(report: &DeviceReport, path: &std::path::Path) -> anyhow::Result<()> {
    replace(path, Kind::New, |temporary| {
        let mut text = serde_json::to_string_pretty(report)?;
        text.push('\n');
        std::fs::write(temporary, text)
    })
    .with_context(|| format!("{} can't be written", path.display()))
}

fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if let Some(out) = &arguments.out {
        try_folder(out, Kind::New)
            .with_context(|| format!("{} can't be written", out.display()))?;
    }
    let device = device(arguments)?;
    let folder = match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder)
            .with_context(|| format!("{}: no folder can be made in it", folder.display()))?,
        None => tempfile::tempdir().context("a temporary folder can't be made")?,
    };
    let setting = Setting::new(device, arguments.quick, folder.path().to_owned());
    let mut printing = Ok(());
    let report = check(&setting, arguments.only.as_deref(), &mut |section| {
        let mut out = std::io::stdout().lock();
        if printing.is_ok() {
            printing = section.print(&mut out).and_then(|()| out.flush());
        }
    })?;
    if let Some(out) = &arguments.out {
        write(&report, out)?;
    }
    let (passed, all) = report.tests();
    // A reader that has gone away isn't a failure of the check.
    let _ = writeln!(
        std::io::stdout(),
        "{}: {passed} of {all} tests passed",
        report.device
    );
    Ok(passed == all)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
