//! `hindcast experiment cleansing`: does removing the worst examples help?

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::Context as _;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;

use super::experiment::parse_seeds;
use crate::args::Cleansing;
use crate::clean;
use crate::clean::{field, say};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::recording::task;
use crate::commands::{Outcome, Usage, progress};
use hindcast_analyzer::estimators::Stage;
use hindcast_analyzer::load_data;
use hindcast_analyzer::measures::{mean, sample_sd};
use hindcast_lab::paired_t_test;
use hindcast_lab::protocols::{
    CleansingPlan, CleansingRow, Kept, NONE, REMOVED, Ranking, append_row, check_data,
    check_settings, cleansing, data_digest, read_rows, settings_digest,
};

pub(crate) fn run(args: &Cleansing) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
    once("--remove", &args.remove)?;
    let plan = CleansingPlan {
        rankings: rankings(&args.methods, Ranking::usual, |ranking| ranking)?,
        removed: match args.remove.as_slice() {
            [] => REMOVED.to_vec(),
            asked => asked.to_vec(),
        },
        retrain: args.retrain,
    };
    let tasks = match args.only.as_slice() {
        [] => tasks(&["mnist".to_owned(), "cifar10".to_owned()], &args.set)?,
        asked => tasks(asked, &args.set)?,
    };
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
    let mut out = clean::stdout();
    for task in &tasks {
        summary(&mut out, &task.name, &seeds, &plan, &rows)?;
    }
    Ok(Outcome::Fine)
}

fn one_seed(
    args: &Cleansing,
    task: &Task,
    plan: &CleansingPlan,
    rows: &mut Vec<CleansingRow>,
) -> anyhow::Result<()> {
    let data = load_data(
        task,
        data_folder(args.data.as_deref(), task).as_deref(),
        task.train.seed,
    )?;
    let seed = task.train.seed;
    let fingerprint = data_digest(data.as_ref());
    check_data(args.out.as_deref(), rows, &task.name, seed, &fingerprint)?;
    let examples = data.len(Split::Train);
    let too_many: Vec<String> = plan
        .removed
        .iter()
        .filter(|&&k| k >= examples)
        .map(u64::to_string)
        .collect();
    if !too_many.is_empty() {
        say!(
            "task {}: removing {} is passed over: the train split has {examples} examples",
            field(&task.name),
            too_many.join(", ")
        );
    }
    let kept = Kept::beside(args.out.as_deref(), task)?;
    let known: Vec<(String, u64)> = rows
        .iter()
        .filter(|r| r.task == task.name && r.seed == task.train.seed && r.retrain == plan.retrain)
        .map(|r| (r.method.clone(), r.k))
        .collect();
    let show = Show::new();
    cleansing(
        &kept,
        task,
        data,
        plan,
        &|method, k| known.iter().any(|(m, of)| m == method && *of == k),
        &mut |row| {
            append_row(args.out.as_deref(), &row)?;
            rows.push(row);
            Ok(())
        },
        &|stage| show.at(stage),
    )
}

/// A bar for each thing that is done, and the wish to stop.
pub(super) struct Show {
    bar: Mutex<Option<(&'static str, progress::Bar)>>,
    interrupts: Interrupts,
}

impl Show {
    pub fn new() -> Self {
        Show {
            bar: Mutex::new(None),
            interrupts: Interrupts::listen(),
        }
    }

