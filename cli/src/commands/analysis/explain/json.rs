//! Prints explanations as JSON.

use std::io::Write;
use std::ops::Range;

use serde::Serialize;

use super::found::{Explained, Found};
use crate::verdict::Printed;
use hindcast_analyzer::predictions::PredictionRow;
use hindcast_analyzer::scores::{Share, Side};

#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: &'a str,
    at: &'a str,
    window: Range<u64>,
    run_steps: u64,
    engine: &'a str,
    seconds: f64,
    explained: Vec<One>,
    notes: &'a [String],
    table: Option<String>,
    picture: Option<String>,
}

#[derive(Serialize)]
struct One {
    query: String,
    split: &'static str,
    #[serde(flatten)]
    row: PredictionRow,
    wrong: Option<bool>,
    away: OneSide,
    towards: OneSide,
    trust: Printed,
}

#[derive(Serialize)]
struct OneSide {
    examples: usize,
    total: f64,
    heaviest: Vec<Weight>,
}

#[derive(Serialize)]
struct Weight {
    index: u64,
    row: u64,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    label: String,
    occurrences: u64,
    influence: f64,
    share: f64,
}

pub(super) fn print(out: &mut dyn Write, found: &Found<'_>) -> anyhow::Result<()> {
    let (args, meta) = (found.args, &found.table.metadata);
    let explained = found.explained(args.top).into_iter();
    let report = Report {
        run: args.run.display().to_string(),
        run_digest: &meta.run_digest,
        at: meta.point(),
        window: meta.window.clone(),
        run_steps: meta.run_steps,
        engine: &meta.engine,
        seconds: found.took.as_secs_f64(),
        explained: explained.map(One::of).collect(),
        notes: &meta.notes,
        table: args.out.as_ref().map(|path| path.display().to_string()),
        picture: args.picture.as_ref().map(|path| path.display().to_string()),
    };
    serde_json::to_writer_pretty(&mut *out, &report)?;
    writeln!(out)?;
    Ok(())
}

impl One {
    fn of(one: Explained<'_>) -> Self {
        One {
            query: one.name,
            split: one.split.name(),
            row: one.row,
            wrong: one.wrong,
            away: OneSide::of(&one.sides.raised),
            towards: OneSide::of(&one.sides.lowered),
            trust: one.verdict.printed(),
        }
    }
}

impl OneSide {
    fn of(side: &Side<'_>) -> Self {
        OneSide {
            examples: side.examples,
            total: side.total,
            heaviest: side.heaviest.iter().map(Weight::of).collect(),
        }
    }
}

impl Weight {
    fn of(one: &Share<'_>) -> Self {
        let row = one.row;
        Weight {
            index: row.index,
            row: row.row,
            file: row.file.clone(),
            name: row.name.clone(),
            label: row.label.clone(),
            occurrences: row.occurrences,
            influence: one.influence,
            share: one.share,
        }
    }
}
