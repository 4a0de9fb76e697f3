//! The table of the guide's page on candle's operations, row by row: what the check says of a model that uses one, and that
//! it names the cure.

use std::sync::Arc;

use candle_core::{DType, Device, Module, ModuleT, Tensor};
use candle_nn::{BatchNorm, Linear, VarBuilder, VarMap, linear};
use hindcast_analyzer::AnalysisError;
use hindcast_analyzer::check::{CheckOptions, CheckPoint, CheckReport, check_objective};
use hindcast_model::objective::{Draws, Split};
use hindcast_model::ops;
use hindcast_model::own::{self, OwnModel};

use super::{CLASSES, SIDE, data, initialise, state};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Values between the two linear layers.
const WIDTH: usize = 12;

/// Two linear layers with an operation between them.
struct Net {
    first: Linear,
    weight: Tensor,
    bias: Tensor,
    kernel: Tensor,
    square: Tensor,
    norm: BatchNorm,
    out: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            first: linear(SIDE * SIDE, 4 * WIDTH, vb.pp("first"))?,
            weight: vb.get(WIDTH, "weight")?,
            bias: vb.get(WIDTH, "bias")?,
            kernel: vb.get((2, 2, 3), "kernel")?,
            square: vb.get((4, 4), "square")?,
            norm: candle_nn::batch_norm(WIDTH, 1e-5, vb.pp("norm"))?,
            out: linear(WIDTH, CLASSES, vb.pp("out"))?,
        })
    }

    /// (B, 48), which all operations read.
    fn front(&self, x: &Tensor) -> Result<Tensor> {
        self.first.forward(&x.flatten_from(1)?)?.tanh()
    }

    /// (B, 12) of the front.
    fn narrow(&self, x: &Tensor) -> Result<Tensor> {
        self.front(x)?.narrow(1, 0, WIDTH)?.contiguous()
    }

    /// Images (B, 3, 4, 4) of the front.
    fn images(&self, x: &Tensor) -> Result<Tensor> {
        self.front(x)?.reshape(((), 3, 4, 4))
    }

    /// Heads (B, 1, 3, 4) of the front.
    fn heads(&self, x: &Tensor) -> Result<Tensor> {
        self.narrow(x)?.reshape(((), 1, 3, 4))
    }
}

type Between = fn(&Net, &Tensor, bool) -> Result<Tensor>;
type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

/// The check of the model.
fn checked(between: Between, loss: Loss) -> Result<CheckReport, AnalysisError> {
    let forward = move |net: &Net, x: &Tensor, train: bool| {
        let h = between(net, x, train)?;
        let h = h.flatten_from(1)?;
        // Operations may change the number of values.
        let n = h.dim(1)?.min(WIDTH);
        let h = h.narrow(1, 0, n)?.pad_with_zeros(1, 0, WIDTH - n)?;
        net.out.forward(&h)
    };
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
        .batch(Split::Train, &[0, 3, 5, 6], None, DType::F64, &Device::Cpu)
        .unwrap();
    let point = CheckPoint {
        parameters: &at.parameters,
        buffers: &at.buffers,
        batch: &batch,
        draws: Draws { seed: 0, step: 0 },
    };
    check_objective(model, &point, &CheckOptions::default())
}

/// What the check says of a model that it refuses: the error, or the report.
fn said(between: Between, loss: Loss) -> String {
    match checked(between, loss) {
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(e) = cause {
                text = format!("{text}: {e}");
                cause = e.source();
            }
            text
        }
        Ok(report) => {
            assert!(!report.passed(), "{report}");
            report.to_string()
        }
    }
}

/// A table of f64 values, as a constant.
fn table(dims: &[usize]) -> Result<Tensor> {
    let n = dims.iter().product::<usize>() as f64;
    Tensor::arange(0f64, n, &Device::Cpu)?.sin()?.reshape(dims)
}

fn picked(x: &Tensor) -> Result<Tensor> {
    Tensor::zeros(x.dims(), DType::U32, &Device::Cpu)
}

