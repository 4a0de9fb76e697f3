//! A sweep of a rule with a state goes back with the state, from states that it keeps on a walk forward or that the run
//! has recorded.

use std::ops::ControlFlow;

use hindcast_analyzer::sweep::resume;
use hindcast_analyzer::{Query, RecordedRun, ReplayEngine, SweepOptions, SweepState, sweep};
use hindcast_model::update::UpdateRule;

use crate::tiny::{Recipe, TinyData, TinyNet, engine, relative_error, train};

const STEPS: u64 = 40;

/// The influence after a whole sweep, and after a sweep that is stopped before each of some steps and resumed.
fn swept(recipe: &Recipe, limit: Option<u64>, stops: &[u64]) -> Vec<SweepState> {
    let net = TinyNet::new(recipe.penalty);
    let recorded = train(recipe, &net, None);
    let mut run =
        RecordedRun::new(&recorded, net.clone(), &TinyData, recipe.rule.clone(), 7).unwrap();
    if let Some(bytes) = limit {
        run = run.keep_states_within(bytes);
    }
    let mut engine = engine(&net);
    let queries = [Query::default()
        .gradient(&recorded, &mut engine, &TinyData)
        .unwrap()];
    let options = SweepOptions::new(0..STEPS);
    let whole = |engine: &mut dyn ReplayEngine, stop: Option<u64>| {
        let mut last = None;
        let mut see = |state: &SweepState| {
            if Some(state.next) == stop {
                last = Some(state.clone());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        let found = sweep(&run, engine, &queries, &options, &mut see);
        last.unwrap_or_else(|| found.unwrap())
    };
    let mut all = vec![whole(&mut engine, None)];
    for &stop in stops {
        let state = whole(&mut engine, Some(stop));
        assert_eq!(state.next, stop);
        let mut see = |_: &SweepState| ControlFlow::Continue(());
        all.push(resume(&run, &mut engine, state, false, &mut see).unwrap());
    }
    all
}

#[test]
fn scores_dont_depend_on_where_states_are_kept_and_a_resumed_sweep_has_their_bits() {
    for rule in [
        // States are kept every third step, every seventh, and only at the beginning.
        "kind = \"adamw\"\nbeta1 = 0.05\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1",
        "kind = \"adam\"\nbeta1 = 0.3\nbeta2 = 0.95\neps = 1e-3\nweight_decay = 0.1",
        "kind = \"rmsprop\"\neps = 1e-3\nmomentum = 0.3\ncentered = true",
        "kind = \"adagrad\"\neps = 1e-3",
    ] {
        let rule = UpdateRule::from_toml(rule).unwrap();
        for restart_every in [None, Some(11)] {
            let recipe = Recipe {
                steps: STEPS,
                keep_state: false,
                restart_every,
                ..Recipe::new(rule.clone(), 0.02)
            };
            let stops: Vec<u64> = (1..STEPS).step_by(3).collect();
            let once = swept(&recipe, None, &stops);
            // With a limit of one byte, the steps are walked forward twice.
            let twice = swept(&recipe, Some(1), &stops);
            let recorded = Recipe {
                keep_state: true,
                ..recipe
            };
            let recorded = swept(&recorded, None, &[]);
            let name = format!("{}, restarts {restart_every:?}", rule.describe());
            for states in [&once, &twice] {
                for (state, stop) in states[1..].iter().zip(&stops) {
                    let same = state.queries[0].influence == states[0].queries[0].influence;
                    assert!(same, "{name}: resumed before step {stop}");
                }
            }
            let influence = |states: &[SweepState]| states[0].queries[0].influence.clone();
            for other in [&twice, &recorded] {
                let error = relative_error(&influence(&once), &influence(other));
                println!("{error:.1e} {name}");
                assert!(error < 1e-9, "{name}: {error:e}");
            }
        }
    }
}
