//! `hindcast bounds`: compare the paper's error bounds with the measured errors.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::{DType, Device};
use serde::Serialize;

use super::asked::parse_window;
use super::trust;
use crate::args::Bounds;
use crate::commands::context::Models;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::{Outcome, Usage, advice, context, progress};
use crate::terminal;
use crate::terminal::{field, say};
use crate::words;
use hindcast_analyzer::bounds::{BoundCheck, BoundsOptions, BoundsReport, GivenConstants, bounds};
use hindcast_analyzer::output::Kind;
use hindcast_analyzer::query::indices;

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    report: &'a BoundsReport,
    examples: usize,
    inequality7: Option<BoundCheck>,
    inequality8: Option<BoundCheck>,
    theorem5: Option<BoundCheck>,
    always: Option<BoundCheck>,
    theorem6: Option<BoundCheck>,
    notes: &'a [String],
    table: String,
    seconds: f64,
}

pub(crate) fn run(args: &Bounds) -> anyhow::Result<Outcome> {
    let window = parse_window(&args.window)?;
    let given = args.constants.as_deref().map(parse_constants).transpose()?;
    let examples = args
        .examples
        .as_deref()
        .map(|list| indices(list).map_err(|e| Usage(format!("--examples: {e}"))))
        .transpose()?;
    check_output(&args.out)?;
    hindcast_analyzer::output::try_folder(&args.out, Kind::Bounds)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let memory = context::memory(args.memory.as_deref())?;
    let run = Models::Recorded.open(&args.run, args.own.given(args.data.as_deref()), memory)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    let net = run
        .net()
        .context("the bounds need a run of a task, and this run has no task")?;
    let options = BoundsOptions {
        window: window.resolve(run.source())?,
        examples,
        given,
    };
    let end = run.source().end()?.step;
    let notes = Vec::from_iter(trust::steps(
        &run,
        options.window.start..end,
        &args.check,
        memory,
        false,
    )?);
    let begun = Instant::now();
    // The bounded differences can be much smaller than the parameters, so the estimate is always computed in float64.
    let mut engine = run.engine(None, Some(DType::F64), Device::Cpu)?;
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "estimating, then retraining", "steps");
    let report = bounds(&run, net, engine.as_mut(), &options, &|done, total| {
        bar.at(done, total);
        interrupts.flow()
    });
    drop((bar, interrupts));
    let report = report.map_err(|e| told(e.into(), || "nothing was written".to_owned()))?;
    report.write(&args.out)?;

    let mut out = terminal::stdout();
    if args.json {
        let report = Report {
            examples: report.rows.len(),
            inequality7: report.inequality7(),
            inequality8: report.inequality8(),
            theorem5: report.theorem5(),
            always: report.always(),
            theorem6: report.theorem6(),
            notes: &notes,
            table: args.out.display().to_string(),
            seconds: begun.elapsed().as_secs_f64(),
            report: &report,
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report)?;
        for note in &notes {
            writeln!(out, "{}", field(note))?;
        }
        writeln!(
            out,
            "{} ({})",
            field(args.out.display()),
            words::counted(report.rows.len() as u64, "row", "rows")
        )?;
        say!("took {}", words::duration(begun.elapsed()));
    }
    // Only a violated proven bound is a failure. Theorem 5 as printed in the paper isn't proven, and neither are constants that
    // the user gave.
    let proven = [
        report.inequality7(),
        report.inequality8(),
        report.always(),
        report.theorem6().filter(|_| report.constants.proven),
    ];
    Ok(if proven.iter().flatten().all(|kept| kept.broken == 0) {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

fn print(out: &mut dyn Write, report: &BoundsReport) -> anyhow::Result<()> {
    let c = &report.constants;
    writeln!(
        out,
        "{} examples, each in one batch of the steps {}..{}; learning rates {} to {}",
        report.rows.len(),
        report.window.start,
        report.run_steps,
        report.rates.0,
        report.rates.1
    )?;
    if c.proven {
        writeln!(
            out,
            "from the model: λ = {:.4}, Λ = {:.4} (1/Λ = {:.3e}; largest input {:.3}), L = {:.4}, G = {:.4}",
            c.lower,
            c.upper,
            1.0 / c.upper,
            c.input,
            c.lipschitz,
            c.gradient
        )?;
    } else {
        writeln!(
            out,
            "as given: Λ = {}, L = {}, G = {}",
            c.upper, c.lipschitz, c.gradient
        )?;
    }
    for (name, kept) in [
        (
            "(7)  h(Λ) ≤ ‖Δθ‖ ≤ h(λ), the estimate",
            report.inequality7(),
        ),
        (
            "(8)  h(Λ) ≤ ‖θ_-j − θ‖ ≤ h(λ), the truth",
            report.inequality8(),
        ),
        (
            "Theorem 5 as printed, gap ≤ √(2(h(λ)² + h(Λ)²))",
            report.theorem5(),
        ),
        ("gap ≤ 2 h(λ), which always holds", report.always()),
        (
            "Theorem 6, gap ≤ 4((1+ηΛ)^(T−1) − 1)/Λ · η²T²G²L",
            report.theorem6(),
        ),
    ] {
        if let Some(kept) = kept {
            writeln!(
                out,
                "  {name}: holds for {} of {}; at most {:.3} of the bound is reached",
                kept.examples - kept.broken,
                kept.examples,
                kept.tightest
            )?;
        }
    }
    for (name, why) in [
        ("Lemma 7 and Theorem 5", &report.without_lemma7),
        ("Theorem 6", &report.without_theorem6),
    ] {
        if let Some(why) = why.first() {
            let advice = advice::of_assumption(why.assumption).filter(|_| name == "Theorem 6");
            let advice = advice.map_or(String::new(), |advice| format!("; {advice}"));
            writeln!(
                out,
                "  {name}: not applicable to this run; assumed: {why}{advice}"
            )?;
        }
    }
    let mean = |of: fn(&hindcast_analyzer::bounds::BoundsRow) -> f64| {
        report.rows.iter().map(of).sum::<f64>() / report.rows.len().max(1) as f64
    };
    writeln!(
        out,
        "on average ‖Δθ‖ = {:.4e}, ‖θ_-j − θ‖ = {:.4e}, gap {:.4e}; rounding errors up to {:.1e}",
        mean(|r| r.estimate),
        mean(|r| r.real),
        mean(|r| r.gap),
        report.rounding
    )?;
    Ok(())
}

/// Parses `Λ,L,G`.
fn parse_constants(text: &str) -> Result<GivenConstants, Usage> {
    let numbers: Vec<f64> = text
        .split(',')
        .filter_map(|word| word.trim().parse().ok())
        .filter(|x: &f64| x.is_finite() && *x > 0.0)
        .collect();
    match (numbers.as_slice(), text.split(',').count()) {
        (&[upper, lipschitz, gradient], 3) => Ok(GivenConstants {
            upper,
            lipschitz,
            gradient,
        }),
        _ => Err(Usage(format!(
            "--constants: expected three positive numbers Λ,L,G (largest eigenvalue of the Hessian, its Lipschitz constant, largest gradient norm), got {text:?}"
        ))),
    }
}

fn check_output(path: &Path) -> Result<(), Usage> {
    let ending = path.extension().and_then(|e| e.to_str());
    match ending {
        Some("csv" | "jsonl" | "ndjson") => Ok(()),
        _ => Err(Usage(format!(
            "--out {}: expected a name that ends in .csv or .jsonl",
            path.display()
        ))),
    }
}
