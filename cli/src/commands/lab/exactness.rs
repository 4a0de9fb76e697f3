//! `hindcast exactness`: the exactness matrix.

use std::io::Write;

use crate::args::Exactness;
use crate::commands::{Outcome, progress};
use crate::terminal;
use hindcast_lab::exactness;

pub(crate) fn run(args: &Exactness) -> anyhow::Result<Outcome> {
    let bar = progress::bar(0, "measuring", "rows");
    let rows = exactness::matrix_with(args.only.as_deref(), &|done, total| {
        bar.at(done as u64, total as u64);
    })?;
    drop(bar);
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &rows)?;
        writeln!(out)?;
    } else {
        exactness::print(&mut out, &rows)?;
    }
    Ok(if rows.iter().all(|row| row.passed()) {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}
