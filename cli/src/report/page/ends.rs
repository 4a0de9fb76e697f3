//! The most harmful and the most helpful examples: grids of pictures, or rows with their values.

use maud::{Markup, html};

use super::super::examples::Example;
use super::content::{Page, Shown};
use super::pieces::{scrolling, signed, title};
use super::sections::{of_view, section};
use crate::marked::Piece;
use crate::row_values::RowValues;
use crate::words::minus;
use hindcast_analyzer::scores::Spread;

/// The section of examples.
pub(super) fn examples(page: &Page) -> Markup {
    section(
        "examples",
        html! {
            @for (k, shown) in page.shown.iter().enumerate() {
                (of_view(k, html! {
                    h3 { (title(page, &shown.view)) }
                    @if let Some((wrong, found)) = shown.extremes.planted {
                        p { (wrong) " labels are known to be wrong. Among the " (wrong) " most harmful examples, " (found) " have such a label ("
                            (format!("{:.0} %", 100.0 * found as f64 / wrong as f64)) "). Their pictures have a frame." }
                    }
                    (list(page, shown, true))
                    (list(page, shown, false))
                }))
            }
        },
    )
}

fn list(page: &Page, shown: &Shown, harmful: bool) -> Markup {
    let (examples, heading, meaning) = if harmful {
        (
            &shown.extremes.harmful,
            "Most harmful",
            "which falls without them",
        )
    } else {
        (
            &shown.extremes.helpful,
            "Most helpful",
            "which rises without them",
        )
    };
    html! {
        h4 { span.dot.up[!harmful] aria-hidden="true" {} (heading) span.quiet { " – " (shown.view.query) ", " (meaning) } }
        @if examples.is_empty() {
            p.quiet { "None." }
        } @else {
            (gallery(examples, &format!("{heading}, {}", title(page, &shown.view))))
        }
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
                br;
                span.score.harm[example.score < 0.0].help[example.score > 0.0] { (signed(example.score)) }
                @if let Some(Spread { sd: Some(sd), .. }) = example.spread { span.quiet { " ± " (format!("{sd:.1e}")) } }
                @if let Some(share) = example.share { br; span.quiet { (percent(share)) } }
                br;
                span.quiet { @match &example.name { Some(name) => bdi { (short(name)) }, None => { "#" (example.index) } } }
                br;
                span.quiet { (place(example)) }
            }
        } }
    }
}

/// A share in words.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// The row of an example in the original data.
fn place(example: &Example) -> Markup {
    html! {
        "row " (example.row)
        @if !example.file.is_empty() { " of " (path(&example.file)) }
    }
}

/// A path, which may break after its separators.
pub(super) fn path(path: &str) -> Markup {
    html! { bdi {
        @for (at, part) in short(path).split('/').enumerate() {
            @if at > 0 { "/" wbr; }
            (part)
        }
    } }
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
    if let Some(name) = &example.name {
        words += &format!(", {}", short(name));
    }
    words += &format!(", row {}", example.row);
    if !example.file.is_empty() {
        words += &format!(" of {}", short(&example.file));
    }
    words += &format!(", influence {:+.2e}", example.score);
    if let Some(share) = example.share {
        words += &format!(", {} of its side", percent(share));
    }
    words
}

