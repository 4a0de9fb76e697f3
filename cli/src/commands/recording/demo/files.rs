//! `hindcast demo --files`: the files of the guide's examples, which stand for a user's own.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use hindcast_analyzer::output::outside_of_runs;
use hindcast_lab::example_files::{ALL, TRUTH, write_all};

use crate::commands::Outcome;
use crate::terminal;

pub(super) fn write(folder: &Path) -> anyhow::Result<Outcome> {
    let shown = folder.display();
    let cannot = || format!("cannot write the example files to {shown}");
    // The check takes the path of a file, so it gets the path of a file in the folder.
    outside_of_runs(&folder.join(TRUTH)).with_context(cannot)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {shown}"))?;
    write_all(folder).with_context(cannot)?;
    let mut out = terminal::stdout();
    for example in ALL {
        let path = folder.join(example.name);
        writeln!(out, "{}: {}", path.display(), example.about)?;
    }
    writeln!(
        out,
        "{}: the true labels of the training examples, for --truth",
        folder.join(TRUTH).display()
    )?;
    writeln!(
        out,
        "A tenth of the training labels is wrong, and a tenth of the validation labels of the embeddings."
    )?;
    Ok(Outcome::Fine)
}
