//! Which training examples explain a query, and their shares of the whole.

use super::{ScoreRow, ScoreTable};

/// The training examples behind the value of a query, in two sides.
///
/// If the query is the loss of one example, the examples of [`raised`](Self::raised) pushed the model away from the
/// example's label, and those of [`lowered`](Self::lowered) pushed it towards the label.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation<'a> {
    /// Examples with a negative influence: they raised the query's value, which falls without them.
    pub raised: Side<'a>,
    /// Examples with a positive influence: they lowered the query's value, which rises without them.
    pub lowered: Side<'a>,
}

/// The examples of one sign.
#[derive(Debug, Clone, PartialEq)]
pub struct Side<'a> {
    /// How many examples have an influence of this sign.
    pub examples: usize,
    /// The sum of their influence.
    pub total: f64,
    /// The heaviest of them, the heaviest first.
    pub heaviest: Vec<Share<'a>>,
}

/// One example of a side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share<'a> {
    /// Its row in the table.
    pub row: &'a ScoreRow,
    /// Its influence on the query.
    pub influence: f64,
    /// Its influence divided by the side's total, in (0, 1].
    pub share: f64,
}

impl Side<'_> {
    /// The share of the heaviest examples together, in [0, 1].
    pub fn share_of_heaviest(&self) -> f64 {
        self.heaviest.iter().map(|one| one.share).sum()
    }
}

impl ScoreTable {
    /// The `k` heaviest examples of each side of a query. Only the scores of a method that predicts changes add up, so that
    /// shares have a meaning. Scores that aren't finite belong to no side.
    pub fn explanation(&self, query: usize, k: usize) -> Explanation<'_> {
        let mut scored: Vec<(f64, &ScoreRow)> = self
            .rows
            .iter()
            .filter_map(|row| {
                let score = row.influence.get(query).copied().flatten();
                Some((score.filter(|score| score.is_finite())?, row))
            })
            .collect();
        // Rows of the same score stay in the order of their indices.
        scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.index.cmp(&b.1.index)));
        let raised = scored.iter().copied().filter(|(score, _)| *score < 0.0);
        let lowered = scored
            .iter()
            .copied()
            .rev()
            .filter(|(score, _)| *score > 0.0);
        Explanation {
            raised: side(raised, k),
            lowered: side(lowered, k),
        }
    }
}

/// A side of these examples, which come in the order of their weight.
fn side<'a>(scored: impl Iterator<Item = (f64, &'a ScoreRow)>, k: usize) -> Side<'a> {
    let all: Vec<(f64, &ScoreRow)> = scored.collect();
    let total: f64 = all.iter().map(|(score, _)| score).sum();
    let heaviest = all.iter().take(k).map(|&(influence, row)| Share {
        row,
        influence,
        share: influence / total,
    });
    Side {
        examples: all.len(),
        total,
        heaviest: heaviest.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_have_the_heaviest_examples_and_their_shares() {
        let scores = [
            Some(-3.0),
            Some(0.5),
            None,
            Some(-1.0),
            Some(0.0),
            Some(f64::NAN),
            Some(1.5),
        ];
        let row = |(index, score): (u64, &Option<f64>)| ScoreRow {
            index,
            influence: vec![Some(7.0), *score],
            ..ScoreRow::default()
        };
        let table = ScoreTable {
            rows: (0..).zip(&scores).map(row).collect(),
            ..ScoreTable::default()
        };
        let of = |side: &Side<'_>| {
            let heaviest = side.heaviest.iter();
            let rows: Vec<_> = heaviest
                .map(|one| (one.row.index, one.influence, one.share))
                .collect();
            (side.examples, side.total, rows)
        };
        let found = table.explanation(1, 5);
        assert_eq!(
            of(&found.raised),
            (2, -4.0, vec![(0, -3.0, 0.75), (3, -1.0, 0.25)])
        );
        assert_eq!(
            of(&found.lowered),
            (2, 2.0, vec![(6, 1.5, 0.75), (1, 0.5, 0.25)])
        );
        assert_eq!(table.explanation(1, 1).raised.share_of_heaviest(), 0.75);
        let nothing = table.explanation(2, 5);
        assert_eq!((nothing.raised.examples, nothing.lowered.total), (0, 0.0));
    }
}
