//! The `[data]` table of a Task.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::documents::DocumentsSpec;
use super::images::ImagesSpec;
use super::table::{MissingSpec, Numerals, TfidfSpec};
use super::windows::TextSpec;

/// The source of the examples: `data.source`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// IDX files such as MNIST's: big-endian arrays of any rank, with inputs and labels in separate files.
    Idx,
    /// CIFAR-10's binary version: records of one label byte and 3 × 32 × 32 pixel bytes.
    Cifar10,
    /// Folders of PNG and JPEG images, with one folder per class.
    Images,
    /// A table with a header line.
    Csv,
    /// JSON lines with one text each. Inputs are word counts, weighted by tf-idf.
    Documents,
    /// NumPy arrays, with inputs and labels in separate files.
    Npy,
    /// Safetensors files with a tensor of inputs and a tensor of labels.
    Safetensors,
    /// Plain text, cut into windows of characters, each with the next character as its class.
    Text,
    /// Generated images of digits. They need no file, and it is known which labels are wrong.
    Digits,
}

impl Source {
    /// The name of the source in a Task.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idx => "idx",
            Self::Cifar10 => "cifar10",
            Self::Images => "images",
            Self::Csv => "csv",
            Self::Documents => "documents",
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
            Self::Text => "text",
            Self::Digits => "digits",
        }
    }
}

/// Files of training, validation or test examples: one name, several names, or separate names for inputs and labels.
///
/// Names are relative to the data folder. On disk, a name can have the extension `.gz` or `.xz` in addition. For the source
/// `images` they are names of folders, and `.` is the data folder itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a file name, a list of file names, or { inputs = \"…\", labels = \"…\" }"
)]
pub enum Files {
    /// One file.
    One(String),
    /// Several files, read in this order. Rows are counted through all of them.
    Many(Vec<String>),
    /// Inputs and labels in separate files (`idx`, `npy`).
    Pair(Pair),
}

/// Names of separate files for inputs and labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// File of inputs. The first axis counts the examples.
    pub inputs: String,
    /// File of labels, in the same order.
    pub labels: String,
}

/// A class in `data.classes`, given by its name or its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a class's number or name")]
pub enum ClassRef {
    /// The class whose name is this number, or, if there is none, the class with this number.
    Number(u64),
    /// The class with this name.
    Name(String),
}

/// A column of a table, given by its name or its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a column's name or number")]
pub enum ColumnRef {
    /// The column whose name is this number, or, if there is none, the column with this number. The first column is 1,
    /// and the last is -1.
    Number(i64),
    /// The column with this name.
    Name(String),
}

impl std::fmt::Display for ColumnRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl From<&str> for ColumnRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

/// The files from which the splits are drawn: `data.pool`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// The training and validation splits from the training files, the test split from the test files.
    #[default]
    Separate,
    /// All splits from the training files. The test files are not read.
    Train,
    /// All splits from the training and test files together.
    All,
}

/// How the examples of a split are selected if it doesn't get all of them: `data.pick`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pick {
    /// At random, determined by the seed. Within a split, examples are in the order of the files.
    #[default]
    Random,
    /// The first rows for the training split, the next for the validation split, then the test split.
    First,
}

/// Order of the axes of an image array: `data.layout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AxisOrder {
    /// Examples, channels, height, width.
    Nchw,
    /// Examples, height, width, channels. Loading moves the channels before height and width.
    Nhwc,
}

/// The targets of a batch: `data.target`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The label is a class: (B,) u32 class numbers.
    Class,
    /// The label is a number to predict, or the class number: (B, k) floats.
    Value,
    /// The input itself, augmented and scaled, for autoencoders: (B, n) floats.
    Input,
}