/// Every operation of the table, with words of the cure.
const REFUSED: &[(&str, Between, &[&str])] = &[
    (
        "ops::layer_norm",
        |net, x, _| candle_nn::ops::layer_norm(&net.narrow(x)?, &net.weight, &net.bias, 1e-5),
        &["LayerNorm or RmsNorm", "own::{LayerNorm, RmsNorm"],
    ),
    (
        "LayerNorm",
        |net, x, _| {
            candle_nn::LayerNorm::new(net.weight.clone(), net.bias.clone(), 1e-5)
                .forward(&net.narrow(x)?)
        },
        &["LayerNorm or RmsNorm", "own::{LayerNorm, RmsNorm"],
    ),
    (
        "RmsNorm",
        |net, x, _| candle_nn::RmsNorm::new(net.weight.clone(), 1e-5).forward(&net.narrow(x)?),
        &["LayerNorm or RmsNorm", "own::{LayerNorm, RmsNorm"],
    ),
    (
        "BatchNorm",
        |net, x, train| net.norm.forward_t(&net.narrow(x)?, train),
        &["own::batch_norm"],
    ),
    (
        "softmax_last_dim",
        |net, x, _| candle_nn::ops::softmax_last_dim(&net.narrow(x)?),
        &["a cut in candle's graph", "own::ops::softmax_last_dim"],
    ),
    (
        "softmax_last_dim next to other uses",
        |net, x, _| {
            let h = net.narrow(x)?;
            candle_nn::ops::softmax_last_dim(&h)?.broadcast_mul(&net.weight)
        },
        &[
            "a cut in candle's graph",
            "first.bias",
            "own::ops::softmax_last_dim",
        ],
    ),
    (
        "rope",
        |net, x, _| candle_nn::rotary_emb::rope(&net.heads(x)?, &table(&[3, 2])?, &table(&[3, 2])?),
        &["a cut in candle's graph", "own::rotary_emb::{rope, rope_i"],
    ),
    (
        "rope_i",
        |net, x, _| {
            candle_nn::rotary_emb::rope_i(&net.heads(x)?, &table(&[3, 2])?, &table(&[3, 2])?)
        },
        &["a cut in candle's graph", "own::rotary_emb::{rope, rope_i"],
    ),
    (
        "rope_thd",
        |net, x, _| {
            candle_nn::rotary_emb::rope_thd(&net.heads(x)?, &table(&[1, 2])?, &table(&[1, 2])?)
        },
        &["a cut in candle's graph", "rope_thd"],
    ),
    (
        "sdpa",
        |net, x, _| {
            let h = net.heads(x)?;
            candle_nn::ops::sdpa(&h, &h, &h, None, false, 0.5, 1.0)
        },
        &["sdpa", "own::ops::softmax_last_dim"],
    ),
    (
        "gather",
        |net, x, _| {
            let h = net.narrow(x)?;
            h.gather(&picked(&h)?.narrow(1, 0, 1)?.contiguous()?, 1)
        },
        &["it is gather", "own::gather"],
    ),
    (
        "scatter_add",
        |net, x, _| {
            let h = net.narrow(x)?;
            h.sqr()?.scatter_add(&picked(&h)?, &h, 1)
        },
        // The check finds the operation without recognising it, and lists what to look for.
        &["look there for", "scatter_add", "own::scatter_add"],
    ),
    (
        "conv1d",
        |net, x, _| {
            net.narrow(x)?
                .reshape(((), 2, 6))?
                .conv1d(&net.kernel, 1, 1, 1, 1)
        },
        &["conv1d", "own::{Conv1d, ConvTranspose1d"],
    ),
    (
        "conv_transpose1d",
        |net, x, _| {
            let h = net.narrow(x)?.reshape(((), 2, 6))?;
            h.conv_transpose1d(&net.kernel, 1, 0, 1, 1, 1)
        },
        &["conv_transpose1d", "own::{Conv1d, ConvTranspose1d"],
    ),
    (
        "max_pool2d",
        |net, x, _| net.images(x)?.max_pool2d(2),
        &["it is max_pool2d", "own::max_pool2d"],
    ),
    (
        "max_pool2d_with_stride",
        |net, x, _| net.images(x)?.max_pool2d_with_stride(3, 1),
        &["stride differs", "own::{max_pool2d_with_stride"],
    ),
    (
        "avg_pool2d_with_stride",
        |net, x, _| net.images(x)?.avg_pool2d_with_stride(3, 1),
        &["stride differs", "avg_pool2d_with_stride"],
    ),
    (
        "avg_pool2d of an odd size",
        |net, x, _| {
            net.front(x)?
                .narrow(1, 0, 25)?
                .reshape(((), 1, 5, 5))?
                .avg_pool2d(2)
        },
        &["own::avg_pool2d"],
    ),
    (
        "upsample_bilinear2d",
        |net, x, _| {
            net.narrow(x)?
                .reshape(((), 3, 2, 2))?
                .upsample_bilinear2d(4, 4, false)
        },
        &["upsample_bilinear", "own::{upsample_nearest1d"],
    ),
    (
        "upsample_nearest2d used twice",
        |net, x, _| {
            let h = net.narrow(x)?.reshape(((), 3, 2, 2))?;
            let up = h.upsample_nearest2d(4, 4)?.flatten_from(1)?;
            up.broadcast_mul(&h.sqr()?.flatten_from(1)?.sum_keepdim(1)?)
        },
        &["upsample_nearest", "own::{upsample_nearest1d"],
    ),
    (
        "dropout",
        |net, x, _| candle_nn::ops::dropout(&net.narrow(x)?, 0.5),
        &["own::Dropout", "own::with_draws"],
    ),
    (
        "Dropout",
        |net, x, train| candle_nn::Dropout::new(0.5).forward(&net.narrow(x)?, train),
        &["own::Dropout", "own::with_draws"],
    ),
    (
        "randn",
        |net, x, _| {
            let h = net.narrow(x)?;
            &h + Tensor::randn(0f64, 1.0, h.dims(), &Device::Cpu)?
        },
        &["own::randn_like"],
    ),
    (
        "rand_like",
        |net, x, _| {
            let h = net.narrow(x)?;
            &h * h.rand_like(0.0, 1.0)?
        },
        &["hindcast_model::random"],
    ),
    (
        "detach of everything",
        |net, x, _| net.narrow(x)?.detach().broadcast_mul(&net.weight),
        &[
            "a cut in candle's graph",
            "first.bias",
            "own::stop_gradient",
        ],
    ),
    (
        "detach of a part",
        |net, x, _| {
            let h = net.narrow(x)?;
            &h * h.detach()
        },
        &["look there for", "a detach()", "own::stop_gradient"],
    ),
    (
        "Linear of a transposed batch",
        |net, x, _| {
            let h = net.front(x)?.reshape(((), 4, WIDTH))?.transpose(1, 2)?;
            Linear::new(net.square.clone(), None).forward(&h)
        },
        &["a transposed batch", "contiguous()"],
    ),
    (
        "f32 rotary tables",
        |net, x, _| {
            let table = table(&[3, 2])?.to_dtype(DType::F32)?;
            candle_nn::rotary_emb::rope(&net.heads(x)?, &table, &table)
        },
        &["a cut in candle's graph", "own::rotary_emb", "first.bias"],
    ),
];

