//! The beginning of a segment, with its header or from its first frame on, is copied over a later part of it, and a bit of the copy
//! flips: frames occur twice, once damaged. `verify` must count the same steps as an independent count.

use anyhow::ensure;
use hindcast_format::Trace;

use crate::common::{Tested, folder};
use crate::oracle::Original;
use crate::random::{counts, record};

/// Number of flipped bits per copy, evenly spread.
const FLIPS: usize = 7;

/// The bytes at which frames and the footer begin.
fn places(bytes: &[u8]) -> Vec<usize> {
    let begins =
        |at: &usize| bytes[*at..].starts_with(b"HCFR") || bytes[*at..].starts_with(b"HCIX");
    (0..bytes.len()).filter(begins).collect()
}

#[test]
fn steps_of_a_segment_that_a_copy_of_its_beginning_overlies_are_counted_right() -> Tested {
    let home = folder(true)?;
    let base = record(home.path())?;
    let original = Original::new(&base);
    let truth = Trace::open(home.path().join("base"))?;
    let (mut tried, mut readable) = (0, 0);
    for name in ["seg-00000000.hcs", "seg-00000003.hcs"] {
        let bytes = &base[name];
        let places = places(bytes);
        let pairs = places
            .iter()
            .flat_map(|to| places.iter().map(move |end| (to, end)));
        let froms = [0, places[0]];
        let copies = froms
            .iter()
            .flat_map(|from| pairs.clone().map(move |(to, end)| (from, to, end)));
        for (&from, &to, &end) in copies {
            let length = end - from;
            if length == 0 || to + length > bytes.len() {
                continue;
            }
            for flip in (0..FLIPS).map(|n| n * length / FLIPS) {
                let mut image = bytes.clone();
                image.copy_within(from..end, to);
                image[to + flip] ^= 1 << (flip % 8);
                let mut files = base.clone();
                files.insert(name.to_owned(), image);
                let what = format!(
                    "{name}: {from}..{end} copied to {to}, byte {flip} of the copy changed"
                );
                counts(&what, &files, &original, &truth)?;
                (tried, readable) = (tried + 1, readable + original.readable(&files).len());
            }
        }
    }
    ensure!(tried > 200, "{tried}");
    println!(
        "{tried} overlaid segments: {readable} steps can be read, and verify counts the same number each time"
    );
    Ok(())
}
