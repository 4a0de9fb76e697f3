//! Chooses the rows of each split.

use super::DataError;
use super::numbers::all_numbers;
use super::spec::{ClassRef, DataSpec, Pick, Pool};
use super::store::{DROPPED, Labels, Store, UNKNOWN};
use super::texts::{listed, same_name};
use crate::objective::Split;
use crate::random::{Purpose, Stream};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Rows of the training, validation and test split, in ascending order.
pub(super) type Splits = [Vec<usize>; 3];

/// Keeps the classes of `data.classes` and renumbers them in that order. Rows of other classes get the number
/// [`DROPPED`].
///
/// `truth` are the true classes as far as they are known, which are renumbered, too. Returns the names of the kept classes.
pub(super) fn renumber(
    spec: &DataSpec,
    labels: &mut Labels,
    truth: Option<&mut Labels>,
    names: Vec<String>,
) -> Result<Vec<String>, DataError> {
    if spec.classes.is_empty() {
        return Ok(names);
    }
    let Labels::Classes(classes) = labels else {
        return Err(DataError::spec(
            "classes",
            "the labels are values, not classes",
        ));
    };
    let mut map: Vec<Option<u32>> = vec![None; names.len()];
    let mut kept = Vec::new();
    let places: HashMap<&str, usize> = names.iter().map(String::as_str).zip(0..).collect();
    // If all names are numbers, a number in `classes` is a name, in any spelling.
    let numbers = all_numbers(&names);
    let by_name = |text: &str| {
        let exactly = places.get(text).copied();
        exactly.or_else(|| names.iter().position(|name| same_name(name, text)))
    };
    for wanted in &spec.classes {
        let found = match wanted {
            ClassRef::Name(text) => by_name(text),
            ClassRef::Number(n) if numbers => by_name(&n.to_string()),
            ClassRef::Number(n) => {
                by_name(&n.to_string()).or(usize::try_from(*n).ok().filter(|n| *n < names.len()))
            }
        };
        let Some(slot) = found.and_then(|c| map.get_mut(c).map(|slot| (c, slot))) else {
            let text = match wanted {
                ClassRef::Name(text) => text.clone(),
                ClassRef::Number(n) => n.to_string(),
            };
            return Err(DataError::spec(
                "classes",
                format!("there is no class {text:?}; there are {}", listed(&names)),
            ));
        };
        if slot.1.is_some() {
            return Err(DataError::spec(
                "classes",
                format!(
                    "class {:?} is named twice",
                    names.get(slot.0).map_or("", String::as_str)
                ),
            ));
        }
        *slot.1 = Some(kept.len() as u32);
        kept.extend(names.get(slot.0).cloned());
    }
    let truth = match truth {
        Some(Labels::Classes(truth)) => truth.as_mut_slice(),
        _ => &mut [],
    };
    let known = truth.iter_mut().filter(|class| **class != UNKNOWN);
    for class in classes.iter_mut().chain(known) {
        *class = map
            .get(*class as usize)
            .copied()
            .flatten()
            .unwrap_or(DROPPED);
    }
    Ok(kept)
}

/// Warns about classes of the validation or test split that the training split lacks. A model can't learn them.
pub(super) fn never_trained(splits: &Splits, labels: &Labels, names: &[String]) -> Vec<String> {
    let Labels::Classes(classes) = labels else {
        return Vec::new();
    };
    let class = |row: &usize| classes.get(*row).copied().unwrap_or(0);
    let [train, validation, test] = splits;
    let trained: HashSet<u32> = train.iter().map(class).collect();
    let mut warnings = Vec::new();
    for (split, rows) in [(Split::Validation, validation), (Split::Test, test)] {
        let mut counts = BTreeMap::<u32, u64>::new();
        for class in rows.iter().map(class).filter(|c| !trained.contains(c)) {
            *counts.entry(class).or_default() += 1;
        }
        if counts.is_empty() {
            continue;
        }
        let of = |(class, count): (&u32, &u64)| {
            let name = names.get(*class as usize).map_or("", String::as_str);
            let examples = if *count == 1 { "example" } else { "examples" };
            format!("{name:?} ({count} {examples})")
        };
        let named: Vec<String> = counts.iter().map(of).collect();
        warnings.push(format!(
            "warning: the {} split has classes that no training example has, so the model cannot learn them: {}. Look at \
             how the files spell their labels and at how the splits are drawn",
            split.name(),
            listed(&named)
        ));
    }
    warnings
}

/// The rows from which splits without their own files are drawn.
struct Candidates {
    rows: Vec<usize>,
    /// For messages: the files, and which of their rows are left out.
    name: String,
}

impl Candidates {
    fn of(spec: &DataSpec, store: &Store) -> Self {
        let [train, _, test] = store.ranges.clone();
        let skip = usize::try_from(spec.skip)
            .unwrap_or(usize::MAX)
            .min(train.len());
        let kept = |row: &usize| is_kept(store, *row);
        let mut rows: Vec<usize> = (train.start + skip..train.end).filter(kept).collect();
        let mut name = match (spec.skip, spec.classes.is_empty()) {
            (0, true) => "the training files".to_string(),
            (0, false) => "the training files (only data.classes)".to_string(),
            (k, true) => format!("the training files (without their first {k} rows)"),
            (k, false) => {
                format!("the training files (without their first {k} rows, only data.classes)")
            }
        };
        if spec.pool == Pool::All {
            rows.extend(test.filter(kept));
            name.push_str(" and the test files");
        }
        Self { rows, name }
    }