/// Models with float32 constants, which don't run in float64, with words of what keeps them from it.
const CONSTANTS: &[(&str, Between, &str)] = &[
    (
        "selu",
        |net, x, _| candle_nn::ops::selu(&net.narrow(x)?, 1.67, 1.05),
        "a constant",
    ),
    (
        "a mask",
        |net, x, _| {
            let h = net.narrow(x)?;
            let mask = Tensor::ones(h.dims(), DType::U8, &Device::Cpu)?;
            mask.where_cond(
                &h,
                &Tensor::full(f32::NEG_INFINITY, h.dims(), &Device::Cpu)?,
            )
        },
        "a mask",
    ),
    (
        "a table",
        |net, x, _| {
            net.narrow(x)?
                .broadcast_add(&table(&[WIDTH])?.to_dtype(DType::F32)?)
        },
        "a constant",
    ),
    (
        "a frozen base",
        |net, x, _| {
            let base = table(&[WIDTH, WIDTH])?.to_dtype(DType::F32)?;
            net.narrow(x)?.matmul(&base)?.relu()
        },
        "a matrix",
    ),
    (
        "a cast to f32",
        |net, x, _| net.narrow(x)?.to_dtype(DType::F32),
        "a matrix",
    ),
    (
        "a softmax in f32",
        |net, x, _| {
            let h = net.narrow(x)?;
            candle_nn::ops::softmax(&h.to_dtype(DType::F32)?, 1)?.to_dtype(h.dtype())
        },
        "a part of it",
    ),
];

