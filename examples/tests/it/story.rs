//! What every program must be able to do.

use std::path::Path;

use hindcast_format::{Status, Trace};
use hindcast_model::data::{DataSpec, Source, load};
use hindcast_model::objective::Split;

use crate::program::{Program, end, moment};

/// A ranked run, and what leaving out the worst five examples changed.
pub struct Story {
    /// The indices of the training examples, the most harmful first.
    pub ranking: Vec<u64>,
    /// The predicted change of the query without the worst five.
    pub predicted: f64,
    /// The real one, from a retraining without them.
    pub real: f64,
}

impl Story {
    /// Checks that the query falls as predicted, to within a factor of 2.5: five examples at once are not a small change.
    pub fn agrees(&self) {
        let (predicted, real) = (self.predicted, self.real);
        let ratio = real / predicted;
        assert!(
            predicted < 0.0 && (0.4..2.5).contains(&ratio),
            "{predicted:e} predicted, {real:e} real"
        );
    }

    /// The share of examples with `property` among the `first` most harmful ones, as a multiple of their share among all.
    pub fn lift(&self, first: usize, property: impl Fn(u64) -> bool) -> f64 {
        let share = |part: &[u64]| {
            part.iter().filter(|index| property(**index)).count() as f64 / part.len() as f64
        };
        share(&self.ranking[..first]) / share(&self.ranking)
    }
}

/// Whether the label of a training example is wrong on purpose, for the digits of `mnist.rs` and `groups.rs`.
pub fn planted_digits() -> impl Fn(u64) -> bool {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(640), Some(256), Some(0));
    spec.flipped = Some(0.1);
    let digits = load(&spec, None, None, 7).unwrap();
    move |index| digits.planted(Split::Train, index) == Some(true)
}

/// Records `dir/run`, which is killed twice and resumed; compares it with an uninterrupted run; verifies every step by replay;
/// ranks the examples; and retrains without the worst five.
pub fn told(program: Program, dir: &Path) -> Story {
    program.train(dir, "whole");
    let half = program.steps / 2;
    let mut killed = 0;
    for range in [1..half, half + 1..program.steps - 2] {
        killed += u64::from(program.train_and_kill(dir, "run", moment(range)));
    }
    assert!(killed > 0, "every start ended before it was killed");
    // A program that ended before the second kill has nothing to resume. A kill can also fall between the writing of the
    // final state and the closing of the run.
    let ended = Trace::open(dir.join("run")).unwrap().status() == Status::Finished;
    if !ended {
        program.train(dir, "run");
    }
    assert!(
        end(&dir.join("run")) == end(&dir.join("whole")),
        "{}: the killed run and the uninterrupted one ended in different states",
        program.path
    );

    let said = program.fine(dir, &["verify", "run", "--replay", "--steps", "0"]);
    let all = format!("replayed: {0} of {0} steps", program.steps);
    assert!(said.contains(&all), "{said}");

    ranked(program, dir, "all")
}

/// Ranks the examples of `dir/run` by their use in a window of steps, and retrains without the worst five.
pub fn ranked(program: Program, dir: &Path, window: &str) -> Story {
    let window = ["--window", window];
    let words = [
        &["influence", "run", "--out", "scores.csv", "--replace"],
        &window[..],
    ]
    .concat();
    let said = program.fine(dir, &words);
    println!("{said}");
    assert!(said.contains("derivatives of the model agree"), "{said}");
    let table = std::fs::read_to_string(dir.join("scores.csv")).unwrap();
    let words = [
        &["counterfactual", "run", "--top", "5", "scores.csv"],
        &window[..],
    ]
    .concat();
    let said = program.fine(dir, &words);
    println!("{said}");
    let (predicted, real) = changes(&said);
    Story {
        ranking: ranking(&table),
        predicted,
        real,
    }
}

/// The indices of a table of scores, the lowest influence first.
fn ranking(table: &str) -> Vec<u64> {
    let mut lines = table.lines().filter(|line| !line.starts_with('#'));
    let header: Vec<&str> = lines.next().unwrap().split(',').collect();
    let column = |name: &str| header.iter().position(|h| *h == name).unwrap();
    let (index, influence) = (column("index"), column("influence"));
    let mut rows: Vec<(f64, u64)> = lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (
                cells[influence].parse().unwrap(),
                cells[index].parse().unwrap(),
            )
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    rows.into_iter().map(|(_, index)| index).collect()
}

/// The changes that `counterfactual` printed: `change: P predicted (by the table), R real`.
fn changes(said: &str) -> (f64, f64) {
    let line = said.lines().find_map(|l| l.trim().strip_prefix("change: "));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    let number = |at: usize| words[at].parse::<f64>().unwrap();
    (number(0), number(words.len() - 2))
}
