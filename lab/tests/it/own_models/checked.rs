//! The check of an objective: correct models pass, even with kinks, and errors are located.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv2d, Linear, Module, ModuleT, VarBuilder, VarMap, conv2d, linear};
use hindcast_analyzer::check::{CheckOptions, CheckPoint, CheckReport, check_objective};
use hindcast_model::objective::{Draws, Objective, Split};
use hindcast_model::ops;
use hindcast_model::own::{BatchNorm, OwnModel, batch_norm};

use super::{CLASSES, data, initialise, state};

type Forward = fn(&Net, &Tensor, bool) -> Result<Tensor>;
type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// Layers that can be combined correctly and incorrectly.
struct Net {
    conv: Conv2d,
    norm: BatchNorm,
    hidden: Linear,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Net {
            conv: conv2d(1, 4, 3, Default::default(), vb.pp("conv"))?,
            norm: batch_norm(4, 1e-5, vb.pp("norm"))?,
            hidden: linear(4 * 2 * 2, 8, vb.pp("hidden"))?,
            out: linear(8, CLASSES, vb.pp("out"))?,
        })
    }

    /// (B, 4, 4, 4), to be pooled to (B, 4, 2, 2).
    fn front(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward_t(&self.conv.forward(x)?, train)?.relu()
    }

    fn back(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.hidden.forward(&x.flatten_from(1)?)?.relu()?;
        self.out.forward(&x)
    }
}

fn right(net: &Net, x: &Tensor, train: bool) -> Result<Tensor> {
    net.back(&ops::max_pool2d(
        &net.front(x, train)?,
        (2, 2),
        (2, 2),
        (0, 0),
    )?)
}

fn check(forward: Forward, loss: Loss) -> CheckReport {
    let model = Arc::new(OwnModel::new(Net::new, forward, loss).unwrap());
    let variables = VarMap::new();
    Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F64,
        &Device::Cpu,
    ))
    .unwrap();
    initialise(&variables, 0.7);
    let at = state(&variables, model.as_ref());
    let batch = data()
        .batch(
            Split::Train,
            &[0, 3, 5, 6, 9, 11],
            None,
            DType::F64,
            &Device::Cpu,
        )
        .unwrap();
    let point = CheckPoint {
        parameters: &at.parameters,
        buffers: &at.buffers,
        batch: &batch,
        draws: Draws { seed: 0, step: 0 },
    };
    check_objective(model, &point, &CheckOptions::default()).unwrap()
}

#[test]
fn a_correct_model_with_kinks_passes() {
    let report = check(right, ops::cross_entropy);
    println!("{report}");
    assert!(report.passed(), "{report}");
    assert!(report.worst() < 1e-6, "{report}");
    // Two directions in two modes, and in each: single examples, the Hessian, and two of the buffers.
    assert_eq!(report.rows.len(), 2 * 2 + 2 * 4);
    assert_eq!((report.precision, report.tensors), ("float64", 10));
    assert_eq!(report.fault, None);
}

#[test]
fn candles_max_pooling_is_caught_and_named() {
    let report = check(
        |net, x, train| net.back(&net.front(x, train)?.max_pool2d(2)?),
        ops::cross_entropy,
    );
    println!("{report}");
    let wrong: Vec<&str> = report
        .rows
        .iter()
        .filter(|row| !row.passed)
        .map(|row| row.what.as_str())
        .collect();
    // Gradients of layers before the pooling are wrong, those of layers after it are right.
    assert!(
        wrong.contains(&"gradient of the training loss in conv.weight"),
        "{wrong:?}"
    );
    assert!(
        wrong.contains(&"gradient of the evaluation loss in norm.running_var"),
        "{wrong:?}"
    );
    assert!(
        wrong
            .iter()
            .all(|w| !w.contains("hidden") && !w.contains("out.")),
        "{wrong:?}"
    );
    let fault = report.fault.as_ref().expect("the operation is found");
    assert_eq!(fault.order, 1);
    assert_eq!(fault.shape, [6, 4, 2, 2]);
    assert_eq!(
        fault.before,
        ["hidden.bias", "hidden.weight", "out.bias", "out.weight"]
    );
    assert_eq!(fault.known.expect("it is a known one").name, "max_pool2d");
    let text = report.to_string();
    assert!(
        text.contains("it is max_pool2d")
            && text.contains("cure: use hindcast_model::own::max_pool2d"),
        "{text}"
    );
}

#[test]
fn candles_gather_has_no_second_derivative_and_is_named() {
    let report = check(right, |logits, targets| {
        let logp = ops::log_softmax(logits)?;
        logp.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
    });
    println!("{report}");
    let fault = report.fault.as_ref().expect("the operation is found");
    assert_eq!((fault.order, fault.shape.as_slice()), (2, &[6, 1][..]));
    assert_eq!(fault.known.expect("it is a known one").name, "gather");
}

#[test]
fn a_cut_graph_is_located() {
    let report = check(
        |net, x, train| {
            let pooled = ops::max_pool2d(&net.front(x, train)?, (2, 2), (2, 2), (0, 0))?;
            // Half of the tensor is copied through plain values, so the derivative lacks that half.
            net.back(&((&pooled * 0.5)? + (pooled.detach() * 0.5)?)?)
        },
        ops::cross_entropy,
    );
    println!("{report}");
    let fault = report.fault.as_ref().expect("the operation is found");
    assert_eq!(
        (fault.order, fault.shape.as_slice()),
        (1, &[6, 4, 2, 2][..])
    );
    assert_eq!(fault.known, None);
    assert!(report.to_string().contains("a detach()"), "{report}");
}

#[test]
fn unseeded_dropout_is_distinguished_from_a_wrong_derivative() {
    let model = Arc::new(
        OwnModel::new(
            Net::new,
            |net: &Net, x, train| {
                let x = net.front(x, train)?;
                let x = candle_nn::ops::dropout(&x, 0.5)?;
                net.back(&ops::max_pool2d(&x, (2, 2), (2, 2), (0, 0))?)
            },
            ops::cross_entropy,
        )
        .unwrap(),
    );
    let variables = VarMap::new();
    Net::new(VarBuilder::from_varmap(
        &variables,
        DType::F64,
        &Device::Cpu,
    ))
    .unwrap();
    let at = state(&variables, model.as_ref());
    let batch = data()
        .batch(Split::Train, &[0, 1, 2, 3], None, DType::F64, &Device::Cpu)
        .unwrap();
    let point = CheckPoint {
        parameters: &at.parameters,
        buffers: &at.buffers,
        batch: &batch,
        draws: Draws { seed: 0, step: 0 },
    };
    assert!(!model.buffers().is_empty());
    let error = check_objective(model, &point, &CheckOptions::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("dropout") && error.contains("can't be replayed"),
        "{error}"
    );
}
