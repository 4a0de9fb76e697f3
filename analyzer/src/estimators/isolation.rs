//! An isolation forest (Liu, Ting, Zhou 2008) on vectors of any length. Its trees cut at random positions, drawn from a
//! seed. A point that differs from the others is isolated after few cuts.

use hindcast_model::random::{Purpose, Stream};

/// Trees of random cuts.
pub(super) struct Forest {
    trees: Vec<Node>,
    /// Mean depth of a point in a tree that is grown from a sample of this size.
    usual: f64,
}

enum Node {
    Cut {
        feature: usize,
        at: f64,
        below: Box<Node>,
        rest: Box<Node>,
    },
    /// Number of points that were not separated.
    Leaf(usize),
}

/// Random stream of a tree. Crates other than the model's use numbers from 2³¹ up.
const TREE: u32 = (1 << 31) + 1001;

impl Forest {
    /// Grows `trees` trees, each from up to `sample` of the points without replacement.
    pub fn grow(points: &[Vec<f64>], trees: u32, sample: usize, seed: u64) -> Self {
        let sample = sample.min(points.len());
        // A tree of this many points has about this depth on average. Deeper branches are cut off.
        let deepest = sample.max(2).ilog2() + u32::from(!sample.max(2).is_power_of_two());
        let trees = (0..trees)
            .map(|tree| {
                let mut stream = Stream::of_run(seed, Purpose::Other(TREE, tree));
                let order = stream.permutation(points.len());
                let chosen = order.iter().take(sample);
                let chosen = chosen.filter_map(|&i| points.get(i as usize)).collect();
                node(chosen, deepest, &mut stream)
            })
            .collect();
        Forest {
            trees,
            usual: average_depth(sample),
        }
    }

    /// `2^(−depth/usual)`, above 0 and at most 1: near 1 for outliers, about ½ for points that resemble the sample.
    pub fn outlierness(&self, point: &[f64]) -> f64 {
        let depths = self.trees.iter().map(|tree| depth(tree, point));
        let mean = depths.sum::<f64>() / self.trees.len().max(1) as f64;
        if self.usual > 0.0 {
            (-mean / self.usual).exp2()
        } else {
            0.5
        }
    }
}

/// Cuts at a random position within the range of a random feature that isn't constant, until each point is alone or the
/// largest depth is reached.
fn node(points: Vec<&Vec<f64>>, deeper: u32, stream: &mut Stream) -> Node {
    let features = points.first().map_or(0, |p| p.len());
    if points.len() <= 1 || deeper == 0 || features == 0 {
        return Node::Leaf(points.len());
    }
    let range = |feature: usize| {
        let values = points.iter().map(|p| p[feature]);
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        })
    };
    // In random order, since many features may be constant in a small sample.
    let mut order: Vec<usize> = (0..features).collect();
    for i in 0..features {
        let j = i + stream.below((features - i) as u64) as usize;
        order.swap(i, j);
        let (feature, (low, high)) = (order[i], range(order[i]));
        let at = stream.uniform_in(low, high);
        // There is no number between two neighbouring floats.
        if !(low < high && at >= low && at < high) {
            continue;
        }
        let (below, rest): (Vec<_>, Vec<_>) = points.iter().partition(|p| p[feature] <= at);
        return Node::Cut {
            feature,
            at,
            below: Box::new(node(below, deeper - 1, stream)),
            rest: Box::new(node(rest, deeper - 1, stream)),
        };
    }
    Node::Leaf(points.len())
}

fn depth(mut node: &Node, point: &[f64]) -> f64 {
    let mut cuts = 0.0;
    loop {
        match node {
            Node::Leaf(points) => return cuts + average_depth(*points),
            Node::Cut {
                feature,
                at,
                below,
                rest,
            } => {
                let x = point.get(*feature).copied().unwrap_or(f64::NAN);
                node = if x <= *at { below } else { rest };
                cuts += 1.0;
            }
        }
    }
}

/// c(n): mean depth of an unsuccessful search in a binary search tree of n points, `2 (H_{n−1} − (n−1)/n)`.
fn average_depth(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        2 => 1.0,
        n => {
            let harmonic: f64 = (1..n).map(|i| 1.0 / i as f64).sum();
            2.0 * (harmonic - (n - 1) as f64 / n as f64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_depth_is_the_formulas() {
        for (n, wanted) in [
            (1, 0.0),
            (2, 1.0),
            (3, 5.0 / 3.0),
            (256, 10.248_689_925_634_562),
        ] {
            assert!((average_depth(n) - wanted).abs() < 1e-9, "{n}");
        }
    }

    #[test]
    fn one_cut_of_two_points_isolates_both() {
        let points = vec![vec![0.0, 7.0], vec![1.0, 7.0]];
        let forest = Forest::grow(&points, 10, 256, 0);
        // The depth is 1 and the mean depth is 1; the constant feature is never cut.
        assert_eq!(forest.outlierness(&[0.0, 7.0]), 0.5);
        assert_eq!(forest.outlierness(&[9.0, -3.0]), 0.5);
    }

    #[test]
    fn outliers_are_isolated_sooner() {
        let mut stream = Stream::of_run(3, Purpose::Other(1 << 31, 0));
        let mut draw = |at: f64| vec![at + stream.normal(), at + stream.normal(), 1.0];
        let points: Vec<Vec<f64>> = (0..400).map(|_| draw(0.0)).collect();
        let forest = Forest::grow(&points, 100, 256, 0);
        let mean = |points: &[Vec<f64>]| {
            points.iter().map(|p| forest.outlierness(p)).sum::<f64>() / points.len() as f64
        };
        let inside = mean(&points);
        let outside: Vec<Vec<f64>> = (0..50).map(|_| draw(6.0)).collect();
        assert!(inside < 0.52, "{inside}");
        assert!(mean(&outside) > 0.65, "{}", mean(&outside));
        let again = Forest::grow(&points, 100, 256, 0);
        assert_eq!(
            again.outlierness(&outside[0]),
            forest.outlierness(&outside[0])
        );
    }

    #[test]
    fn equal_points_and_no_points_give_finite_scores() {
        let forest = Forest::grow(&vec![vec![1.0; 4]; 9], 5, 256, 0);
        assert_eq!(forest.outlierness(&[1.0; 4]), 0.5);
        assert!(Forest::grow(&[], 5, 256, 0).outlierness(&[1.0]).is_finite());
    }
}
