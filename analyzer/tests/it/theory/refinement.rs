//! Refinement in stages (sweep, accumulative estimate, counterfactual), and the two forward estimates as methods.

use std::ops::ControlFlow;

use hindcast_analyzer::counterfactual::Arithmetic;
use hindcast_analyzer::estimators::{
    Estimate, Question, Refinement, TableOrigin, accumulative_changes, choose, refine,
};
use hindcast_analyzer::scores::RefinedBy;
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{MemoryRun, Query, ScoreTable, StateWeights, SweepOptions, Window, sweep};

use super::{Toy, scaled};
use crate::tiny::relative_error;

const EXAMPLES: usize = 11;

fn quadratic() -> Toy {
    Toy::new(
        "{ kind = \"linear\", out = 2 }",
        "kind = \"mean-squared-error\"",
        "kind = \"sgd\"",
        EXAMPLES,
        6,
    )
    .epochs(4, 3, |_| 0.3)
}

fn table(toy: &Toy, recorded: &MemoryRun, window: std::ops::Range<u64>) -> ScoreTable {
    let run = toy.recorded(recorded);
    let options = SweepOptions::new(window);
    let query = toy.query(recorded);
    let state = sweep(&run, &mut toy.engine(), &[query], &options, &mut |_| {
        ControlFlow::Continue(())
    });
    Estimate::from(state.unwrap()).table(&run, &TableOrigin::default())
}

#[test]
fn each_stage_refines_the_worst_of_the_stage_before() {
    let toy = quadratic();
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let window = 2..13;
    let mut table = table(&toy, &recorded, window.clone());
    let refinement = Refinement {
        accumulative: 6,
        counterfactual: 3,
    };
    let go_on = |_: u64, _: u64| ControlFlow::Continue(());
    let queries = [Query::default()];
    refine(
        &Question::new(&run, &queries, &Window::All),
        &mut toy.engine(),
        &mut table,
        refinement,
        Arithmetic::Recorded,
        &go_on,
    )
    .unwrap();
    assert_eq!(
        table.metadata.refined,
        [RefinedBy::Accumulative, RefinedBy::Counterfactual]
    );

    let worst: Vec<u64> = table.worst(0, 6).iter().map(|r| r.index).collect();
    let mut go_on = |_: u64, _: u64| ControlFlow::Continue(());
    let at = StateWeights::at_end(recorded.end.as_ref().unwrap().step);
    let changes =
        accumulative_changes(&run, &mut toy.engine(), &worst, &window, &at, &mut go_on).unwrap();
    let mut second: Vec<(u64, f64)> = worst
        .iter()
        .copied()
        .zip(changes.influence(&toy.query(&recorded)))
        .collect();
    for row in &table.rows {
        let estimated = second
            .iter()
            .find(|(j, _)| *j == row.index)
            .map(|(_, x)| *x);
        let (got, want) = (row.refined[0].accumulative, estimated);
        assert_eq!(got.is_some(), want.is_some(), "example {}", row.index);
        // The order of the shortlist decides which examples share a pass, and that changes the last bits.
        if let (Some(got), Some(want)) = (got, want) {
            assert!(
                (got - want).abs() < 1e-12 * want.abs().max(1e-6),
                "{got} {want}"
            );
        }
    }
    second.sort_by(|a, b| a.1.total_cmp(&b.1));
    let value = |run: &MemoryRun| toy.query(run).value;
    for (place, (j, _)) in second.iter().enumerate() {
        let real = table.rows[*j as usize].refined[0].counterfactual;
        if place >= 3 {
            assert_eq!(real, None);
            continue;
        }
        let without = toy.train(&scaled(*j, 0.0, window.clone()));
        let want = value(&without) - value(&recorded);
        assert!((real.unwrap() - want).abs() < 1e-12, "{real:?} {want}");
    }
}

#[test]
fn without_retraining_there_is_no_column_for_it() {
    let toy = quadratic();
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let mut table = table(&toy, &recorded, 0..16);
    let refinement = Refinement {
        accumulative: 100,
        counterfactual: 0,
    };
    let queries = [Query::default()];
    refine(
        &Question::new(&run, &queries, &Window::All),
        &mut toy.engine(),
        &mut table,
        refinement,
        Arithmetic::Recorded,
        &|_, _| ControlFlow::Continue(()),
    )
    .unwrap();
    assert_eq!(table.metadata.refined, [RefinedBy::Accumulative]);
    assert!(
        table
            .rows
            .iter()
            .all(|r| r.refined[0].accumulative.is_some())
    );
}

#[test]
fn both_estimates_are_methods_for_all_examples_or_a_shortlist() {
    let toy = quadratic();
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    let swept = table(&toy, &recorded, 0..16);
    let swept: Vec<f64> = swept.rows.iter().map(|r| r.influence[0].unwrap()).collect();
    let queries = [Query::default()];
    let question = Question {
        net: Some(&toy.net),
        ..Question::new(&run, &queries, &Window::All)
    };
    let estimate = |name: &str, set: &[(&str, &str)]| -> Vec<Option<f64>> {
        let chosen = choose(name, set).unwrap();
        let observer = &mut |_: Stage| ControlFlow::Continue(());
        let estimate = chosen
            .estimator
            .estimate(&question, &mut toy.engine(), observer);
        estimate.unwrap().scores(0).collect()
    };
    let forward: Vec<f64> = estimate("forward", &[]).into_iter().flatten().collect();
    assert!(relative_error(&forward, &swept) < 1e-12);
    let all = estimate("accumulative", &[]);
    let some = estimate("accumulative", &[("examples", "3,7..9")]);
    for (j, (all, some)) in all.iter().zip(&some).enumerate() {
        if [3, 7, 8].contains(&j) {
            assert!((all.unwrap() - some.unwrap()).abs() < 1e-12)
        } else {
            assert_eq!(*some, None)
        }
    }
    let message = choose("accumulative", &[("examples", "3,x")])
        .unwrap_err()
        .to_string();
    assert!(message.contains("examples=3,x"), "{message}");
}
