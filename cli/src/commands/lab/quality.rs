//! `hindcast experiment quality`: the field's other measures of a ranking.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write;

use super::cleansing::{Show, data_folder, once, rankings, stopped, tasks};
use super::experiment::parse_seeds;
use crate::args::Quality;
use crate::clean;
use crate::clean::field;
use crate::commands::analysis::influence::parse_window;
use crate::commands::interrupt::told;
use crate::commands::{Outcome, Usage};
use hindcast_analyzer::load_data;
use hindcast_lab::protocols::{
    Kept, QualityPlan, QualityRow, Ranking, append_row, check_data, check_settings, data_digest,
    quality, read_rows, settings_digest,
};

pub(crate) fn run(args: &Quality) -> anyhow::Result<Outcome> {
    let seeds = parse_seeds(&args.seeds)?;
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
    let plan = QualityPlan {
        measure: args.measure,
        rankings: rankings(
            &args.methods,
            || Ranking::usual_of(&window),
            |ranking| ranking.unless_named(&window),
        )?,
        window,
        share: args.share,
        runs: args.runs,
        queries: args.queries,
        removed: args.remove.clone(),
    };
    let tasks = tasks(&args.only, &args.set)?;
    let mut rows: Vec<QualityRow> = read_rows(args.out.as_deref())?;
    for task in &tasks {
        let settings = settings_digest(task, "")?;
        check_settings(args.out.as_deref(), &rows, &task.name, &settings)?;
    }
    let mut asked: Vec<QualityRow> = Vec::new();
    for task in &tasks {
        for seed in seeds.clone() {
            let mut task = task.clone();
            task.set("train.seed", &seed.to_string())?;
            let folder = data_folder(args.data.as_deref(), &task);
            let data = load_data(&task, folder.as_deref(), seed)?;
            let fingerprint = data_digest(data.as_ref());
            check_data(args.out.as_deref(), &rows, &task.name, seed, &fingerprint)?;
            let kept = Kept::beside(args.out.as_deref(), &task)?;
            let known: Vec<QualityRow> = rows
                .iter()
                .filter(|r| r.task == task.name && r.seed == seed)
                .cloned()
                .collect();
            let show = Show::new();
            // Rows of these protocols are what is asked for, new or not.
            let touched = RefCell::new(BTreeSet::new());
            let touch = |protocol: &str| touched.borrow_mut().insert(protocol.to_owned());
            let measured = quality(
                &kept,
                &task,
                data,
                &plan,
                &|measure, method, protocol| {
                    touch(protocol);
                    known.iter().any(|r| {
                        r.measure == measure && r.method == method && r.protocol == protocol
                    })
                },
                &mut |row| {
                    append_row(args.out.as_deref(), &row)?;
                    rows.push(row);
                    Ok(())
                },
                &|stage| show.at(stage),
            );
            measured.map_err(|e| {
                told(
                    e.context(format!("task {}, seed {seed}", task.name)),
                    || stopped(args.out.as_deref()),
                )
            })?;
            asked.extend(
                rows.iter()
                    .filter(|r| {
                        let of_seed = r.task == task.name && r.seed == seed;
                        of_seed && touched.borrow().contains(&r.protocol)
                    })
                    .cloned(),
            );
        }
    }
    print(&mut clean::stdout(), &asked)?;
    Ok(Outcome::Fine)
}

/// The rows, a line each, under the protocol that they share.
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
