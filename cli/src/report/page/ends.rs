//! The most harmful and the most helpful examples: grids of pictures, or rows with their values.

use maud::{Markup, html};

use super::super::examples::Example;
use super::content::{Page, Shown};
use super::pieces::{path, percent, place, scrolling, short, shortened, signed, title};
use super::ranked;
use super::sections::{of_view, section};
use crate::marked::Piece;
use crate::row_values::RowValues;
use crate::words::{grouped, minus, plural};
use hindcast_analyzer::scores::Spread;

/// The section of examples.
pub(super) fn examples(page: &Page) -> Markup {
    section(
        "examples",
        html! {
            // The answer says it above the harmful ones.
            @if page.shown.iter().all(|shown| shown.extremes.harmful.is_empty()) {
                (legend(page.shown.iter().flat_map(|shown| &shown.extremes.helpful)))
            }
            @for (k, shown) in page.shown.iter().enumerate() {
                (of_view(k, html! {
                    h3 { (title(page, &shown.view)) }
                    @if let Some((wrong, found)) = shown.extremes.planted {
                        p { (wrong) " labels are known to be wrong. Among the " (wrong) @if shown.view.ranks.is_some() { " examples that are ranked first, " } @else { " most harmful examples, " } (found) " have such a label ("
                            (percent(found as f64 / wrong as f64, 0)) "). Their pictures have a frame." }
                    }
                    (list(page, shown, true))
                    (list(page, shown, false))
                }))
            }
        },
    )
}

/// What the numbers of an example mean.
pub(super) fn legend<'a>(examples: impl Iterator<Item = &'a Example>) -> Markup {
    let examples: Vec<&Example> = examples.collect();
    html! {
        @if !examples.is_empty() { p.quiet {
            @if examples.iter().any(|e| e.picture.is_some()) {
                "Below a picture stand its label, its " b { "influence" } ", "
                @if examples.iter().any(|e| e.share.is_some()) { "its share of the influence of all examples on its side, " }
                "and its place: # is the position among the training examples, from 0."
            } @else { b { "Index" } " is the position among the training examples and " b { "Row" } " the row of the file, both from 0. " b { "Seen" } " is the number of times that a scored step used the example." }
            " The influence of an example is the estimated change of the query's value if the example were left out of training, in the unit of that value: for a loss, that of the loss."
        } }
    }
}

fn list(page: &Page, shown: &Shown, harmful: bool) -> Markup {
    let examples = if harmful {
        &shown.extremes.harmful
    } else {
        &shown.extremes.helpful
    };
    let query = &shown.view.query;
    let (heading, meaning) = match (shown.view.ranks, harmful) {
        (Some(_), first) => {
            let (heading, meaning) = ranked::heading(first);
            (heading, meaning.to_owned())
        }
        (None, true) => ("Most harmful", format!("{query}, which falls without them")),
        (None, false) => ("Most helpful", format!("{query}, which rises without them")),
    };
    html! {
        h4 { span.dot.up[!harmful] aria-hidden="true" {} (heading) span.quiet { " – " (meaning) } }
        (label_issues(examples, harmful))
        @if examples.is_empty() {
            p.quiet { "None." }
        } @else {
            (gallery(examples, &format!("{heading}, {}", title(page, &shown.view))))
        }
    }
}

/// How many of the examples are label issues, and what that means for helpful ones.
fn label_issues(examples: &[Example], harmful: bool) -> Markup {
    let issues = examples.iter().filter(|e| e.suggested.is_some()).count() as u64;
    html! {
        @if issues > 0 { p {
            (grouped(issues)) " of these " (examples.len()) " " (plural(issues, "is a", "are")) " " a href="#issues" { (plural(issues, "label issue", "label issues")) } "."
            @if !harmful { " If the examples of the query come from the same source, with wrong labels as well, a wrong label can look helpful: look at these before they are trusted." }
        } }
    }
}

/// Pictures if there are some, otherwise a table.
pub(super) fn gallery(examples: &[Example], label: &str) -> Markup {
    if examples.iter().any(|e| e.picture.is_some()) {
        html! { ul.grid { @for example in examples { (tile(example)) } } }
    } else {
        rows(examples, label)
    }
}

pub(super) fn tile(example: &Example) -> Markup {
    let wrong = example.really.is_some();
    html! {
        li.wrong[wrong] { figure {
            @if let Some((address, width, height)) = &example.picture {
                img src=(address) width=(width) height=(height) alt=(words(example));
            }
            figcaption {
                b { bdi { (example.label) } }
                @if let Some(really) = &example.really { " " span.mark { "✗ really " bdi { (really) } } }
                @if let Some(suggested) = &example.suggested { br; span.mark { "label issue: " bdi { (short(suggested)) } "?" } }
                br;
                span.score.harm[example.score < 0.0].help[example.score > 0.0] { (signed(example.score)) }
                @if let Some(Spread { sd: Some(sd), .. }) = example.spread { span.quiet { " ± " (format!("{sd:.1e}")) } }
                @if let Some(share) = example.share { br; span.quiet { (percent(share, 1)) } }
                br;
                span.quiet { @match &example.name { Some(name) => bdi { (short(name)) }, None => { "#" (example.index) } } }
                br;
                span.quiet { (place(example.row, &example.file)) }
            }
        } }
    }
}

