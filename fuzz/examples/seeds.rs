//! Writes a small initial corpus, made from the golden runs: `cargo run --example seeds` in this folder.

use std::fs;
use std::path::Path;

use hindcast_fuzz::golden::{Files, Golden};
use hindcast_fuzz::pack;

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    let rows = Golden::Rows.files();
    write("open", "golden-rows", &pack(&rows))?;
    for (number, first) in [(0, 0x42u8), (1, 0x40)] {
        let bytes = &rows[&format!("seg-{number:08}.hcs")];
        write(
            "segment",
            &format!("rows-{number}"),
            &[&[first], bytes.as_slice()].concat(),
        )?;
    }
    let encrypted = Golden::Encrypted.files();
    write("open", "golden-encrypted", &pack(&encrypted))?;
    write("manifest", "encrypted", &encrypted["manifest.json"])?;
    for (number, first) in [(0, 0x81u8), (1, 0x82)] {
        let bytes = &encrypted[&format!("seg-{number:08}.hcs")];
        let seed = [&[first], bytes.as_slice()].concat();
        write("segment", &format!("encrypted-{number}"), &seed)?;
    }
    write(
        "frame",
        "encrypted",
        &Golden::Encrypted.after_the_keyframe().1,
    )?;
    write("frame", "rows", &Golden::Rows.after_the_keyframe().1)?;
    let golden = Golden::Plain.files();
    write("open", "golden", &pack(&golden))?;
    for name in golden.keys() {
        let mut without: Files = golden.clone();
        without.remove(name);
        write("open", &format!("without-{name}"), &pack(&without))?;
        let mut cut = golden.clone();
        cut.entry(name.clone())
            .and_modify(|bytes| bytes.truncate(bytes.len() * 2 / 3));
        write("open", &format!("cut-{name}"), &pack(&cut))?;
    }
    for (number, how) in (0u8..3).flat_map(|n| [0u8, 0x10, 0x20, 0x30].map(|how| (n, how))) {
        let name = format!("seg-{number:08}.hcs");
        // The first byte modulo 3 selects the segment.
        let first = (how..how + 3).find(|first| first % 3 == number);
        if let (Some(first), Some(bytes)) = (first, golden.get(&name)) {
            let seed = [&[first], bytes.as_slice()].concat();
            write("segment", &format!("{number}-{how:x}"), &seed)?;
        }
    }
    {
        let (_, rest) = Golden::Plain.after_the_keyframe();
        let rest = rest.as_slice();
        write("frame", "rest", rest)?;
        let mut frames: Vec<usize> = (0..rest.len().saturating_sub(4))
            .filter(|&i| rest[i..].starts_with(b"HCFR"))
            .collect();
        frames.push(rest.len());
        for (i, pair) in frames.windows(2).enumerate() {
            write("frame", &format!("frame-{i}"), &rest[pair[0]..pair[1]])?;
        }
    }
    write("manifest", "golden", &golden["manifest.json"])?;
    for seed in 0..12u8 {
        let bytes: Vec<u8> = (0..1024u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> (8 + seed)) as u8)
            .collect();
        write("round_trip", &seed.to_string(), &bytes)?;
    }
    println!("{}", corpus.display());
    Ok(())
}
