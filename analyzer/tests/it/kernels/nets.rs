//! Both engines agree on each layer alone, on each loss, and on whole nets.

use super::*;
use LossKind::{BinaryCrossEntropy, CrossEntropy, MeanSquaredError};

#[test]
fn linear_layers_agree() {
    Case::new(&[5], vec![linear(3)]).agrees();
    Case::new(
        &[5],
        vec![Layer::Linear {
            out: 1,
            bias: false,
        }],
    )
    .agrees();
    Case::new(&[6], vec![linear(4), linear(3)]).agrees();
    Case::new(
        &[2, 3, 2],
        vec![FLATTEN, linear(4), TANH, FLATTEN, linear(2)],
    )
    .agrees();
    Case::new(&[1], vec![linear(1)]).batches(&[1]).agrees();
}

#[test]
fn activations_agree() {
    for activation in [RELU, TANH, SIGMOID, GELU] {
        let first = activation.clone();
        Case::new(&[5], vec![linear(6), activation.clone(), linear(3)]).agrees();
        Case::new(&[5], vec![linear(6), activation.clone()]).agrees();
        // Before any parameters, and two in a row.
        Case::new(
            &[5],
            vec![first, linear(6), activation.clone(), activation, linear(2)],
        )
        .agrees();
    }
    Case::new(&[4], vec![linear(9), TANH, RELU, SIGMOID, GELU, linear(3)]).agrees();
}

#[test]
fn losses_agree() {
    for (kind, outputs) in [
        (CrossEntropy, 4),
        (BinaryCrossEntropy, 1),
        (BinaryCrossEntropy, 3),
        (MeanSquaredError, 1),
        (MeanSquaredError, 3),
    ] {
        let layers = vec![linear(6), TANH, linear(outputs)];
        let case = Case::new(&[5], layers).loss(kind);
        case.clone().agrees();
        case.clone().evaluated().agrees();
        case.clone().penalty(0.3, PenaltyIn::Examples).agrees();
        case.clone().penalty(0.3, PenaltyIn::Batch).agrees();
        case.batches(&[3, 1, 4])
            .penalty(0.2, PenaltyIn::Batch)
            .agrees();
    }
    // Outputs and targets that are images.
    Case::new(&[2, 3, 4], vec![conv(2, (3, 3), (1, 1), (1, 1))]).agrees();
}

#[test]
fn dropout_agrees() {
    let drop = |p| Layer::Dropout { p };
    for layers in [
        vec![drop(0.3), linear(4)],
        vec![linear(8), RELU, drop(0.5), linear(4)],
        vec![linear(8), drop(0.5), TANH, drop(0.2), linear(3)],
        vec![linear(8), drop(0.0), linear(3)],
    ] {
        let case = Case::new(&[6], layers);
        case.clone().agrees();
        case.clone().batches(&[4, 4]).agrees();
        case.evaluated().agrees();
    }
    let image = vec![
        conv(3, (2, 2), (1, 1), (0, 0)),
        drop(0.4),
        TANH,
        FLATTEN,
        linear(2),
    ];
    Case::new(&[2, 4, 5], image).agrees();
}

#[test]
fn convolutions_agree() {
    for (kernel, stride, padding) in [
        ((1, 1), (1, 1), (0, 0)),
        ((3, 3), (1, 1), (0, 0)),
        ((3, 3), (1, 1), (1, 1)),
        ((3, 2), (2, 1), (1, 0)),
        ((2, 4), (1, 3), (2, 1)),
        ((1, 1), (2, 2), (0, 0)),
    ] {
        let second = |next: Layer| {
            vec![
                conv(3, kernel, stride, padding),
                TANH,
                next,
                FLATTEN,
                linear(2),
            ]
        };
        Case::new(&[2, 7, 8], vec![conv(3, kernel, stride, padding)]).agrees();
        Case::new(&[2, 7, 8], second(conv(2, (2, 2), (1, 1), (0, 0)))).agrees();
        Case::new(
            &[2, 5, 4],
            vec![
                conv(3, (2, 1), (1, 1), (0, 0)),
                TANH,
                conv(4, kernel, stride, padding),
            ],
        )
        .agrees();
    }
}

#[test]
fn transposed_convolutions_agree() {
    for (kernel, stride, padding, output_padding) in [
        ((1, 1), (1, 1), (0, 0), (0, 0)),
        ((3, 3), (1, 1), (1, 1), (0, 0)),
        ((2, 3), (2, 2), (0, 1), (1, 0)),
        ((4, 4), (3, 2), (1, 2), (2, 1)),
    ] {
        let layer = || conv_transposed(3, kernel, stride, padding, output_padding);
        Case::new(&[2, 4, 3], vec![layer()]).agrees();
        Case::new(
            &[2, 4, 3],
            vec![linear_image(), TANH, layer(), GELU, FLATTEN, linear(2)],
        )
        .agrees();
        Case::new(&[2, 4, 3], vec![layer(), TANH, layer()])
            .batches(&[2])
            .agrees();
    }
}

