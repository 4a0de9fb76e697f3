//! `hindcast bench`: times the steps of a task on this machine.

use std::io::Write;

use anyhow::Context as _;
use hindcast_model::task::Precision as Float;

use crate::args::{Bench, Precision};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::recording::task;
use crate::commands::{Outcome, progress};
use crate::terminal;
use crate::terminal::{field, say};
use crate::words::counted;
use hindcast_lab::costs::{BenchOptions, BenchReport, bench};

pub(crate) fn run(args: &Bench) -> anyhow::Result<Outcome> {
    let mut task = task::find(&args.task, &args.set)?;
    match args.precision {
        Precision::Recorded => {}
        Precision::F32 => task.train.dtype = Float::F32,
        Precision::F64 => task.train.dtype = Float::F64,
    }
    let threads = match args.threads {
        Some(n) => n.get(),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .context("starting the threads")?;
    let options = BenchOptions {
        batch: args.batch.map_or(task.train.batch, usize::from),
        queries: args.queries.get(),
        repeats: args.reps.get(),
        threads,
    };
    say!(
        "the times are only meaningful if nothing else runs on this machine; compare the minimum, too"
    );
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "timing", "runs");
    let report = bench(&task, &options, &mut |done, total| {
        bar.at(done, total);
        interrupts.flow()
    });
    drop((bar, interrupts));
    let report = report.map_err(|e| told(e, || "no measurement was completed".to_owned()))?;
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
    }
    Ok(Outcome::Fine)
}

fn print(out: &mut impl Write, report: &BenchReport) -> std::io::Result<()> {
    writeln!(
        out,
        "{}: {} parameters, batch {}, {}, {}, {}",
        field(&report.task),
        report.parameters,
        report.batch,
        match report.precision {
            Float::F32 => "f32",
            Float::F64 => "f64",
        },
        counted(report.threads as u64, "thread", "threads"),
        counted(report.queries as u64, "query", "queries")
    )?;
    writeln!(
        out,
        "{:<28} {:>11} {:>11} {:>9} {:>10} {:>9}",
        "", "median ms", "minimum ms", "GFLOP", "GFLOP/s", "of peak"
    )?;
    let cell = |x: Option<f64>, digits: usize| x.map_or(String::new(), |x| format!("{x:.digits$}"));
    for row in &report.rows {
        writeln!(
            out,
            "{:<28} {:>11.4} {:>11.4} {:>9} {:>10} {:>9}",
            row.name,
            row.median_ms,
            row.min_ms,
            cell(row.gflop, 5),
            cell(row.gflops, 2),
            row.share_of_peak
                .map_or(String::new(), |x| format!("{:.1} %", 100.0 * x)),
        )?;
    }
    writeln!(
        out,
        "peak: {:.1} GFLOP/s, the best of this run's products of two 1024 x 1024 matrices by gemm",
        report.peak_gflops
    )
}
