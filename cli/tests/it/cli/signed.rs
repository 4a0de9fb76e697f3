//! `sign`, `keygen` and `verify --pubkey`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A run, and a pair of keys.
fn signer() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    small_run(dir.path());
    let said = fine(dir.path(), &["keygen", "own.key", "--no-password"]);
    assert!(said.contains("own.key.pub: the public key"), "{said}");
    let mode = |name: &str| {
        let about = fs::metadata(dir.path().join(name)).unwrap();
        about.permissions().mode() & 0o777
    };
    assert_eq!(mode("own.key"), 0o600);
    dir
}

const SIGN: [&str; 6] = ["sign", "run", "--key", "own.key", "--comment", "as shipped"];
const CHECK: [&str; 4] = ["verify", "run", "--pubkey", "own.key.pub"];

#[test]
fn a_signed_run_says_who_signed_it() {
    let dir = signer();
    let dir = dir.path();
    says(dir, &CHECK, 1, &["run isn't signed", "--signature FILE"]);
    let summary = fine(dir, &[&SIGN[..], &["--json"]].concat());
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["signature"], "run/manifest.json.minisig");
    let key = summary["key"].as_str().unwrap();
    says(
        dir,
        &CHECK,
        0,
        &[
            "ok: ",
            "signed with the key",
            key,
            "the signer's clock: as shipped",
        ],
    );
    let json = fine(dir, &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["signature"]["holds"], true);
    assert_eq!(json["signature"]["comment"], "as shipped");
    assert_eq!(json["findings"].as_array().unwrap().len(), 0, "{json}");
    assert_eq!(json["head_digest"], summary["head_digest"]);
    // The key itself, in place of its file.
    let public = fs::read_to_string(dir.join("own.key.pub")).unwrap();
    let line = public.lines().nth(1).unwrap();
    says(
        dir,
        &["verify", "run", "--pubkey", line],
        0,
        &["signed with"],
    );
    // Without the key, nothing is claimed.
    says(
        dir,
        &["verify", "run"],
        0,
        &["it was not checked", "--pubkey"],
    );
    // Another signer.
    fine(dir, &["keygen", "their.key", "--no-password"]);
    says(
        dir,
        &["verify", "run", "--pubkey", "their.key.pub"],
        3,
        &["NOT SIGNED: signed with the key", "in itself it is whole"],
    );
    let again = ["sign", "run", "--key", "their.key"];
    says(
        dir,
        &again,
        1,
        &["run is signed already, with the key", key],
    );
    let apart = [&again[..], &["--out", "their.minisig"]].concat();
    fine(dir, &apart);
    says(dir, &apart, 1, &["their.minisig exists: --replace"]);
    fine(dir, &[&apart[..], &["--replace"]].concat());
    let both = ["--pubkey", "their.key.pub", "--signature", "their.minisig"];
    says(
        dir,
        &[&["verify", "run"][..], &both].concat(),
        0,
        &["signed with"],
    );
    fine(dir, &[&again[..], &["--replace"]].concat());
    says(dir, &CHECK, 3, &["NOT SIGNED"]);
}

#[test]
fn a_changed_run_or_signature_is_refused() {
    let dir = signer();
    let dir = dir.path();
    fine(dir, &SIGN);
    for entry in fs::read_dir(dir.join("run")).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        // The first line of a signature is a comment that isn't signed.
        let first = if path.extension().is_some_and(|e| e == "minisig") {
            whole.iter().position(|b| *b == b'\n').unwrap() + 1
        } else {
            0
        };
        for i in 0..16 {
            let at = first + i * (whole.len() - 2 - first) / 15;
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (i % 8);
            fs::write(&path, &damaged).unwrap();
            let output = hindcast(dir, &CHECK);
            assert_eq!(code(&output), 3, "byte {at} of {}", path.display());
        }
        fs::write(&path, &whole).unwrap();
    }
    fine(dir, &CHECK);
    // A damaged run isn't signed.
    let segment = dir.join("run/seg-00000000.hcs");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    says(
        dir,
        &[&SIGN[..], &["--replace"]].concat(),
        3,
        &["DAMAGED", "not signed: run is damaged"],
    );
}