/// The alternative text of a picture.
fn words(example: &Example) -> String {
    let mut words = format!(
        "Training example {}, label {}",
        example.index, example.label
    );
    if let Some(really) = &example.really {
        words += &format!(" (known to be wrong: really {really})");
    }
    if let Some(suggested) = &example.suggested {
        words += &format!(", label issue (suggested {})", short(suggested));
    }
    if let Some(name) = &example.name {
        words += &format!(", {}", short(name));
    }
    words += &format!(", row {}", example.row);
    if !example.file.is_empty() {
        words += &format!(" of {}", short(&example.file));
    }
    words += &format!(", influence {:+.2e}", example.score);
    if let Some(share) = example.share {
        words += &format!(", {} of its side", percent(share, 1));
    }
    words
}

pub(super) fn rows(examples: &[Example], label: &str) -> Markup {
    let named = examples.iter().any(|e| e.name.is_some());
    let columns = ValueColumns::of(examples.iter().map(|e| &e.values));
    let known = examples.iter().any(|e| e.really.is_some());
    let doubted = examples.iter().any(|e| e.suggested.is_some());
    let from = one_file(examples.iter().map(|e| e.file.as_str()));
    let filed = from.is_none() && examples.iter().any(|e| !e.file.is_empty());
    let spread = examples.iter().any(|e| e.spread.is_some());
    let shared = examples.iter().any(|e| e.share.is_some());
    let texts = examples.iter().any(|e| !e.pieces.is_empty());
    let marked = examples
        .iter()
        .flat_map(|e| &e.pieces)
        .any(|p| p.strength != 0);
    scrolling(
        label,
        html! {
            table.sortable {
                @if marked || from.is_some() { caption {
                    @if let Some(file) = from { (rows_of(file)) }
                    @if marked { "A token is shaded if it weighs at least an eighth as much as the heaviest token of its sequence, bold from a quarter and underlined from half. Tokens that harm have a wavy line, tokens that help a straight one." }
                } }
                thead { tr {
                    th.n scope="col" { "Index" } th.n scope="col" { "Row" }
                    @if filed { th scope="col" { "File" } }
                    th scope="col" { "Label" }
                    @if known { th scope="col" { "Really" } }
                    @if doubted { th scope="col" { "Label issue" } }
                    th.n scope="col" { "Influence" }
                    @if shared { th.n scope="col" { "Share" } }
                    @if spread { th.n scope="col" { "sd" } th.n scope="col" { "t" } }
                    th.n scope="col" { "Seen" }
                    @if named { th scope="col" { "Name" } }
                    (columns.heads())
                    @if texts { th scope="col" { @if marked { "Text, with the influence of its tokens" } @else { "Text" } } }
                } }
                tbody { @for e in examples { tr {
                    th.n scope="row" { (e.index) } td.n { (e.row) }
                    @if filed { td { bdi { (short(&e.file)) } } }
                    td { bdi { (e.label) } }
                    @if known { td.mark { bdi { (e.really.as_deref().unwrap_or_default()) } } }
                    @if doubted { td.mark { @if let Some(suggested) = &e.suggested { bdi { (short(suggested)) } "?" } } }
                    td.n.harm[e.score < 0.0].help[e.score > 0.0] { (signed(e.score)) }
                    @if shared { td.n { (e.share.map(|share| percent(share, 1)).unwrap_or_default()) } }
                    @if let Some(Spread { sd, t }) = e.spread {
                        td.n { (sd.map_or(String::new(), |sd| format!("{sd:.1e}"))) }
                        td.n { (t.map_or(String::new(), |t| minus(&format!("{t:+.1}")))) }
                    }
                    td.n { (e.occurrences) }
                    @if named { td.long { bdi { (e.name.as_deref().map(short).unwrap_or_default()) } } }
                    (columns.cells(&e.values))
                    @if texts { td.tokens { (pieces(&e.pieces)) } }
                } } }
            }
        },
    )
}

/// The file that all examples come from. A column in which all rows say the same would only take the place of the file's cells.
pub(super) fn one_file<'a>(mut files: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = files.next().filter(|file| !file.is_empty())?;
    files.all(|file| file == first).then_some(first)
}

/// A table's caption about the file of its rows.
pub(super) fn rows_of(file: &str) -> Markup {
    html! { "Rows of " (path(file)) ", counted from 0. " }
}