/// The `[data]` table of a Task: the source of the examples, the splits, and the scaling.
///
/// ```toml
/// [data]
/// source = "idx"            # idx | cifar10 | images | csv | documents | npy | safetensors | text | digits
///
/// # Files, relative to the data folder. A file may also be compressed, with the extension .gz or .xz. The names of
/// # MNIST's and CIFAR-10's files are built in.
/// train_files = { inputs = "train-images-idx3-ubyte", labels = "train-labels-idx1-ubyte" }   # idx, npy
/// # train_files = ["a.csv", "b.csv"]        # csv, documents, text, safetensors, cifar10: one or several names
/// # train_files = "pets/train"              # images: a folder with one folder per class
/// # validation_files, test_files            # separate files for validation and test, in the same form
/// # labels_file = "corrected.csv"           # labels that replace those of the files (--labels)
/// # truth_file = "checked.csv"              # known true labels, which show which labels are wrong (--truth)
/// # images = { size = [64, 64] }            # images: see ImagesSpec
/// # transpose = true                        # idx: swap height and width, for EMNIST
/// # inputs = "images"; labels = "targets"   # safetensors: names of the tensors (default "inputs" and "labels")
/// # layout = "nhwc"                         # npy, safetensors, idx: the channels are the last axis in the file
/// # label = "income"                        # csv: column of the labels, by name or number (-1: the last); the others are inputs
/// # categorical = ["sex"]                   # csv: columns of text, encoded one-hot
/// # ignore = ["id"]                         # csv: columns that are not read
/// # columns = ["age", "sex", "income"]      # csv: column names, if the file has no header line
/// # delimiter = ";"                         # csv: separator of the cells (default a comma)
/// # comment = "|"                           # csv: lines that begin with this character are skipped
/// # decimal = ","                           # csv: decimal separator of numbers (default a point)
/// # thousands = "."                         # csv: separator of thousands in numbers, as in 1.234,5 (default none)
/// # encoding = "windows-1252"               # csv, documents, text: encoding of the files (default UTF-8)
/// # missing = { fill = "mean" }             # csv: see MissingSpec
/// # tfidf = { columns = ["review"] }        # csv: columns of free text; see TfidfSpec
/// # log1p = ["income"]                      # csv: columns of numbers x of which log(1 + x) is the input
/// # merge = { sex = { "0" = ["?", "n/a"] } }   # csv: texts of a column that count as another text
/// # documents = { text = "text" }           # documents: see DocumentsSpec; `label` is the name of the labels' field
/// # text = { length = 8 }                   # text: see TextSpec
///
/// # The splits.
/// skip = 5000               # number of rows at the beginning of the training files that are left out
/// classes = [1, 7]          # only examples of these classes, renumbered 0, 1 in this order
/// # class_names = ["T-shirt", "Trouser", "Pullover"]   # names of the classes, by class number
/// # class_names_file = "names.txt"          # or a file with one name per line
/// pool = "train"            # "separate" (default): validation from the training files, test from the test files
///                           # "train": all splits from the training files | "all": from training and test files
/// pick = "random"           # random examples | "first": the first rows
/// train = 200               # number of examples (default: all that the other splits leave)
/// validation = 200          # number of examples (default: all of validation_files, or none without such files)
/// test = 200                # number of examples (default: all of the test files)
/// seed = 3                  # seed of the splits and of generated digits (default: the run's seed)
/// flipped = 0.08            # share of training labels that are made wrong on purpose (default 0; for digits 0.08)
///
/// # Inputs of the model: (x / divide_by − mean) / sd.
/// divide_by = 255.0         # default: 255 for bytes, 1 for other types and for text
/// mean = [0.5]              # one number for all channels, or one per channel
/// sd = [0.5]
/// standardise = true        # then subtract each feature's mean over the train split and divide by its standard deviation
/// target = "class"          # | "value" | "input"
/// standardise_target = true # numbers to predict: subtract their mean over the train split, divide by their standard deviation
/// ```
///
/// Arrays contain booleans (0 and 1), integers, or floats of 16, 32 or 64 bits. bfloat16 is read from safetensors
/// files. A NaN or infinite value is refused before training; the message names its file and place. A missing label of
/// a table is also refused: an empty cell, or a text such as `NaN` or `NA` if all other labels are numbers. Rows with missing
/// values can be left out or filled in ([`MissingSpec`](super::MissingSpec)). If a
/// table's column contains only numbers, equal numbers such as `1` and `1.0` are one class or category. A class that
/// occurs only in the validation or test split causes a warning. Text files are UTF-8, with or without a byte order
/// mark, if `encoding` doesn't name another encoding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// The source of the examples.
    pub source: Source,
    /// Training files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train_files: Option<Files>,
    /// Validation files. Without them, validation examples are drawn from the training files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_files: Option<Files>,
    /// Test files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_files: Option<Files>,
    /// File with labels that replace those of the data, by row or file. The default is the data's own labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels_file: Option<String>,
    /// File with known true labels, by row or file. It changes no label, but shows which are wrong. The default is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truth_file: Option<String>,
    /// How image files become inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<ImagesSpec>,
    /// Whether height and width of IDX images are swapped, as EMNIST's files need. The default is false.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub transpose: bool,
    /// Name of the safetensors tensor of inputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
    /// Name of the safetensors tensor of labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Axis order of image arrays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<AxisOrder>,
    /// Column of a table (by name or number, from 1; -1 is the last) or field of a document that holds the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<ColumnRef>,
    /// Text columns of a table. They are encoded one-hot over the values that occur in any file, in sorted order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categorical: Vec<String>,
    /// Columns of a table that are not read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Column names of a table without a header line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Separator of the cells of a table, an ASCII character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// First character of lines of a table that are skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<char>,
    /// Decimal separator of the numbers in a table: "." or ",". The default is ".".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decimal: Option<char>,
    /// Separator of thousands in the numbers of a table: ",", ".", " " or "'". By default numbers have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thousands: Option<char>,
    /// Encoding of text files, such as "windows-1252" or "utf-16". The default is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
    /// What happens to missing values in a table. By default they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<MissingSpec>,
    /// Columns of free text in a table, turned into tf-idf features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tfidf: Option<TfidfSpec>,
    /// Columns of numbers x > −1 of which log(1 + x) is the input.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log1p: Vec<String>,
    /// For each column of text or labels, and for each resulting text, the texts that count as this text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub merge: BTreeMap<String, BTreeMap<String, Vec<String>>>,
    /// How documents are turned into numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentsSpec>,
    /// How a text is cut into windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<TextSpec>,
    /// Number of rows at the beginning of the training files that are left out.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub skip: u64,
    /// Classes that are kept, renumbered in this order. An empty list keeps all classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<ClassRef>,
    /// Names of the classes, by class number, if the labels are numbers from 0. Otherwise the labels of the files, in the order in
    /// which the classes are numbered; by default they are sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_names: Vec<String>,
    /// File with the names of the classes, one per line by class number. The default is `class_names`, or the source's names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_names_file: Option<String>,
    /// The files from which the splits are drawn.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub pool: Pool,
    /// How the examples of a split are selected.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub pick: Pick,
    /// Number of training examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub train: Option<u64>,
    /// Number of validation examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<u64>,
    /// Number of test examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<u64>,
    /// Seed of the splits, of wrong labels and of generated digits. The default is the run's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Share of training labels that are made wrong on purpose, in [0, 1].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flipped: Option<f64>,
    /// First step of the scaling: raw values are divided by this number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divide_by: Option<f64>,
    /// Second step: one number per channel that is subtracted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mean: Vec<f64>,
    /// Third step: one number per channel by which values are divided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sd: Vec<f64>,
    /// Last step: whether each feature is standardised by its mean and standard deviation over the train split.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub standardise: bool,
    /// Whether numbers to predict are standardised by their mean and standard deviation over the train split. Predictions are in the
    /// unit of the labels; losses and influences are those of the standardised target.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(!skip_serializing_if)]
    pub standardise_target: bool,
    /// The targets of a batch. The default follows from the type of the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DataSpec {
    /// How the table writes numbers.
    pub(super) fn numerals(&self) -> Numerals {
        Numerals {
            decimal: self.decimal.unwrap_or('.'),
            thousands: self.thousands,
        }
    }

    /// A table with a source and otherwise defaults.
    pub fn new(source: Source) -> Self {
        Self {
            source,
            train_files: None,
            validation_files: None,
            test_files: None,
            labels_file: None,
            truth_file: None,
            images: None,
            transpose: false,
            inputs: None,
            labels: None,
            layout: None,
            label: None,
            categorical: Vec::new(),
            ignore: Vec::new(),
            columns: Vec::new(),
            delimiter: None,
            comment: None,
            decimal: None,
            thousands: None,
            encoding: None,
            missing: None,
            tfidf: None,
            log1p: Vec::new(),
            merge: BTreeMap::new(),
            documents: None,
            text: None,
            skip: 0,
            classes: Vec::new(),
            class_names: Vec::new(),
            class_names_file: None,
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
            standardise_target: false,
            target: None,
        }
    }
}
