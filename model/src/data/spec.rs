//! The `[data]` table of a Task.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::documents::DocumentsSpec;

/// Where examples come from: `data.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// IDX files as MNIST's: big-endian arrays of any rank, inputs and labels apart.
    Idx,
    /// CIFAR-10's binary version: records of a label byte and 3 × 32 × 32 bytes.
    Cifar10,
    /// A table with a header line.
    Csv,
    /// JSON lines with a text each, counted and weighted by tf-idf.
    Documents,
    /// NumPy arrays, inputs and labels in a file each.
    Npy,
    /// Safetensors files with a tensor of inputs and one of labels.
    Safetensors,
    /// Digits drawn by code: no file is needed, and which labels are wrong is known.
    Digits,
}

impl Source {
    /// The name in a Task.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idx => "idx",
            Self::Cifar10 => "cifar10",
            Self::Csv => "csv",
            Self::Documents => "documents",
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
            Self::Digits => "digits",
        }
    }
}

/// Files of one part: a name, several names read one after the other, or inputs and labels apart.
///
/// Names are relative to the data folder; `.gz` or `.xz` may follow on disk without being named here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a file name, a list of file names, or { inputs = \"…\", labels = \"…\" }"
)]
pub enum Files {
    /// One file.
    One(String),
    /// Several files; rows are counted through.
    Many(Vec<String>),
    /// Inputs and labels in a file each (`idx`, `npy`).
    Pair(Pair),
}

/// Inputs and labels in a file each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// File of inputs, one example along the first axis.
    pub inputs: String,
    /// File of labels, in the same order.
    pub labels: String,
}

/// A class named in `data.classes`: by its name, or by its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a class's number or name")]
pub enum ClassRef {
    /// A class whose name is this number, else the class of this number.
    Number(u64),
    /// A class of this name.
    Name(String),
}

/// What the three splits are drawn from: `data.pool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Train and validation from the training files, test from the test files.
    #[default]
    Separate,
    /// All three from the training files; the test files are not read.
    Train,
    /// All three from training and test files together.
    All,
}

/// How the examples of a split are chosen when not all are wanted: `data.pick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// At random, by the seed. A split's examples stand in the order of the files all the same.
    #[default]
    Random,
    /// The first rows: train, then validation, then test.
    First,
}

/// Order of an image array's axes: `data.layout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AxisOrder {
    /// Examples, channels, height, width.
    Nchw,
    /// Examples, height, width, channels: turned into channels first when loaded.
    Nhwc,
}

/// What a batch's targets are: `data.target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// (B,) u32 class numbers.
    Class,
    /// (B, k) floats: regression targets, or the class number as one float.
    Value,
    /// (B, n) floats: the inputs themselves, as augmented and scaled (autoencoders).
    Input,
}