    /// Checks that there are enough rows for `asked` examples and the `taken` examples of other splits.
    fn take(&self, key: &'static str, asked: u64, taken: u64) -> Result<usize, DataError> {
        let available = self.rows.len() as u64;
        usize::try_from(asked)
            .ok()
            .filter(|_| asked.saturating_add(taken) <= available)
            .ok_or_else(|| self.too_few(key, asked, taken))
    }

    fn too_few(&self, key: &'static str, asked: u64, taken: u64) -> DataError {
        DataError::TooFew {
            key,
            asked,
            pool: self.name.clone(),
            available: self.rows.len() as u64,
            left: if taken > 0 {
                format!(", of which {taken} go to the other splits")
            } else {
                String::new()
            },
        }
    }
}

/// Whether `data.classes` keeps the row, and it isn't left out for a missing value.
fn is_kept(store: &Store, row: usize) -> bool {
    if store.all.left_out.binary_search(&row).is_ok() {
        return false;
    }
    match &store.all.labels {
        Labels::Classes(c) => c.get(row).is_some_and(|c| *c != DROPPED),
        Labels::Values { .. } => true,
    }
}

/// Draws the splits.
pub(super) fn draw(spec: &DataSpec, store: &Store, seed: u64) -> Result<Splits, DataError> {
    let [_, validation, test] = store.ranges.clone();
    let own_validation = !validation.is_empty();
    let own_test = spec.pool == Pool::Separate;
    let mut candidates = Candidates::of(spec, store);
    let asked = |asked: Option<u64>, own: bool| if own { 0 } else { asked.unwrap_or(0) };
    let v = asked(spec.validation, own_validation);
    let t = asked(spec.test, own_test);
    let held = v.saturating_add(t);
    let v = candidates.take("data.validation", v, 0)?;
    let t = candidates.take("data.test", t, v as u64)?;
    let rest = (candidates.rows.len() as u64).saturating_sub(held);
    let n = candidates.take("data.train", spec.train.unwrap_or(rest), held)?;
    if n == 0 {
        return Err(candidates.too_few("data.train", 1, held));
    }
    let rows = &mut candidates.rows;
    let (train, mut from_validation, mut from_test) = match spec.pick {
        Pick::First => (
            rows[..n].to_vec(),
            rows[n..n + v].to_vec(),
            rows[n + v..n + v + t].to_vec(),
        ),
        Pick::Random => {
            // Held-out examples come first, so that they don't depend on the number of training examples.
            Stream::of_run(seed, Purpose::Split(0)).shuffle(rows);
            (
                rows[v + t..v + t + n].to_vec(),
                rows[..v].to_vec(),
                rows[v..v + t].to_vec(),
            )
        }
    };
    let kept = |row: &usize| is_kept(store, *row);
    if own_validation {
        from_validation = own(
            spec,
            validation.filter(kept).collect(),
            spec.validation,
            "data.validation",
            "the validation files",
            seed,
            1,
        )?;
    }
    if own_test {
        from_test = own(
            spec,
            test.filter(kept).collect(),
            spec.test,
            "data.test",
            "the test files",
            seed,
            2,
        )?;
    }
    let mut splits = [train, from_validation, from_test];
    for split in &mut splits {
        split.sort_unstable();
    }
    Ok(splits)
}

/// A split with its own files: all of their rows, or the requested number.
fn own(
    spec: &DataSpec,
    mut rows: Vec<usize>,
    asked: Option<u64>,
    key: &'static str,
    pool: &str,
    seed: u64,
    index: u32,
) -> Result<Vec<usize>, DataError> {
    let Some(asked) = asked else { return Ok(rows) };
    let available = rows.len() as u64;
    let n = usize::try_from(asked)
        .ok()
        .filter(|n| *n <= rows.len())
        .ok_or_else(|| DataError::TooFew {
            key,
            asked,
            pool: pool.to_string(),
            available,
            left: String::new(),
        })?;
    if spec.pick == Pick::Random {
        Stream::of_run(seed, Purpose::Split(index)).shuffle(&mut rows);
    }
    rows.truncate(n);
    Ok(rows)
}

/// Gives a share of the training examples a wrong class, drawn uniformly from the other classes.
pub(super) fn flip(
    share: f64,
    train: &[usize],
    labels: &mut Labels,
    classes: usize,
    seed: u64,
) -> Result<(), DataError> {
    let (Labels::Classes(all), true) = (labels, classes >= 2) else {
        return Err(DataError::spec(
            "flipped",
            "expected labels of at least two classes",
        ));
    };
    let count = (share * train.len() as f64).round() as usize;
    let order = Stream::of_run(seed, Purpose::LabelNoise(0)).permutation(train.len());
    for &i in order.iter().take(count) {
        let other =
            Stream::of_example(seed, i, Purpose::LabelNoise(1)).below(classes as u64 - 1) as u32;
        let Some(class) = train.get(i as usize).and_then(|&row| all.get_mut(row)) else {
            continue;
        };
        *class = if other >= *class { other + 1 } else { other };
    }
    Ok(())
}
