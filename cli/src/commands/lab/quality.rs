//! `hindcast experiment quality`: measures of a ranking that the paper doesn't use.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;

use hindcast_model::task::Task;

use super::shared::{self, Show, data_folder, once, rankings, stopped};
use crate::args::Quality;
use crate::commands::analysis::asked::parse_window;
use crate::commands::interrupt::told;
use crate::commands::recording::seeds::parse_seeds;
use crate::commands::{Outcome, Usage};
use crate::terminal;
use crate::terminal::field;
use hindcast_analyzer::load_data;
use hindcast_lab::protocols::{
    Digests, Kept, QualityPlan, QualityRow, Ranking, Seed, append_row, check_data, check_settings,
    quality, read_rows, settings_digest,
};

pub(crate) fn run(args: &Quality) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
    let plan = plan(args)?;
    let tasks = tasks(args)?;
    let mut rows: Vec<QualityRow> = read_rows(args.out.as_deref())?;
    for task in &tasks {
        let settings = settings_digest(task, "")?;
        check_settings(args.out.as_deref(), &rows, &task.name, &settings)?;
    }
    let mut asked: Vec<QualityRow> = Vec::new();
    for task in &tasks {
        for seed in seeds.clone() {
            let mut seeded = task.clone();
            seeded.set("train.seed", &seed.to_string())?;
            let protocols = one_seed(args, &seeded, &plan, &mut rows).map_err(|e| {
                told(
                    e.context(format!("task {}, seed {seed}", task.name)),
                    || stopped(args.out.as_deref()),
                )
            })?;
            let of_seed = |r: &&QualityRow| {
                r.task == task.name && r.seed == seed && protocols.contains(&r.protocol)
            };
            asked.extend(rows.iter().filter(of_seed).cloned());
        }
    }
    print(&mut terminal::stdout(), &asked)?;
    Ok(Outcome::Fine)
}

/// The tasks that are trained.
pub(super) fn tasks(args: &Quality) -> anyhow::Result<Vec<Task>> {
    shared::tasks(&args.only, &args.set)
}

fn plan(args: &Quality) -> anyhow::Result<QualityPlan> {
    let window = parse_window(&args.window)?;
    if !(args.share > 0.0 && args.share < 1.0) {
        return Err(Usage(format!(
            "--share: expected a number between 0 and 1, got {}",
            args.share
        ))
        .into());
    }
    for (name, number) in [("--runs", args.runs), ("--queries", args.queries)] {
        if number < 2 {
            return Err(Usage(format!("{name}: expected at least 2, got {number}")).into());
        }
    }
    once("--remove", &args.remove)?;
    Ok(QualityPlan {
        measure: args.measure.into(),
        rankings: rankings(
            &args.methods,
            || {
                let usual = Ranking::usual_of(&window).into_iter();
                usual.map(|r| r.unless_asked_at(&args.at)).collect()
            },
            |ranking| ranking.unless_named(&window).unless_asked_at(&args.at),
        )?,
        at: args.at.clone(),
        window,
        share: args.share,
        runs: args.runs,
        queries: args.queries,
        removed: args.remove.clone(),
    })
}

/// Measures one seed and appends its new rows. Returns the protocols of all rows that were asked for, new or not.
fn one_seed(
    args: &Quality,
    task: &Task,
    plan: &QualityPlan,
    rows: &mut Vec<QualityRow>,
) -> anyhow::Result<BTreeSet<String>> {
    let seed = task.train.seed;
    let folder = data_folder(args.data.as_deref(), task);
    let data = load_data(task, args.own.given(folder.as_deref()), seed)?;
    let origin = Digests::of(task, "", data.as_ref())?;
    check_data(
        args.out.as_deref(),
        rows,
        &task.name,
        seed,
        &origin.fingerprint,
    )?;
    let kept = Kept::beside(args.out.as_deref(), task)?;
    let known: Vec<QualityRow> = rows
        .iter()
        .filter(|r| r.task == task.name && r.seed == seed)
        .cloned()
        .collect();
    let show = Show::new();
    let asked = RefCell::new(BTreeSet::new());
    let this = Seed {
        kept: &kept,
        task,
        origin: &origin,
    };
    quality(
        &this,
        data,
        plan,
        &|measure, method, protocol| {
            asked.borrow_mut().insert(protocol.to_owned());
            known
                .iter()
                .any(|r| r.measure == measure && r.method == method && r.protocol == protocol)
        },
        &mut |row| {
            append_row(args.out.as_deref(), &row)?;
            rows.push(row);
            Ok(())
        },
        &|stage| show.at(stage),
    )?;
    Ok(asked.into_inner())
}

/// Prints one line per row, below the protocol that the rows share.
fn print(out: &mut dyn Write, rows: &[QualityRow]) -> anyhow::Result<()> {
    let mut said: Option<(&str, &str)> = None;
    for row in rows {
        let protocol = (row.task.as_str(), row.protocol.as_str());
        if said != Some(protocol) {
            writeln!(out, "{}: {}", field(&row.task), field(&row.protocol))?;
            said = Some(protocol);
        }
        write!(
            out,
            "  seed {:<3} {:<24} {:<26} {:>8.4}",
            row.seed, row.measure, row.method, row.value
        )?;
        match row.sd {
            Some(sd) => writeln!(
                out,
                "  sd {sd:.4} over {}, standard error {:.4}",
                row.count,
                sd / (row.count as f64).sqrt()
            )?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}
