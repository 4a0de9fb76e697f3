//! The effect of an example's removal on the rest of its batch depends on the loss's reduction.

use hindcast_analyzer::ScoreTable;

use super::*;

const WEIGHTS: &str = "loss.class_weights=[1, 2, 3, 1, 2, 3, 1, 2, 3, 4]";

fn record(dir: &Path, run: &str, reduction: &str) {
    let reduction = format!("loss.reduction={reduction}");
    let mut words = vec!["record", "digits", "--out", run];
    for set in [
        "data.train=60",
        "data.validation=20",
        "data.test=0",
        "train.epochs=2",
        "train.batch=10",
        "schedule.learning_rate=0.002",
        WEIGHTS,
        &reduction,
    ] {
        words.extend(["--set", set]);
    }
    fine(dir, &words);
}

/// The largest difference of the two columns, relative to the largest influence.
fn difference(table: &ScoreTable) -> f64 {
    let pairs = table
        .rows
        .iter()
        .filter_map(|row| Some((row.influence[0]?, row.renormalised[0]?)));
    let (mut apart, mut largest) = (0.0_f64, 0.0_f64);
    for (fixed, renormalised) in pairs {
        apart = apart.max((fixed - renormalised).abs());
        largest = largest.max(fixed.abs());
    }
    apart / largest
}

#[test]
fn a_weighted_sum_has_no_denominator_and_a_weighted_mean_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (reduction, renormalises) in [("sum", false), ("mean", true)] {
        record(dir, reduction, reduction);
        let table = format!("{reduction}.csv");
        fine(dir, &["influence", reduction, "--out", &table]);
        let difference = difference(&ScoreTable::read(&dir.join(&table)).unwrap());
        assert_eq!(difference > 1e-3, renormalises, "{reduction}: {difference}");
        assert!(renormalises || difference == 0.0, "{difference}");

        std::fs::write(dir.join("without.txt"), "3\n5\n").unwrap();
        let real = |denominators: &str| {
            let words = [
                "counterfactual",
                reduction,
                "--without",
                "without.txt",
                "--json",
            ];
            let words: Vec<&str> = words
                .into_iter()
                .chain(["--denominators", denominators])
                .collect();
            let json: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
            json["real_change"].as_f64().unwrap()
        };
        let (fixed, renormalised) = (real("fixed"), real("renormalised"));
        assert_eq!(
            fixed != renormalised,
            renormalises,
            "{reduction}: {fixed} {renormalised}"
        );
        // `export` says which reduction a list of weights has.
        fine(
            dir,
            &[
                "export",
                reduction,
                "--steps",
                "0",
                "--out",
                &format!("{reduction}.steps"),
            ],
        );
        let steps =
            std::fs::read_to_string(dir.join(format!("{reduction}.steps/steps.jsonl"))).unwrap();
        assert!(
            steps.contains(&format!("\"reduction\":\"{reduction}\"")),
            "{steps}"
        );
    }
}