/// The columns of a table for the values of its examples: one per column of the file, named as there, or one for all features
/// of the model's input.
pub(super) struct ValueColumns<'a> {
    first: Option<&'a RowValues>,
    /// The largest number of values that aren't shown.
    more: usize,
}

impl<'a> ValueColumns<'a> {
    pub fn of(all: impl Iterator<Item = &'a RowValues> + Clone) -> Self {
        ValueColumns {
            first: all.clone().find(|values| !values.is_empty()),
            more: all.map(|values| values.more).max().unwrap_or_default(),
        }
    }

    /// The heads of the columns; empty if there are none.
    pub fn heads(&self) -> Markup {
        html! {
            @match self.first {
                Some(values) if values.from_file => {
                    @for (name, _) in &values.named { th.cell scope="col" { bdi { (short(name)) } } }
                    @if self.more > 0 { th scope="col" { "And " (self.more) " more" } }
                }
                Some(values) => th scope="col" { (values.heading()) },
                None => {}
            }
        }
    }

    /// The cells of one example.
    pub fn cells(&self, values: &RowValues) -> Markup {
        html! {
            @match self.first {
                Some(first) if first.from_file => {
                    @for at in 0..first.named.len() { (cell(values, at)) }
                    @if self.more > 0 { td {} }
                }
                Some(_) => td.values { (named_values(values)) },
                None => {}
            }
        }
    }
}

/// What is written for an empty cell of a file.
const GAP: &str = "missing";

/// A cell of the file. A short one isn't broken into lines.
fn cell(values: &RowValues, at: usize) -> Markup {
    const SHORT: usize = 24;
    /// Longest text of a cell, in characters.
    const CELL: usize = 80;
    let text = values.named.get(at).map_or("", |(_, text)| text.as_str());
    let long = text.chars().nth(SHORT).is_some();
    html! {
        @if text.trim().is_empty() { td.cell.whole.quiet { (GAP) } }
        @else { td.cell.whole[!long] { bdi { (shortened(text, CELL)) } } }
    }
}

/// Names with values, separated by commas.
pub(super) fn named_values(values: &RowValues) -> Markup {
    html! {
        @for (i, (name, value)) in values.named.iter().enumerate() {
            @if i > 0 { ", " }
            @let value = if values.from_file { short(value) } else { minus(value) };
            bdi { (short(name)) } " "
            @if value.trim().is_empty() { (GAP) } @else { b { bdi { (value) } } }
        }
        @if values.more > 0 { " … and " (values.more) " more" }
    }
}

/// A sequence's text. The colour of a piece is its sign, and its strength how much it weighs in its sequence. Pointing at it
/// shows its influence.
fn pieces(pieces: &[Piece]) -> Markup {
    html! { bdi {
        @for piece in pieces {
            @match piece.strength {
                0 => (piece.text),
                harm if harm < 0 => { span.harm.{ "w" (-harm) } title=(signed(piece.influence)) { (piece.text) } }
                help => { span.help.{ "w" (help) } title=(signed(piece.influence)) { (piece.text) } }
            }
        }
    } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_all_rows_is_named_with_and_without_marked_tokens() {
        let example = |strength: i8| Example {
            index: 0,
            row: 3,
            file: "data/train.txt".to_owned(),
            name: None,
            label: "a".to_owned(),
            occurrences: 1,
            score: 0.5,
            spread: None,
            picture: None,
            values: RowValues::default(),
            pieces: vec![Piece {
                text: "token".to_owned(),
                influence: 0.5,
                strength,
            }],
            really: None,
            suggested: None,
            share: None,
        };
        for (strength, marked) in [(0, false), (2, true)] {
            let page = rows(&[example(strength)], "rows").into_string();
            assert!(page.contains("train.txt"), "{page}");
            assert_eq!(page.contains("A token is shaded"), marked, "{page}");
            assert!(!page.contains(">File</th>"), "{page}");
        }
    }

    #[test]
    fn a_gap_of_a_file_is_said_and_features_stand_in_one_column() {
        let of = |from_file: bool, text: &str| RowValues {
            from_file,
            named: vec![("fee".to_owned(), text.to_owned())],
            more: 2,
        };
        let all = [of(true, "5"), of(true, "")];
        let columns = ValueColumns::of(all.iter());
        let heads = columns.heads().into_string();
        assert_eq!(heads.matches("<th").count(), 2, "{heads}");
        assert!(columns.cells(&all[1]).into_string().contains(">missing<"));
        assert!(!columns.cells(&all[0]).into_string().contains("missing"));
        assert!(named_values(&all[1]).into_string().contains("missing"));
        let all = [of(false, "5")];
        let columns = ValueColumns::of(all.iter());
        assert_eq!(columns.heads().into_string().matches("<th").count(), 1);
        assert!(ValueColumns::of([].iter()).heads().into_string().is_empty());
    }
}
