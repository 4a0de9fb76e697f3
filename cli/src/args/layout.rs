//! Lays out the texts below the options of `--help`: lines as wide as the terminal, in which a list's entries keep their indentation.

use clap::Command;

/// Largest width, as for the options.
const WIDEST: usize = 100;

/// Width if the terminal's isn't known, for example in a pipe.
const USUAL: usize = 100;

/// The command with texts that fit the terminal. Without this, clap breaks long lines, and what follows begins at the left edge.
pub(crate) fn laid_out(command: Command) -> Command {
    let width = width();
    of(command, width).term_width(width)
}

/// A text of the program's output, with lines that fit the terminal.
pub(crate) fn fitted(text: &str) -> String {
    hanging(text, width())
}

fn of(mut command: Command, width: usize) -> Command {
    if let Some(text) = command.get_after_long_help().map(ToString::to_string) {
        command = command.after_long_help(hanging(&text, width));
    }
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(hanging(&text, width));
    }
    let names: Vec<String> = command
        .get_subcommands()
        .map(|sub| sub.get_name().to_owned())
        .collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| of(sub, width));
    }
    command
}

fn width() -> usize {
    let columns = terminal().or_else(|| std::env::var("COLUMNS").ok()?.parse().ok());
    columns.filter(|&n| n >= 20).unwrap_or(USUAL).min(WIDEST)
}

#[cfg(unix)]
fn terminal() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|&n| n > 0)
}

#[cfg(not(unix))]
fn terminal() -> Option<usize> {
    None
}

/// Breaks lines at spaces. A list's entry begins with two spaces; after its name and at least two more spaces comes what it is, and
/// further lines of that begin in the same column. Lines that begin with many spaces continue the entry before them.
fn hanging(text: &str, width: usize) -> String {
    const CONTINUED: &str = "                ";
    let mut joined: Vec<String> = Vec::new();
    for line in text.lines() {
        match joined.last_mut() {
            Some(last) if line.starts_with(CONTINUED) => {
                last.push(' ');
                last.push_str(line.trim_start());
            }
            _ => joined.push(line.to_owned()),
        }
    }
    let lines: Vec<String> = joined.iter().map(|line| broken(line, width)).collect();
    lines.join("\n")
}

/// The column in which an entry's further lines begin, in characters.
fn indentation(line: &str, width: usize) -> usize {
    if !line.starts_with("  ") {
        return 0;
    }
    let name = line.trim_start();
    let start = line.chars().count() - name.chars().count();
    let described = name.split_once("  ").map(|(name, rest)| {
        let gap = 2 + rest.chars().take_while(|c| *c == ' ').count();
        start + name.chars().count() + gap
    });
    described
        .filter(|&column| column <= width / 2)
        .unwrap_or(start + 2)
}

fn broken(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let indent = indentation(line, width);
    let mut out = String::new();
    let mut column = 0;
    // The spaces between a name and its description are kept, so words are found with the spaces before them.
    let mut rest = line;
    while !rest.is_empty() {
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        let word_end = rest[spaces..]
            .find(' ')
            .map_or(rest.len(), |at| spaces + at);
        let word = &rest[spaces..word_end];
        let wide = word.chars().count();
        if column > indent && column + spaces + wide > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent + wide;
        } else {
            out.push_str(&" ".repeat(spaces));
            column += spaces + wide;
        }
        out.push_str(word);
        rest = &rest[word_end..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_column_and_no_line_is_too_wide() {
        let text = "\
A sentence that is longer than the forty columns of this test.
  short    one
  name     what the name means, in more words than fit
                    and in a continued line
  very_long_name_of_a_field, another   its text";
        let lines: Vec<String> = hanging(text, 40).lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "A sentence that is longer than the forty",
                "columns of this test.",
                "  short    one",
                "  name     what the name means, in more",
                "           words than fit and in a",
                "           continued line",
                "  very_long_name_of_a_field, another",
                "    its text",
            ]
        );
    }

    #[test]
    fn every_help_text_fits() {
        fn check(command: &Command, width: usize) {
            for text in [command.get_after_long_help(), command.get_after_help()] {
                let text = text.map(ToString::to_string).unwrap_or_default();
                for line in text.lines() {
                    assert!(
                        line.chars().count() <= width,
                        "{}: {line}",
                        command.get_name()
                    );
                }
            }
            command.get_subcommands().for_each(|sub| check(sub, width));
        }
        let command = <crate::args::Cli as clap::CommandFactory>::command();
        for width in [60, 80, 100] {
            check(&of(command.clone(), width), width);
        }
    }
}
