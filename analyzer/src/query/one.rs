//! A query, and its gradient at a model of the run.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::files;
use hindcast_model::objective::{Draws, Mode, Split};
use hindcast_model::real::Real;
use hindcast_model::vectors::{add, dot};
use safetensors::{Dtype, SafeTensors};

use crate::engine::{ReplayEngine, StepInput};
use crate::error::{AnalysisError, Result};
use crate::measures::mean;
use crate::query::average::QueryState;
use crate::run::floats::FloatSlice;
use crate::run::recorded::RecordedRun;
use crate::run::source::{RecordedEnd, StepSource};

/// A scalar function of the trained model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Mean loss over examples of a split, in evaluation mode and without the penalty.
    Loss {
        /// The split of the examples.
        split: Split,
        /// Indices of the examples; `None` for the whole split.
        examples: Option<Vec<u64>>,
        /// As the user wrote it.
        text: String,
    },
    /// `<u, θ>` for a vector u from a file.
    Vector {
        /// A safetensors file with one tensor per parameter, named and shaped as in the trace. Tensors for buffers
        /// are optional.
        path: PathBuf,
    },
}

impl Default for Query {
    /// The mean validation loss.
    fn default() -> Self {
        Query::of_split(Split::Validation)
    }
}

impl Query {
    /// The mean loss of a split.
    pub fn of_split(split: Split) -> Self {
        Query::Loss {
            split,
            examples: None,
            text: split.name().to_owned(),
        }
    }

    /// The loss of one example.
    pub fn of_example(split: Split, index: u64) -> Self {
        Query::Loss {
            split,
            examples: Some(vec![index]),
            text: format!("{}:{index}", split.name()),
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Query::Loss { text, .. } => f.write_str(text),
            Query::Vector { path } => write!(f, "vector:{}", path.display()),
        }
    }
}

impl FromStr for Query {
    type Err = AnalysisError;

    /// Parses `validation`, `validation:3,17`, `validation:0..99` (end excluded), combinations of these, the same
    /// with `train` and `test`, or `vector:FILE.safetensors`. The result is one query, the mean over the examples.
    /// For words that expand to many queries, see [`Queries`](crate::Queries).
    fn from_str(text: &str) -> Result<Self> {
        let bad = |problem: String| AnalysisError::Query {
            query: text.to_owned(),
            problem,
        };
        let (head, tail) = match text.trim().split_once(':') {
            Some((head, tail)) => (head.trim(), Some(tail.trim())),
            None => (text.trim(), None),
        };
        let split = match (Split::of_name(head), head) {
            (Some(split), _) => split,
            (None, "vector") => {
                return match tail {
                    Some(path) if !path.is_empty() => Ok(Query::Vector { path: path.into() }),
                    _ => Err(bad("expected `vector:FILE.safetensors`".to_owned())),
                };
            }
            (None, other) => {
                return Err(bad(format!(
                    "`{other}` is neither a split (validation, train, test) nor `vector`; write `validation`, `validation:3,17`, `test:0..99` or `vector:FILE.safetensors`"
                )));
            }
        };
        let examples = tail.map(|list| indices(list).map_err(bad)).transpose()?;
        Ok(Query::Loss {
            split,
            examples,
            text: text.trim().to_owned(),
        })
    }
}

/// Maximum number of examples in one range of a list.
const MAX_LISTED: u64 = 100_000_000;

/// Parses a list of examples: indices and ranges `A..B` (end excluded), separated by commas.
///
/// # Errors
/// If a part is neither an index nor a range, or if a range is empty or too long.
pub fn indices(list: &str) -> Result<Vec<u64>, String> {
    let number = |s: &str| {
        s.trim().parse::<u64>().map_err(|_| {
            format!("`{s}` is not an example's index; write numbers and ranges A..B (end excluded), separated by commas")
        })
    };
    let mut out = Vec::new();
    for part in list.split(',') {
        match part.split_once("..") {
            None => out.push(number(part)?),
            Some((a, b)) => {
                let (a, b) = (number(a)?, number(b)?);
                if a >= b {
                    return Err(format!(
                        "the range `{}` is empty: its end is excluded",
                        part.trim()
                    ));
                }
                if b - a > MAX_LISTED {
                    return Err(format!(
                        "the range `{}` is too long: it may contain at most {MAX_LISTED} examples",
                        part.trim()
                    ));
                }
                out.extend(a..b);
            }
        }
    }
    Ok(out)
}

/// A query with its value and gradient at the model that it is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryGradient {
    /// The user's text; the name of the score's column.
    pub name: String,
    /// The query's value there.
    pub value: f64,
    /// u: its gradient with respect to the parameters, length p.
    pub parameters: Vec<f64>,
    /// Its gradient with respect to the running statistics, length b.
    pub buffers: Vec<f64>,
}

