//! Sweeps a recorded run from code and prints its ten most harmful examples: `sweep RUN [DATA]`.
//!
//! The sweep uses at most 2 GB of memory, and takes several passes over the steps if that is too little for one. If it
//! is stopped by Ctrl-C or a crash, starting it again resumes from its last checkpoint.

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_analyzer::estimators::{Estimate, TableOrigin};
use hindcast_analyzer::sweep::{Saving, Stage};
use hindcast_analyzer::{Query, RecordedRun, Session, SessionOptions, SweepOptions, Window};

const MEMORY: u64 = 2_000_000_000;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().context("usage: sweep RUN [DATA]")?;
    let data = words.next();

    // Opens the trace with its task. The data is checked against the recorded digests.
    let run = RecordedRun::open(Path::new(&folder), data.as_deref().map(Path::new))?;
    let mut engine = run.engine(None, None, Device::Cpu)?;
    let queries = ["validation".parse::<Query>()?];

    let saving = Saving::of_table(Path::new("harmful.csv"));
    let sweep = SweepOptions::new(Window::All.resolve(run.source())?);
    let options = SessionOptions {
        memory: Some(MEMORY),
        saving: Some(saving.clone()),
        ..SessionOptions::new(sweep)
    };
    let session = Session::new(&run, engine.as_ref(), &queries, options)?;
    println!(
        "{} steps, about {} bytes of memory",
        session.cost().steps,
        session.cost().memory().about
    );
    let swept = session.run(engine.as_mut(), &mut |stage: Stage| {
        eprint!("\r{} of {} {}", stage.done, stage.total, stage.unit);
        ControlFlow::Continue(())
    })?;
    eprintln!();

    let origin = TableOrigin {
        run_digest: run.head(),
        method: "sgd".to_owned(),
        ..TableOrigin::default()
    };
    let table = Estimate::from(swept.state).table(&run, &origin);
    table.write(Path::new("harmful.csv"))?;
    if saving.path.exists() {
        std::fs::remove_file(&saving.path)?;
    }
    for row in table.worst(0, 10) {
        let score = row.influence.first().copied().flatten();
        println!(
            "{:6} label {:>4}  {:+.3e}",
            row.index,
            row.label,
            score.unwrap_or(f64::NAN)
        );
    }
    Ok(())
}
