//! Work on several threads with the same bits on any number of them: the pieces and the order of every sum depend on
//! the shapes alone, never on how many threads there are.

use rayon::prelude::*;

use super::element::Element;

/// Elements below which an element-wise loop stays on the calling thread: waking another one costs more.
const SERIAL: usize = 1 << 15;
/// Operations below which work stays on the calling thread: waking another one takes as long as several hundred thousand,
/// and costs whoever else wants that core.
const SMALL: usize = 1 << 20;
/// Elements that one piece of an element-wise loop covers.
const PIECE: usize = 1 << 14;
/// Largest number of partial sums.
const PARTIALS: usize = 16;

/// Calls `f(i, row)` for each row of `row` elements of `out`, of which the last may be shorter; a whole row takes about
/// `work` operations.
pub(crate) fn for_rows<T: Element>(
    out: &mut [T],
    row: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) {
    if row == 0 || out.is_empty() {
        return;
    }
    if out.len() <= row || out.len().saturating_mul(work) / row < SMALL {
        out.chunks_mut(row).enumerate().for_each(|(i, r)| f(i, r));
    } else {
        out.par_chunks_mut(row)
            .enumerate()
            .for_each(|(i, r)| f(i, r));
    }
}

/// Fills `out` piece by piece; `f` gets each piece's first position and the piece.
pub(crate) fn for_pieces<T: Element>(out: &mut [T], f: impl Fn(usize, &mut [T]) + Send + Sync) {
    if out.len() < SERIAL {
        f(0, out);
    } else {
        out.par_chunks_mut(PIECE)
            .enumerate()
            .for_each(|(i, piece)| f(i * PIECE, piece));
    }
}

/// `out[i] = f(x[i])`.
pub(crate) fn map<T: Element>(x: &[T], f: impl Fn(T) -> T + Send + Sync) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len()];
    for_pieces(&mut out, |start, piece| {
        for (o, &v) in piece.iter_mut().zip(&x[start..]) {
            *o = f(v);
        }
    });
    out
}

/// `out[i] = f(x[i], y[i])`; both slices have the same length.
pub(crate) fn zip<T: Element>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Send + Sync) -> Vec<T> {
    let mut out = vec![T::ZERO; x.len().min(y.len())];
    for_pieces(&mut out, |start, piece| {
        for ((o, &a), &b) in piece.iter_mut().zip(&x[start..]).zip(&y[start..]) {
            *o = f(a, b);
        }
    });
    out
}

/// Sums `count` contributions to a vector of `len` elements, each of which takes about `work` operations. `add(range,
/// partial)` adds those of a range of contributions; ranges are fixed by `count`, and partial sums are joined pairwise in a
/// fixed tree, on whichever threads they were made.
pub(crate) fn sum_over<T: Element>(
    count: usize,
    len: usize,
    work: usize,
    add: impl Fn(std::ops::Range<usize>, &mut [T]) + Send + Sync,
) -> Vec<T> {
    let each = count.div_ceil(PARTIALS).max(1);
    let partials = count.div_ceil(each);
    if partials <= 1 || len == 0 {
        let mut out = vec![T::ZERO; len];
        if len > 0 {
            add(0..count, &mut out);
        }
        return out;
    }
    let mut sums = vec![T::ZERO; partials * len];
    let fill = |(i, part): (usize, &mut [T])| add(i * each..((i + 1) * each).min(count), part);
    if count.saturating_mul(work) < SMALL {
        sums.chunks_mut(len).enumerate().for_each(fill);
    } else {
        sums.par_chunks_mut(len).enumerate().for_each(fill);
    }
    join(sums, len)
}

/// Adds rows of `len` elements pairwise: neighbours first, then neighbours of neighbours.
fn join<T: Element>(mut sums: Vec<T>, len: usize) -> Vec<T> {
    let rows = sums.len() / len;
    let mut stride = 1;
    while stride < rows {
        for pair in sums.chunks_mut(2 * stride * len) {
            if pair.len() > stride * len {
                let (left, right) = pair.split_at_mut(stride * len);
                for (l, r) in left[..len].iter_mut().zip(&right[..len]) {
                    *l += *r;
                }
            }
        }
        stride *= 2;
    }
    sums.truncate(len);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_over_any_count_adds_each_contribution_once() {
        for count in [0, 1, 2, 15, 16, 17, 33, 64, 100] {
            let n = count as f64;
            let first: f64 = (0..count).map(|i| i as f64).sum();
            let second: f64 = (0..count).map(|i| (i * i) as f64).sum();
            // On the calling thread, and handed over.
            for work in [1, SMALL] {
                let got = sum_over::<f64>(count, 3, work, |range, part| {
                    for i in range {
                        part[0] += 1.0;
                        part[1] += i as f64;
                        part[2] += (i * i) as f64;
                    }
                });
                assert_eq!(got, [n, first, second]);
            }
        }
    }
}
