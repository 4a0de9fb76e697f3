//! Signatures of runs. Their files are also checked by the program minisign, where it is installed.

use std::process::Command;
use std::sync::Arc;

use hindcast_format::*;

use crate::common::{Plan, recorded};

fn signed() -> (Arc<MemStorage>, KeyPair, Signature) {
    let storage = Arc::new(recorded(&Plan::new(30)).0);
    let keys = KeyPair::new(None).unwrap();
    let key = SigningKey::read(&keys.secret, None).unwrap();
    let signature = sign(storage.as_ref(), &key, Some("for the audit of May")).unwrap();
    store_signature(storage.as_ref(), &signature).unwrap();
    (storage, keys, signature)
}

#[test]
fn a_signature_covers_the_manifest_and_its_comment() {
    let (storage, keys, signature) = signed();
    let stored = stored_signature(storage.as_ref()).unwrap().unwrap();
    assert_eq!(stored, signature);
    assert!(stored.comment.ends_with("\tcomment:for the audit of May"));
    assert_eq!(stored.remark(), "for the audit of May");
    assert!(
        stored
            .time()
            .is_some_and(|time| time.as_str() > "2026-01-01T00:00:00Z")
    );
    let key = VerifyingKey::read(&keys.public).unwrap();
    check_signature(storage.as_ref(), &stored, &key).unwrap();
    // The key alone, without its comment line.
    let alone = keys.public.lines().nth(1).unwrap();
    let alone = VerifyingKey::read(alone).unwrap();
    check_signature(storage.as_ref(), &stored, &alone).unwrap();
    assert_eq!(alone.id(), stored.key);
    let other = VerifyingKey::read(&KeyPair::new(None).unwrap().public).unwrap();
    let error = check_signature(storage.as_ref(), &stored, &other).unwrap_err();
    assert!(matches!(error, SignatureError::OtherKey { .. }), "{error}");
    let storage: Arc<dyn Storage> = storage;
    assert!(verify_storage(&storage).unwrap().findings.is_empty());
}

#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let (storage, keys, signature) = signed();
    let key = VerifyingKey::read(&keys.public).unwrap();
    let manifest = storage.map(MANIFEST).unwrap().to_vec();
    for at in 0..manifest.len() {
        let mut bytes = manifest.clone();
        bytes[at] ^= 1 << (at % 8);
        storage.replace(MANIFEST, &bytes).unwrap();
        check_signature(storage.as_ref(), &signature, &key).unwrap_err();
    }
    storage.replace(MANIFEST, &manifest).unwrap();
    // The first line is the comment that isn't signed.
    let first = signature.text.find('\n').unwrap() + 1;
    for at in first..signature.text.len() - 1 {
        for bit in 0..8 {
            let mut bytes = signature.text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            storage.replace(SIGNATURE, &bytes).unwrap();
            let read = stored_signature(storage.as_ref());
            let passes = read
                .is_ok_and(|read| check_signature(storage.as_ref(), &read.unwrap(), &key).is_ok());
            assert!(!passes, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn keys_with_a_password_need_it() {
    let keys = KeyPair::new(Some("correct horse")).unwrap();
    let error = SigningKey::read(&keys.secret, None).unwrap_err();
    assert!(matches!(error, SignatureError::Locked), "{error}");
    let error = SigningKey::read(&keys.secret, Some("wrong")).unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
    let key = SigningKey::read(&keys.secret, Some("correct horse")).unwrap();
    assert_eq!(key.id(), VerifyingKey::read(&keys.public).unwrap().id());
    // A public key is no secret key, and the other way round.
    SigningKey::read(&keys.public, None).unwrap_err();
    VerifyingKey::read(&keys.secret).unwrap_err();
    for text in ["", "\n", "untrusted comment: x\n", "x\ny\nz"] {
        SigningKey::read(text, None).unwrap_err();
        VerifyingKey::read(text).unwrap_err();
        Signature::read(text).unwrap_err();
    }
    // A damaged key.
    let keys = KeyPair::new(None).unwrap();
    let at = keys.secret.find('\n').unwrap() + 100;
    let other = if &keys.secret[at..=at] == "A" {
        "B"
    } else {
        "A"
    };
    let mut damaged = keys.secret.clone();
    damaged.replace_range(at..=at, other);
    SigningKey::read(&damaged, None).unwrap_err();
}

#[test]
fn a_signed_run_is_not_resumed_and_an_open_one_not_signed() {
    let (storage, _, _) = signed();
    let error = RunWriter::resume(storage.clone(), 20, Durability::Seals).unwrap_err();
    assert!(matches!(error, FormatError::Signed { .. }), "{error}");
    storage.remove(SIGNATURE).unwrap();
    let (mut writer, _) = RunWriter::resume(storage.clone(), 20, Durability::Seals).unwrap();
    writer.open_segment(20).unwrap();
    let keys = KeyPair::new(None).unwrap();
    let key = SigningKey::read(&keys.secret, None).unwrap();
    let error = sign(storage.as_ref(), &key, None).unwrap_err();
    assert!(matches!(error, SignatureError::Open { .. }), "{error}");
}

#[test]
fn a_comment_is_one_line() {
    let (storage, keys, _) = signed();
    let key = SigningKey::read(&keys.secret, None).unwrap();
    let error = sign(storage.as_ref(), &key, Some("two\nlines")).unwrap_err();
    assert!(matches!(error, SignatureError::Comment), "{error}");
    let none = sign(storage.as_ref(), &key, Some("  ")).unwrap();
    assert!(none.comment.ends_with("\thashed"));
}

/// Runs minisign in a folder. `None` if it isn't installed.
fn minisign(folder: &std::path::Path, words: &[&str]) -> Option<bool> {
    match Command::new("minisign")
        .args(words)
        .current_dir(folder)
        .output()
    {
        Ok(output) => Some(output.status.success()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: minisign is not installed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn minisign_accepts_our_signatures_and_we_accept_its() {
    let (storage, keys, signature) = signed();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).unwrap();
    write(MANIFEST, &storage.map(MANIFEST).unwrap());
    write(SIGNATURE, signature.text.as_bytes());
    write("key.pub", keys.public.as_bytes());
    write("key", keys.secret.as_bytes());
    let check = ["-V", "-m", MANIFEST, "-p", "key.pub"];
    let Some(accepted) = minisign(folder, &check) else {
        return;
    };
    assert!(accepted, "our signature");
    assert_eq!(
        minisign(
            folder,
            &["-S", "-s", "key", "-m", MANIFEST, "-t", "made by minisign"]
        ),
        Some(true),
        "our secret key"
    );
    let text = std::fs::read_to_string(folder.join(SIGNATURE)).unwrap();
    let theirs = Signature::read(&text).unwrap();
    assert_eq!((theirs.remark(), theirs.time()), ("made by minisign", None));
    let key = VerifyingKey::read(&keys.public).unwrap();
    check_signature(storage.as_ref(), &theirs, &key).unwrap();
    let mut bytes = storage.map(MANIFEST).unwrap().to_vec();
    bytes[100] ^= 1;
    write(MANIFEST, &bytes);
    assert_eq!(minisign(folder, &check), Some(false));
    // A pair of minisign's own.
    let pair = ["-G", "-W", "-p", "own.pub", "-s", "own"];
    assert_eq!(minisign(folder, &pair), Some(true));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let own = SigningKey::read(&read("own"), None).unwrap();
    let ours = sign(storage.as_ref(), &own, None).unwrap();
    let public = VerifyingKey::read(&read("own.pub")).unwrap();
    check_signature(storage.as_ref(), &ours, &public).unwrap();
}
