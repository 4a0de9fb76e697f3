//! Encrypted runs: the promises of other runs hold for them, and without a key nothing of the content can be read.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use hindcast_format::*;

use crate::common::*;
use crate::damage::small_plan;

/// A reader's keys, and an encryption for that reader.
fn reader() -> (Arc<dyn Keys>, Encryption) {
    let (secret, public) = Identities::generate();
    let keys = Identities::read(&secret).unwrap();
    let encryption = Recipients::read(&public).unwrap().encryption().unwrap();
    (Arc::new(keys), encryption)
}

/// The description of a run that has something to hide.
fn secretive(plan: &Plan, encryption: Encryption) -> RunInfo {
    let mut info = info(&plan.layout);
    info.task = Some("sentinel of the task".to_owned());
    info.notes
        .insert("sentinel".to_owned(), "of the notes".to_owned());
    info.encryption = Some(encryption);
    info
}

/// The truth, with metadata that can be searched for in the files.
fn secret_truth(plan: &Plan) -> Truth {
    let mut truth = truth(plan);
    for meta in &mut truth.metas {
        meta.scalars = vec![("sentinel of the metadata".to_owned(), 0.5)];
    }
    truth
}

/// An encrypted run in memory. Its storage holds the keys.
fn encrypted(plan: &Plan) -> (MemStorage, Truth, Arc<dyn Keys>) {
    let (keys, encryption) = reader();
    let storage = MemStorage::logged();
    storage.give_keys(Arc::clone(&keys));
    let mut truth = secret_truth(plan);
    let info = secretive(plan, encryption);
    let writer = RunWriter::create(Arc::new(storage.clone()), info, plan.durability).unwrap();
    truth.manifest = record_from(writer, plan, &truth, 0, |_, _| {}).unwrap();
    (storage, truth, keys)
}

/// The bytes of all files.
fn bytes_of(storage: &MemStorage) -> Vec<u8> {
    storage
        .files()
        .into_iter()
        .flat_map(|(_, bytes)| bytes)
        .collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_was_recorded_is_read_with_the_key_in_both_directions() {
    let plan = Plan {
        gaps: vec![13, 14],
        ..Plan::new(40)
    };
    let (storage, truth, _) = encrypted(&plan);
    let trace = open(&storage).unwrap();
    let forward = check_forward(&trace, &truth);
    assert_eq!(forward.len(), 38);
    let mut backward = Vec::new();
    let mut steps = trace.reverse(0..40);
    while let Some(step) = steps.next().unwrap() {
        assert!(step.state == &truth.states[step.meta.step as usize]);
        backward.insert(0, step.meta.step);
    }
    assert_eq!(forward, backward);
    let (state, key) = trace.final_state().unwrap().unwrap();
    assert!(state == truth.states[40] && key == truth.final_key);
    assert_eq!(trace.info().notes["sentinel"], "of the notes");
    assert_eq!(trace.manifest(), truth.manifest.as_ref());
    let head = truth.manifest.as_ref().unwrap().head().unwrap();
    assert_eq!(trace.head_digest(), Some(head));
    let report = trace.verify().unwrap();
    assert!(
        report.findings.iter().all(|f| f.severity == Severity::Note),
        "{report:#?}"
    );
}

#[test]
fn no_file_holds_a_word_of_the_content_and_no_two_frames_repeat_bytes() {
    let (plan, zeros) = (Plan::new(30), [0u8; 32]);
    let (storage, truth, _) = encrypted(&plan);
    let plain = MemStorage::new();
    let info = RunInfo {
        encryption: None,
        ..open(&storage).unwrap().info().clone()
    };
    let writer = RunWriter::create(Arc::new(plain.clone()), info, plan.durability).unwrap();
    record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();

    let (open_bytes, closed_bytes) = (bytes_of(&plain), bytes_of(&storage));
    for word in ["sentinel", "conv.weight", "momentum", "\"seed\""] {
        assert!(contains(&open_bytes, word.as_bytes()), "{word}");
        assert!(!contains(&closed_bytes, word.as_bytes()), "{word}");
    }
    assert!(
        contains(&closed_bytes, b"age-encryption.org") || contains(&closed_bytes, b"BEGIN AGE")
    );
    // Keyframes of an unencrypted run store raw tensors of zeros; here nothing of the kind can be seen within the frames.
    let frames = |bytes: &[u8]| {
        let at: Vec<usize> = bytes
            .windows(4)
            .enumerate()
            .filter_map(|(i, w)| (w == b"HCFR").then_some(i + 64))
            .collect();
        at.into_iter()
            .map(|at| bytes[at..(at + 32).min(bytes.len())].to_vec())
            .collect::<Vec<_>>()
    };
    let begun = frames(&closed_bytes);
    assert!(begun.len() > 30);
    assert!(!begun.iter().any(|frame| frame == &zeros));
    let mut different = begun.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), begun.len());
}

