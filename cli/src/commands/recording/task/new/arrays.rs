//! The draft of a task for arrays, images and their labels.

use std::path::{Path, PathBuf};

use crate::words::counted;
use anyhow::bail;
use hindcast_model::data::{DataSet, Source};
use toml::Value;

use super::draft::{CLASSES, Draft, Inputs, Line, line, plain};
use super::names;
use super::places::{Places, stem};
use super::trial::{trial, trial_of_all};
use crate::args::NewTarget;
use crate::commands::Usage;

/// Largest side of images that are used at their own size.
const LARGEST_SIDE: usize = 64;
/// Side to which other images are resized.
const SIDE: i64 = 32;

/// The draft for `.npy` files of inputs and labels.
pub(super) fn npy(
    files: &[PathBuf],
    places: &Places,
    target: Option<NewTarget>,
) -> anyhow::Result<Draft> {
    let (mut draft, shape) = pair(files, places, Source::Npy, target)?;
    draft.inputs = match shape.len() {
        3 => Inputs::Images,
        _ if shape.iter().product::<usize>() > 32 => Inputs::Vectors,
        _ => Inputs::Columns,
    };
    draft.set(
        "standardise",
        true,
        "each feature gets mean 0 and standard deviation 1",
    );
    Ok(draft)
}

/// The draft for images: a folder with one folder per class, or IDX files of images and labels.
pub(super) fn images(files: &[PathBuf], places: &Places) -> anyhow::Result<Draft> {
    let mut draft = match files {
        [folder] if folder.is_dir() => folders(folder, places)?,
        _ => {
            let (mut draft, _) = pair(files, places, Source::Idx, None)?;
            draft.inputs = Inputs::Images;
            draft
        }
    };
    draft.set(
        "mean",
        Value::Array(vec![Value::Float(0.5)]),
        "bytes become numbers from -1 to 1",
    );
    draft.set("sd", Value::Array(vec![Value::Float(0.5)]), "");
    Ok(draft)
}

/// A value of `train_files` and so on for files of inputs and labels.
pub(super) fn pair_of(inputs: &str, labels: &str) -> Value {
    let named = [("inputs", inputs), ("labels", labels)];
    let named = named.map(|(key, name)| (key.to_owned(), Value::String(name.to_owned())));
    Value::Table(named.into_iter().collect())
}

/// The draft for inputs and labels in separate files, and the shape of an example.
fn pair(
    files: &[PathBuf],
    places: &Places,
    source: Source,
    target: Option<NewTarget>,
) -> anyhow::Result<(Draft, Vec<usize>)> {
    let [inputs, labels] = files else {
        bail!(Usage(format!(
            "expected two files, first the inputs and then the labels, got {}",
            files.len()
        )));
    };
    let (input_name, label_name) = (places.name(inputs)?, places.name(labels)?);
    let mut draft = Draft {
        name: stem(&plain(inputs)),
        found: Vec::new(),
        data: vec![line("source", source.name(), "")],
        tables: Vec::new(),
        inputs: Inputs::Vectors,
        values: target == Some(NewTarget::Value),
    };
    draft.set("train_files", pair_of(&input_name, &label_name), "");
    let (data, about) = if source == Source::Npy {
        not_texts(labels)?;
        of_numbers(&mut draft, places, target)?
    } else {
        let data = trial(&draft.data, &draft.tables, places)?;
        draft.values = data.class_count().is_none();
        (data, "")
    };
    let shape = data.shape().to_vec();
    let rows = data.len(hindcast_model::objective::Split::Train);
    draft.found.push(format!(
        "{input_name}: {} of shape {shape:?}.",
        counted(rows, "example", "examples")
    ));
    draft.found.push(match data.class_count() {
        Some(classes) if !draft.values => format!("{label_name}: {classes} classes{about}."),
        _ => format!("{label_name}: the labels are numbers to predict{about}."),
    });
    if !draft.values {
        draft.data.extend(names::of(data.as_ref()));
    }
    Ok((draft, shape))
}

