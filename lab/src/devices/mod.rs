//! One body of tests and measurements for all devices.
//!
//! Each section takes a [`Setting`], whose device is the CPU or a GPU, and adds [`Line`]s to the report. The test suite and
//! the program `hindcast-gpu-check` run the same sections. A section that fails, panics or takes too long is reported, and
//! the next one runs.

mod determinism;
mod exchange;
mod gpt;
mod layers;
mod recorder;
mod recording;
mod replay;
mod report;
mod setting;
mod sweeps;
mod timing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hindcast_model::ops::second_order;

pub use report::{DeviceReport, Line, SectionReport};
use report::{Lines, Message};
pub use setting::Setting;

/// A section of the check.
pub struct Section {
    /// The name, for `--only`.
    pub name: &'static str,
    /// One line that describes it.
    pub about: &'static str,
    /// The longest time that it may take, in seconds.
    pub seconds: u64,
    run: fn(&Setting, &Lines) -> anyhow::Result<()>,
}

/// All sections, in the order in which they run. Their times add up to less than six minutes.
pub const SECTIONS: [Section; 7] = [
    Section {
        name: "layers",
        about: "first and second derivatives of each layer against differences, in float64",
        seconds: 40,
        run: layers::run,
    },
    Section {
        name: "determinism",
        about: "whether each layer's second derivative has the same bits twice, in float32",
        seconds: 15,
        run: determinism::run,
    },
    Section {
        name: "recorder",
        about: "recorded states against the variables on the device, bit by bit",
        seconds: 15,
        run: recorder::run,
    },
    Section {
        name: "sweeps",
        about: "scores of runs trained on the device against repeated training, in float64",
        seconds: 90,
        run: sweeps::run,
    },
    Section {
        name: "exchange",
        about: "runs recorded on one device and analysed on the other",
        seconds: 40,
        run: exchange::run,
    },
    Section {
        name: "recording",
        about: "what recording adds to a step",
        seconds: 80,
        run: recording::run,
    },
    Section {
        name: "replay",
        about: "time of a replay step, next to PyTorch's double backward pass",
        seconds: 75,
        run: replay::run,
    },
];

/// Runs the sections whose name is `only`, or all of them, and calls `done` after each.
///
/// # Errors
/// If there is no section of that name.
pub fn check(
    setting: &Setting,
    only: Option<&str>,
    done: &mut dyn FnMut(&SectionReport),
) -> anyhow::Result<DeviceReport> {
    let wanted = |section: &&Section| only.is_none_or(|name| section.name == name);
    let chosen: Vec<&Section> = SECTIONS.iter().filter(wanted).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
        anyhow::bail!(
            "there is no section `{}`; the sections are {}",
            only.unwrap_or_default(),
            names.join(", ")
        );
    }
    second_order::enable();
    let mut sections = Vec::new();
    for section in chosen {
        let report = one(section, setting);
        done(&report);
        sections.push(report);
    }
    Ok(DeviceReport {
        device: setting.describe(),
        quick: setting.quick,
        sections,
    })
}

/// Runs a section on a thread of its own. After its time, the thread is left alone.
fn one(section: &Section, setting: &Setting) -> SectionReport {
    let begun = Instant::now();
    let limit = Duration::from_secs(section.seconds);
    // So that the last measurement ends within the limit.
    let setting = setting.until(begun + limit * 3 / 4);
    let (sender, receiver) = channel();
    let (lines, run) = (Lines::new(sender.clone()), section.run);
    let started = std::thread::Builder::new()
        .name(section.name.to_owned())
        .stack_size(second_order::STACK_BYTES)
        .spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| run(&setting, &lines)));
            let failure = match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(panic) => Some(format!("panicked: {}", said(panic.as_ref()))),
            };
            // Nothing listens to a section that took too long.
            let _ = sender.send(Message::End(failure));
        });
    let mut lines = Vec::new();
    let failure = match started {
        Err(error) => Some(format!("the thread can't be started: {error}")),
        Ok(_) => loop {
            let left = (begun + limit).saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(Message::Line(line)) => lines.push(line),
                Ok(Message::End(why)) => break why,
                Err(_) => break Some(format!("took more than {} s", section.seconds)),
            }
        },
    };
    SectionReport {
        name: section.name,
        about: section.about,
        seconds: begun.elapsed().as_secs_f64(),
        lines,
        failure,
    }
}

/// The message of a panic.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}
