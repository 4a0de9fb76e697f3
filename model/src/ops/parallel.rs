//! Work on several threads with the same bits on any number of them: the pieces and the order of every sum depend on
//! the shapes alone, never on how many threads there are.

use std::mem::MaybeUninit;

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

/// A vector of `len` elements, made in rows of `row` elements, of which the last may be shorter: `f(i, out)` gets each row full
/// of zeros. A whole row takes about `work` operations.
///
/// The zeros are written by the thread that makes the row, just before: they are in its cache then, where a vector of zeros
/// costs a pass over memory on one thread while the others wait.
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

/// Two vectors of `len` elements, made in rows as [`rows`] does: `f(i, first, second)`.
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

/// A vector of `len` elements, all of which `fill` passes to [`zeroed`].
fn make<T: Copy>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: the capacity is there, and the two callers above hand every element to `zeroed`: their chunks cover the slice.
    unsafe { out.set_len(len) };
    out
}

/// Zeros in place of whatever was there.
fn zeroed<T: Copy + Default>(out: &mut [MaybeUninit<T>]) -> &mut [T] {
    out.fill(MaybeUninit::new(T::default()));
    // SAFETY: every element has just been written, and a `MaybeUninit` lies in memory as what it holds.
    unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), out.len()) }
}

/// A vector of `len` elements, made piece by piece; `f` gets each piece's first position and the piece.
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

/// `out[i] = f(x[i], y[i])`; both slices have the same length.
pub(crate) fn zip<T: Element>(x: &[T], y: &[T], f: impl Fn(T, T) -> T + Send + Sync) -> Vec<T> {
    pieces(x.len().min(y.len()), |start, piece| {
        for ((o, &a), &b) in piece.iter_mut().zip(&x[start..]).zip(&y[start..]) {
            *o = f(a, b);
        }
    })
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
