//! The columns of a table, the same in every file format.

use std::rc::Rc;

use super::{Refined, RefinedBy, RowPrediction, ScoreMetadata, ScoreRow, Spread};

/// The content of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Index,
    Row,
    Name,
    Label,
    Occurrences,
    Runs,
    Influence(usize),
    /// Standard deviation of the influence over runs.
    Deviation(usize),
    /// Student's t of the influence over runs.
    Student(usize),
    Renormalised(usize),
    Refined(usize, RefinedBy),
    /// Query, and position in the metadata's list of epochs.
    Epoch(usize, usize),
    File,
    /// The prediction for the example.
    Predicted,
    Probability,
    LabelProbability,
    Loss,
    /// The known true label.
    Truth,
}

impl Column {
    /// Whether the column contains text; other columns contain numbers.
    pub fn is_text(self) -> bool {
        matches!(
            self,
            Column::Name | Column::Label | Column::File | Column::Predicted | Column::Truth
        )
    }

    /// Whether the column belongs to the prediction for the example.
    pub fn is_prediction(self) -> bool {
        PREDICTIONS.iter().any(|(_, column)| *column == self)
    }

    /// The values that the column may contain, in words.
    pub fn expects(self) -> &'static str {
        if self.is_text() {
            "text"
        } else if self.is_whole() {
            "a whole number"
        } else {
            "a number or no value"
        }
    }

    /// Whether the column contains whole numbers.
    pub fn is_whole(self) -> bool {
        matches!(
            self,
            Column::Index | Column::Row | Column::Occurrences | Column::Runs
        )
    }
}

/// A cell's value, typed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Integer(u64),
    Text(String),
    Number(Option<f64>),
}

impl std::fmt::Display for Cell {
    /// As in a CSV: empty if there is no value.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Integer(i) => write!(f, "{i}"),
            Cell::Text(text) => f.write_str(text),
            Cell::Number(None) => Ok(()),
            // Debug prints the shortest decimal that reads back, with an exponent if that is shorter.
            Cell::Number(Some(x)) => write!(f, "{x:?}"),
        }
    }
}

/// The number in a cell, if it is one or a text that reads as one.
pub(super) fn number(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Integer(i) => Some(*i as f64),
        Cell::Number(x) => *x,
        Cell::Text(text) => text.trim().parse().ok(),
    }
}

/// The columns that not every table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Optional {
    pub names: bool,
    pub files: bool,
    /// The spread over several runs.
    pub spread: bool,
    /// The predictions for the examples.
    pub predictions: bool,
    /// Known true labels.
    pub truth: bool,
}

impl Optional {
    /// The columns that the metadata alone implies.
    pub fn of(metadata: &ScoreMetadata) -> Self {
        Optional {
            files: !metadata.files.is_empty(),
            spread: !metadata.runs.is_empty(),
            ..Optional::default()
        }
    }

    /// Adds the columns that a row needs.
    pub fn observe(&mut self, row: &ScoreRow) {
        self.names |= row.name.is_some();
        self.files |= !row.file.is_empty();
        self.spread |= !row.spread.is_empty();
        self.predictions |= row.prediction.is_some();
        self.truth |= row.true_label.is_some();
    }
}

