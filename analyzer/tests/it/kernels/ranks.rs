//! Ranks compute what one process computes: the kernels with the same bits, autodiff up to rounding.

use hindcast_analyzer::engine::team::{TeamEngine, Wanted, dismiss, serve};
use hindcast_analyzer::engine::{EngineKind, ForwardPass};
use hindcast_analyzer::error::Unsupported;
use hindcast_analyzer::ranks::{Ranks, local};
use hindcast_analyzer::{AnalysisError, Result};

use super::*;

fn team(case: &Case, kind: EngineKind, dtype: DType, ranks: &Ranks) -> Result<TeamEngine> {
    match kind {
        EngineKind::Kernels => TeamEngine::kernels(case.net(), dtype, ranks),
        EngineKind::Autodiff => {
            let net: Arc<dyn Objective> = case.net();
            TeamEngine::autodiff(&net, dtype, 1, 100, ranks)
        }
    }
}

/// What `work` does with an engine over this many ranks. The other ranks are threads of this process.
fn led<T>(
    case: &Case,
    kind: EngineKind,
    dtype: DType,
    size: usize,
    work: impl FnOnce(&mut TeamEngine) -> T,
) -> T {
    let mut all = local(size);
    let followers = all.split_off(1);
    let leader = all.pop().unwrap();
    std::thread::scope(|scope| {
        for ranks in followers {
            scope.spawn(move || {
                let mut engine =
                    |wanted: &Wanted| team(case, wanted.kind(), wanted.dtype(), &ranks);
                serve(&ranks, &mut engine).unwrap();
            });
        }
        let result = work(&mut team(case, kind, dtype, &leader).unwrap());
        assert!(!leader.is_busy());
        dismiss(&leader).unwrap();
        result
    })
}

/// All results of an engine: derivatives, losses and outputs, and squares of gradients.
type All = (StepGradient, Products, ForwardPass, Vec<f64>);

fn all(case: &Case, engine: &mut dyn ReplayEngine) -> All {
    let (gradient, products) = case.by(engine);
    let numbers = Numbers::of(case, &case.net(), engine.dtype());
    let input = numbers.input(case.mode);
    let factors = noise(8, case.net().parameters().len());
    let forward = engine.forward(&input).unwrap();
    let squares = engine.gradient_squares(&input, &factors).unwrap();
    (gradient, products, forward, squares)
}

fn cases() -> Vec<(&'static str, Case)> {
    let normed = vec![
        conv(5, (3, 3), (1, 1), (1, 1)),
        batch_norm(),
        RELU,
        FLATTEN,
        linear(7),
        batch_norm(),
        linear(3),
    ];
    let normed = Case::new(&[2, 6, 6], normed).penalty(0.1, PenaltyIn::Examples);
    let mut plain = Case::new(&[5], vec![linear(6), TANH, linear(3)])
        .loss(LossKind::CrossEntropy)
        .penalty(0.2, PenaltyIn::Batch);
    plain.queries = 1;
    vec![
        ("plain", plain.clone()),
        (
            "plain, three micro-batches",
            plain.clone().batches(&[9, 1, 4]),
        ),
        ("plain, evaluated", plain.evaluated()),
        ("normed", normed.clone().batches(&[23])),
        ("normed, micro-batches", normed.clone().batches(&[5, 6])),
        ("normed, evaluated", normed.evaluated()),
    ]
}

#[test]
fn kernels_have_the_same_bits_on_any_number_of_ranks() {
    for (name, case) in cases() {
        for dtype in [DType::F32, DType::F64] {
            let one = all(&case, &mut case.kernels(dtype));
            for size in [1, 2, 3, 7] {
                // Twice: an engine that has been used has the bits of a new one.
                let twice = led(&case, EngineKind::Kernels, dtype, size, |engine| {
                    [all(&case, engine), all(&case, engine)]
                });
                for got in twice {
                    assert!(got == one, "{name}, {dtype:?}, {size} ranks");
                }
            }
        }
    }
}

#[test]
fn autodiff_over_ranks_agrees_with_one_rank() {
    for (name, case) in cases() {
        if !case.net().buffers().is_empty() {
            continue;
        }
        let mut engine = AutodiffEngine::new(case.net(), DType::F64, &Device::Cpu).unwrap();
        let one = all(&case, &mut engine);
        for size in [1, 2, 3, 7] {
            let got = led(&case, EngineKind::Autodiff, DType::F64, size, |engine| {
                all(&case, engine)
            });
            let close = |a: &[f64], b: &[f64]| {
                assert_eq!(a.len(), b.len(), "{name}");
                assert!(relative_error(a, b) < 1e-12, "{name}, {size} ranks");
            };
            close(&[got.0.loss], &[one.0.loss]);
            close(&got.0.parameters, &one.0.parameters);
            close(&got.0.per_example, &one.0.per_example);
            for q in 0..case.queries {
                close(&got.1.products[q], &one.1.products[q]);
                close(&got.1.hessian[q], &one.1.hessian[q]);
            }
            close(&got.2.losses, &one.2.losses);
            close(&got.2.outputs, &one.2.outputs);
            close(&got.3, &one.3);
        }
    }
}

/// As a sweep with a stateful rule asks: the directions depend on the gradient of the whole batch.
#[test]
fn directions_of_a_gradient_are_chosen_by_the_leader() {
    let (_, case) = cases().swap_remove(0);
    let numbers = Numbers::of(&case, &case.net(), DType::F64);
    let input = numbers.input(Mode::Train);
    let ask = |engine: &mut dyn ReplayEngine| {
        let mut twice = |gradient: &[f64]| -> Result<Vec<Vec<f64>>> {
            Ok(vec![gradient.iter().map(|g| 2.0 * g).collect()])
        };
        engine
            .products_after(&input, &mut twice, &numbers.adjoints[..1])
            .unwrap()
    };
    let mut engine = AutodiffEngine::new(case.net(), DType::F64, &Device::Cpu).unwrap();
    let one = ask(&mut engine);
    for kind in [EngineKind::Kernels, EngineKind::Autodiff] {
        for size in [2, 9] {
            let got = led(&case, kind, DType::F64, size, |engine| ask(engine));
            assert!(relative_error(&got.hessian[0], &one.hessian[0]) < 1e-10);
            assert!(relative_error(&got.products[0], &one.products[0]) < 1e-10);
        }
    }
}

#[test]
fn own_models_that_mix_examples_are_refused() {
    let case = Case::new(&[2], vec![linear(3), batch_norm()]);
    let ranks = local(1).pop().unwrap();
    let refused = team(&case, EngineKind::Autodiff, DType::F64, &ranks);
    assert!(matches!(
        refused.err(),
        Some(AnalysisError::Unsupported(Unsupported::RanksAndStatistics))
    ));
}
