//! `hindcast completions` and `hindcast man`: descriptions of the command line for shells and for `man`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::Man;

use super::Outcome;
use crate::args;
use crate::args::{Cli, Completions};
use crate::terminal;
use crate::terminal::field;
use hindcast_analyzer::output;
use hindcast_analyzer::output::Kind;

pub(crate) fn completions(args: &Completions) -> anyhow::Result<Outcome> {
    // Written to memory first: the generator panics if its writer fails, as a closed pipe does.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hindcast", &mut script);
    terminal::stdout().write_all(&script)?;
    Ok(Outcome::Fine)
}

pub(crate) fn man(args: &args::Man) -> anyhow::Result<Outcome> {
    let command = Cli::command();
    match &args.out {
        None => Man::new(command).render(&mut terminal::stdout())?,
        Some(folder) => {
            output::outside_of_runs(&folder.join("hindcast.1"))
                .and_then(|()| only_manuals(folder))
                .and_then(|()| fs::create_dir_all(folder))
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .with_context(|| format!("cannot write to {}", folder.display()))?;
            writeln!(
                terminal::stdout(),
                "{}",
                field(folder.join("hindcast.1").display())
            )?;
        }
    }
    Ok(Outcome::Fine)
}

/// Refuses a folder in which a manual page would replace a file that this program didn't write.
fn only_manuals(folder: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("hindcast") && name.ends_with(".1") {
            output::replaceable(&path, Kind::Manual)
                .map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        }
    }
    Ok(())
}
