//! `hindcast experiment cleansing`: the test error after removing the worst examples.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;

use anyhow::Context as _;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;

use super::shared::{self, Show, data_folder, once, rankings, stopped};
use crate::args::Cleansing;
use crate::commands::Outcome;
use crate::commands::interrupt::told;
use crate::commands::recording::seeds::parse_seeds;
use crate::terminal;
use crate::terminal::{field, say};
use crate::words::at_model;
use hindcast_analyzer::measures::{mean, sample_sd};
use hindcast_analyzer::{QueryPoint, load_data};
use hindcast_lab::paired_t_test;
use hindcast_lab::protocols::{
    CleansingPlan, CleansingRow, Digests, Kept, NONE, REMOVED, Ranking, Seed, append_row,
    check_data, check_settings, cleansing, read_rows, settings_digest,
};

/// The tasks that are trained.
pub(super) fn tasks(args: &Cleansing) -> anyhow::Result<Vec<Task>> {
    match args.only.as_slice() {
        [] => shared::tasks(&["mnist".to_owned(), "cifar10".to_owned()], &args.set),
        asked => shared::tasks(asked, &args.set),
    }
}

pub(crate) fn run(args: &Cleansing) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
    once("--remove", &args.remove)?;
    let plan = CleansingPlan {
        rankings: rankings(&args.methods, Ranking::usual, |ranking| ranking)?,
        removed: match args.remove.as_slice() {
            [] => REMOVED.to_vec(),
            asked => asked.to_vec(),
        },
        retrain: args.retrain.into(),
        at: args.at.clone(),
    };
    let tasks = tasks(args)?;
    let mut rows: Vec<CleansingRow> = read_rows(args.out.as_deref())?;
    for task in &tasks {
        let settings = settings_digest(task, "")?;
        check_settings(args.out.as_deref(), &rows, &task.name, &settings)?;
    }
    for task in &tasks {
        for seed in seeds.clone() {
            let mut seeded = task.clone();
            seeded.set("train.seed", &seed.to_string())?;
            one_seed(args, &seeded, &plan, &mut rows).map_err(|e| {
                told(
                    e.context(format!("task {}, seed {seed}", task.name)),
                    || stopped(args.out.as_deref()),
                )
            })?;
        }
    }
    let mut out = terminal::stdout();
    let mut points = vec![QueryPoint::Final.to_string(), plan.at.to_string()];
    points.dedup();
    for task in &tasks {
        for at in &points {
            summary(&mut out, &task.name, &seeds, &plan, at, &rows)?;
        }
    }
    Ok(Outcome::Fine)
}

fn one_seed(
    args: &Cleansing,
    task: &Task,
    plan: &CleansingPlan,
    rows: &mut Vec<CleansingRow>,
) -> anyhow::Result<()> {
    let folder = data_folder(args.data.as_deref(), task);
    let data = load_data(task, args.own.given(folder.as_deref()), task.train.seed)?;
    let seed = task.train.seed;
    let origin = Digests::of(task, "", data.as_ref())?;
    check_data(
        args.out.as_deref(),
        rows,
        &task.name,
        seed,
        &origin.fingerprint,
    )?;
    let examples = data.len(Split::Train);
    let too_many: Vec<String> = plan
        .removed
        .iter()
        .filter(|&&k| k >= examples)
        .map(u64::to_string)
        .collect();
    if !too_many.is_empty() {
        say!(
            "task {}: removing {} is skipped: the train split has {examples} examples",
            field(&task.name),
            too_many.join(", ")
        );
    }
    let kept = Kept::beside(args.out.as_deref(), task)?;
    let known: Vec<(String, u64, String)> = rows
        .iter()
        .filter(|r| r.task == task.name && r.seed == task.train.seed && r.retrain == plan.retrain)
        .map(|r| (r.method.clone(), r.k, r.at.clone()))
        .collect();
    let show = Show::new();
    let this = Seed {
        kept: &kept,
        task,
        origin: &origin,
    };
    cleansing(
        &this,
        data,
        plan,
        &|method, k, at| {
            known
                .iter()
                .any(|(m, of, there)| m == method && *of == k && there == at)
        },
        &mut |row| {
            append_row(args.out.as_deref(), &row)?;
            rows.push(row);
            Ok(())
        },
        &|stage| show.at(stage),
    )
}