/// The auditor of a large run gets one segment, and the signed manifest.
#[test]
fn a_single_segment_is_checked_with_the_signature() {
    let dir = signer();
    let dir = dir.path();
    fine(dir, &SIGN);
    fs::create_dir(dir.join("part")).unwrap();
    for file in ["manifest.json", "manifest.json.minisig", "seg-00000000.hcs"] {
        fs::copy(dir.join("run").join(file), dir.join("part").join(file)).unwrap();
    }
    let check = |only: &'static str| ["verify", "part", "--only", only, "--pubkey", "own.key.pub"];
    says(
        dir,
        &check("0"),
        0,
        &["ok: ", "in 1 segment", "signed with the key", "not read"],
    );
    says(dir, &["verify", "part"], 3, &["DAMAGED"]);
    says(dir, &check("900"), 1, &["step 900 can't be read"]);
    says(dir, &check("x"), 2, &["--only: expected A..B"]);
    let path = dir.join("part/seg-00000000.hcs");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, bytes).unwrap();
    says(dir, &check("0"), 3, &["DAMAGED"]);
}

#[test]
fn keys_and_passwords_that_do_not_fit_are_named() {
    let dir = signer();
    let dir = dir.path();
    says(
        dir,
        &["keygen", "own.key"],
        1,
        &["own.key exists: a key is never overwritten"],
    );
    says(
        dir,
        &["keygen", "new.key"],
        1,
        &["no terminal", "--password-file"],
    );
    says(
        dir,
        &["keygen", "run/k", "--no-password"],
        1,
        &["folder of a recorded run"],
    );
    let with = |key: &'static str| ["sign", "run", "--key", key];
    says(
        dir,
        &with("own.key.pub"),
        1,
        &["--key own.key.pub: expected a secret key"],
    );
    says(dir, &with("nothing"), 1, &["nothing"]);
    says(
        dir,
        &["verify", "run", "--pubkey", "nothing"],
        1,
        &["--pubkey: cannot read nothing: "],
    );
    says(
        dir,
        &["verify", "run", "--pubkey", "own.key"],
        1,
        &["--pubkey own.key: expected a public key"],
    );
    fs::write(dir.join("pass"), "tr0ub4dor\n").unwrap();
    fs::write(dir.join("wrong"), "x\n").unwrap();
    fine(dir, &["keygen", "locked.key", "--password-file", "pass"]);
    says(dir, &with("locked.key"), 1, &["--password-file"]);
    let password =
        |file: &'static str| [&with("locked.key")[..], &["--password-file", file]].concat();
    says(dir, &password("wrong"), 1, &["this is not the password"]);
    says(
        dir,
        &[&password("pass")[..], &["--comment", "a\nb"]].concat(),
        1,
        &["one line"],
    );
    fine(dir, &password("pass"));
    says(
        dir,
        &["verify", "run", "--pubkey", "locked.key.pub"],
        0,
        &["signed with the key"],
    );
    fs::write(dir.join("text"), "hello").unwrap();
    let onto = ["--out", "text", "--replace"];
    says(
        dir,
        &[&with("own.key")[..], &onto].concat(),
        1,
        &["text is a file of another kind"],
    );
}

/// A local time-stamp authority dates the signature. openssl checks the token, where it is installed.
#[test]
fn a_time_stamp_token_lies_beside_the_signature() {
    let dir = signer();
    let dir = dir.path();
    fine(dir, &SIGN);
    let openssl = |line: &str| {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(line.split(' ')).current_dir(dir).output()
    };
    if openssl("version").is_err() {
        println!("skipped: the program openssl is not installed");
        return;
    }
    let config = "[tsa]\ndefault_tsa = t\n[t]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\n\
                  signer_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256\n";
    fs::write(dir.join("tsa.cnf"), config).unwrap();
    fs::write(dir.join("serial"), "01\n").unwrap();
    let usage = "keyUsage=digitalSignature\nextendedKeyUsage=critical,timeStamping\n";
    fs::write(dir.join("usage"), usage).unwrap();
    for line in [
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=CA",
        "req -newkey rsa:2048 -nodes -keyout tsa.key -out tsa.csr -subj /CN=TSA",
        "x509 -req -in tsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile usage -out tsa.pem",
        "ts -query -data run/manifest.json.minisig -sha256 -cert -out request.tsq",
        "ts -reply -config tsa.cnf -queryfile request.tsq -out run/manifest.json.minisig.tsr",
        "ts -verify -data run/manifest.json.minisig -in run/manifest.json.minisig.tsr -CAfile ca.pem",
    ] {
        let output = openssl(line).unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }
    // The command that `verify` prints, with the authority's certificate.
    let text = fine(dir, &CHECK);
    let (_, command) = text.split_once("`openssl ").expect(&text);
    let (command, _) = command.split_once('`').unwrap();
    let command = command.replace("AUTHORITY.pem", "ca.pem");
    let output = openssl(&command).unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    let json = fine(dir, &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["signature"]["timestamp"],
        "run/manifest.json.minisig.tsr"
    );
    assert_eq!(json["findings"].as_array().unwrap().len(), 0, "{json}");
    let again = [&SIGN[..], &["--replace"]].concat();
    says(
        dir,
        &again,
        1,
        &["is the time-stamp token of another signature"],
    );
    // The token says nothing about another signature.
    fs::rename(
        dir.join("run/manifest.json.minisig.tsr"),
        dir.join("old.tsr"),
    )
    .unwrap();
    fine(dir, &["sign", "run", "--key", "own.key", "--replace"]);
    let check = "ts -verify -data run/manifest.json.minisig -in old.tsr -CAfile ca.pem";
    assert!(!openssl(check).unwrap().status.success());
}

