//! Runs every `sh` block of `docs/guide`, each chapter in its own folder, and compares the output with the one shown.
//!
//! A line is run by `sh` and must exit with 0, or with the code in a comment at its end: `# exits with 3`, `# exits with 137 or 0`.
//! A `text` block shows a part of the output of the `sh` block before it. Numbers and rows of tables are not compared, because they
//! differ between machines, and `…` stands for omitted text. A whole task in a `toml` block is saved as `NAME.toml`. `rust` blocks are compiled as doctests (in `lib.rs`).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hindcast_model::data::DataSpec;
use hindcast_model::task::{ModelSpec, Task};

use crate::own_process;

/// Programs that a line may run. Any other is probably a mistake.
const PROGRAMS: [&str; 12] = [
    "awk",
    "hindcast",
    "own_model",
    "timeout",
    "cp",
    "mkdir",
    "chmod",
    "rm",
    "printf",
    "seq",
    "cut",
    "cat",
];

fn guide() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide")
}

fn chapters() -> BTreeSet<String> {
    fs::read_dir(guide())
        .expect("docs/guide is there")
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[derive(Debug)]
struct Block<'a> {
    language: &'a str,
    /// Its first line, counted from 1.
    line: usize,
    lines: Vec<&'a str>,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                inside = true;
                blocks.push(Block {
                    language,
                    line: i + 1,
                    lines: Vec::new(),
                });
            }
            None if inside => blocks.last_mut().unwrap().lines.push(line),
            None => assert!(
                !line.trim_start().starts_with("```"),
                "line {}: an indented block would not be found: {line}",
                i + 1
            ),
        }
    }
    assert!(!inside, "a block is not closed");
    blocks
}

/// The command without its comment, and the exit codes that are accepted.
fn expected(line: &str) -> (&str, Vec<i32>) {
    match line.split_once("# exits with ") {
        None => (line, vec![0]),
        Some((command, codes)) => {
            let codes = codes.split(" or ").map(|code| {
                code.trim()
                    .parse()
                    .unwrap_or_else(|_| panic!("not an exit code: {line}"))
            });
            (command.trim_end(), codes.collect())
        }
    }
}

/// Makes a folder for `PATH` that contains the programs `hindcast` and `own_model`.
fn programs(bin: &Path) {
    fs::create_dir(bin).unwrap();
    symlink(env!("CARGO_BIN_EXE_hindcast"), bin.join("hindcast")).unwrap();
    let shim = bin.join("own_model");
    fs::write(&shim, own_process::script("own_loop")).unwrap();
    fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The words of a line, with a placeholder for words with digits and for units, which depend on the numbers.
fn masked(line: &str) -> Vec<String> {
    let unit = |word: &str| ["B", "kB", "MB", "GB"].contains(&word);
    line.split_whitespace()
        // Punctuation that remains after an omission.
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| {
            let bare = word.trim_matches(|c: char| c.is_ascii_punctuation());
            if word.chars().any(|c| c.is_ascii_digit()) || unit(bare) {
                "#".to_owned()
            } else {
                word.to_owned()
            }
        })
        .collect()
}

/// Whether a line of the page matches a printed line.
fn shows(shown: &str, printed: &str) -> bool {
    let printed = masked(printed);
    match shown.split_once('…') {
        None => masked(shown) == printed,
        Some((start, end)) => {
            let (start, end) = (masked(start), masked(end));
            printed.len() >= start.len() + end.len()
                && printed.starts_with(&start)
                && printed.ends_with(&end)
        }
    }
}

/// Whether a line is a row of a table or begins with `…`, and so needn't be printed on every machine.
fn not_compared(shown: &str) -> bool {
    let first = shown.split_whitespace().next().unwrap_or("…");
    first == "…" || first.chars().all(|c| c.is_ascii_digit())
}

/// The tables of a task on a page must be valid, and a whole task must be one.
fn task(page: &str) {
    let text = page;
    let page: toml::Table = text.parse().unwrap();
    if page.contains_key("train") {
        Task::from_toml(text).unwrap();
    }
    let data: DataSpec = page["data"].clone().try_into().unwrap();
    data.validate().unwrap();
    let model: ModelSpec = page["model"].clone().try_into().unwrap();
    assert!(!model.layers.is_empty());
}

/// Entries of `Cargo.toml` on a page must have this workspace's versions and name existing crates.
fn dependencies(page: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |text: &str| -> toml::Table { text.parse().unwrap() };
    let workspace = read(&fs::read_to_string(root.join("Cargo.toml")).unwrap());
    let ours = &workspace["workspace"]["dependencies"];
    let page = read(page);
    let said = page["dependencies"].as_table().unwrap();
    assert!(!said.is_empty());
    for (name, dependency) in said {
        if let Some(path) = dependency.get("path").and_then(|path| path.as_str()) {
            let folder = path.strip_prefix("../hindcast/").unwrap();
            let package = read(&fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap());
            assert_eq!(package["package"]["name"].as_str(), Some(name.as_str()));
            continue;
        }
        let version = |d: &toml::Value| {
            let of_table = d.get("version").and_then(|v| v.as_str());
            d.as_str().or(of_table).unwrap_or_default().to_owned()
        };
        let (ours, said) = (version(&ours[name]), version(dependency));
        assert!(
            !said.is_empty() && ours.starts_with(&said),
            "{name}: the page says {said:?}, the workspace {ours:?}"
        );
    }
}