pub(super) fn rows(examples: &[Example], label: &str) -> Markup {
    let named = examples.iter().any(|e| e.name.is_some());
    let valued = examples.iter().map(|e| &e.values);
    let first = valued.clone().find(|values| !values.is_empty());
    // Cells of a file get a column each, named as in the file.
    let columns = first.filter(|values| values.from_file);
    let heading = first.filter(|values| !values.from_file);
    let more = valued.map(|values| values.more).max().unwrap_or_default();
    let known = examples.iter().any(|e| e.really.is_some());
    // A column in which all rows say the same would only take the place of the file's cells.
    let first_file = examples.first().map(|e| &e.file);
    let one_file = examples.iter().all(|e| Some(&e.file) == first_file);
    let filed = examples.iter().any(|e| !e.file.is_empty());
    let from = if one_file && filed {
        examples.first()
    } else {
        None
    };
    let filed = filed && !one_file;
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
                    @if let Some(one) = from { "Rows of " (path(&one.file)) ", counted from 0. " }
                    @if marked { "A token is shaded if it weighs at least an eighth as much as the heaviest token of its sequence, bold from a quarter and underlined from half. Tokens that harm have a wavy line, tokens that help a straight one." }
                } }
                thead { tr {
                    th.n scope="col" { "Index" } th.n scope="col" { "Row" }
                    @if filed { th scope="col" { "File" } }
                    th scope="col" { "Label" }
                    @if known { th scope="col" { "Really" } }
                    th.n scope="col" { "Influence" }
                    @if shared { th.n scope="col" { "Share" } }
                    @if spread { th.n scope="col" { "sd" } th.n scope="col" { "t" } }
                    th.n scope="col" { "Seen" }
                    @if named { th scope="col" { "Name" } }
                    @if let Some(values) = heading { th scope="col" { (values.heading()) } }
                    @for (name, _) in columns.iter().flat_map(|values| &values.named) { th.cell scope="col" { bdi { (short(name)) } } }
                    @if columns.is_some() && more > 0 { th scope="col" { "And " (more) " more" } }
                    @if texts { th scope="col" { @if marked { "Text, with the influence of its tokens" } @else { "Text" } } }
                } }
                tbody { @for e in examples { tr {
                    th.n scope="row" { (e.index) } td.n { (e.row) }
                    @if filed { td { bdi { (short(&e.file)) } } }
                    td { bdi { (e.label) } }
                    @if known { td.mark { bdi { (e.really.as_deref().unwrap_or_default()) } } }
                    td.n.harm[e.score < 0.0].help[e.score > 0.0] { (signed(e.score)) }
                    @if shared { td.n { (e.share.map(percent).unwrap_or_default()) } }
                    @if let Some(Spread { sd, t }) = e.spread {
                        td.n { (sd.map_or(String::new(), |sd| format!("{sd:.1e}"))) }
                        td.n { (t.map_or(String::new(), |t| minus(&format!("{t:+.1}")))) }
                    }
                    td.n { (e.occurrences) }
                    @if named { td.long { bdi { (e.name.as_deref().map(short).unwrap_or_default()) } } }
                    @if heading.is_some() { td.values { (named_values(&e.values)) } }
                    @if let Some(columns) = columns {
                        @for at in 0..columns.named.len() { (cell(&e.values, at)) }
                        @if more > 0 { td {} }
                    }
                    @if texts { td.tokens { (pieces(&e.pieces)) } }
                } } }
            }
        },
    )
}

/// A cell of the file. A short one isn't broken into lines.
fn cell(values: &RowValues, at: usize) -> Markup {
    const SHORT: usize = 24;
    /// Longest text of a cell, in characters.
    const CELL: usize = 80;
    let text = values.named.get(at).map_or("", |(_, text)| text.as_str());
    let long = text.chars().nth(SHORT).is_some();
    html! { td.cell.whole[!long] { bdi { (shortened(text, CELL)) } } }
}

/// Names with values, separated by commas.
pub(super) fn named_values(values: &RowValues) -> Markup {
    html! {
        @for (i, (name, value)) in values.named.iter().enumerate() {
            @if i > 0 { ", " }
            @let value = if values.from_file { short(value) } else { minus(value) };
            bdi { (short(name)) } " " b { bdi { (value) } }
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

/// Shortens a name, which may be a long text.
pub(super) fn short(name: &str) -> String {
    const LONGEST: usize = 160;
    shortened(name, LONGEST)
}

fn shortened(text: &str, longest: usize) -> String {
    let mut out: String = text.chars().take(longest).collect();
    if text.chars().nth(longest).is_some() {
        out.push('…');
    }
    out
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
            share: None,
        };
        for (strength, marked) in [(0, false), (2, true)] {
            let page = rows(&[example(strength)], "rows").into_string();
            assert!(page.contains("train.txt"), "{page}");
            assert_eq!(page.contains("A token is shaded"), marked, "{page}");
            assert!(!page.contains(">File</th>"), "{page}");
        }
    }
}
