//! `record --encrypt-to`, `keygen --encrypt` and `--identity`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

const RECORD: [&str; 12] = [
    "record",
    "digits",
    "--out",
    "run",
    "--set",
    "data.train=120",
    "--set",
    "data.validation=40",
    "--set",
    "data.test=0",
    "--set",
    "train.epochs=2",
];

/// A folder with the keys of two readers.
fn readers() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["anna.key", "ben.key"] {
        let said = fine(dir.path(), &["keygen", name, "--encrypt"]);
        assert!(said.starts_with("key age1"), "{said}");
    }
    let mode = |name: &str| {
        let about = fs::metadata(dir.path().join(name)).unwrap();
        about.permissions().mode() & 0o777
    };
    assert_eq!(mode("anna.key"), 0o600);
    dir
}

#[test]
fn an_encrypted_run_is_read_by_its_readers_alone() {
    let dir = readers();
    let dir = dir.path();
    let ben = fs::read_to_string(dir.join("ben.key.pub")).unwrap();
    let to = ["--encrypt-to", "anna.key.pub", "--encrypt-to", ben.trim()];
    fine(dir, &[&RECORD[..], &to].concat());
    let run = dir.join("run");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&run), 0o700);
    for entry in fs::read_dir(&run).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let bytes = fs::read(&path).unwrap();
        for word in [
            "digits",
            "cross-entropy",
            "learning_rate",
            "hindcast record",
        ] {
            let there = bytes.windows(word.len()).any(|w| w == word.as_bytes());
            assert!(!there, "{word} in {}", path.display());
        }
    }
    let plain = fine(dir, &["influence", "run", "--identity", "anna.key"]);
    assert!(plain.contains("scores.csv"), "{plain}");
    for reader in ["anna.key", "ben.key"] {
        let json = fine(dir, &["--identity", reader, "info", "run", "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["encrypted"], true);
        let replayed = [
            "verify",
            "run",
            "--replay",
            "--steps",
            "0",
            "--identity",
            reader,
        ];
        assert!(fine(dir, &replayed).contains("bit for bit"));
    }
    // Scores are those of the same run without encryption.
    let mut open = RECORD;
    open[3] = "open";
    fine(dir, &open);
    fine(dir, &["influence", "open", "--out", "open.csv"]);
    let scores = |name: &str| {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        let rows = text.lines().filter(|line| !line.starts_with('#'));
        rows.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(scores("scores.csv"), scores("open.csv"));
    let advice = [
        "the run is encrypted, and no key was given",
        "--identity FILE",
    ];
    says(dir, &["info", "run"], 1, &advice);
    fine(dir, &["keygen", "eve.key", "--encrypt"]);
    says(
        dir,
        &["info", "run", "--identity", "eve.key"],
        1,
        &["the given key doesn't fit", "encrypted for others"],
    );
}

#[test]
fn an_interrupted_run_is_resumed_with_the_key_and_stays_encrypted() {
    let dir = readers();
    let dir = dir.path();
    let full = [&RECORD[..], &["--set", "train.batch=25"]].concat();
    let to = ["--encrypt-to", "anna.key.pub"];
    fine(dir, &[&full[..], &to].concat());
    // Cut back: the last frames and the final state are lost, as after a kill.
    let run = dir.join("run");
    let keys = fs::read_to_string(dir.join("anna.key")).unwrap();
    let keys = std::sync::Arc::new(hindcast_format::Identities::read(&keys).unwrap());
    let storage = std::sync::Arc::new(hindcast_format::Keyed::new(
        std::sync::Arc::new(hindcast_format::FsStorage::new(&run)),
        keys,
    ));
    let (mut writer, _) =
        hindcast_format::RunWriter::resume(storage, 4, hindcast_format::Durability::Os).unwrap();
    writer.open_segment(4).unwrap();
    writer.abandon(Default::default()).unwrap();
    says(
        dir,
        &["record", "--resume", "run"],
        1,
        &["no key was given"],
    );
    fine(
        dir,
        &["record", "--resume", "run", "--identity", "anna.key"],
    );
    let replayed = [
        "verify",
        "run",
        "--replay",
        "--steps",
        "0",
        "--identity",
        "anna.key",
    ];
    assert!(fine(dir, &replayed).contains("bit for bit"));
    says(dir, &["info", "run"], 1, &["the run is encrypted"]);
    let again = [&["record", "--resume", "run"][..], &to].concat();
    says(dir, &again, 2, &["--encrypt-to", "--resume"]);
}

#[test]
fn wrong_keys_are_named_and_never_shown() {
    let dir = readers();
    let dir = dir.path();
    let record = |to: &str, parts: &[&str], exit| {
        says(
            dir,
            &[&RECORD[..], &["--encrypt-to", to]].concat(),
            exit,
            parts,
        );
        assert!(!dir.join("run").exists());
    };
    let secret = fs::read_to_string(dir.join("anna.key")).unwrap();
    let secret = secret.lines().last().unwrap();
    record(
        "age1wrong",
        &["--encrypt-to age1wrong", "a public key of age"],
        2,
    );
    record(
        "nobody.pub",
        &["--encrypt-to: cannot read nobody.pub: No such file"],
        1,
    );
    record(
        "anna.key",
        &["--encrypt-to anna.key", "line 2", "got a secret key"],
        1,
    );
    fs::write(dir.join("empty"), "# nothing\n").unwrap();
    record("empty", &["contains no key"], 1);
    let output = hindcast(dir, &[&RECORD[..], &["--encrypt-to", "anna.key"]].concat());
    assert!(!stderr(&output).contains(secret));
    for (file, parts) in [
        (
            "anna.key.pub",
            &["--identity anna.key.pub", "a secret key of age"][..],
        ),
        ("nobody", &["--identity: cannot read nobody: No such file"]),
        ("empty", &["contains no key"]),
    ] {
        says(dir, &["task", "list", "--identity", file], 1, parts);
    }
    says(
        dir,
        &["keygen", "anna.key", "--encrypt"],
        1,
        &["anna.key exists"],
    );
    says(
        dir,
        &["keygen", "x", "--encrypt", "--no-password"],
        2,
        &["--encrypt", "--no-password"],
    );
}