/// Saves a whole task that a page shows, under its name.
fn save_task(text: &str, work: &Path) {
    let page: toml::Table = text.parse().unwrap();
    if let (true, Some(name)) = (page.contains_key("train"), page.get("name")) {
        let name = name.as_str().expect("a task's name is a text");
        fs::write(work.join(format!("{name}.toml")), text).unwrap();
    }
}

/// Runs a chapter's blocks in order in a new folder.
fn run_chapter(name: &str) {
    let text = fs::read_to_string(guide().join(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (bin, work) = (folder.path().join("bin"), folder.path().join("work"));
    programs(&bin);
    fs::create_dir(&work).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut printed = String::new();
    for block in blocks(&text) {
        match block.language {
            "sh" => printed.clear(),
            "text" => {
                for shown in block.lines.iter().filter(|line| !not_compared(line)) {
                    assert!(
                        printed.lines().any(|line| shows(shown, line)),
                        "{name}: the block at line {} shows what isn't printed:\n{shown}\nprinted is:\n{printed}",
                        block.line
                    );
                }
                continue;
            }
            "rust,no_run" => continue, // a doctest
            "toml" => {
                let text = block.lines.join("\n");
                if text.contains("[dependencies]") {
                    dependencies(&text);
                } else {
                    task(&text);
                    save_task(&text, &work);
                }
                continue;
            }
            other => panic!(
                "{name}: line {}: a block of {other:?} can't be tested",
                block.line
            ),
        }
        for (i, line) in block.lines.iter().enumerate() {
            let at = format!("{name}: line {}: {line}", block.line + 1 + i);
            let (command, codes) = expected(line);
            let program = command.split_whitespace().next().unwrap_or_default();
            assert!(
                PROGRAMS.contains(&program),
                "{at}: {program:?} is not in PROGRAMS"
            );
            let output = Command::new("sh")
                .args(["-c", &format!("{command} 2>&1")])
                .current_dir(&work)
                .env("PATH", &path)
                .env("XDG_CACHE_HOME", work.join(".cache"))
                .output()
                .expect("sh starts");
            let said = String::from_utf8_lossy(&output.stdout);
            let code = output.status.code();
            assert!(
                code.is_some_and(|code| codes.contains(&code)),
                "{at}: exits with {code:?}\n{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            printed += &said;
        }
    }
}

macro_rules! chapters {
    ($($test:ident $file:literal,)*) => {
        /// The pages of the guide, each with its own test.
        const TESTED: &[&str] = &[$($file),*];
        $(#[test] fn $test() { run_chapter($file); })*
    };
}

chapters! {
    first_ten_minutes "first-ten-minutes.md",
    own_data "own-data.md",
    record "record.md",
    your_program "your-program.md",
    keep "keep.md",
    move_the_trace "move.md",
    curves "curves.md",
    ask "ask.md",
    one_prediction "one-prediction.md",
    check "check.md",
    clean "clean.md",
    many_machines "many-machines.md",
    audit "audit.md",
    own_model "own-model.md",
    candle_operations "candle-operations.md",
    contents "README.md",
}

#[test]
fn every_chapter_is_tested_compiled_and_in_the_contents() {
    let contents = fs::read_to_string(guide().join("README.md")).unwrap();
    let tested: BTreeSet<String> = TESTED.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(chapters(), tested);
    let library = include_str!("../../src/lib.rs");
    for name in &tested {
        let text = fs::read_to_string(guide().join(name)).unwrap();
        if blocks(&text).iter().any(|b| b.language.starts_with("rust")) {
            let doctest = format!("docs/guide/{name}\")");
            assert!(
                library.contains(&doctest),
                "lib.rs has no doctests of {name}"
            );
        }
        assert!(
            name == "README.md" || contents.contains(&format!("]({name})")),
            "{name} is not in the contents"
        );
    }
}

#[test]
fn shown_lines_are_compared_with_printed_ones() {
    assert!(shows(
        "size  582.91 kB in 2 segments",
        "  size 1.2 MB in 3 segments"
    ));
    assert!(shows("head 12ab…", "head 77ff"));
    assert!(!shows("nothing was lost", "something was lost"));
    assert!(shows("LOST: … step 3", "LOST: the tensors of step 9"));
    assert!(not_compared("   435      435 2") && not_compared("…") && !not_compared("ok: 3 steps"));
    assert_eq!(expected("a b   # exits with 3 or 0"), ("a b", vec![3, 0]));
}