#[test]
fn models_with_float32_constants_are_checked_in_float32() {
    for (name, between, constant) in CONSTANTS {
        let report = checked(*between, ops::cross_entropy).unwrap();
        println!("--- {name}\n{report}\n");
        assert!(report.passed(), "{name}: {report}");
        assert_eq!(report.precision, "float32", "{name}");
        assert!(report.to_string().contains(constant), "{name}: {report}");
        // A missing derivative would have been seen.
        assert!(report.visible() < 1.0, "{name}: {:?}", report.rows);
    }
}

/// Operations with a wrong or missing derivative, next to a float32 constant.
const WRONG: &[(&str, Between)] = &[
    ("max_pool2d", |net, x, _| net.images(x)?.max_pool2d(2)),
    ("gather", |net, x, _| {
        let h = net.narrow(x)?;
        h.gather(&picked(&h)?.narrow(1, 0, 1)?.contiguous()?, 1)
    }),
    ("detach of a part", |net, x, _| {
        let h = net.narrow(x)?;
        &h * h.detach()
    }),
    ("softmax_last_dim", |net, x, _| {
        let h = net.narrow(x)?;
        candle_nn::ops::softmax_last_dim(&h)?.broadcast_mul(&net.weight)
    }),
];

/// The tensor `weight` with a gradient that is 10 % too small.
fn tenth_less(net: &Net) -> Result<Tensor> {
    (&net.weight * 0.9)? + (net.weight.detach() * 0.1)?
}

/// x² with the right first derivative, and a second one that is 20 % too small.
fn square_with_wrong_curvature(x: &Tensor) -> Result<Tensor> {
    let held = x.detach();
    let linear = ((x * &held)? * 2.0)?.sub(&held.sqr()?)?;
    (x.sqr()? * 0.8)? + (linear * 0.2)?
}

/// Linear in the outputs, so that the second derivatives are those of the model.
fn linear_loss(outputs: &Tensor, _: &Tensor) -> Result<Tensor> {
    let n = outputs.dim(1)?;
    let weights = Tensor::arange(1f32, 1.0 + n as f32, &Device::Cpu)?.to_dtype(outputs.dtype())?;
    with_constant(&outputs.broadcast_mul(&weights)?.sum(1)?)
}

/// A cross entropy with outputs so confident that the loss is about e^-16.
fn confident(outputs: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let classes = Tensor::arange(0u32, outputs.dim(1)? as u32, &Device::Cpu)?;
    let targets_of = targets.to_dtype(DType::U32)?.unsqueeze(1)?;
    let right = classes.unsqueeze(0)?.broadcast_eq(&targets_of)?;
    let surer = (right.to_dtype(outputs.dtype())? * 16.0)?;
    ops::cross_entropy(&(outputs + surer)?, targets)
}