#[test]
fn without_a_fitting_key_a_run_is_refused_and_not_called_damaged() {
    let (storage, _, _) = encrypted(&Plan::new(20));
    let refused = |storage: MemStorage, expected: &str| {
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let open = Trace::open_storage(Arc::clone(&storage)).map(drop);
        let verify = verify_storage(&storage).map(drop);
        let recover = recover_storage(
            &storage,
            &(Arc::new(MemStorage::new()) as _),
            &mut |_, _| {},
        )
        .map(drop);
        let resume = RunWriter::resume(storage, 10, Durability::Os).map(drop);
        for (verb, result) in [
            ("open", open),
            ("verify", verify),
            ("recover", recover),
            ("resume", resume),
        ] {
            let error = result.unwrap_err();
            assert!(
                matches!(error, FormatError::Locked { .. }) && !error.is_damage(),
                "{verb}: {error}"
            );
            let text = error.to_string();
            assert!(text.contains(expected), "{verb}: {text}");
            assert!(text.starts_with("memory: the run is encrypted"), "{text}");
        }
    };
    let without = || MemStorage::from_files(storage.files());
    refused(without(), "no key was given");
    let other = without();
    other.give_keys(reader().0);
    refused(other, "the given key doesn't fit");
    // The same where the manifest is lost.
    let lost = without();
    lost.remove(MANIFEST).unwrap();
    refused(lost, "no key was given");
}

