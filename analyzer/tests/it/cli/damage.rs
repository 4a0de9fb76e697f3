//! Days on which the disk errs: exit code 3, and the place.

use std::fs;

use super::*;

/// Flips one bit at many places of every file of a run, one at a time; `verify` must exit with 3 each time.
#[test]
fn a_flipped_bit_anywhere_makes_verify_exit_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for entry in fs::read_dir(dir.join("run")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let places = 24.min(whole.len());
        for i in 0..places {
            // Both ends, and evenly in between; another bit each time.
            let at = i * (whole.len() - 1) / (places - 1);
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (i % 8);
            fs::write(&path, &damaged).unwrap();
            let output = hindcast(dir, &["verify", "run"]);
            assert_eq!(
                code(&output),
                3,
                "bit {} of byte {at} of {} went unseen:\n{}{}",
                i % 8,
                path.display(),
                stdout(&output),
                stderr(&output)
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    fine(dir, &["verify", "run"]);
}

#[test]
fn a_lost_file_makes_verify_exit_with_3_and_a_stray_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let run = dir.join("run");
    let names: Vec<_> = fs::read_dir(&run)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    for path in names {
        let aside = dir.join("aside");
        fs::rename(&path, &aside).unwrap();
        let output = hindcast(dir, &["verify", "run"]);
        assert_eq!(
            code(&output),
            3,
            "{} gone: {}{}",
            path.display(),
            stdout(&output),
            stderr(&output)
        );
        fs::rename(&aside, &path).unwrap();
    }
    // What does not belong to the run is named, and takes nothing away from it.
    fs::write(run.join("notes.txt"), b"stray").unwrap();
    let said = fine(dir, &["verify", "run"]);
    assert!(said.contains("notes.txt"), "{said}");
}

#[test]
fn another_head_than_the_one_kept_outside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let report: serde_json::Value =
        serde_json::from_str(&fine(dir, &["verify", "run", "--json"])).unwrap();
    let head = report["head_digest"].as_str().unwrap();
    fine(dir, &["verify", "run", "--head", head]);
    let other = "0".repeat(head.len());
    assert_eq!(
        code(&hindcast(dir, &["verify", "run", "--head", &other])),
        3
    );
}
