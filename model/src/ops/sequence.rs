//! The loss of token sequences: one number per sequence, or one per token.

use candle_core::{DType, Result, Tensor};

use super::element::error;
use super::loss::log_softmax;

/// The cross entropy of each sequence, averaged over its tokens: logits (B, T, V) or (B T, V), targets (B, T), out (B,).
///
/// Targets are integers, or floats that are whole numbers. Tokens whose target is `ignore`, such as padding or a prompt, don't
/// count: the mean is over the other tokens of the same sequence. A sequence without other tokens has loss 0. A training loss
/// is the mean of these numbers, so that each sequence has the same weight, whatever its length.
///
/// # Errors
/// If shapes don't fit, or a target is neither `ignore` nor below V (the message names it).
pub fn sequence_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    ignore: Option<i64>,
) -> Result<Tensor> {
    let parts = Parts::new("sequence_cross_entropy", logits, targets, ignore)?;
    let (b, t) = parts.size;
    let rows = parts.places.iter().map(|place| place / t as i64).collect();
    parts.added_at(rows, b)
}

/// The terms whose sum over T is [`sequence_cross_entropy`]: the same logits and targets, out (B, T).
///
/// A term is `−log softmax(z_t)_{y_t}` divided by the number of the sequence's tokens that count. It is 0 for a token that
/// doesn't count. As the loss of an [`OwnModel`](crate::own::OwnModel), it gives an analysis the influence of each token. The
/// training loss is `token_cross_entropy(…)?.sum(1)?.mean_all()?`, or the mean of `sequence_cross_entropy`; the gradients
/// have the same bits.
///
/// # Errors
/// As [`sequence_cross_entropy`].
pub fn token_cross_entropy(
    logits: &Tensor,
    targets: &Tensor,
    ignore: Option<i64>,
) -> Result<Tensor> {
    let parts = Parts::new("token_cross_entropy", logits, targets, ignore)?;
    let (b, t) = parts.size;
    let places = parts.places.clone();
    parts.added_at(places, b * t)?.reshape((b, t))
}

/// The terms of the tokens that count.
struct Parts {
    /// (n,) in the order of `places`.
    terms: Tensor,
    /// Positions in the flattened targets.
    places: Vec<i64>,
    /// (B, T).
    size: (usize, usize),
}

impl Parts {
    fn new(
        op: &'static str,
        logits: &Tensor,
        targets: &Tensor,
        ignore: Option<i64>,
    ) -> Result<Self> {
        let (b, t, v) = sizes(op, logits, targets)?;
        let counted = Counted::new(op, targets, (t, v), ignore)?;
        let log_p = log_softmax(logits)?.flatten_all()?.contiguous()?;
        let device = logits.device();
        let n = counted.positions.len();
        let positions = Tensor::from_vec(counted.positions, n, device)?;
        let shares = Tensor::from_vec(counted.shares, n, device)?.to_dtype(logits.dtype())?;
        Ok(Parts {
            terms: log_p.index_select(&positions, 0)?.mul(&shares)?,
            places: counted.places,
            size: (b, t),
        })
    }

    /// (n,) zeros, with each term added at its index.
    fn added_at(self, indices: Vec<i64>, n: usize) -> Result<Tensor> {
        let device = self.terms.device();
        let indices = Tensor::from_vec(indices, self.places.len(), device)?;
        Tensor::zeros(n, self.terms.dtype(), device)?.index_add(&indices, &self.terms, 0)
    }
}

/// B, T and V.
fn sizes(op: &'static str, logits: &Tensor, targets: &Tensor) -> Result<(usize, usize, usize)> {
    let [b, t] = *targets.dims() else {
        return Err(error(
            op,
            format!("targets must be (batch, tokens), got {:?}", targets.dims()),
        ));
    };
    let v = match *logits.dims() {
        [lb, lt, v] if (lb, lt) == (b, t) => v,
        [rows, v] if rows == b * t => v,
        _ => {
            return Err(error(
                op,
                format!(
                    "logits must be ({b}, {t}, vocabulary) or ({}, vocabulary) for targets {:?}, got {:?}",
                    b * t,
                    targets.dims(),
                    logits.dims()
                ),
            ));
        }
    };
    Ok((b, t, v))
}

/// The tokens that count.
struct Counted {
    /// Positions of the targets in the flattened logits.
    positions: Vec<i64>,
    /// Positions of the targets in the flattened targets.
    places: Vec<i64>,
    /// −1 / the number of tokens of its sequence that count.
    shares: Vec<f64>,
}

impl Counted {
    fn new(
        op: &str,
        targets: &Tensor,
        (t, v): (usize, usize),
        ignore: Option<i64>,
    ) -> Result<Self> {
        let mut out = Self {
            positions: Vec::new(),
            places: Vec::new(),
            shares: Vec::new(),
        };
        let ids = whole_numbers(op, targets)?;
        for (row, ids) in ids.chunks(t.max(1)).enumerate() {
            let before = out.positions.len();
            for (column, &id) in ids
                .iter()
                .enumerate()
                .filter(|(_, id)| Some(**id) != ignore)
            {
                if !usize::try_from(id).is_ok_and(|id| id < v) {
                    return Err(error(
                        op,
                        format!(
                            "token {column} of sequence {row} has target {id}, but the vocabulary has {v} (0 to {}){}",
                            v.max(1) - 1,
                            match ignore {
                                Some(ignore) => format!(", and {ignore} is ignored"),
                                None => String::new(),
                            }
                        ),
                    ));
                }
                out.positions.push(((row * t + column) * v) as i64 + id);
                out.places.push((row * t + column) as i64);
            }
            let n = out.positions.len() - before;
            out.shares.extend(std::iter::repeat_n(-1.0 / n as f64, n));
        }
        Ok(out)
    }
}

/// The values as integers, in row-major order.
fn whole_numbers(op: &str, t: &Tensor) -> Result<Vec<i64>> {
    let flat = t.flatten_all()?;
    if t.dtype().is_int() {
        return flat.to_dtype(DType::I64)?.to_vec1();
    }
    flat.to_dtype(DType::F64)?
        .to_vec1::<f64>()?
        .into_iter()
        .map(|x| {
            let whole = x.fract() == 0.0 && x.abs() <= 2f64.powi(53);
            whole
                .then_some(x as i64)
                .ok_or_else(|| error(op, format!("targets must be whole numbers, got {x}")))
        })
        .collect()
}
