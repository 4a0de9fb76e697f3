//! `hindcast exactness`: the exactness matrix.

use std::io::{Write, stdout};

use super::Outcome;
use crate::cli::Exactness;
use crate::exactness;

pub(crate) fn run(args: &Exactness) -> anyhow::Result<Outcome> {
    let rows = exactness::matrix(args.only.as_deref())?;
    let mut out = stdout().lock();
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