/// Refuses labels in a file of text, and says how they become an array.
fn not_texts(labels: &Path) -> anyhow::Result<()> {
    let name = plain(labels);
    let extension = name
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if matches!(extension, "txt" | "csv" | "tsv" | "json") {
        bail!(Usage(format!(
            "{0}: expected a .npy array of labels. numpy makes one of a file with one label per line: \
             np.save(\"labels.npy\", np.loadtxt(\"{0}\", dtype=str, delimiter=\"\\n\")). (data.labels_file is for other labels of data that has labels already.)",
            labels.display()
        )));
    }
    Ok(())
}

/// Sets whether labels in an array are classes, so that labels of validation and test files are read alike. Returns the data, and what
/// was assumed.
fn of_numbers(
    draft: &mut Draft,
    places: &Places,
    target: Option<NewTarget>,
) -> anyhow::Result<(Box<dyn DataSet>, &'static str)> {
    let with = |target: &str| {
        let mut data = draft.data.clone();
        data.push(line("target", target, ""));
        trial(&data, &draft.tables, places)
    };
    let (data, class, about) = match target {
        Some(NewTarget::Value) => (with("value")?, false, ""),
        Some(NewTarget::Class) => (with("class")?, true, ""),
        None => {
            let data = trial(&draft.data, &draft.tables, places)?;
            if data.class_count().is_some() {
                (data, true, "")
            } else {
                // Whole numbers that were saved as floats.
                let few = |data: &dyn DataSet| {
                    data.class_count()
                        .is_some_and(|classes| (2..=CLASSES).contains(&classes))
                };
                match with("class").ok().filter(|data| few(data.as_ref())) {
                    Some(classes) => (
                        classes,
                        true,
                        ", saved as floats; --target value predicts them as numbers",
                    ),
                    None => (data, false, ""),
                }
            }
        }
    };
    draft.values = !class;
    if class {
        let texts = names::of(data.as_ref()).is_none();
        let why = if texts {
            "a label is the name of its class"
        } else {
            "a label is the number of its class"
        };
        draft.set("target", "class", why);
    } else {
        draft.predict_numbers();
    }
    Ok((data, about))
}

/// The draft for a folder with one folder of PNG or JPEG images per class.
fn folders(folder: &Path, places: &Places) -> anyhow::Result<Draft> {
    let name = places.name(folder)?;
    let mut draft = Draft {
        name: stem(folder),
        found: Vec::new(),
        data: vec![
            line(
                "source",
                "images",
                "PNG and JPEG images, one folder per class",
            ),
            line("train_files", name.as_str(), ""),
        ],
        tables: Vec::new(),
        inputs: Inputs::Images,
        values: false,
    };
    let small = |data: &dyn DataSet| {
        let mut sides = data.shape().iter().skip(1);
        sides.all(|side| *side <= LARGEST_SIDE)
    };
    let own_size = match trial(&draft.data, &draft.tables, places) {
        Ok(data) if small(data.as_ref()) => Ok(data),
        Ok(_) => Err("the images are large"),
        Err(_) => Err("the images have several sizes"),
    };
    let data = match own_size {
        Ok(data) => data,
        Err(why) => {
            let size: Line = line("size", SIDE, why);
            draft.tables.push((
                "data.images".to_owned(),
                "Images are resized to this height and width.".to_owned(),
                vec![size],
            ));
            trial_of_all(&draft.data, &draft.tables, places)?
        }
    };
    draft.found.push(format!(
        "{name}: {} in {} ({}).",
        counted(
            data.len(hindcast_model::objective::Split::Train),
            "image",
            "images"
        ),
        counted(
            data.class_names().len() as u64,
            "folder of a class",
            "folders of classes"
        ),
        data.class_names().join(", ")
    ));
    Ok(draft)
}