/// The `[data]` table of a Task: where examples come from, which of them are used, and how they are scaled.
///
/// ```toml
/// [data]
/// source = "idx"            # idx | cifar10 | csv | documents | npy | safetensors | digits
///
/// # Files, relative to the data folder; `.gz` and `.xz` are found by themselves. MNIST's and CIFAR-10's names are built in.
/// train_files = { inputs = "train-images-idx3-ubyte", labels = "train-labels-idx1-ubyte" }   # idx, npy
/// # train_files = ["a.csv", "b.csv"]        # csv, documents, safetensors, cifar10: one name or several
/// # validation_files, test_files            # likewise, for files of their own
/// # inputs = "images"; labels = "targets"   # safetensors: tensor names ("inputs" and "labels" unless said)
/// # layout = "nhwc"                         # npy, safetensors, idx: channels last in the file
/// # label = "income"                        # csv: the label's column; every other column is an input
/// # categorical = ["sex"]                   # csv: columns of text, one-hot
/// # ignore = ["id"]                         # csv: columns left out
/// # columns = ["age", "sex", "income"]      # csv: names for a file without a header line
/// # delimiter = ";"                         # csv: a comma unless said
/// # comment = "|"                           # csv: lines that begin so are skipped
/// # log1p = ["income"]                      # csv: columns of numbers whose log(1 + x) is the input
/// # merge = { sex = { "0" = ["?", "n/a"] } }   # csv: texts of a column (the label's, too) that count as another
/// # documents = { text = "text" }           # documents: see DocumentsSpec; `label` names the label's field
///
/// # Which examples.
/// skip = 5000               # the first rows of the training files are left out
/// classes = [1, 7]          # only these classes, renumbered 0, 1 in this order
/// # class_names = ["T-shirt", "Trouser", "Pullover"]   # names by class number in the file
/// pool = "train"            # "separate": validation from the training files, test from the test files (default)
///                           # "train": all splits from the training files; "all": training and test files joined
/// pick = "random"           # or "first"
/// train = 200               # sizes; all that is left unless said,
/// validation = 200          # none unless said (all of validation_files where given),
/// test = 200                # all of the test files unless said
/// seed = 3                  # of the draw and of digits; the run's seed unless said
/// flipped = 0.08            # this share of training labels is made wrong on purpose, which ones being known (digits: 0.08)
///
/// # What the model sees: (x / divide_by − mean) / sd.
/// divide_by = 255.0         # by default 255 for bytes, and 1 for booleans, other integers and floats
/// mean = [0.5]              # one for all channels, or one each
/// sd = [0.5]
/// standardise = true        # then each feature less its mean over the train split, by its standard deviation there
/// target = "class"          # | "value" | "input"
/// ```
///
/// Arrays contain booleans (0 and 1), integers, or floats of 16, 32 or 64 bits. bfloat16 is read from safetensors
/// files. A NaN or infinite value is refused before training; the message names its file and place. So is a missing
/// label of a table: an empty cell, or a text such as `NaN` or `NA` if all other labels are numbers. If a table's
/// column contains only numbers, equal numbers such as `1` and `1.0` are one class or category. A class that occurs
/// only in the validation or test split causes a warning. Text files are UTF-8, with or without a byte order mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Where examples come from.
    pub source: Source,
    /// Training files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_files: Option<Files>,
    /// Validation files, where validation isn't held out of the training files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_files: Option<Files>,
    /// Test files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_files: Option<Files>,
    /// Name of the safetensors tensor of inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Name of the safetensors tensor of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Axis order of image arrays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<AxisOrder>,
    /// Label column of a table, or field of a document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Text columns of a table, one-hot over the values that occur in any file, in sorted order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<String>,
    /// Columns of a table that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Column names of a table without a header line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Separator of a table's cells: one ASCII character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// First character of a table's lines that are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<char>,
    /// Columns of numbers above −1 of which log(1 + x) is taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log1p: Vec<String>,
    /// By column, and by the text that stands for them, texts of a table that count as one: of text columns and the label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub merge: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// How texts become numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentsSpec>,
    /// Rows left out at the beginning of the training files.
    #[serde(default, skip_serializing_if = "is_default")]
    pub skip: u64,
    /// Classes kept, renumbered in this order; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassRef>,
    /// Names by class number in the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// What the splits are drawn from.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pool: Pool,
    /// How they are drawn.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pick: Pick,
    /// Training examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<u64>,
    /// Validation examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<u64>,
    /// Test examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<u64>,
    /// Seed of the draw, of flipped labels and of digits; the run's seed when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Share of training labels made wrong on purpose, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped: Option<f64>,
    /// Raw values are divided by this first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divide_by: Option<f64>,
    /// Subtracted next, by channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// Divided by next, by channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sd: Vec<f64>,
    /// Then each feature is standardised by its mean and standard deviation over the train split.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standardise: bool,
    /// What a batch's targets are; by the labels' type when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DataSpec {
    /// A table with nothing but a source.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            train_files: None,
            validation_files: None,
            test_files: None,
            inputs: None,
            labels: None,
            layout: None,
            label: None,
            categorical: Vec::new(),
            ignore: Vec::new(),
            columns: Vec::new(),
            delimiter: None,
            comment: None,
            log1p: Vec::new(),
            merge: BTreeMap::new(),
            documents: None,
            skip: 0,
            classes: Vec::new(),
            class_names: Vec::new(),
            pool: Pool::Separate,
            pick: Pick::Random,
            train: None,
            validation: None,
            test: None,
            seed: None,
            flipped: None,
            divide_by: None,
            mean: Vec::new(),
            sd: Vec::new(),
            standardise: false,
            target: None,
        }
    }
}
