//! Scaling of decoded values to the model's inputs: `(x / divide_by − mean) / sd`, then standardisation, in f64.

use super::DataError;
use super::spec::{DataSpec, Source};
use super::store::Values;
use candle_core::WithDType;

/// Mean and standard deviation of each of `width` columns over `rows`. `read` writes the values of a row.
pub(super) fn moments(
    rows: &[usize],
    width: usize,
    read: impl Fn(usize, &mut [f64]),
) -> (Vec<f64>, Vec<f64>) {
    let mut row = vec![0.0; width];
    let count = rows.len() as f64;
    let mut mean = vec![0.0; width];
    for &r in rows {
        read(r, &mut row);
        for (m, x) in mean.iter_mut().zip(&row) {
            *m += x;
        }
    }
    for m in &mut mean {
        *m /= count;
    }
    let mut variance = vec![0.0; width];
    for &r in rows {
        read(r, &mut row);
        for ((v, x), m) in variance.iter_mut().zip(&row).zip(&mean) {
            *v += (x - m) * (x - m);
        }
    }
    let sd = variance
        .iter()
        .zip(&mean)
        .map(|(v, m)| {
            let v = v / count;
            // The variance that rounding alone can cause for a constant column.
            let rounding = count * f64::EPSILON * v + (count * m * f64::EPSILON).powi(2);
            if v <= rounding { 1.0 } else { v.sqrt() }
        })
        .collect();
    (mean, sd)
}

/// The scaling of a data set.
#[derive(Debug, Clone)]
pub(super) struct Scale {
    divide_by: f64,
    mean: Vec<f64>,
    sd: Vec<f64>,
    /// Values per channel in an example.
    per_channel: usize,
    /// For bytes, the scaled values of all 256 bytes for each channel.
    table: Vec<[f64; 256]>,
    /// For standardisation, mean and standard deviation of each feature.
    standard: Option<(Vec<f64>, Vec<f64>)>,
}

impl Scale {
    /// The scaling of a Task, without standardisation.
    pub(super) fn new(
        spec: &DataSpec,
        shape: &[usize],
        values: &Values,
    ) -> Result<Self, DataError> {
        let features: usize = shape.iter().product();
        // The first axis of (C, H, W) counts the channels. A flat example has one channel per feature.
        let channels = shape.first().copied().unwrap_or(1);
        let count = spec.mean.len().max(spec.sd.len()).max(1);
        for (key, given) in [("mean", &spec.mean), ("sd", &spec.sd)] {
            if !matches!(given.len(), 0 | 1) && given.len() != channels {
                return Err(DataError::spec(
                    key,
                    format!(
                        "expected one number, or one for each of {channels} channels (examples have shape {shape:?}), got {}",
                        given.len()
                    ),
                ));
            }
        }
        let spread = |given: &[f64], otherwise: f64| -> Vec<f64> {
            match given {
                [] => vec![otherwise; count],
                [one] => vec![*one; count],
                many => many.to_vec(),
            }
        };
        let bytes = matches!(values, Values::U8(_));
        let mut scale = Self {
            divide_by: spec.divide_by.unwrap_or(match spec.source {
                // 1 stands for a character.
                Source::Text => 1.0,
                _ if bytes => 255.0,
                _ => 1.0,
            }),
            mean: spread(&spec.mean, 0.0),
            sd: spread(&spec.sd, 1.0),
            per_channel: if count == 1 {
                features.max(1)
            } else {
                (features / channels).max(1)
            },
            table: Vec::new(),
            standard: None,
        };
        if bytes {
            scale.table = (0..count)
                .map(|c| {
                    let mut row = [0.0; 256];
                    for (raw, slot) in row.iter_mut().enumerate() {
                        *slot = scale.by_channel(raw as f64, c);
                    }
                    row
                })
                .collect();
        }
        Ok(scale)
    }

    /// A scaling that doesn't change values.
    pub(super) fn identity(features: usize) -> Self {
        Self {
            divide_by: 1.0,
            mean: vec![0.0],
            sd: vec![1.0],
            per_channel: features.max(1),
            table: vec![std::array::from_fn(|raw| raw as f64)],
            standard: None,
        }
    }

    fn by_channel(&self, raw: f64, channel: usize) -> f64 {
        let mean = self.mean.get(channel).copied().unwrap_or(0.0);
        let sd = self.sd.get(channel).copied().unwrap_or(1.0);
        (raw / self.divide_by - mean) / sd
    }

    /// Fits the standardisation to `rows`. It uses the population standard deviation, or 1 for a feature that is constant
    /// up to rounding, as scikit-learn's `StandardScaler` does.
    pub(super) fn fit(&mut self, values: &Values, rows: &[usize], features: usize) {
        let standard = moments(rows, features, |r, out| self.row(values, r, out));
        self.standard = Some(standard);
    }

    /// Writes the scaled values of row `r`.
    pub(super) fn row<T: WithDType>(&self, values: &Values, r: usize, out: &mut [T]) {
        let n = out.len();
        let range = r * n..(r + 1) * n;
        match values {
            Values::U8(v) => self.bytes(v.get(range).unwrap_or_default(), out),
            Values::F32(v) => self.floats(v.get(range).unwrap_or_default(), out),
            Values::F64(v) => self.floats(v.get(range).unwrap_or_default(), out),
        }
    }

    /// Writes the scaled values of an example of bytes.
    pub(super) fn bytes<T: WithDType>(&self, raw: &[u8], out: &mut [T]) {
        if let Some((mean, sd)) = &self.standard {
            for (j, (x, y)) in raw.iter().zip(out.iter_mut()).enumerate() {
                let value = self
                    .table
                    .get(j / self.per_channel)
                    .map_or(0.0, |t| t[usize::from(*x)]);
                *y = T::from_f64(
                    (value - mean.get(j).copied().unwrap_or(0.0))
                        / sd.get(j).copied().unwrap_or(1.0),
                );
            }
            return;
        }
        for ((table, raw), out) in self
            .table
            .iter()
            .zip(raw.chunks(self.per_channel))
            .zip(out.chunks_mut(self.per_channel))
        {
            for (x, y) in raw.iter().zip(out) {
                *y = T::from_f64(table[usize::from(*x)]);
            }
        }
    }

    /// Writes the scaled values of an example of floats.
    pub(super) fn floats<S: Copy + Into<f64>, T: WithDType>(&self, raw: &[S], out: &mut [T]) {
        for (j, (x, y)) in raw.iter().zip(out.iter_mut()).enumerate() {
            let mut value = self.by_channel((*x).into(), j / self.per_channel);
            if let Some((mean, sd)) = &self.standard {
                value = (value - mean.get(j).copied().unwrap_or(0.0))
                    / sd.get(j).copied().unwrap_or(1.0);
            }
            *y = T::from_f64(value);
        }
    }

    /// A description for users, in one line.
    pub(super) fn describe(&self) -> String {
        let list = |v: &[f64]| match v {
            [one] => one.to_string(),
            many => format!("{many:?}"),
        };
        let mut text = String::from("x");
        if self.divide_by != 1.0 {
            text = format!("{text} / {}", self.divide_by);
        }
        if self.mean.iter().any(|m| *m != 0.0) || self.sd.iter().any(|s| *s != 1.0) {
            text = format!("({text} - {}) / {}", list(&self.mean), list(&self.sd));
        }
        if self.standard.is_some() {
            text.push_str(", standardised on the train split");
        }
        text
    }
}
