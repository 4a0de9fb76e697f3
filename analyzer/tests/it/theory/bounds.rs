//! The paper's inequalities on runs that meet their assumptions, and refusals of runs that don't.

use std::ops::ControlFlow;

use hindcast_analyzer::bounds::{BoundsOptions, BoundsReport, GivenConstants, bounds};
use hindcast_analyzer::{AnalysisError, MemoryRun, RecordedRun};
use proptest::prelude::*;

use super::Toy;
use crate::tiny::noise;

const LOGISTIC: &str = "{ kind = \"linear\", out = 1 }";
const SOFTMAX: &str = "{ kind = \"linear\", out = 3, bias = false }";
const TANH: &str =
    "{ kind = \"linear\", out = 3 }, { kind = \"tanh\" }, { kind = \"linear\", out = 2 }";

fn bounded(toy: &Toy, given: Option<GivenConstants>) -> Result<BoundsReport, AnalysisError> {
    let recorded = toy.train(&|_, _| {});
    bounded_from(toy, &toy.recorded(&recorded), &recorded, given, None)
}

fn bounded_from(
    toy: &Toy,
    run: &RecordedRun<'_>,
    recorded: &MemoryRun,
    given: Option<GivenConstants>,
    from: Option<u64>,
) -> Result<BoundsReport, AnalysisError> {
    let options = BoundsOptions {
        window: from.unwrap_or(0)..recorded.steps.len() as u64,
        examples: None,
        given,
    };
    bounds(run, &toy.net, &mut toy.engine(), &options, &|_, _| {
        ControlFlow::Continue(())
    })
}

/// 1/Λ of a toy. Λ comes from its bounds at a rate that is surely small enough.
fn largest_rate(toy: &mut Toy) -> f64 {
    toy.rates.fill(1e-6);
    1.0 / bounded(toy, None).unwrap().constants.upper
}

fn loss(kind: &str, penalty: f64, place: &str) -> String {
    format!("kind = \"{kind}\"\npenalty = {penalty}\npenalty_in = \"{place}\"")
}

/// Checks Lemma 7 and the bound that always holds. Theorem 5 as printed is tested elsewhere.
fn lemma_holds(toy: &Toy) -> Result<BoundsReport, TestCaseError> {
    let report = bounded(toy, None).unwrap();
    prop_assert_eq!(report.rows.len(), toy.batches.concat().len());
    for (name, kept) in [
        ("inequality 7", report.inequality7()),
        ("inequality 8", report.inequality8()),
        ("gap <= 2 h(lambda)", report.always()),
    ] {
        prop_assert_eq!(kept.unwrap().broken, 0, "{}: {:#?}", name, report.rows);
    }
    Ok(report)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Lemma 7 on random data, starts, penalties, batches and rates up to 1/Λ, for the losses with proven constants.
    #[test]
    fn inequalities_7_and_8_hold(
        seed in 0u64..1000,
        examples in 3usize..14,
        size in 1usize..6,
        penalty in 0.001f64..2.0,
        decay in prop_oneof![Just(0.0), 0.01f64..0.5],
        start in 0.1f64..20.0,
        which in 0usize..4,
        rates in prop::collection::vec(0.01f64..1.0, 14),
    ) {
        let (layers, loss) = match which {
            0 => (LOGISTIC, loss("binary-cross-entropy", penalty, "examples")),
            1 => (LOGISTIC, loss("binary-cross-entropy", penalty, "batch")),
            2 => (SOFTMAX, loss("cross-entropy", penalty, "examples")),
            _ => (SOFTMAX, loss("mean-squared-error", penalty, "examples")),
        };
        let optimizer = format!("kind = \"sgd\"\nweight_decay = {decay}");
        let mut toy = Toy::new(layers, &loss, &optimizer, examples, seed).epochs(1, size, |_| 0.0);
        toy.start = noise(seed + 5, toy.start.len()).iter().map(|x| start * x).collect();
        let largest = largest_rate(&mut toy);
        toy.rates = rates[..toy.batches.len()].iter().map(|r| r * largest).collect();
        lemma_holds(&toy)?;
    }

    /// Theorem 6 with proven constants: a constant rate, however large.
    #[test]
    fn theorem_6_holds(
        seed in 0u64..1000,
        examples in 3usize..14,
        size in 1usize..6,
        rate in 0.01f64..3.0,
        start in 0.1f64..5.0,
        which in 0usize..3,
    ) {
        let (layers, loss) = match which {
            0 => (LOGISTIC, loss("binary-cross-entropy", 0.0, "examples")),
            1 => (LOGISTIC, loss("binary-cross-entropy", 0.1, "batch")),
            _ => (SOFTMAX, loss("cross-entropy", 0.3, "examples")),
        };
        let mut toy = Toy::new(layers, &loss, "kind = \"sgd\"", examples, seed).epochs(1, size, |_| rate);
        toy.start = noise(seed + 5, toy.start.len()).iter().map(|x| start * x).collect();
        let report = bounded(&toy, None).unwrap();
        let kept = report.theorem6().unwrap();
        prop_assert_eq!(kept.broken, 0, "{:?} {:#?}", report.constants, report.rows);
    }
}