impl Query {
    /// Value and gradient at the end of training.
    ///
    /// # Errors
    /// If the data doesn't have an example, a tensor is missing or has another shape, or the model fails.
    pub fn gradient(
        &self,
        source: &dyn StepSource,
        engine: &mut dyn ReplayEngine,
        data: &dyn DataSet,
    ) -> Result<QueryGradient> {
        let end: RecordedEnd = source.end()?;
        self.gradient_at(source, engine, data, &end.parameters, &end.buffers)
    }

    /// Values and gradients of several queries at one model.
    ///
    /// # Errors
    /// As [`Query::gradient`].
    pub fn gradients(
        queries: &[Query],
        run: &RecordedRun<'_>,
        state: &QueryState,
        engine: &mut dyn ReplayEngine,
    ) -> Result<Vec<QueryGradient>> {
        let (source, data) = (run.source(), run.data());
        let gradient =
            |q: &Query| q.gradient_at(source, engine, data, &state.parameters, &state.buffers);
        queries.iter().map(gradient).collect()
    }

    /// Value and gradient at given parameters and buffers.
    ///
    /// # Errors
    /// As [`Query::gradient`].
    pub fn gradient_at<'a>(
        &self,
        source: &dyn StepSource,
        engine: &mut dyn ReplayEngine,
        data: &dyn DataSet,
        parameters: impl Into<FloatSlice<'a>>,
        buffers: impl Into<FloatSlice<'a>>,
    ) -> Result<QueryGradient> {
        let (parameters, buffers) = (parameters.into(), buffers.into());
        match self {
            Query::Loss { split, .. } => {
                let examples = self.examples(data)?;
                let mut sum = QueryGradient {
                    name: self.to_string(),
                    value: 0.0,
                    parameters: vec![0.0; parameters.len()],
                    buffers: vec![0.0; buffers.len()],
                };
                for chunk in examples.chunks(engine.rows_at_once()) {
                    let batch = data.batch(*split, chunk, None, engine.dtype(), engine.device())?;
                    let weights = vec![1.0 / examples.len() as f64; chunk.len()];
                    let part = engine.gradient(&StepInput {
                        parameters,
                        buffers,
                        micro_batches: std::slice::from_ref(&batch),
                        weights: &weights,
                        mode: Mode::Evaluate,
                        draws: Draws { seed: 0, step: 0 },
                    })?;
                    sum.value += part.loss;
                    add(&mut sum.parameters, &part.parameters);
                    add(&mut sum.buffers, &part.buffers);
                }
                Ok(sum)
            }
            Query::Vector { path } => {
                let (u, r) = read_vector(path, source)?;
                let value = dot(&u, &parameters.to_f64()) + dot(&r, &buffers.to_f64());
                Ok(QueryGradient {
                    name: self.to_string(),
                    value,
                    parameters: u,
                    buffers: r,
                })
            }
        }
    }

    /// Value at given parameters and buffers, in the run's own float type.
    ///
    /// # Errors
    /// As [`Query::gradient`].
    pub fn value<T: Real>(
        &self,
        run: &RecordedRun<'_>,
        parameters: &[T],
        buffers: &[T],
        device: &Device,
    ) -> Result<f64> {
        match self {
            Query::Loss { split, .. } => {
                let examples = self.examples(run.data())?;
                let losses = hindcast_model::train::losses(
                    run.objective().as_ref(),
                    parameters,
                    buffers,
                    run.data(),
                    *split,
                    &examples,
                    device,
                )?;
                Ok(mean(&losses))
            }
            Query::Vector { path } => {
                let (u, r) = read_vector(path, run.source())?;
                let dot =
                    |u: &[f64], x: &[T]| u.iter().zip(x).map(|(u, x)| u * x.wide()).sum::<f64>();
                Ok(dot(&u, parameters) + dot(&r, buffers))
            }
        }
    }

    /// BLAKE3 of the query's file, hexadecimal; empty if it reads no file.
    pub fn file_digest(&self) -> Result<String> {
        let Query::Vector { path } = self else {
            return Ok(String::new());
        };
        let problem = |problem: String| AnalysisError::Query {
            query: self.to_string(),
            problem,
        };
        let file = files::open(path, files::VECTOR).map_err(|e| problem(e.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(file)
            .map_err(|e| problem(e.to_string()))?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// The examples over which the query averages, checked against the data.
    pub fn examples(&self, data: &dyn DataSet) -> Result<Vec<u64>> {
        let Query::Loss {
            split, examples, ..
        } = self
        else {
            return Ok(Vec::new());
        };
        let size = data.len(*split);
        let problem = |problem: String| AnalysisError::Query {
            query: self.to_string(),
            problem,
        };
        if size == 0 {
            return Err(empty_split(self.to_string(), *split, data));
        }
        match examples {
            None => Ok((0..size).collect()),
            Some(list) => match list.iter().find(|&&i| i >= size) {
                None => Ok(list.clone()),
                Some(i) => Err(problem(format!(
                    "there is no example {i}: the {} split has {size} examples, 0..{size}",
                    split.name()
                ))),
            },
        }
    }
}

/// The error of a query about a split without examples.
pub(super) fn empty_split(query: String, split: Split, data: &dyn DataSet) -> AnalysisError {
    let filled = Split::ALL.into_iter().filter(|s| data.len(*s) > 0);
    AnalysisError::EmptySplit {
        query,
        split: split.name(),
        filled: filled.map(Split::name).collect(),
    }
}

/// Maximum size of a safetensors file's header, in bytes.
const VECTOR_HEADER: u64 = 100_000_008;

/// Reads a vector query's file: u for the parameters and for the buffers. A buffer that isn't in the file is zero.
fn read_vector(path: &Path, source: &dyn StepSource) -> Result<(Vec<f64>, Vec<f64>)> {
    let problem = |problem: String| AnalysisError::Query {
        query: format!("vector:{}", path.display()),
        problem,
    };
    let specs = source.parameters().iter().chain(source.buffers());
    let values = specs.map(|spec| spec.shape.iter().product::<usize>() as u64);
    let most = VECTOR_HEADER.saturating_add(values.sum::<u64>().saturating_mul(8));
    let bytes =
        files::read(path, files::VECTOR.at_most(most)).map_err(|e| problem(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| problem(format!("not a safetensors file: {e}")))?;
    let known = |name: &str| {
        source
            .parameters()
            .iter()
            .chain(source.buffers())
            .any(|spec| spec.name == name)
    };
    if let Some(name) = file.names().into_iter().find(|name| !known(name)) {
        return Err(problem(format!(
            "tensor `{name}` is neither a parameter nor a buffer of the run"
        )));
    }
    let mut out = [Vec::new(), Vec::new()];
    for (flat, specs, required) in [(0, source.parameters(), true), (1, source.buffers(), false)] {
        for spec in specs {
            let elements: usize = spec.shape.iter().product();
            match file.tensor(&spec.name) {
                Ok(view) if view.shape() == spec.shape => {
                    let values = decode(view.dtype(), view.data())
                        .map_err(|e| problem(format!("tensor `{}`: {e}", spec.name)))?;
                    if let Some(bad) = values.iter().position(|x| !x.is_finite()) {
                        return Err(problem(format!(
                            "tensor `{}`: element {bad} is not finite",
                            spec.name
                        )));
                    }
                    out[flat].extend(values);
                }
                Ok(view) => {
                    return Err(problem(format!(
                        "tensor `{}` has shape {:?}, the run's has {:?}",
                        spec.name,
                        view.shape(),
                        spec.shape
                    )));
                }
                Err(_) if !required => out[flat].resize(out[flat].len() + elements, 0.0),
                Err(_) => {
                    return Err(problem(format!(
                        "parameter `{}` is missing: give zeros for a parameter that the query doesn't depend on",
                        spec.name
                    )));
                }
            }
        }
    }
    let [parameters, buffers] = out;
    Ok((parameters, buffers))
}

fn decode(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f64>, String> {
    match dtype {
        Dtype::F64 => Ok(bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect()),
        Dtype::F32 => Ok(bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)))
            .collect()),
        other => Err(format!("element type {other:?}: expected F32 or F64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        assert_eq!("validation".parse::<Query>().unwrap(), Query::default());
        let Query::Loss {
            split, examples, ..
        } = "train: 3, 17,20..23".parse().unwrap()
        else {
            panic!("a loss query")
        };
        assert_eq!(split, Split::Train);
        assert_eq!(examples, Some(vec![3, 17, 20, 21, 22]));
        assert_eq!(
            "vector:u.safetensors".parse::<Query>().unwrap(),
            Query::Vector {
                path: "u.safetensors".into()
            }
        );
    }

    #[test]
    fn errors_say_what_to_write_instead() {
        for (text, hint) in [
            ("valid", "validation:3,17"),
            ("", "validation:3,17"),
            ("validation:", "not an example's index"),
            ("validation:-1", "not an example's index"),
            ("validation:5..5", "end is excluded"),
            ("test:1,,2", "separated by commas"),
            ("vector:", "vector:FILE.safetensors"),
            ("train:0..18446744073709551615", "too long"),
        ] {
            let message = text.parse::<Query>().unwrap_err().to_string();
            assert!(message.contains(hint), "{text}: {message}");
        }
    }
}
