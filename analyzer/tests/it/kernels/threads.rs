//! The bits are the same for any number of threads and any other queries.

use super::*;

fn pools() -> [rayon::ThreadPool; 3] {
    [1, 2, 3].map(|n| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
    })
}

fn case(name: &str, n: usize, queries: usize) -> Case {
    let task = Task::builtin(name).unwrap();
    let mut case = Case::new(&task.model.input, task.model.layers.clone()).batches(&[n]);
    (case.loss, case.queries) = (task.loss.clone(), queries);
    case
}

#[test]
fn results_have_the_same_bits_on_any_number_of_threads() {
    for (name, n) in [("mnist-cnn", 37), ("cifar10-cnn", 5), ("mnist-dnn", 20)] {
        let case = case(name, n, 2);
        let results = pools().map(|pool| pool.install(|| case.by(&mut case.kernels(DType::F32))));
        for other in &results[1..] {
            assert!(*other == results[0], "{name}");
        }
        // Again with an engine that has been used before.
        let mut engine = case.kernels(DType::F32);
        for _ in 0..2 {
            assert!(case.by(&mut engine) == results[0], "{name}");
        }
    }
}

#[test]
fn a_query_has_the_same_bits_together_with_other_queries() {
    let net = |layers: Vec<Layer>, input: &[usize], n: usize| {
        let mut case = Case::new(input, layers).batches(&[n]);
        case.queries = 9;
        case
    };
    let image = |c, o, n| {
        let layers = vec![conv(o, (3, 3), (1, 1), (1, 1)), RELU, FLATTEN, linear(3)];
        net(layers, &[c, 8, 8], n)
    };
    let cases = [
        ("mnist-cnn", case("mnist-cnn", 20, 3)),
        ("cifar10-cnn", case("cifar10-cnn", 4, 3)),
        ("mnist-dnn", case("mnist-dnn", 20, 3)),
        ("mnist-logreg", case("mnist-logreg", 5, 9)),
        // Sizes for which gemm has special kernels: single rows and columns, small results, and long sums.
        (
            "one example",
            net(vec![linear(40), RELU, linear(10)], &[30], 1),
        ),
        ("small", net(vec![linear(4), RELU, linear(3)], &[5], 6)),
        ("one channel", image(2, 1, 3)),
        ("one channel of many", image(32, 1, 3)),
        ("few channels", image(2, 5, 3)),
        ("long sums", image(2, 20, 90)),
        (
            "many examples",
            net(vec![linear(9), RELU, linear(2)], &[40], 700),
        ),
        ("many values", net(vec![linear(30)], &[1500], 7)),
    ];
    for (name, many) in cases {
        let (_, all) = many.by(&mut many.kernels(DType::F32));
        let numbers = Numbers::of(&many, &many.net(), DType::F32);
        let mut engine = many.kernels(DType::F32);
        for q in 0..many.queries {
            let (s, rho) = (&numbers.directions[q..=q], &numbers.adjoints[q..=q]);
            let one = engine
                .products(&numbers.input(Mode::Train), &slices(s), rho)
                .unwrap();
            assert!(one.products[0] == all.products[q], "{name}, query {q}");
            assert!(one.hessian[0] == all.hessian[q], "{name}, query {q}");
            assert!(
                one.buffer_adjoints[0] == all.buffer_adjoints[q],
                "{name}, query {q}"
            );
        }
    }
}

/// Patches that were built in a pass are used in that pass only, whichever thread built them. The net is a convolution
/// between two batch norms, so that chunks change threads between the forward and the backward pass. The images
/// alternate.
#[test]
fn an_engine_that_has_been_used_has_the_bits_of_a_new_one() {
    let layers = vec![
        batch_norm(),
        conv(6, (3, 3), (1, 1), (1, 1)),
        batch_norm(),
        FLATTEN,
    ];
    let case = Case::new(&[2, 12, 12], layers).batches(&[33]);
    let numbers = Numbers::of(&case, &case.net(), DType::F32);
    let mut squared = Numbers::of(&case, &case.net(), DType::F32);
    for batch in &mut squared.batches {
        batch.inputs = batch.inputs.sqr().unwrap();
    }
    let both = |engine: &mut KernelEngine, numbers: &Numbers| {
        let input = numbers.input(Mode::Train);
        let (s, rho) = (&numbers.directions, &numbers.adjoints);
        engine.products(&input, &slices(s), rho).unwrap()
    };
    let want = [&numbers, &squared].map(|n| both(&mut case.kernels(DType::F32), n));
    for pool in pools() {
        pool.install(|| {
            let mut engine = case.kernels(DType::F32);
            for turn in 0..40 {
                let got = both(&mut engine, [&numbers, &squared][turn % 2]);
                assert!(got == want[turn % 2], "turn {turn}");
            }
        });
    }
}

#[test]
fn single_precision_keeps_directions_of_any_size() {
    let case = case("mnist-cnn", 6, 1);
    let numbers = Numbers::of(&case, &case.net(), DType::F64);
    let narrow = Numbers::of(&case, &case.net(), DType::F32);
    for size in [1e-60, 1.0, 1e60] {
        let s: Vec<Vec<f64>> = numbers
            .directions
            .iter()
            .map(|s| s.iter().map(|x| x * size).collect())
            .collect();
        let want = case
            .kernels(DType::F64)
            .products(&numbers.input(Mode::Train), &slices(&s), &numbers.adjoints)
            .unwrap();
        let got = case
            .kernels(DType::F32)
            .products(&narrow.input(Mode::Train), &slices(&s), &numbers.adjoints)
            .unwrap();
        assert!(relative_error(&got.products[0], &want.products[0]) < 1e-5);
        assert!(relative_error(&got.hessian[0], &want.hessian[0]) < 1e-5);
    }
}
