//! Generated digits.

use candle_core::{DType, Device};
use hindcast_model::data::{AugmentSpec, DataSet, DataSpec, Source, load};
use hindcast_model::objective::{Draws, Split};

fn digits(train: u64, seed: u64) -> Box<dyn DataSet> {
    let mut spec = DataSpec::new(Source::Digits);
    spec.train = Some(train);
    load(&spec, None, None, seed).unwrap()
}

#[test]
fn it_is_known_which_labels_are_wrong() {
    let set = digits(5000, 0);
    assert_eq!(
        [Split::Train, Split::Validation, Split::Test].map(|s| set.len(s)),
        [5000, 1000, 1000]
    );
    assert_eq!(set.shape(), [1, 28, 28]);
    let wrong: Vec<u64> = (0..5000)
        .filter(|&i| set.planted(Split::Train, i) == Some(true))
        .collect();
    assert_eq!(wrong.len(), 400);
    for &i in &wrong {
        assert_ne!(set.class(Split::Train, i), set.clean_class(Split::Train, i));
    }
    assert!((0..1000).all(|i| set.planted(Split::Validation, i) == Some(false)));
    assert_eq!(set.planted(Split::Train, 5000), None);
    for class in 0..10 {
        let n = (0..5000)
            .filter(|&i| set.clean_class(Split::Train, i) == Some(class))
            .count();
        assert!((400..600).contains(&n), "{n} digits of class {class}");
    }
}

/// Recorded runs on digits can be replayed only if the digits never change.
#[test]
fn the_digits_of_a_seed_never_change() {
    let set = digits(1000, 0);
    let roots: Vec<String> = set.fingerprint().iter().map(|f| hex(&f.root)).collect();
    assert_eq!(roots, KNOWN);
    assert_ne!(digits(1000, 1).fingerprint(), set.fingerprint());
}

const KNOWN: [&str; 3] = [
    "ad4f20edb01f6136bd2b9638a7f767e6e329c9e4648283d904ba02443bfa1f5c",
    "9572e8b28c9c322926c0e1315b38b8d1e2e94c92e04fa16384fe5c6329650cf3",
    "0dc1f4ce21022039766f735a238aebdb3d34f691f746f51e159166c65e93054c",
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_digit_does_not_depend_on_the_number_of_digits() {
    let (few, many) = (digits(100, 3), digits(500, 3));
    for i in 0..100 {
        assert_eq!(few.image(Split::Train, i), many.image(Split::Train, i));
        assert_eq!(
            few.clean_class(Split::Train, i),
            many.clean_class(Split::Train, i)
        );
    }
}

/// The nearest of the ten mean images identifies most digits, so that digits of a class are similar, but not equal.
#[test]
fn the_nearest_mean_image_identifies_most_digits() {
    let set = digits(2000, 0);
    let mut means = vec![[0.0; 784]; 10];
    let mut count = [0.0; 10];
    for i in 0..2000 {
        let class = set.clean_class(Split::Train, i).unwrap();
        count[class] += 1.0;
        for (m, p) in means[class]
            .iter_mut()
            .zip(set.image(Split::Train, i).unwrap().pixels)
        {
            *m += f64::from(p);
        }
    }
    let mut right = 0;
    for i in 0..1000 {
        let image = set.image(Split::Validation, i).unwrap().pixels;
        let distance = |c: usize| -> f64 {
            means[c]
                .iter()
                .zip(&image)
                .map(|(m, p)| (m / count[c] - f64::from(*p)).powi(2))
                .sum()
        };
        let nearest = (0..10)
            .min_by(|a, b| distance(*a).total_cmp(&distance(*b)))
            .unwrap();
        right += u32::from(Some(nearest) == set.class(Split::Validation, i));
    }
    assert!((600..990).contains(&right), "{right} of 1000");
}

#[test]
fn augmentation_does_not_depend_on_other_rows() {
    let mut spec = DataSpec::new(Source::Digits);
    spec.train = Some(50);
    let augment = AugmentSpec {
        pad_crop: 2,
        flip: true,
    };
    let set = load(&spec, Some(&augment), None, 0).unwrap();
    let draws = Some(Draws { seed: 4, step: 9 });
    let rows = |indices: &[u64], draws| -> Vec<Vec<f32>> {
        let batch = set
            .batch(Split::Train, indices, draws, DType::F32, &Device::Cpu)
            .unwrap();
        batch.inputs.flatten_from(1).unwrap().to_vec2().unwrap()
    };
    let all = rows(&[7, 8, 7, 9, 7], draws);
    assert_eq!(
        rows(&[7, 7, 9, 7], draws),
        [
            all[0].clone(),
            all[2].clone(),
            all[3].clone(),
            all[4].clone()
        ]
    );
    assert!(
        all[0] != all[2] || all[2] != all[4],
        "three occurrences with the same crop and flip"
    );
    let plain = rows(&[7, 8, 7, 9, 7], None);
    assert_eq!(plain[0], plain[2]);
    assert_ne!(plain, all);
    assert_ne!(
        rows(&[7, 8, 7, 9, 7], Some(Draws { seed: 4, step: 10 })),
        all
    );
}

#[test]
#[ignore = "writes a picture with 20 digits of each class, to inspect after a change of the generator: cargo test -p hindcast-model --test it contact_sheet -- --ignored --nocapture"]
fn contact_sheet() {
    let set = digits(2000, 0);
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
