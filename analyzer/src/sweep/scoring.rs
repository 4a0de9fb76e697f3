//! Turns the products `<s, g_j>` into scores.

use std::collections::BTreeMap;

use hindcast_format::meta::StepMeta;

use crate::error::{AnalysisError, Result};

/// First-order change of the query when an example leaves one step's batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Effect {
    /// Its term is dropped, and the others keep their weights: `−Σ w_o <s, g_o>` over its occurrences o.
    pub fixed: f64,
    /// Its term is dropped, and the others' weights are scaled so that they add up to the same total.
    pub renormalised: f64,
}

/// A training example of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Member {
    /// Its index, below the number of training examples.
    pub example: usize,
    pub occurrences: u64,
    /// Sum of the weights of its occurrences.
    weight: f64,
}

/// The distinct examples of a step's batch, the same for all queries.
pub(super) struct Grouping {
    /// In the order of their indices.
    members: Vec<Member>,
    /// For each place of the batch, the position of its example in `members`.
    places: Vec<usize>,
    /// Sum of all weights.
    total: f64,
    has_denominator: bool,
}

impl Grouping {
    /// Groups a batch by example; the data has `examples` of them.
    pub fn of(
        meta: &StepMeta,
        has_denominator: bool,
        weights: &[f64],
        examples: usize,
    ) -> Result<Self> {
        let mut by_index: BTreeMap<u64, usize> = meta.indices.iter().map(|&j| (j, 0)).collect();
        let mut members = Vec::with_capacity(by_index.len());
        for (position, (&index, slot)) in by_index.iter_mut().enumerate() {
            *slot = position;
            let example = usize::try_from(index).ok().filter(|&at| at < examples);
            members.push(Member {
                example: example.ok_or(AnalysisError::ForeignExample {
                    step: meta.step,
                    example: index,
                    examples,
                })?,
                occurrences: 0,
                weight: 0.0,
            });
        }
        let places: Vec<usize> = meta.indices.iter().map(|index| by_index[index]).collect();
        let mut total = 0.0;
        for (&place, &w) in places.iter().zip(weights) {
            members[place].occurrences += 1;
            members[place].weight += w;
            total += w;
        }
        Ok(Grouping {
            members,
            places,
            total,
            has_denominator,
        })
    }

    /// Each example of the batch once, in the order of their indices.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The index in the data of each member, and the effect of leaving it out. `products` are one query's `<s, g>`.
    ///
    /// Let W be the batch's total weight, w_j the example's weight and `G = Σ w g` the batch gradient. Scaling the other
    /// weights by `W/(W−w_j)` changes the gradient by `(w_j G − W Σ_o w_o g_o)/(W−w_j)`. For a plain mean this is
    /// `−(g_j − ḡ)/(|S|−1)`. If the batch has no other example, or its loss is a sum, there is no denominator to
    /// renormalise, and both effects are the same.
    pub fn removals(
        &self,
        weights: &[f64],
        products: &[f64],
    ) -> impl Iterator<Item = (usize, Effect)> {
        let mut shares = vec![0.0; self.members.len()];
        let mut batch_product = 0.0;
        for ((&place, &w), &product) in self.places.iter().zip(weights).zip(products) {
            shares[place] += w * product;
            batch_product += w * product;
        }
        let alone = self.members.len() == 1;
        self.members.iter().zip(shares).map(move |(member, share)| {
            let rest = self.total - member.weight;
            let renormalised = if alone || !self.has_denominator || rest == 0.0 {
                -share
            } else {
                (member.weight * batch_product - self.total * share) / rest
            };
            let removal = Effect {
                fixed: -share,
                renormalised,
            };
            (member.example, removal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::meta::BatchWeights;

    fn meta(indices: &[u64]) -> StepMeta {
        StepMeta {
            step: 0,
            epoch: 0,
            groups: Vec::new(),
            indices: indices.to_vec(),
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: 0,
            trained: Vec::new(),
            scalars: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// Example, occurrences and removal of each member.
    fn removals(
        meta: &StepMeta,
        has_denominator: bool,
        weights: &[f64],
        products: &[f64],
    ) -> Vec<(usize, u64, Effect)> {
        let grouping = Grouping::of(meta, has_denominator, weights, 10).unwrap();
        let members = grouping.members().iter();
        members
            .zip(grouping.removals(weights, products))
            .map(|(member, (example, removal))| {
                assert_eq!(member.example, example);
                (example, member.occurrences, removal)
            })
            .collect()
    }

    #[test]
    fn an_example_that_the_data_does_not_have_is_named() {
        let found = Grouping::of(&meta(&[3, 10]), true, &[0.5; 2], 10);
        let Err(error) = found else {
            panic!("accepted")
        };
        assert!(error.to_string().contains("training example 10"), "{error}");
    }

    #[test]
    fn a_mean_renormalises_as_the_formula_says() {
        let products = [3.0, -1.0, 4.0];
        let out = removals(&meta(&[7, 2, 5]), true, &[1.0 / 3.0; 3], &products);
        let mean = 2.0;
        for (r, (index, g)) in out.iter().zip([(2, -1.0), (5, 4.0), (7, 3.0)]) {
            assert_eq!((r.0, r.1), (index, 1));
            assert!((r.2.fixed + g / 3.0).abs() < 1e-15);
            assert!((r.2.renormalised + (g - mean) / 2.0).abs() < 1e-15);
        }
    }

    #[test]
    fn duplicates_leave_together() {
        let out = removals(&meta(&[4, 4, 9]), true, &[1.0 / 3.0; 3], &[1.0, 2.0, 6.0]);
        assert_eq!((out[0].0, out[0].1), (4, 2));
        assert!((out[0].2.fixed + 1.0).abs() < 1e-15);
        // Only example 9 is left: the mean goes from 3 to 6.
        assert!((out[0].2.renormalised - 3.0).abs() < 1e-14);
        // Without 9 the mean goes from 3 to 1.5.
        assert!((out[1].2.renormalised + 1.5).abs() < 1e-14);
    }

    #[test]
    fn sums_and_batches_of_one_example_have_no_denominator() {
        let out = removals(&meta(&[1, 2]), false, &[1.0; 2], &[5.0, 7.0]);
        assert_eq!(out[0].2.renormalised, out[0].2.fixed);
        let out = removals(&meta(&[1, 2]), false, &[1.0, 3.0], &[5.0, 7.0]);
        assert_eq!((out[1].2.renormalised, out[1].2.fixed), (-21.0, -21.0));
        let out = removals(&meta(&[3]), true, &[1.0], &[5.0]);
        assert_eq!((out[0].2.fixed, out[0].2.renormalised), (-5.0, -5.0));
    }
}
