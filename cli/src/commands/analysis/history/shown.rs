//! A history with everything that is said about it: its files, and its JSON.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hindcast_format::Trace;
use serde::Serialize;

use crate::args::History as Args;
use crate::report::curves::{loss_plot, titled};
use crate::report::plot::FIGURE_SIZE;
use hindcast_analyzer::curves::{
    HeldOutCurve, History, LossCurve, Summary, event_file, write, write_events,
};

/// The JSON that `--json` prints.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    run: String,
    run_digest: &'a str,
    columns: Vec<String>,
    #[serde(flatten)]
    summary: &'a Summary,
    held_out: Option<HeldOutCurve<'a>>,
    notes: &'a [String],
    damage: &'a [String],
    lost: u64,
    table: Option<String>,
    tensorboard: Option<String>,
    picture: Option<String>,
    seconds: f64,
}

/// A history with everything that is said about it.
pub(super) struct Shown<'a> {
    pub args: &'a Args,
    pub history: History,
    pub summary: Summary,
    pub curve: LossCurve,
    pub notes: Vec<String>,
    pub written: Written,
    /// Damage about which the user was warned when the run was opened.
    pub warned: Vec<String>,
}

/// The files that were written.
#[derive(Default)]
pub(super) struct Written {
    pub table: Option<PathBuf>,
    pub events: Option<PathBuf>,
    pub picture: Option<PathBuf>,
}

/// Refuses to draw a curve without a point.
///
/// # Errors
/// There is nothing to draw.
pub(super) fn drawable(curve: &LossCurve, picture: &Path) -> anyhow::Result<()> {
    if curve.stretches.is_empty() && curve.held_out.is_empty() {
        anyhow::bail!(
            "cannot draw {}: the run records no finite losses; --validation measures the loss of the validation split",
            picture.display()
        );
    }
    Ok(())
}

impl Shown<'_> {
    /// Writes the files. If one fails, those before it are written.
    ///
    /// # Errors
    /// If a file can't be written, or there is nothing to draw.
    pub fn write(&mut self, trace: &Trace, head: &str) -> anyhow::Result<()> {
        if let Some(out) = &self.args.out {
            write(&self.history, head, out)
                .with_context(|| format!("cannot write {}", out.display()))?;
            self.written.table = Some(out.clone());
        }
        if let Some(folder) = &self.args.tensorboard {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            let path = event_file(folder, head);
            let created = trace.info().created_seconds().unwrap_or(0);
            write_events(&self.history, created as f64, &path)
                .with_context(|| format!("cannot write {}", path.display()))?;
            self.written.events = Some(path);
        }
        if let Some(picture) = &self.args.picture {
            drawable(&self.curve, picture)?;
            let split = self.history.held_out.map(|m| m.split.name());
            let mut plot = loss_plot(&self.curve, split);
            let title = format!("Losses of {}", self.args.run.display());
            plot.title = titled(title, self.curve.not_finite);
            plot.save(FIGURE_SIZE, picture)?;
            self.written.picture = Some(picture.clone());
        }
        Ok(())
    }

    /// The JSON.
    pub fn report<'a>(&'a self, head: &'a str, seconds: f64) -> Report<'a> {
        let shown = |path: &Path| path.display().to_string();
        Report {
            run: shown(&self.args.run),
            run_digest: head,
            columns: self.history.columns(),
            summary: &self.summary,
            held_out: HeldOutCurve::of(self.history.held_out, &self.curve),
            notes: &self.notes,
            damage: &self.history.damage,
            lost: self.history.lost,
            table: self.written.table.as_deref().map(shown),
            tensorboard: self.written.events.as_deref().map(shown),
            picture: self.written.picture.as_deref().map(shown),
            seconds,
        }
    }
}