/// Names and contents of the columns, in the order in which they are written. With one query the names are plain; with
/// several, the query follows in brackets: `influence[validation:3]`. There is a column `name` if names were joined,
/// and a column `file` if files are known. New columns are last, so that the others keep the positions of earlier
/// versions: `file`, then the predictions, then the known true labels.
pub(super) fn columns(metadata: &ScoreMetadata, has: Optional) -> Vec<(String, Column)> {
    let mut out = vec![
        ("index".to_owned(), Column::Index),
        ("row".to_owned(), Column::Row),
    ];
    if has.names {
        out.push(("name".to_owned(), Column::Name));
    }
    out.extend([
        ("label".to_owned(), Column::Label),
        ("occurrences".to_owned(), Column::Occurrences),
    ]);
    let several = metadata.queries.len() > 1;
    for (q, query) in metadata.queries.iter().enumerate() {
        let of = |base: String| {
            if several {
                format!("{base}[{}]", query.name)
            } else {
                base
            }
        };
        out.push((of("influence".to_owned()), Column::Influence(q)));
        if has.spread {
            out.push((of("influence_sd".to_owned()), Column::Deviation(q)));
            out.push((of("influence_t".to_owned()), Column::Student(q)));
        }
        out.push((
            of("influence_renormalised".to_owned()),
            Column::Renormalised(q),
        ));
        for &by in &metadata.refined {
            out.push((of(by.name().to_owned()), Column::Refined(q, by)));
        }
        for (e, epoch) in metadata.epochs.iter().enumerate() {
            out.push((of(format!("epoch_{epoch}")), Column::Epoch(q, e)));
        }
    }
    if has.spread {
        out.push(("runs".to_owned(), Column::Runs));
    }
    if has.files {
        out.push(("file".to_owned(), Column::File));
    }
    if has.predictions {
        let predictions = PREDICTIONS.iter();
        out.extend(predictions.map(|(name, column)| ((*name).to_owned(), *column)));
    }
    if has.truth {
        out.push((TRUTH.to_owned(), Column::Truth));
    }
    out
}

/// Name of the column of known true labels.
const TRUTH: &str = "true_label";

/// Names and contents of the columns of predictions.
const PREDICTIONS: [(&str, Column); 4] = [
    ("predicted", Column::Predicted),
    ("probability", Column::Probability),
    ("label_probability", Column::LabelProbability),
    ("loss", Column::Loss),
];

/// A row's cell in a column.
pub(super) fn cell(row: &ScoreRow, column: Column) -> Cell {
    match column {
        Column::Index => Cell::Integer(row.index),
        Column::Row => Cell::Integer(row.row),
        Column::Name => Cell::Text(row.name.clone().unwrap_or_default()),
        Column::Label => Cell::Text(row.label.clone()),
        Column::File => Cell::Text(row.file.clone()),
        Column::Occurrences => Cell::Integer(row.occurrences),
        Column::Runs => Cell::Integer(row.runs),
        Column::Deviation(q) => Cell::Number(row.spread.get(q).and_then(|spread| spread.sd)),
        Column::Student(q) => Cell::Number(row.spread.get(q).and_then(|spread| spread.t)),
        Column::Influence(q) => Cell::Number(row.influence.get(q).copied().flatten()),
        Column::Renormalised(q) => Cell::Number(row.renormalised.get(q).copied().flatten()),
        Column::Refined(q, by) => {
            let refined = row.refined.get(q).copied().unwrap_or_default();
            Cell::Number(match by {
                RefinedBy::Accumulative => refined.accumulative,
                RefinedBy::Counterfactual => refined.counterfactual,
            })
        }
        Column::Epoch(q, e) => Cell::Number(
            row.epochs
                .get(q)
                .and_then(|of| of.get(e))
                .copied()
                .flatten(),
        ),
        Column::Predicted => {
            Cell::Text(predicted(row).map_or_else(String::new, |p| p.predicted.clone()))
        }
        Column::Probability => Cell::Number(predicted(row).and_then(|p| p.probability)),
        Column::LabelProbability => Cell::Number(predicted(row).and_then(|p| p.label_probability)),
        Column::Loss => Cell::Number(predicted(row).and_then(|p| p.loss)),
        Column::Truth => Cell::Text(row.true_label.clone().unwrap_or_default()),
    }
}

fn predicted(row: &ScoreRow) -> Option<&RowPrediction> {
    row.prediction.as_ref()
}

/// The columns that a file's header names, with their queries and epochs.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub columns: Vec<Option<Column>>,
    pub queries: Vec<String>,
    pub epochs: Vec<u64>,
    pub refined: Vec<RefinedBy>,
    /// Whether there are columns of the spread over runs.
    pub spread: bool,
    /// Whether there are columns of predictions.
    pub predictions: bool,
    /// Whether there is a column of known true labels.
    pub truth: bool,
}

/// A file's header, and its rows one after the other.
pub(super) type ReadRows = (
    Rc<Header>,
    Box<dyn Iterator<Item = Result<ScoreRow, String>>>,
);