    pub fn at(&self, stage: Stage) -> ControlFlow<()> {
        let mut shown = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        if shown
            .as_ref()
            .is_none_or(|(doing, _)| *doing != stage.doing)
        {
            *shown = None;
            *shown = Some((stage.doing, progress::bar(0, stage.doing, stage.unit)));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.at(stage.done, stage.total);
        }
        self.interrupts.flow()
    }
}

/// The tasks by name; the paper's two are called by their data, too.
pub(super) fn tasks(only: &[String], set: &[String]) -> anyhow::Result<Vec<Task>> {
    let names = only.iter().map(|name| match name.as_str() {
        "mnist" => "mnist-cnn",
        "cifar10" => "cifar10-cnn",
        other => other,
    });
    let tasks = names
        .map(|name| task::find(name, set))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // Rows know a task by its name.
    let names: Vec<&str> = tasks.iter().map(|task| task.name.as_str()).collect();
    once("--only", &names)?;
    Ok(tasks)
}

/// Refuses what a list has twice: it would be counted as more seeds than there are.
pub(super) fn once<T: PartialEq + fmt::Display>(option: &str, list: &[T]) -> Result<(), Usage> {
    let twice = (1..list.len()).find(|&at| list[..at].contains(&list[at]));
    twice.map_or(Ok(()), |at| {
        Err(Usage(format!(
            "{option}: {} is there twice; each counts once",
            list[at]
        )))
    })
}

/// Rankings as the user wrote them, each once and made what is `meant` by it, or the usual ones.
pub(super) fn rankings(
    asked: &[String],
    usual: impl FnOnce() -> Vec<Ranking>,
    meant: impl Fn(Ranking) -> Ranking,
) -> anyhow::Result<Vec<Ranking>> {
    if asked.is_empty() {
        return Ok(usual());
    }
    // Of what nothing is removed from there is a row anyway.
    let asked = asked.iter().filter(|word| word.trim() != NONE);
    let rankings = asked
        .map(|word| match word.parse() {
            Ok(ranking) => Ok(meant(ranking)),
            Err(e) => Err(Usage(format!("--methods: {e}"))),
        })
        .collect::<Result<Vec<_>, _>>()?;
    once("--methods", &rankings)?;
    Ok(rankings)
}

/// Where a task's files lie: in the folder itself, or in one of its own within it.
pub(super) fn data_folder(given: Option<&Path>, task: &Task) -> Option<PathBuf> {
    let given = given?;
    let own = task.name.split('-').next().map(|word| given.join(word));
    Some(
        own.filter(|own| own.is_dir())
            .unwrap_or_else(|| given.to_owned()),
    )
}

/// What an interrupted experiment says.
pub(super) fn stopped(out: Option<&Path>) -> String {
    match out {
        Some(path) => format!(
            "the rows that were ready are in {}; the same command goes on after them",
            path.display()
        ),
        None => "no rows are kept without --out".to_owned(),
    }
}

/// Level of the paired test.
const LEVEL: f64 = 0.05;

/// A line a ranking and k, over the seeds: test error, and the paired difference to removing nothing.
fn summary(
    out: &mut dyn Write,
    task: &str,
    seeds: &Range<u64>,
    plan: &CleansingPlan,
    rows: &[CleansingRow],
) -> anyhow::Result<()> {
    let rows: Vec<&CleansingRow> = rows
        .iter()
        .filter(|r| r.task == task && seeds.contains(&r.seed) && r.retrain == plan.retrain)
        .collect();
    let percent = |x: f64| 100.0 * x;
    // One seed has no spread.
    let spread = |sd: f64| {
        if sd.is_nan() {
            "-".to_owned()
        } else {
            format!("{sd:.3}")
        }
    };
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
        "{}, {} seeds, retrained: {}; test error {:.3} % (sd {}) with everyone",
        field(task),
        none.len(),
        plan.retrain,
        mean(&none),
        spread(sample_sd(&none))
    )?;
    writeln!(
        out,
        "{:<26} {:>6} {:>5} {:>9} {:>7} {:>9} {:>7} {:>8} {:>6}",
        "method", "k", "seeds", "error, %", "sd", "change", "sd", "p", "better"
    )?;
    let mut groups: BTreeMap<(usize, u64), Vec<&CleansingRow>> = BTreeMap::new();
    for row in rows {
        let at = plan
            .rankings
            .iter()
            .position(|ranking| ranking.to_string() == row.method);
        if let Some(at) = at {
            groups.entry((at, row.k)).or_default().push(row);
        }
    }
    for ((at, k), rows) in &groups {
        let before: Vec<f64> = rows.iter().map(|r| percent(r.test_error_before)).collect();
        let after: Vec<f64> = rows.iter().map(|r| percent(r.test_error_after)).collect();
        let test = paired_t_test(&before, &after).context("the paired test")?;
        let better = rows
            .iter()
            .filter(|r| r.test_error_after < r.test_error_before)
            .count();
        writeln!(
            out,
            "{:<26} {k:>6} {:>5} {:>9.3} {:>7} {:>+9.3} {:>7} {:>8} {better:>6}",
            plan.rankings[*at].to_string(),
            rows.len(),
            mean(&after),
            spread(sample_sd(&after)),
            test.mean,
            spread(test.sd),
            match test.p {
                p if p.is_nan() => "-".to_owned(),
                p if p < LEVEL => format!("{p:.4}*"),
                p => format!("{p:.4}"),
            },
        )?;
    }
    writeln!(
        out,
        "change: mean of the paired differences to removing nothing; p: two-sided paired t-test, * below {LEVEL}; better: seeds with a lower error"
    )?;
    Ok(())
}
