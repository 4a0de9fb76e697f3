//! The tokens of a page's sequences, from a table of tokens.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;
use hindcast_analyzer::scores::{TokenRow, TokenTable};

use super::examples::Example;
use super::page::Shown;
use crate::marked;

/// Largest difference between a sequence's score and the sum of its tokens, relative to the sum of their sizes. Both are sums
/// of the same float64 terms in another order.
const ROUNDING: f64 = 1e-9;

/// Adds the tokens to the examples of all queries to which the table belongs.
///
/// # Errors
/// If the table can't be read, or belongs to none of the queries.
pub(super) fn add(shown: &mut [Shown], path: &Path) -> anyhow::Result<()> {
    let wanted: BTreeSet<u64> = shown
        .iter()
        .flat_map(|s| s.extremes.harmful.iter().chain(&s.extremes.helpful))
        .map(|example| example.index)
        .collect();
    let table = TokenTable::read(path, &wanted)?;
    let mut problem = None;
    let mut fitting = 0;
    for shown in shown {
        let named = table
            .queries
            .iter()
            .position(|name| *name == shown.view.query);
        let alone = (table.queries.len() == 1 && table.queries[0].is_empty()).then_some(0);
        let Some(q) = named.or(alone) else { continue };
        let ends = &mut shown.extremes;
        let examples = || ends.harmful.iter().chain(&ends.helpful);
        match examples().find_map(|example| differs(example, &table, q)) {
            Some(differs) => problem = Some(differs),
            None => {
                fitting += 1;
                for example in ends.harmful.iter_mut().chain(&mut ends.helpful) {
                    let tokens = table.sequences.get(&example.index);
                    example.pieces = tokens.map_or_else(Vec::new, |t| marked::pieces(t, q));
                }
            }
        }
    }
    if fitting > 0 {
        return Ok(());
    }
    let problem = problem.unwrap_or_else(|| "it has other queries".to_owned());
    bail!(
        "{}: the table of tokens belongs to none of the tables of scores on this page: {problem}; write both by one `influence`",
        path.display()
    )
}

/// How the tokens of an example differ from its score, if they do.
fn differs(example: &Example, table: &TokenTable, q: usize) -> Option<String> {
    let Some(tokens) = table.sequences.get(&example.index) else {
        return Some(format!("it has no tokens of sequence {}", example.index));
    };
    let of = |token: &TokenRow| token.influence.get(q).copied().unwrap_or(0.0);
    let sum: f64 = tokens.iter().map(of).sum();
    let size: f64 = tokens.iter().map(|token| of(token).abs()).sum();
    // Negated, so that NaN differs.
    if (sum - example.score).abs() <= ROUNDING * size {
        return None;
    }
    Some(format!(
        "the tokens of sequence {} add up to {sum:e}, and its influence is {:e}",
        example.index, example.score
    ))
}