impl Header {
    /// Parses a header. Columns with other names are ignored. `index` and one `influence` are required; with
    /// metadata, exactly the columns that it describes are required.
    pub fn read<'a>(
        names: impl IntoIterator<Item = &'a str>,
        metadata: Option<&ScoreMetadata>,
    ) -> Result<Header, String> {
        let mut out = Header::default();
        if let Some(metadata) = metadata {
            out.epochs.clone_from(&metadata.epochs);
            out.refined.clone_from(&metadata.refined);
            out.queries = match metadata.queries.as_slice() {
                [_] => vec![String::new()],
                several => several.iter().map(|q| q.name.clone()).collect(),
            };
        }
        for name in names {
            let column = out.column(name.trim());
            if column.is_some() && out.columns.contains(&column) {
                return Err(format!("the column `{}` appears twice", name.trim()));
            }
            out.columns.push(column);
        }
        for (needed, present) in [
            ("index", out.columns.contains(&Some(Column::Index))),
            (
                "influence",
                out.columns
                    .iter()
                    .any(|c| matches!(c, Some(Column::Influence(_)))),
            ),
        ] {
            if !present {
                return Err(format!(
                    "there is no column `{needed}`; a table of scores has at least `index` and `influence`"
                ));
            }
        }
        if let Some(metadata) = metadata {
            let missing = columns(metadata, Optional::of(metadata))
                .into_iter()
                .find(|(_, column)| !out.columns.contains(&Some(*column)));
            let differs = out.queries.len() != metadata.queries.len()
                || out.epochs != metadata.epochs
                || out.refined != metadata.refined;
            if missing.is_some() || differs {
                return Err(format!(
                    "the metadata file next to this table describes other columns{}; remove that file if the table was edited on purpose",
                    missing.map_or(String::new(), |(name, _)| format!(" (`{name}`)"))
                ));
            }
        }
        Ok(out)
    }

    fn column(&mut self, name: &str) -> Option<Column> {
        let (base, query) = match name.split_once('[') {
            Some((base, rest)) => (base, rest.strip_suffix(']')?),
            None => (name, ""),
        };
        // Letter case is ignored, because a table may have been edited by hand.
        match base.trim().to_lowercase().as_str() {
            "index" => Some(Column::Index),
            "row" => Some(Column::Row),
            "name" => Some(Column::Name),
            "label" => Some(Column::Label),
            "file" => Some(Column::File),
            "occurrences" => Some(Column::Occurrences),
            "influence" => Some(Column::Influence(position(
                &mut self.queries,
                query.to_owned(),
            ))),
            "runs" => Some(Column::Runs),
            "influence_sd" => {
                self.spread = true;
                let q = position(&mut self.queries, query.to_owned());
                Some(Column::Deviation(q))
            }
            "influence_t" => {
                self.spread = true;
                let q = position(&mut self.queries, query.to_owned());
                Some(Column::Student(q))
            }
            "influence_renormalised" => Some(Column::Renormalised(position(
                &mut self.queries,
                query.to_owned(),
            ))),
            "accumulative" | "counterfactual" => {
                let by = if base.trim().eq_ignore_ascii_case("accumulative") {
                    RefinedBy::Accumulative
                } else {
                    RefinedBy::Counterfactual
                };
                position(&mut self.refined, by);
                let q = position(&mut self.queries, query.to_owned());
                Some(Column::Refined(q, by))
            }
            TRUTH => {
                self.truth = true;
                query.is_empty().then_some(Column::Truth)
            }
            other => {
                let prediction = PREDICTIONS.iter().find(|(name, _)| *name == other);
                if let Some((_, column)) = prediction {
                    self.predictions = true;
                    return query.is_empty().then_some(*column);
                }
                let epoch = other.strip_prefix("epoch_")?.parse().ok()?;
                let q = position(&mut self.queries, query.to_owned());
                Some(Column::Epoch(q, position(&mut self.epochs, epoch)))
            }
        }
    }

    /// The optional columns that the file has.
    pub fn optional(&self) -> Optional {
        let has = |column| self.columns.contains(&Some(column));
        Optional {
            names: has(Column::Name),
            files: has(Column::File),
            spread: self.spread,
            predictions: self.predictions,
            truth: self.truth,
        }
    }

    /// A row without values.
    pub fn blank(&self) -> ScoreRow {
        ScoreRow {
            index: 0,
            row: 0,
            file: String::new(),
            name: None,
            label: String::new(),
            occurrences: 0,
            influence: vec![None; self.queries.len()],
            renormalised: vec![None; self.queries.len()],
            epochs: if self.epochs.is_empty() {
                Vec::new()
            } else {
                vec![vec![None; self.epochs.len()]; self.queries.len()]
            },
            refined: if self.refined.is_empty() {
                Vec::new()
            } else {
                vec![Refined::default(); self.queries.len()]
            },
            spread: if self.spread {
                vec![Spread::default(); self.queries.len()]
            } else {
                Vec::new()
            },
            prediction: self.predictions.then(RowPrediction::default),
            true_label: self.truth.then(String::new),
            ..ScoreRow::default()
        }
    }
}

