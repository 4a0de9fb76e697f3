//! Parallel loops and sums whose results have the same bits on any number of threads. Pieces and the order of each sum
//! depend only on shapes.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::element::Element;

/// Number of elements below which an element-wise loop stays on the calling thread, because waking another thread costs
/// more.
const SERIAL: usize = 1 << 15;
/// Number of operations below which work stays on the calling thread. Waking another thread takes as long as several
/// hundred thousand operations, and occupies another core.
const SMALL: usize = 1 << 20;
/// Number of elements per piece of an element-wise loop.
const PIECE: usize = 1 << 14;
/// Largest number of partial sums.
const PARTIALS: usize = 16;

/// A vector of `len` elements, computed in rows of `row` elements. The last row may be shorter. `f(i, out)` fills row i,
/// which is initially zero. A whole row takes about `work` operations.
///
/// The thread that computes a row also writes its zeros, so that they are in its cache. Zeroing the whole vector first
/// would cost a pass over memory on one thread while the others wait.
pub(crate) fn rows<T: Copy + Default + Send>(
    len: usize,
    row: usize,
    work: usize,
    f: impl Fn(usize, &mut [T]) + Send + Sync,
) -> Vec<T> {
    make(len, |spare| {
        if row == 0 || spare.is_empty() {
            zeroed(spare);
            return;
        }
        let one = |(i, out): (usize, &mut [MaybeUninit<T>])| f(i, zeroed(out));
        if len <= row || len.saturating_mul(work) / row < SMALL {
            spare.chunks_mut(row).enumerate().for_each(one);
        } else {
            spare.par_chunks_mut(row).enumerate().for_each(one);
        }
    })
}

/// A vector of `len` elements in rows of `size`, of which a thread computes several at a time. The last row may be shorter.
/// `f(at, row, scratch)` fills the row that begins at position `at`. `scratch` makes memory that a thread reuses for the next row. An element takes about `work` operations.
pub(crate) fn each_row<T: Copy + Default + Send, S>(
    len: usize,
    size: usize,
    work: usize,
    scratch: impl Fn() -> S + Send + Sync,
    f: impl Fn(usize, &mut [T], &mut S) + Send + Sync,
) -> Vec<T> {
    let piece = (PIECE / size.max(1)).max(1) * size;
    rows(len, piece, work * piece, |i, rows| {
        let mut scratch = scratch();
        for (k, row) in rows.chunks_mut(size).enumerate() {
            f(i * piece + k * size, row, &mut scratch);
        }
    })
}

/// Two vectors of `len` elements, computed in rows as in [`rows`] by `f(i, first, second)`.
pub(crate) fn row_pairs<T: Copy + Default + Send, U: Copy + Default + Send>(
    len: usize,
    row: usize,
    work: usize,
    f: impl Fn(usize, &mut [T], &mut [U]) + Send + Sync,
) -> (Vec<T>, Vec<U>) {
    let mut second = Vec::new();
    let first = make(len, |first| {
        second = make(len, |second| {
            if row == 0 || first.is_empty() {
                zeroed(first);
                zeroed(second);
                return;
            }
            let one = |i, a: &mut [_], b: &mut [_]| f(i, zeroed(a), zeroed(b));
            if len <= row || len.saturating_mul(work) / row < SMALL {
                let both = first.chunks_mut(row).zip(second.chunks_mut(row));
                both.enumerate().for_each(|(i, (a, b))| one(i, a, b));
            } else {
                let both = first.par_chunks_mut(row).zip(second.par_chunks_mut(row));
                both.enumerate().for_each(|(i, (a, b))| one(i, a, b));
            }
        });
    });
    (first, second)
}

/// A vector of `len` elements. `fill` must pass all of them to [`zeroed`].
fn make<T: Copy>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity has been reserved, and the two callers above pass every element to `zeroed`, because their
    // chunks cover the slice.
    unsafe { out.set_len(len) };
    out
}

/// Fills the memory with zeros.
fn zeroed<T: Copy + Default>(out: &mut [MaybeUninit<T>]) -> &mut [T] {
    out.fill(MaybeUninit::new(T::default()));
    // SAFETY: every element has just been written, and `MaybeUninit<T>` has the same layout as `T`.
    unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) }
}

/// A vector of `len` elements, computed in pieces. `f` gets the first position of a piece, and the piece.
fn pieces<T: Element>(len: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) -> Vec<T> {
    if len < SERIAL {
        return rows(len, len, 1, |_, out| f(0, out));
    }
    rows(len, PIECE, SMALL, |i, piece| f(i * PIECE, piece))
}

/// `out[i] = f(x[i])`.
pub(crate) fn map<T: Element>(x: &[T], f: impl Fn(T) -> T + Send + Sync) -> Vec<T> {
    pieces(x.len(), |start, piece| {
        for (o, &v) in piece.iter_mut().zip(&x[start..]) {
            *o = f(v);
        }
    })
}

/// `out[i] = f(x[i], y[i])`. Both slices have the same length.
pub(crate) fn zip<T: Element>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Send + Sync) -> Vec<T> {
    pieces(x.len().min(y.len()), |start, piece| {
        for ((o, &a), &b) in piece.iter_mut().zip(&x[start..]).zip(&y[start..]) {
            *o = f(a, b);
        }
    })
}

/// Sums `count` contributions to a vector of `len` elements. A contribution takes about `work` operations. `add(range,
/// partial)` adds a range of contributions to a partial sum. The ranges depend only on `count`, and the partial sums are
/// added pairwise in a fixed tree.
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
    let sums = rows(partials * len, len, each.saturating_mul(work), |i, part| {
        add(i * each..((i + 1) * each).min(count), part);
    });
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
            // On the calling thread, and on several threads.
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
