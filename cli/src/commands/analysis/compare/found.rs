//! What a comparison of two runs found, and its JSON.

use std::path::Path;

use serde::Serialize;

use hindcast_analyzer::comparison::{Distance, ModelLoss, Parting, SettingDifference};
use hindcast_analyzer::curves::{HeldOutCurve, LossCurve, Measured, Summary};

/// What a comparison found.
pub(super) struct Found<'a> {
    pub settings: Vec<SettingDifference>,
    /// Whether the runs were trained on the same examples; `None` if that isn't known.
    pub same_data: Option<bool>,
    pub parting: Parting,
    pub distances: Vec<Distance>,
    pub sides: [Side; 2],
    pub notes: Vec<String>,
    /// The file that was drawn.
    pub picture: Option<&'a Path>,
}

/// One of the runs.
pub(super) struct Side {
    pub run: String,
    pub digest: String,
    pub summary: Summary,
    pub curve: LossCurve,
    pub held_out: Option<Measured>,
    pub losses: Vec<ModelLoss>,
    pub damage: Vec<String>,
}

/// The JSON that `--json` prints.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    settings: &'a [SettingDifference],
    same_training_data: Option<bool>,
    identical: bool,
    first_step: Option<u64>,
    parting: &'a Parting,
    distances: &'a [Distance],
    runs: Vec<OfRun<'a>>,
    notes: &'a [String],
    picture: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct OfRun<'a> {
    run: &'a str,
    run_digest: &'a str,
    #[serde(flatten)]
    summary: &'a Summary,
    held_out: Option<HeldOutCurve<'a>>,
    split_losses: &'a [ModelLoss],
    damage: &'a [String],
}

impl Found<'_> {
    /// Whether both runs have the same steps, and nothing that was compared differs in them.
    pub fn identical(&self) -> bool {
        let [a, b] = &self.sides;
        self.parting.incomparable.is_none()
            && self.parting.first_step().is_none()
            && a.summary.steps == b.summary.steps
            && a.summary.rows == b.summary.rows
    }

    pub fn report(&self, seconds: f64) -> Report<'_> {
        Report {
            settings: &self.settings,
            same_training_data: self.same_data,
            identical: self.identical(),
            first_step: self.parting.first_step(),
            parting: &self.parting,
            distances: &self.distances,
            runs: self.sides.iter().map(Side::report).collect(),
            notes: &self.notes,
            picture: self.picture.map(|p| p.display().to_string()),
            seconds,
        }
    }
}

impl Side {
    fn report(&self) -> OfRun<'_> {
        OfRun {
            run: &self.run,
            run_digest: &self.digest,
            summary: &self.summary,
            held_out: HeldOutCurve::of(self.held_out, &self.curve),
            split_losses: &self.losses,
            damage: &self.damage,
        }
    }
}