/// Puts a cell into a row.
pub(super) fn fill(row: &mut ScoreRow, column: Column, cell: Cell) -> Result<(), String> {
    match (column, cell) {
        (Column::Index, Cell::Integer(i)) => row.index = i,
        (Column::Row, Cell::Integer(i)) => row.row = i,
        (Column::Occurrences, Cell::Integer(i)) => row.occurrences = i,
        (Column::Runs, Cell::Integer(i)) => row.runs = i,
        (Column::Deviation(q), Cell::Number(x)) => row.spread[q].sd = x,
        (Column::Student(q), Cell::Number(x)) => row.spread[q].t = x,
        (Column::Name, Cell::Text(text)) => row.name = Some(text),
        (Column::Label, Cell::Text(text)) => row.label = text,
        (Column::File, Cell::Text(text)) => row.file = text,
        (Column::Influence(q), Cell::Number(x)) => row.influence[q] = x,
        (Column::Renormalised(q), Cell::Number(x)) => row.renormalised[q] = x,
        (Column::Refined(q, RefinedBy::Accumulative), Cell::Number(x)) => {
            row.refined[q].accumulative = x
        }
        (Column::Refined(q, RefinedBy::Counterfactual), Cell::Number(x)) => {
            row.refined[q].counterfactual = x;
        }
        (Column::Epoch(q, e), Cell::Number(x)) => row.epochs[q][e] = x,
        (Column::Predicted, Cell::Text(text)) => told(row).predicted = text,
        (Column::Probability, Cell::Number(x)) => told(row).probability = x,
        (Column::LabelProbability, Cell::Number(x)) => told(row).label_probability = x,
        (Column::Loss, Cell::Number(x)) => told(row).loss = x,
        (Column::Truth, Cell::Text(text)) => row.true_label = Some(text),
        (column, _) => return Err(format!("expected {}", column.expects())),
    }
    Ok(())
}

fn told(row: &mut ScoreRow) -> &mut RowPrediction {
    row.prediction.get_or_insert_default()
}

fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    match list.iter().position(|x| *x == item) {
        Some(at) => at,
        None => {
            list.push(item);
            list.len() - 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letter_case_of_columns_is_ignored() {
        let read = |names: &str| Header::read(names.split(','), None).unwrap();
        let small = "index,row,name,label,occurrences,influence,accumulative,epoch_3,file";
        let wanted = read(small);
        assert!(wanted.columns.iter().all(Option::is_some));
        for names in [
            small.to_uppercase(),
            small.replace(",r", ", R").replace("file", " File "),
        ] {
            let header = read(&names);
            assert_eq!(header.columns, wanted.columns, "{names}");
            assert_eq!(header.epochs, [3]);
        }
        // A query's name keeps its letter case.
        let several = read("index,Influence[A],influence[a]");
        assert_eq!(several.queries, ["A", "a"]);
        let twice = Header::read(["index", "influence", "Row", "row"], None);
        assert!(twice.unwrap_err().contains("`row` appears twice"));
    }
}
