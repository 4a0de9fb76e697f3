//! Checks that docs/states.md contains the table verbatim between its marks.

use std::fmt::Write as _;
use std::path::Path;

use super::cell::COMMANDS;
use super::table;

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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/states.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = found
        .split_once(BEGIN)
        .expect("the page has its first mark");
    let (now, tail) = rest.split_once(END).expect("the page has its last mark");
    let should = page();
    if std::env::var_os("HINDCAST_WRITE_STATES").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{should}{END}{tail}")).unwrap();
        return;
    }
    assert!(
        now == should,
        "docs/states.md differs from the table; HINDCAST_WRITE_STATES=1 cargo test -p hindcast the_page_says writes it"
    );
}