#[test]
fn small_errors_in_one_tensor_are_found_in_float32() {
    let gradient = checked(
        |net, x, _| net.narrow(x)?.broadcast_mul(&tenth_less(net)?),
        |outputs, targets| with_constant(&ops::cross_entropy(outputs, targets)?),
    )
    .unwrap();
    println!("{gradient}");
    assert_eq!(gradient.precision, "float32");
    let failed = |report: &CheckReport, what: &str| {
        let wrong = report.rows.iter().filter(|row| !row.passed);
        wrong.map(|row| row.what.as_str()).any(|w| w.contains(what))
    };
    assert!(
        failed(&gradient, "gradient of the training loss in weight"),
        "{:?}",
        gradient.rows
    );
    let curvature: Between = |net, x, _| {
        let h = (net.narrow(x)? * 0.3)?.broadcast_mul(&net.weight)?;
        square_with_wrong_curvature(&h)
    };
    let hessian = checked(curvature, linear_loss).unwrap();
    println!("{hessian}");
    assert_eq!(hessian.precision, "float32");
    assert!(!failed(&hessian, "gradient of the"), "{:?}", hessian.rows);
    assert!(failed(&hessian, "in weight"), "{:?}", hessian.rows);
    let right: Between = |net, x, _| {
        let h = (net.narrow(x)? * 0.3)?.broadcast_mul(&net.weight)?;
        h.sqr()
    };
    let report = checked(right, linear_loss).unwrap();
    assert!(
        report.passed() && report.visible() < 0.25,
        "{:?}",
        report.rows
    );
}

#[test]
fn the_rounding_of_a_tiny_loss_is_no_error() {
    let right: Between = |net, x, _| net.narrow(x)?.broadcast_mul(&net.weight);
    let report = checked(right, confident).unwrap();
    assert!(report.passed(), "{:?}", report.rows);
    assert_eq!(report.precision, "float64");
    let wrong: Between = |net, x, _| {
        let half = ((&net.weight + net.weight.detach())? * 0.5)?;
        net.narrow(x)?.broadcast_mul(&half)
    };
    let report = checked(wrong, confident).unwrap();
    assert!(!report.passed(), "{:?}", report.rows);
    assert_eq!(report.precision, "float64");
}

/// As in a model with a table that was made in float32.
fn with_constant(losses: &Tensor) -> Result<Tensor> {
    let one = Tensor::ones(losses.dims(), DType::F32, &Device::Cpu)?;
    losses * one
}

#[test]
fn wrong_derivatives_are_found_in_float32_too() {
    for (name, between) in WRONG {
        let report = checked(*between, |logits, targets| {
            with_constant(&ops::cross_entropy(logits, targets)?)
        })
        .unwrap();
        println!("--- {name}\n{report}\n");
        assert!(!report.passed(), "{name}: {report}");
        assert_eq!(report.precision, "float32", "{name}");
        let text = report.to_string();
        assert!(text.contains("for a check in float64"), "{name}: {text}");
    }
}

#[test]
fn every_refused_operation_is_named_with_its_cure() {
    let mut missing = Vec::new();
    for (name, between, words) in REFUSED {
        let text = said(*between, ops::cross_entropy);
        println!("--- {name}\n{text}\n");
        for word in *words {
            if !text.contains(word) {
                missing.push(format!("{name}: no \"{word}\" in: {text}"));
            }
        }
        if text.contains("std::backtrace") {
            missing.push(format!("{name}: a backtrace in the message: {text}"));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n\n"));
}

#[test]
fn losses_are_named_with_their_cure() {
    let plain: Between = |net, x, _| net.narrow(x);
    let gathered = said(plain, |logits, targets| {
        let logp = candle_nn::ops::log_softmax(logits, 1)?;
        logp.gather(&targets.unsqueeze(1)?, 1)?.squeeze(1)?.neg()
    });
    assert!(
        gathered.contains("it is gather") && gathered.contains("ops::cross_entropy"),
        "{gathered}"
    );
    // A mean instead of the loss of each example.
    for mean in [
        candle_nn::loss::cross_entropy as Loss,
        own::loss::cross_entropy,
    ] {
        let text = said(plain, mean);
        assert!(
            text.contains("the loss of each example") && text.contains("ops::cross_entropy"),
            "{text}"
        );
    }
    // A softmax as the last operation leaves no graph at all.
    let cut = said(
        |net, x, _| net.narrow(x),
        |logits, targets| {
            let p = candle_nn::ops::softmax_last_dim(&logits.detach())?;
            ops::cross_entropy(&p, targets)
        },
    );
    assert!(
        cut.contains("leads from the losses to no parameter") && cut.contains("own::ops::softmax"),
        "{cut}"
    );
}
