//! From products `<s, g_j>` to scores.

use std::collections::BTreeMap;

use hindcast_format::meta::StepMeta;

/// First-order change of the query when an example leaves one step's batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Removal {
    pub index: u64,
    pub occurrences: u64,
    /// Its term dropped, the others weighted as before: `−Σ w_o <s, g_o>` over its occurrences o.
    pub fixed: f64,
    /// Its term dropped, the others' weights scaled so that they add up to the same total.
    pub renormalised: f64,
}

/// Each example of a batch once, in the order of their indices.
///
/// With W the batch's total weight, w_j the example's and `G = Σ w g` the batch gradient, scaling the rest by
/// `W/(W−w_j)` changes the gradient by `(w_j G − W Σ_o w_o g_o)/(W−w_j)`, for a plain mean `−(g_j − ḡ)/(|S|−1)`. A
/// batch that nothing is left of has no denominator to renormalise, and neither has a sum over examples.
pub(super) fn removals(
    meta: &StepMeta,
    has_denominator: bool,
    weights: &[f64],
    products: &[f64],
) -> Vec<Removal> {
    let mut by_index: BTreeMap<u64, (u64, f64, f64)> = BTreeMap::new();
    let (mut total, mut along) = (0.0, 0.0);
    for ((&index, &w), &product) in meta.indices.iter().zip(weights).zip(products) {
        let entry = by_index.entry(index).or_default();
        entry.0 += 1;
        entry.1 += w;
        entry.2 += w * product;
        total += w;
        along += w * product;
    }
    let alone = by_index.len() == 1;
    by_index
        .into_iter()
        .map(|(index, (occurrences, weight, share))| {
            let rest = total - weight;
            let renormalised = if alone || !has_denominator || rest == 0.0 {
                -share
            } else {
                (weight * along - total * share) / rest
            };
            Removal {
                index,
                occurrences,
                fixed: -share,
                renormalised,
            }
        })
        .collect()
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

    #[test]
    fn a_mean_renormalises_as_the_formula_says() {
        let products = [3.0, -1.0, 4.0];
        let out = removals(&meta(&[7, 2, 5]), true, &[1.0 / 3.0; 3], &products);
        let mean = 2.0;
        for (r, (index, g)) in out.iter().zip([(2, -1.0), (5, 4.0), (7, 3.0)]) {
            assert_eq!((r.index, r.occurrences), (index, 1));
            assert!((r.fixed + g / 3.0).abs() < 1e-15);
            assert!((r.renormalised + (g - mean) / 2.0).abs() < 1e-15);
        }
    }

    #[test]
    fn duplicates_leave_together() {
        let out = removals(&meta(&[4, 4, 9]), true, &[1.0 / 3.0; 3], &[1.0, 2.0, 6.0]);
        assert_eq!((out[0].index, out[0].occurrences), (4, 2));
        assert!((out[0].fixed + 1.0).abs() < 1e-15);
        // Only example 9 is left: the mean goes from 3 to 6.
        assert!((out[0].renormalised - 3.0).abs() < 1e-14);
        // Without 9 the mean goes from 3 to 1.5.
        assert!((out[1].renormalised + 1.5).abs() < 1e-14);
    }

    #[test]
    fn sums_and_emptied_batches_have_no_denominator() {
        let out = removals(&meta(&[1, 2]), false, &[1.0; 2], &[5.0, 7.0]);
        assert_eq!(out[0].renormalised, out[0].fixed);
        let out = removals(&meta(&[1, 2]), false, &[1.0, 3.0], &[5.0, 7.0]);
        assert_eq!((out[1].renormalised, out[1].fixed), (-21.0, -21.0));
        let out = removals(&meta(&[3]), true, &[1.0], &[5.0]);
        assert_eq!((out[0].fixed, out[0].renormalised), (-5.0, -5.0));
    }
}
