//! The examples: MNIST's files if a folder is given, else generated digits.

use std::path::Path;

use hindcast_model::data::{DataSet, DataSpec, Source, load as load_data};

/// Loads the same examples each time: a trace identifies them by their indices, and records their fingerprint.
pub fn load(folder: Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> {
    let mut spec = DataSpec::new(match folder {
        Some(_) => Source::Idx,
        None => Source::Digits,
    });
    spec.train = Some(768);
    spec.validation = Some(256);
    spec.test = Some(0);
    spec.mean = vec![0.5];
    spec.sd = vec![0.5];
    Ok(load_data(&spec, None, folder, 0)?)
}
