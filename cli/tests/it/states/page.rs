//! Checks that docs/states.md contains the table verbatim between its marks.

use std::fmt::Write as _;

use super::cell::COMMANDS;
use super::table;
use crate::generated::is_up_to_date;

const BEGIN: &str = "<!-- from cli/tests/it/states: begin -->\n";
const END: &str = "<!-- from cli/tests/it/states: end -->\n";

fn page() -> String {
    let mut text = String::from("| state |");
    for (command, _) in COMMANDS {
        let _ = write!(text, " {command} |");
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(COMMANDS.len()));
    text.push('\n');
    let states = table::states();
    for state in &states {
        let anchor: String = state
            .name
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' => Some(c),
                _ => None,
            })
            .collect();
        let _ = write!(text, "| [{}](#{anchor}) |", state.name);
        for cell in &state.cells {
            let _ = write!(text, " {} |", cell.0);
        }
        text.push('\n');
    }
    for state in &states {
        let _ = write!(text, "\n### {}\n\n{}\n\n", state.name, state.meaning);
        text.push_str("| command | exit | says |\n|---|---|---|\n");
        for ((command, _), cell) in COMMANDS.iter().zip(&state.cells) {
            let says: Vec<String> = cell.1.iter().map(|words| quoted(words.trim())).collect();
            let _ = writeln!(text, "| {command} | {} | {} |", cell.0, says.join(" … "));
        }
    }
    text
}

/// Formats words as code. Words that contain backquotes need the longer marks.
fn quoted(words: &str) -> String {
    let words = words.replace('|', "\\|");
    if words.contains('`') {
        format!("`` {words} ``")
    } else {
        format!("`{words}`")
    }
}

#[test]
fn the_page_says_what_the_table_says() {
    is_up_to_date(
        "states.md",
        [BEGIN, END],
        &page(),
        "the table",
        "HINDCAST_WRITE_STATES",
        "the_page_says",
    );
}
