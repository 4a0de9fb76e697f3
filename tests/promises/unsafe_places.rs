//! The security policy lists every file with `unsafe` code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The crates whose sources are part of the program or of a library.
const CRATES: [&str; 6] = ["format", "model", "recorder", "analyzer", "lab", "cli"];

#[test]
fn the_security_policy_names_every_file_with_unsafe_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for name in CRATES {
        collect(&root, &format!("{name}/src"), &mut found);
    }
    let policy = fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let line = policy.lines().find(|line| line.contains("`unsafe` code"));
    let named = line
        .unwrap()
        .split('`')
        .filter(|text| text.ends_with(".rs"));
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    assert!(found.len() > 3, "the search finds nothing: {found:?}");
    assert_eq!(named, found);
}

/// Adds the files below `folder` that have the keyword in their code.
fn collect(root: &Path, folder: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(root, &name, found);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).unwrap();
            if text.lines().any(has_unsafe) {
                found.insert(name);
            }
        }
    }
}

/// Whether a line has the keyword before a block, a function, an implementation or a trait.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let starts = |rest: &str| {
        ["{", "fn ", "impl ", "impl<", "trait ", "extern "]
            .iter()
            .any(|form| rest.trim_start().starts_with(form))
    };
    code.match_indices("unsafe")
        .any(|(at, word)| starts(&code[at + word.len()..]))
}

#[test]
fn the_keyword_is_told_from_the_word() {
    for code in [
        "    unsafe { f() }",
        "let x = unsafe {",
        "unsafe impl<T> A for B {}",
        "pub unsafe fn f()",
    ] {
        assert!(has_unsafe(code), "{code}");
    }
    for other in [
        "// unsafe { }",
        "//! the only unsafe code",
        "if is_unsafe(c) {",
        "'unsafe-inline'",
        "#![forbid(unsafe_code)]",
    ] {
        assert!(!has_unsafe(other), "{other}");
    }
}
