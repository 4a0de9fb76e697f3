//! Data sets, made here or real.

use candle_core::{DType, Device};
use hindcast_model::data::{DataSet, DataSpec, Source, load};
use hindcast_model::objective::Split;

fn digits(train: u64) -> Box<dyn DataSet> {
    let mut spec = DataSpec::new(Source::Digits);
    spec.train = Some(train);
    load(&spec, None, None, 0).unwrap()
}

#[test]
fn digits_come_with_known_wrong_labels() {
    let set = digits(5000);
    assert_eq!(
        [Split::Train, Split::Validation, Split::Test].map(|s| set.len(s)),
        [5000, 1000, 1000]
    );
    let wrong: Vec<u64> = (0..5000)
        .filter(|&i| set.planted(Split::Train, i) == Some(true))
        .collect();
    assert_eq!(wrong.len(), 400);
    assert!(
        wrong
            .iter()
            .all(|&i| set.class(Split::Train, i) != set.clean_class(Split::Train, i))
    );
    assert!((0..1000).all(|i| set.planted(Split::Validation, i) == Some(false)));
    let batch = set
        .batch(Split::Train, &[1, 1], None, DType::F32, &Device::Cpu)
        .unwrap();
    assert_eq!(batch.inputs.dims(), [2, 1, 28, 28]);
}

#[test]
#[ignore = "writes a picture for people: 20 digits of each class, to look at after changing how they are drawn"]
fn contact_sheet() {
    let set = digits(2000);
    let (across, side) = (20, 28);
    let mut sheet = vec![0u8; across * side * 10 * side];
    let mut filled = [0; 10];
    for i in 0..2000 {
        let class = set.clean_class(Split::Train, i).unwrap();
        if filled[class] == across {
            continue;
        }
        let image = set.image(Split::Train, i).unwrap();
        for y in 0..side {
            let at = (class * side + y) * across * side + filled[class] * side;
            sheet[at..at + side].copy_from_slice(&image.pixels[y * side..(y + 1) * side]);
        }
        filled[class] += 1;
    }
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("digits.pgm");
    let mut bytes = format!("P5 {} {} 255\n", across * side, 10 * side).into_bytes();
    bytes.extend(sheet);
    std::fs::write(&path, bytes).unwrap();
    println!("{}", path.display());
}