#[test]
fn any_of_several_readers_can_read() {
    let (a, a_public) = Identities::generate();
    let (b, b_public) = Identities::generate();
    let (c, _) = Identities::generate();
    let list = format!("# the team\n{a_public}\n\n{b_public}\n");
    let encryption = Recipients::read(&list).unwrap().encryption().unwrap();
    let opens = |text: &str| {
        let keys = Identities::read(text).unwrap();
        keys.unwrap_key(encryption.wrapped_key()).is_ok()
    };
    assert!(opens(&a) && opens(&b) && opens(&format!("{c}{b}")) && !opens(&c));
    for (text, why) in [
        ("", "no key"),
        ("# only a comment\n", "no key"),
        (a_public.as_str(), "line 1: expected a secret key"),
    ] {
        let error = Identities::read(text).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    let secret = a.lines().last().unwrap();
    let error = Recipients::read(&format!("\n{secret}"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2") && error.contains("got a secret key") && !error.contains(secret),
        "{error}"
    );
}

/// The program age unwraps the key of a run, where it is installed.
#[test]
fn the_program_age_unwraps_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let (secret, public) = Identities::generate();
    let encryption = Recipients::read(&public).unwrap().encryption().unwrap();
    let (key, wrapped) = (folder.path().join("key"), folder.path().join("wrapped"));
    std::fs::write(&key, &secret).unwrap();
    std::fs::write(&wrapped, encryption.wrapped_key()).unwrap();
    let mut age = std::process::Command::new("age");
    let Ok(output) = age.arg("-d").arg("-i").arg(&key).arg(&wrapped).output() else {
        println!("skipped: the program age is not installed");
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let own = Identities::read(&secret).unwrap();
    let own = own.unwrap_key(encryption.wrapped_key()).unwrap();
    assert_eq!(output.stdout, own);
}

#[test]
fn every_flipped_bit_is_found_in_its_file() {
    let (storage, _, keys) = encrypted(&Plan {
        steps: 6,
        ..small_plan()
    });
    for (name, bytes) in storage.files() {
        for byte in 0..bytes.len() {
            let image = MemStorage::from_files(storage.files());
            image.give_keys(Arc::clone(&keys));
            image.edit(&name, |b| b[byte] ^= 1 << (byte % 8));
            let report = verify_storage(&(Arc::new(image) as Arc<dyn Storage>))
                .unwrap_or_else(|e| panic!("{name}, byte {byte}: {e}"));
            assert!(
                report
                    .findings
                    .iter()
                    .any(|f| f.severity == Severity::Error && f.file == name),
                "{name}, byte {byte}: {:?}",
                report.findings
            );
        }
    }
}

#[test]
fn a_process_killed_at_any_byte_loses_nothing_but_the_frame_it_was_writing() {
    let plan = small_plan();
    let (storage, truth, keys) = encrypted(&plan);
    let mut longest = 0;
    for operations in 1..storage.operations() {
        for bytes in 0..storage.operation_bytes(operations).max(2) {
            let image = storage.crash_image(Crash::Kill { operations, bytes });
            image.give_keys(Arc::clone(&keys));
            let trace = open(&image).unwrap();
            let read = check_forward(&trace, &truth);
            assert_eq!(read, (0..read.len() as u64).collect::<Vec<_>>());
            assert!(read.len() + 1 >= longest, "steps vanish");
            longest = longest.max(read.len());
        }
    }
    assert_eq!(longest as u64, plan.steps);
}

#[test]
fn a_resumed_run_stays_encrypted_and_continues_with_new_random_bytes() {
    let plan = Plan {
        end: End::Leave,
        ..Plan::new(40)
    };
    let (storage, truth, _) = encrypted(&plan);
    let (writer, point) =
        RunWriter::resume(Arc::new(storage.clone()), 21, plan.durability).unwrap();
    assert!(point.state.unwrap() == truth.states[21]);
    let finish = Plan {
        end: End::Finish,
        ..plan
    };
    record_from(writer, &finish, &truth, 21, |_, _| {}).unwrap();
    let trace = open(&storage).unwrap();
    assert_eq!(check_forward(&trace, &truth).len(), 40);
    assert!(trace.verify().unwrap().findings.is_empty());
    assert!(!contains(&bytes_of(&storage), b"sentinel"));
}

#[test]
fn a_recovery_keeps_the_encryption_and_everything_that_can_be_read() {
    let plan = Plan::new(40);
    let (storage, truth, keys) = encrypted(&plan);
    // A byte in the middle of the second segment.
    storage.edit("seg-00000001.hcs", |b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    let (source, target) = (
        Arc::new(storage) as Arc<dyn Storage>,
        Arc::new(MemStorage::new()),
    );
    let report = recover_storage(&source, &(Arc::clone(&target) as _), &mut |_, _| {}).unwrap();
    assert!(report.steps >= 39, "{report:#?}");
    target.give_keys(keys);
    let trace = open(&target).unwrap();
    assert!(trace.info().encryption.is_some());
    let mut steps = trace.forward(0..u64::MAX);
    while let Some(step) = steps.next().unwrap() {
        assert!(step.state == &truth.states[step.meta.step as usize]);
    }
    assert!(!contains(&bytes_of(&target), b"sentinel"));
}

#[test]
fn frames_of_another_run_of_the_same_key_are_not_taken() {
    let plan = small_plan();
    let (keys, encryption) = reader();
    let storage = |salt: [u8; 16]| {
        let storage = MemStorage::new();
        storage.give_keys(Arc::clone(&keys));
        let info = RunInfo {
            salt,
            ..secretive(&plan, encryption.clone())
        };
        let writer = RunWriter::create(Arc::new(storage.clone()), info, plan.durability).unwrap();
        record_from(writer, &plan, &secret_truth(&plan), 0, |_, _| {}).unwrap();
        storage
    };
    let (a, b) = (storage([1; 16]), storage([2; 16]));
    let segment = b.map("seg-00000001.hcs").unwrap().to_vec();
    a.edit("seg-00000001.hcs", |bytes| *bytes = segment);
    let report = verify_storage(&(Arc::new(a) as Arc<dyn Storage>)).unwrap();
    assert!(!report.is_ok());
}

#[test]
fn on_disk_an_encrypted_run_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let (keys, encryption) = reader();
    let plan = Plan::new(30);
    let truth = secret_truth(&plan);
    let storage = || {
        Arc::new(Keyed::new(
            Arc::new(FsStorage::new(&run)),
            Arc::clone(&keys),
        ))
    };
    let info = secretive(&plan, encryption);
    let writer = RunWriter::create(storage(), info, plan.durability).unwrap();
    record_from(writer, &plan, &truth, 0, |_, _| {}).unwrap();
    let (mut writer, _) = RunWriter::resume(storage(), 21, plan.durability).unwrap();
    writer.open_segment(21).unwrap();
    writer.abandon(Default::default()).unwrap();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&run), 0o700);
    let files: Vec<_> = std::fs::read_dir(&run).unwrap().flatten().collect();
    assert!(files.len() >= 3);
    for file in files {
        assert_eq!(mode(&file.path()), 0o600, "{}", file.path().display());
    }
    // An unencrypted run is for everybody that the umask allows.
    let open = folder.path().join("open");
    record(Arc::new(FsStorage::new(&open)), &plan).unwrap();
    assert_eq!(mode(&open.join(MANIFEST)) | 0o066, 0o666);
    assert_ne!(mode(&open), 0o700);
}

#[test]
fn runs_that_are_made_from_an_encrypted_one_keep_its_key_and_its_secrets() {
    let plan = Plan::new(40);
    let (storage, truth, keys) = encrypted(&plan);
    let source: Arc<dyn Storage> = Arc::new(storage);
    for what in [
        Derive::Prune(Selection::Steps(10..30)),
        Derive::Compact(Compaction {
            level: 3,
            segment_steps: None,
        }),
        Derive::Redact(Redaction::default()),
    ] {
        let target = Arc::new(MemStorage::new());
        derive_storage(
            &source,
            &(Arc::clone(&target) as _),
            &what,
            None,
            &mut |_, _| {},
        )
        .unwrap();
        assert!(matches!(open(&target), Err(FormatError::Locked { .. })));
        target.give_keys(Arc::clone(&keys));
        let trace = open(&target).unwrap();
        let mut steps = trace.forward(0..u64::MAX);
        let mut read = 0;
        while let Some(step) = steps.next().unwrap() {
            assert!(step.state == &truth.states[step.meta.step as usize]);
            read += 1;
        }
        assert!(read >= 20, "{what:?}: {read}");
        assert!(!contains(&bytes_of(&target), b"sentinel"));
    }
}