/// Layers that are large enough for several queries to share a product, with sums long enough to be split.
#[test]
fn products_shared_by_queries_agree() {
    let each = |input: &[usize], layers: Vec<Layer>, n: usize| {
        let mut case = Case::new(input, layers).batches(&[n]);
        case.queries = 3;
        case.agrees();
    };
    let wide = || conv(9, (3, 3), (1, 1), (1, 1));
    let turned = || conv_transposed(9, (3, 3), (1, 1), (1, 1), (0, 0));
    each(
        &[5, 6, 7],
        vec![wide(), TANH, wide(), FLATTEN, linear(2)],
        3,
    );
    each(&[9, 6, 7], vec![turned(), TANH, turned(), FLATTEN], 3);
    each(&[5, 30, 30], vec![wide(), RELU, FLATTEN, linear(2)], 2);
    each(
        &[600],
        vec![linear(12), TANH, linear(30), GELU, linear(9)],
        5,
    );
}

/// A layer with parameters whose output is an image.
fn linear_image() -> Layer {
    conv(2, (1, 1), (1, 1), (0, 0))
}

#[test]
fn pools_agree() {
    for pool in [
        max_pool((2, 2), (2, 2), (0, 0)),
        max_pool((3, 3), (2, 2), (1, 1)),
        max_pool((3, 2), (1, 1), (0, 1)),
        max_pool((2, 2), (3, 3), (0, 0)),
        average_pool((2, 2), (2, 2)),
        average_pool((3, 2), (1, 2)),
    ] {
        let conv = || conv(3, (3, 3), (1, 1), (1, 1));
        Case::new(&[2, 6, 7], vec![conv(), pool.clone(), FLATTEN, linear(2)]).agrees();
        Case::new(
            &[2, 6, 7],
            vec![conv(), RELU, pool.clone(), FLATTEN, linear(2)],
        )
        .agrees();
        Case::new(&[2, 6, 7], vec![conv(), TANH, pool.clone(), conv()]).agrees();
        Case::new(&[2, 6, 7], vec![pool, FLATTEN, linear(2)]).agrees();
    }
}

#[test]
fn residuals_agree() {
    let block = || residual(vec![linear(5), TANH, linear(5)], vec![]);
    Case::new(&[5], vec![block()]).agrees();
    Case::new(
        &[5],
        vec![linear(5), TANH, block(), RELU, block(), linear(2)],
    )
    .agrees();
    // Both branches begin with activations, so that none may work in place.
    Case::new(
        &[5],
        vec![
            linear(4),
            residual(vec![RELU, linear(3)], vec![SIGMOID, linear(3)]),
            residual(vec![], vec![]),
            residual(
                vec![residual(vec![GELU], vec![TANH])],
                vec![Layer::Dropout { p: 0.3 }],
            ),
        ],
    )
    .agrees();
    Case::new(
        &[2, 3, 3],
        vec![residual(
            vec![FLATTEN, linear(4)],
            vec![conv(4, (3, 3), (1, 1), (0, 0)), FLATTEN],
        )],
    )
    .agrees();
    Case::new(
        &[2, 6, 6],
        vec![
            conv(4, (3, 3), (1, 1), (1, 1)),
            batch_norm(),
            RELU,
            residual(
                vec![
                    conv(6, (3, 3), (2, 2), (1, 1)),
                    batch_norm(),
                    RELU,
                    conv(6, (3, 3), (1, 1), (1, 1)),
                    batch_norm(),
                ],
                vec![conv(6, (1, 1), (2, 2), (0, 0)), batch_norm()],
            ),
            RELU,
            average_pool((3, 3), (3, 3)),
            FLATTEN,
            linear(3),
        ],
    )
    .loss(CrossEntropy)
    .batches(&[5, 4])
    .agrees();
}

#[test]
fn batch_norm_agrees_as_trained_and_as_evaluated() {
    for (input, layers) in [
        (vec![5], vec![linear(4), batch_norm(), TANH, linear(3)]),
        (vec![5], vec![batch_norm(), linear(3)]),
        (vec![5], vec![linear(4), batch_norm()]),
        (
            vec![2, 4, 3],
            vec![
                batch_norm(),
                conv(3, (2, 2), (1, 1), (0, 0)),
                batch_norm(),
                RELU,
                FLATTEN,
                linear(2),
            ],
        ),
        (
            vec![5],
            vec![
                linear(4),
                batch_norm(),
                batch_norm(),
                GELU,
                batch_norm(),
                linear(2),
            ],
        ),
        (
            vec![4],
            vec![linear(4), residual(vec![batch_norm()], vec![]), linear(2)],
        ),
    ] {
        let case = Case::new(&input, layers);
        case.clone().agrees();
        case.clone().batches(&[3, 4, 2]).agrees();
        case.clone().evaluated().agrees();
        case.evaluated().batches(&[1, 3]).agrees();
    }
}

#[test]
fn builtin_tasks_agree() {
    for (name, n) in [
        ("mnist-cnn", 6),
        ("mnist-dnn", 20),
        ("digits", 5),
        ("cifar10-cnn", 3),
    ] {
        let task = Task::builtin(name).unwrap();
        let mut case = Case::new(&task.model.input, task.model.layers.clone()).batches(&[n]);
        (case.loss, case.queries) = (task.loss.clone(), 1);
        case.agrees();
        case.evaluated().agrees();
    }
}

#[test]
fn batch_norm_refuses_a_single_value_as_training_does() {
    let case = Case::new(&[5], vec![linear(4), batch_norm(), linear(2)]).batches(&[1]);
    let net = case.net();
    let numbers = Numbers::of(&case, &net, DType::F64);
    let error = case
        .kernels(DType::F64)
        .gradient(&numbers.input(Mode::Train))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("1.batch_norm") && error.contains("more than one value"),
        "{error}"
    );
}
