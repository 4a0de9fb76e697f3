//! What `counterfactual` retrains, and what it compares it with.

use std::ops::Range;

use super::asked::Asked;
use super::prediction::AskedAt;
use super::print::Kinds;
use crate::args::{Counterfactual, DenominatorKind, RemovalKind};
use crate::commands::analysis::retraining;
use hindcast_analyzer::{
    CounterfactualOptions, Denominators, EngineKind, Query, RecordedRun, Removal, ScoreTable,
};

/// What to retrain, and what to compare it with.
pub(super) struct Question<'a> {
    pub args: &'a Counterfactual,
    pub asked: &'a Asked<'a>,
    pub run: &'a RecordedRun<'a>,
    pub asked_at: AskedAt<'a>,
    pub options: CounterfactualOptions,
    pub kind: Kinds,
    /// All sets of examples, each of which is left out in one retraining.
    pub sets: Vec<Vec<u64>>,
    /// The table that the sets were chosen from.
    pub table: Option<ScoreTable>,
}

/// Chooses the sets that are left out.
pub(super) fn question<'a>(
    args: &'a Counterfactual,
    asked: &'a Asked<'a>,
    run: &'a RecordedRun<'a>,
    query: &'a Query,
) -> anyhow::Result<Question<'a>> {
    let window = asked.window.resolve(run.source())?;
    let source = asked.removed.read()?;
    let at = match &args.at {
        Some(at) => at.clone(),
        None => source.point()?,
    };
    let asked_at = AskedAt::new(query, run, at.in_run(run.source(), window.start)?);
    let (sets, table) = source.choose(&asked_at, &window)?;
    let options = CounterfactualOptions {
        at: asked_at.at.clone(),
        ..options(args, asked.engine, run, window)?
    };
    let kind = Kinds::of(args);
    let sets = match kind {
        Kinds::Each => sets.concat().into_iter().map(|i| vec![i]).collect(),
        Kinds::One | Kinds::Scan => sets,
    };
    Ok(Question {
        args,
        asked,
        run,
        asked_at,
        options,
        kind,
        sets,
        table,
    })
}

fn options(
    args: &Counterfactual,
    engine: Option<EngineKind>,
    run: &RecordedRun<'_>,
    window: Range<u64>,
) -> anyhow::Result<CounterfactualOptions> {
    Ok(CounterfactualOptions {
        removal: match args.removal {
            RemovalKind::LossOnly => Removal::LossOnly,
            RemovalKind::Absent => Removal::Absent,
        },
        denominators: match args.denominators {
            DenominatorKind::Fixed => Denominators::Fixed,
            DenominatorKind::Renormalised => Denominators::Renormalised,
        },
        ..retraining::options(run, window, engine)?
    })
}