#[test]
fn a_full_disk_leaves_no_half_of_a_key_or_signature() {
    let dir = signer();
    let dir = dir.path();
    // A limit of 0 bytes for files stands for a full disk.
    let limited = |words: &str| {
        let line = format!(
            "ulimit -f 0; exec {} {words}",
            env!("CARGO_BIN_EXE_hindcast")
        );
        let output = Command::new("sh")
            .arg("-c")
            .arg(line)
            .current_dir(dir)
            .output()
            .unwrap();
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{said}");
        said
    };
    let said = limited("keygen new.key --no-password");
    assert!(said.contains("cannot write new.key"), "{said}");
    limited("sign run --key own.key --out run.sig");
    let left = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
    let mut left: Vec<String> = left.map(|name| name.into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["own.key", "own.key.pub", "run"]);
    fine(dir, &["keygen", "new.key", "--no-password"]);
}

/// The auditor has nothing but the program, the public key and the run, and is another user.
#[test]
fn an_auditor_who_is_another_user_checks_a_pruned_copy_and_catches_a_forgery() {
    let dir = signer();
    let dir = dir.path();
    let prune = ["prune", "run", "--keep", "last-epoch", "--out", "end"];
    fine(dir, &prune);
    fine(dir, &["sign", "end", "--key", "own.key"]);
    let audit = tempfile::tempdir().unwrap();
    let at = audit.path();
    fs::copy(env!("CARGO_BIN_EXE_hindcast"), at.join("hindcast")).unwrap();
    fs::copy(dir.join("own.key.pub"), at.join("own.key.pub")).unwrap();
    for name in ["end", "forged"] {
        fs::create_dir(at.join(name)).unwrap();
        for entry in fs::read_dir(dir.join("end")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), at.join(name).join(entry.file_name())).unwrap();
        }
    }
    // Forged by hand: another time of creation, with a new seal.
    let path = at.join("forged/manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen("\"created\": \"2", "\"created\": \"3", 1);
    let (body, _) = text.rsplit_once(",\n  \"seal\"").unwrap();
    let seal = blake3::hash(body.as_bytes()).to_hex();
    fs::write(&path, format!("{body},\n  \"seal\": \"{seal}\"\n}}\n")).unwrap();
    let readable = fs::Permissions::from_mode(0o755);
    for path in ["", "hindcast", "end", "forged"] {
        fs::set_permissions(at.join(path), readable.clone()).unwrap();
    }
    let nobody = |words: &[&str]| {
        let mut other = std::process::Command::new("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        other.arg(at.join("hindcast")).args(words).current_dir(at);
        other.output()
    };
    match nobody(&["--version"]) {
        Ok(output) if output.status.success() => {}
        _ => {
            println!("skipped: this user can't become another one with the program setpriv");
            return;
        }
    }
    let check = |run: &str| {
        let words = [
            "verify",
            run,
            "--pubkey",
            "own.key.pub",
            "--replay",
            "--steps",
            "0",
        ];
        let output = nobody(&words).unwrap();
        (code(&output), stdout(&output) + &stderr(&output))
    };
    let (exit, text) = check("end");
    assert_eq!(exit, 0, "{text}");
    assert!(
        text.contains("signed with the key") && text.contains("bit for bit"),
        "{text}"
    );
    let (exit, text) = check("forged");
    assert_eq!(exit, 3, "{text}");
    assert!(text.contains("NOT SIGNED"), "{text}");
}
