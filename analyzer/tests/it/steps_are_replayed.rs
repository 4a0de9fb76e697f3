//! The replay check on correct and on altered runs.

use hindcast_analyzer::check::ReplayCheckReport;
use hindcast_analyzer::{MemoryRun, RecordedRun, ReplayCheckOptions, replay_check};
use hindcast_model::update::UpdateRule;

use crate::tiny::{Recipe, TinyData, TinyNet, train};

fn check(recipe: &Recipe, recorded: &MemoryRun, samples: usize) -> ReplayCheckReport {
    let run = RecordedRun::new(
        recorded,
        TinyNet::new(0.0),
        &TinyData,
        recipe.rule.clone(),
        7,
    )
    .unwrap();
    let mut options = ReplayCheckOptions::new(&run);
    options.samples = samples;
    let mut calls = 0;
    let report = replay_check(&run, &options, &mut |_, _| calls += 1).unwrap();
    assert_eq!(calls, report.steps.len());
    report
}

#[test]
fn correct_runs_are_reproduced_bit_for_bit() {
    for text in [
        "kind = \"sgd\"",
        "kind = \"sgd\"\nmomentum = 0.9",
        "kind = \"adamw\"",
    ] {
        for keep_state in [true, false] {
            let recipe = Recipe {
                keep_state,
                ..Recipe::new(UpdateRule::from_toml(text).unwrap(), 0.1)
            };
            let report = check(&recipe, &train(&recipe, &TinyNet::new(0.0), None), 0);
            assert!(report.passed() && report.bit_identical(), "{report:#?}");
            match text {
                "kind = \"sgd\"" => assert_eq!(report.steps.len(), 10),
                _ => assert!(report.note.contains("keyframes"), "{}", report.note),
            }
        }
    }
}

#[test]
fn an_altered_step_is_found_and_its_tensor_named() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    // The last number belongs to `w2`.
    let six = &mut recorded.steps[6].parameters;
    let mut altered = six.to_vec::<f64>();
    *altered.last_mut().unwrap() += 1e-3;
    *six = altered.into();
    let report = check(&recipe, &recorded, 0);
    let failed: Vec<u64> = report
        .steps
        .iter()
        .filter(|s| !s.passed)
        .map(|s| s.step)
        .collect();
    assert_eq!(failed, [5, 6]);
    assert_eq!(
        report.worst().unwrap().comparison.tensor.as_deref(),
        Some("w2")
    );
    assert!(!report.passed());
}

#[test]
fn another_batch_or_learning_rate_is_found() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let honest = train(&recipe, &TinyNet::new(0.0), None);
    let mut other = honest.clone();
    other.steps[3].meta.indices.swap_remove(0);
    assert!(!check(&recipe, &other, 0).steps[3].passed);
    let mut other = honest.clone();
    other.steps[3].meta.groups[0].learning_rate *= 1.001;
    assert!(!check(&recipe, &other, 0).steps[3].passed);
    let mut other = honest;
    other.steps[3].meta.trained[2] = false;
    let report = check(&recipe, &other, 0);
    assert!(!report.steps[3].passed);
    assert_eq!(report.steps[3].trained_differs, ["w2"]);
}

#[test]
fn runs_with_gaps_are_checked_where_the_next_step_is_recorded() {
    let recipe = Recipe::new(UpdateRule::sgd(), 0.1);
    let mut recorded = train(&recipe, &TinyNet::new(0.0), None);
    let keys: Vec<_> = recorded
        .steps
        .iter()
        .map(|s| s.buffers_after.clone())
        .collect();
    recorded.steps.retain(|s| ![3, 4].contains(&s.meta.step));
    let five = recorded
        .steps
        .iter_mut()
        .find(|s| s.meta.step == 5)
        .unwrap();
    five.key = Some(hindcast_analyzer::run::RecordedKey {
        buffers_before: keys[4].clone(),
        optimizer: Vec::new(),
    });
    let report = check(&recipe, &recorded, 0);
    let steps: Vec<u64> = report.steps.iter().map(|s| s.step).collect();
    assert_eq!(steps, [0, 1, 5, 6, 7, 8, 9]);
    assert!(report.bit_identical());
    assert_eq!(check(&recipe, &recorded, 3).steps.len(), 3);
}