#[test]
fn at_rates_of_one_over_lambda_the_lower_bound_is_zero_and_the_upper_is_near() {
    let mut toy = Toy::new(
        LOGISTIC,
        &loss("binary-cross-entropy", 0.5, "examples"),
        "kind = \"sgd\"",
        12,
        8,
    )
    .epochs(1, 3, |_| 0.0);
    let largest = largest_rate(&mut toy);
    toy.rates.fill(largest);
    let report = bounded(&toy, None).unwrap();
    // Leaving out an example of the last batch moves the parameters by exactly the value of both bounds.
    let last = report.rows.iter().filter(|r| r.step == 3);
    assert_eq!(last.clone().count(), 3);
    for row in last {
        assert!(
            (row.estimate - row.upper.unwrap()).abs() < 1e-12 * row.estimate,
            "{row:?}"
        );
        assert_eq!(row.lower, row.upper);
        assert!(row.gap < 1e-12 * row.estimate, "{row:?}");
    }
    for row in report.rows.iter().filter(|r| r.step < 3) {
        assert!(row.lower.unwrap() < 1e-12 * row.upper.unwrap(), "{row:?}");
        assert!(row.estimate > 0.2 * row.upper.unwrap(), "{row:?}");
    }
}

#[test]
fn the_constants_are_those_of_the_formulas() {
    let alpha = 0.7;
    let toy = Toy::new(
        LOGISTIC,
        &loss("binary-cross-entropy", alpha, "examples"),
        "kind = \"sgd\"",
        9,
        1,
    )
    .epochs(1, 3, |_| 0.01);
    let constants = bounded(&toy, None).unwrap().constants;
    let all: Vec<u64> = (0..9).collect();
    let batch = toy
        .data
        .batch(
            hindcast_model::objective::Split::Train,
            &all,
            None,
            candle_core::DType::F64,
            &candle_core::Device::Cpu,
        )
        .unwrap();
    let rows: Vec<Vec<f64>> = batch.inputs.to_vec2().unwrap();
    let square = rows
        .iter()
        .map(|r| r.iter().map(|x| x * x).sum::<f64>())
        .fold(0.0, f64::max);
    assert_eq!(constants.lower, alpha);
    assert!((constants.upper - (alpha + (square + 1.0) / 4.0)).abs() < 1e-12);
    assert!(constants.proven);
}

#[test]
fn a_broken_assumption_is_named_with_its_numbers() {
    let plain = loss("binary-cross-entropy", 0.5, "examples");
    let of = |layers: &str, loss: &str, optimizer: &str, epochs, rate: f64| {
        Toy::new(layers, loss, optimizer, 9, 1).epochs(epochs, 3, |t| rate / (1.0 + t as f64))
    };
    let mut summed = of(LOGISTIC, &plain, "kind = \"sgd\"", 1, 0.01);
    summed.weights = Some(vec![1.0; 3]);
    let cases = [
        (
            of(LOGISTIC, &plain, "kind = \"sgd\"\nmomentum = 0.9", 1, 0.01),
            vec!["plain SGD", "momentum is 0.9"],
        ),
        (
            of(LOGISTIC, &plain, "kind = \"sgd\"", 3, 0.01),
            vec!["one pass", "occurs 3 times"],
        ),
        (
            of(LOGISTIC, &plain, "kind = \"sgd\"", 1, 5.0),
            vec![
                "at most 1/Λ",
                "step 0 is 5,",
                "constant learning rate: 5 in step 0, 2.5 in step 1",
            ],
        ),
        (
            of(
                LOGISTIC,
                "kind = \"binary-cross-entropy\"",
                "kind = \"sgd\"",
                1,
                0.01,
            ),
            vec!["strong convexity", "λ = 0"],
        ),
        (summed, vec!["mean loss", "add up to 3 instead of 1"]),
        (
            of(
                TANH,
                "kind = \"mean-squared-error\"",
                "kind = \"sgd\"",
                1,
                0.01,
            ),
            vec!["known bounds", "1.tanh"],
        ),
    ];
    for (toy, words) in cases {
        let message = bounded(&toy, None).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{word:?} in {message}");
        }
    }
}

#[test]
fn a_last_epoch_is_one_pass() {
    let mut toy = Toy::new(
        LOGISTIC,
        &loss("binary-cross-entropy", 0.5, "examples"),
        "kind = \"sgd\"",
        9,
        1,
    )
    .epochs(3, 3, |_| 0.1);
    toy.rates[2] = 0.3;
    let recorded = toy.train(&|_, _| {});
    let run = toy.recorded(&recorded);
    assert!(bounded_from(&toy, &run, &recorded, None, None).is_err());
    let report = bounded_from(&toy, &run, &recorded, None, Some(6)).unwrap();
    assert_eq!(report.rows.len(), 9);
    assert_eq!(report.inequality7().unwrap().broken, 0);
    assert_eq!(report.inequality8().unwrap().broken, 0);
}

#[test]
fn theorem_6_applies_to_a_net_with_given_constants() {
    let toy = Toy::new(
        TANH,
        "kind = \"mean-squared-error\"",
        "kind = \"sgd\"",
        9,
        1,
    )
    .epochs(1, 3, |_| 0.05);
    let given = GivenConstants {
        upper: 20.0,
        lipschitz: 60.0,
        gradient: 10.0,
    };
    let report = bounded(&toy, Some(given)).unwrap();
    assert!(report.inequality7().is_none());
    assert!(
        report.without_lemma7[0]
            .to_string()
            .contains("strong convexity"),
        "{:?}",
        report.without_lemma7
    );
    let kept = report.theorem6().unwrap();
    assert_eq!((kept.examples, kept.broken), (9, 0));
    // 4 ((1 + ηΛ)^{T−1} − 1)/Λ · η² T² G² L by hand: T = 3, (2² − 1)/20 = 0.15.
    let by_hand = 4.0 * 0.15 * 0.05_f64.powi(2) * 9.0 * 100.0 * 60.0;
    assert!((report.rows[0].theorem6.unwrap() - by_hand).abs() < 1e-9 * by_hand);
    // A bound of the gradients that the run itself exceeds is refused.
    let small = GivenConstants {
        gradient: 1e-3,
        ..given
    };
    let message = bounded(&toy, Some(small)).unwrap_err().to_string();
    assert!(message.contains("G = 0.001"), "{message}");
}
