//! `hindcast completions` and `hindcast man`: what the command line says of itself, for shells and for `man`.

use std::fs;
use std::io::{Write, stdout};

use anyhow::Context as _;
use clap::CommandFactory;
use clap_mangen::Man;

use super::Outcome;
use crate::clean::{self, field};
use crate::cli::{self, Cli, Completions};
use crate::places;

pub(crate) fn completions(args: &Completions) -> anyhow::Result<Outcome> {
    // Made in memory first: the generator panics where its writer fails, as at a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hindcast", &mut script);
    stdout().lock().write_all(&script)?;
    Ok(Outcome::Fine)
}

pub(crate) fn man(args: &cli::Man) -> anyhow::Result<Outcome> {
    let command = Cli::command();
    match &args.out {
        None => Man::new(command).render(&mut stdout().lock())?,
        Some(folder) => {
            places::outside_of_runs(&folder.join("hindcast.1"))
                .and_then(|()| fs::create_dir_all(folder))
                .and_then(|()| clap_mangen::generate_to(command, folder))
                .with_context(|| format!("cannot write to {}", folder.display()))?;
            writeln!(
                clean::stdout(),
                "{}",
                field(folder.join("hindcast.1").display())
            )?;
        }
    }
    Ok(Outcome::Fine)
}