/// Significance level of the paired test.
const LEVEL: f64 = 0.05;

/// Prints one line per ranking and k, over the seeds: the test error, and the paired difference to removing nothing.
fn summary(
    out: &mut dyn Write,
    task: &str,
    seeds: &Range<u64>,
    plan: &CleansingPlan,
    at: &str,
    rows: &[CleansingRow],
) -> anyhow::Result<()> {
    let rows: Vec<&CleansingRow> = rows
        .iter()
        .filter(|r| {
            r.task == task && seeds.contains(&r.seed) && r.retrain == plan.retrain && r.at == at
        })
        .collect();
    let none: Vec<f64> = rows
        .iter()
        .filter(|r| r.method == NONE)
        .map(|r| percent(r.test_error_after))
        .collect();
    if none.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "{}, {} seeds, retrained: {}, evaluated {}; test error {:.3} % (sd {}) with all examples",
        field(task),
        none.len(),
        plan.retrain,
        at_model(at),
        mean(&none),
        spread(sample_sd(&none))
    )?;
    writeln!(
        out,
        "{:<26} {:>6} {:>5} {:>9} {:>7} {:>9} {:>7} {:>8} {:>6}",
        "method", "k", "seeds", "error, %", "sd", "change", "sd", "p", "better"
    )?;
    for ((at, k), rows) in &groups(plan, &rows) {
        let name = plan.rankings[*at].to_string();
        writeln!(out, "{}", line(&name, *k, rows)?)?;
    }
    writeln!(
        out,
        "change: mean paired difference to removing nothing; p: two-sided paired t-test, * below {LEVEL}; better: number of seeds with a lower error"
    )?;
    Ok(())
}

/// The rows of each ranking and number of removed examples, in the order of the plan.
fn groups<'a>(
    plan: &CleansingPlan,
    rows: &[&'a CleansingRow],
) -> BTreeMap<(usize, u64), Vec<&'a CleansingRow>> {
    let mut groups: BTreeMap<(usize, u64), Vec<&CleansingRow>> = BTreeMap::new();
    for &row in rows {
        let at = plan
            .rankings
            .iter()
            .position(|ranking| ranking.to_string() == row.method);
        if let Some(at) = at {
            groups.entry((at, row.k)).or_default().push(row);
        }
    }
    groups
}

/// The line of one ranking with `k` examples removed.
fn line(name: &str, k: u64, rows: &[&CleansingRow]) -> anyhow::Result<String> {
    let before: Vec<f64> = rows.iter().map(|r| percent(r.test_error_before)).collect();
    let after: Vec<f64> = rows.iter().map(|r| percent(r.test_error_after)).collect();
    let test = paired_t_test(&before, &after).context("the paired test")?;
    let better = rows
        .iter()
        .filter(|r| r.test_error_after < r.test_error_before)
        .count();
    let p = match test.p {
        p if p.is_nan() => "-".to_owned(),
        p if p < LEVEL => format!("{p:.4}*"),
        p => format!("{p:.4}"),
    };
    Ok(format!(
        "{name:<26} {k:>6} {:>5} {:>9.3} {:>7} {:>+9.3} {:>7} {p:>8} {better:>6}",
        rows.len(),
        mean(&after),
        spread(sample_sd(&after)),
        test.mean,
        spread(test.sd),
    ))
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

/// A standard deviation, which one seed doesn't have.
fn spread(sd: f64) -> String {
    if sd.is_nan() {
        "-".to_owned()
    } else {
        format!("{sd:.3}")
    }
}
