//! The model of a Task, compared with PyTorch's numbers, numbers computed by hand, and finite differences.

use candle_core::{DType, Device, Tensor};
use hindcast_model::net::{Net, Node, Op};
use hindcast_model::objective::{Batch, Draws, Mode, Objective, Pass, TensorDef};
use hindcast_model::task::Task;
use hindcast_model::train::{gradient, tensors};

use crate::task::with_layers;

/// All layers with parameters and all poolings, with different strides and paddings.
pub const ALL_LAYERS: &str = "
  { kind = 'conv2d', out = 4, kernel = [3, 2], stride = [1, 2], padding = [1, 0] },
  { kind = 'batch_norm' },
  { kind = 'gelu' },
  { kind = 'residual', layers = [{ kind = 'conv2d', out = 6, kernel = 3, padding = 1 }],
    projection = [{ kind = 'conv2d', out = 6, kernel = 1, bias = false }] },
  { kind = 'tanh' },
  { kind = 'conv_transpose2d', out = 3, kernel = 3, stride = 2, padding = 1, output_padding = 1 },
  { kind = 'relu' },
  { kind = 'max_pool2d', kernel = 3, stride = 2, padding = 1 },
  { kind = 'avg_pool2d', kernel = 2, stride = 1 },
  { kind = 'flatten' },
  { kind = 'linear', out = 5 },
  { kind = 'batch_norm', momentum = 0.2, eps = 1e-3 },
  { kind = 'sigmoid' },
  { kind = 'linear', out = 3 },
";

/// The smooth numbers with which the reference was computed.
fn fill(n: usize, k: f64) -> Vec<f64> {
    (0..n).map(|i| 0.3 * (1.7 * i as f64 + k).sin()).collect()
}

fn size(def: &TensorDef) -> usize {
    def.shape.iter().product()
}

pub fn net_of(text: &str) -> Net {
    let task = Task::from_toml(text).unwrap();
    Net::new(&task.model, &task.loss).unwrap()
}

pub fn all_layers(loss: &str) -> Net {
    net_of(&with_layers("[2, 6, 7]", ALL_LAYERS, "cross-entropy").replace("[schedule]", loss))
}

pub fn batch(shape: &[usize], values: Vec<f64>, targets: &[u32]) -> Batch {
    let mut dims = vec![targets.len()];
    dims.extend_from_slice(shape);
    Batch {
        indices: (0..targets.len() as u64).collect(),
        inputs: Tensor::from_vec(values, dims, &Device::Cpu).unwrap(),
        targets: Tensor::new(targets, &Device::Cpu).unwrap(),
    }
}

/// Parameters, buffers and batch of the reference.
fn reference(net: &Net) -> (Vec<f64>, Vec<f64>, Batch) {
    let parameters = net
        .parameters()
        .iter()
        .enumerate()
        .flat_map(|(k, def)| {
            let scale = f64::from(u8::from(def.name.ends_with("batch_norm.weight")));
            fill(size(def), k as f64)
                .into_iter()
                .map(move |x| x + scale)
        })
        .collect();
    let inputs = fill(4 * 2 * 6 * 7, 0.5).iter().map(|x| 3.0 * x).collect();
    (
        parameters,
        net.initial_buffers(),
        batch(&[2, 6, 7], inputs, &[2, 0, 1, 2]),
    )
}

const DRAWS: Draws = Draws { seed: 3, step: 5 };
const WEIGHTS: [f64; 4] = [0.1, 0.4, 0.3, 0.2];

pub fn close(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (g, e) in got.iter().zip(expected) {
        assert!(
            (g - e).abs() <= tolerance * e.abs().max(1e-3),
            "{got:?}\n{expected:?}"
        );
    }
}

pub fn per_example(net: &Net, p: &[f64], r: &[f64], batch: &Batch, mode: Mode) -> Vec<f64> {
    let cpu = Device::Cpu;
    let parameters = tensors("parameters", p, net.parameters(), &cpu).unwrap();
    let buffers = tensors("buffers", r, net.buffers(), &cpu).unwrap();
    let pass = Pass {
        parameters: &parameters,
        buffers: &buffers,
        batch,
        mode,
        draws: DRAWS,
    };
    net.losses(&pass).unwrap().per_example.to_vec1().unwrap()
}

/// Losses, gradients and running statistics as PyTorch 2 computes them for this net in float64.
#[test]
fn a_net_of_all_layers_agrees_with_pytorch() {
    let net = all_layers("penalty = 0.01\n[schedule]");
    let (p, r, batch) = reference(&net);
    let g = gradient(&net, &p, &r, &batch, Mode::Train, DRAWS, &WEIGHTS).unwrap();
    close(
        &g.per_example,
        &[
            1.5768581897175737,
            1.1039579033423996,
            1.1753330346952777,
            1.5485519585420113,
        ],
        1e-12,
    );
    close(&[g.loss], &[1.2615792824257028], 1e-12);
    // Sum and norm of each tensor's gradient.
    let expected = [
        (-0.0005690729217058686, 0.004141557508251387),
        (-0.5410015687346608, 0.8675478598848451),
        (0.06612075243996471, 0.08699309253677637),
        (0.11806139349037031, 0.1319289419792659),
        (0.04393971146429672, 0.032158431853261095),
        (0.22545062601257382, 0.4474664620922067),
        (0.09785851677482091, 0.28724623045418496),
        (0.0810958661779777, 0.07718680412133315),
        (-0.11414273506916095, 0.4936786245173553),
        (0.000591845496131485, 0.0043675333542453065),
        (-0.049153748892520374, 1.3707124314086758),
        (-0.004053460696719311, 0.013461466926790499),
        (0.01983269663391512, 0.04244406424832917),
        (0.0018834215568648907, 0.07940690657034825),
        (0.0005061513657768635, 0.15281834909937353),
    ];
    let mut start = 0;
    for (def, (sum, norm)) in net.parameters().iter().zip(expected) {
        let part = &g.gradient[start..start + size(def)];
        start += size(def);
        let squares: f64 = part.iter().map(|x| x * x).sum();
        close(&[part.iter().sum(), squares.sqrt()], &[sum, norm], 1e-9);
    }
    assert_eq!(start, p.len());
    assert!(g.trained.iter().all(|&t| t));
    let mean = [
        -0.0003951750569237243,
        0.029412620913019882,
        -0.007284787635234788,
        -0.027421591597087083,
    ];
    let variance = [
        0.9023877144950382,
        0.902046253687028,
        0.902325860694374,
        0.902108570692293,
    ];
    close(&g.buffers[..4], &mean, 1e-12);
    close(&g.buffers[4..8], &variance, 1e-12);
    // Then in evaluation mode: running statistics, no penalty.
    close(
        &per_example(&net, &p, &g.buffers, &batch, Mode::Evaluate),
        &[
            1.436556965658231,
            0.9335543144290628,
            0.9979247747573645,
            1.435389216457748,
        ],
        1e-12,
    );
}

#[test]
fn every_gradient_agrees_with_differences() {
    let net = all_layers("penalty = 0.01\npenalty_in = 'batch'\n[schedule]");
    let (mut p, r, batch) = reference(&net);
    let run = |p: &[f64]| gradient(&net, p, &r, &batch, Mode::Train, DRAWS, &WEIGHTS).unwrap();
    let exact = run(&p).gradient;
    for i in (0..p.len()).step_by(7) {
        let (at, e) = (p[i], 1e-5);
        p[i] = at + e;
        let up = run(&p).loss;
        p[i] = at - e;
        let difference = (up - run(&p).loss) / (2.0 * e);
        p[i] = at;
        assert!(
            (exact[i] - difference).abs() < 1e-8,
            "{i}: {} {difference}",
            exact[i]
        );
    }
}

#[test]
fn losses_agree_with_pytorch() {
    let z: Vec<f64> = fill(12, 1.0).iter().map(|x| 5.0 * x).collect();
    let t: Vec<f64> = fill(12, 2.0).iter().map(|x| (x + 0.3) / 0.6).collect();
    // A linear layer that returns its inputs.
    let identity: Vec<f64> = (0..16).map(|i| f64::from(u8::from(i % 5 == 0))).collect();
    let layers = "{ kind = 'linear', out = 4, bias = false }";
    for (kind, expected) in [
        (
            "binary-cross-entropy",
            [0.599809458087719, 0.5801480350846533, 0.6054158164876153],
        ),
        (
            "mean-squared-error",
            [0.9821472223345193, 0.9937720217553079, 1.0596738355582263],
        ),
    ] {
        let net = net_of(&with_layers("[4]", layers, kind));
        let mut batch = batch(&[4], z.clone(), &[0, 0, 0]);
        batch.targets = Tensor::from_vec(t.clone(), (3, 4), &Device::Cpu).unwrap();
        let got = per_example(&net, &identity, &[], &batch, Mode::Train);
        close(&got, &expected, 1e-13);
    }
    // Two classes and one logit: the class is the target.
    let net = net_of(&with_layers(
        "[1]",
        "{ kind = 'linear', out = 1, bias = false }",
        "binary-cross-entropy",
    ));
    let got = per_example(
        &net,
        &[2.0],
        &[],
        &batch(&[1], vec![0.5, 0.5], &[1, 0]),
        Mode::Train,
    );
    let softplus = |z: f64| z.exp().ln_1p();
    close(&got, &[softplus(-1.0), softplus(1.0)], 1e-14);
}

#[test]
fn a_penalty_is_added_where_the_task_says() {
    let layers = "{ kind = 'linear', out = 2 }";
    let text = with_layers("[2]", layers, "cross-entropy");
    let p = [0.1, -0.2, 0.3, 0.4, -0.5, 0.6];
    let half = 0.5 * p.iter().map(|x| x * x).sum::<f64>();
    let batch = batch(&[2], vec![1.0, 2.0, -1.0, 0.5], &[0, 1]);
    let of = |extra: &str| net_of(&text.replace("[schedule]", &format!("{extra}\n[schedule]")));
    let run = |net: &Net, mode| gradient(net, &p, &[], &batch, mode, DRAWS, &[1.0, 1.0]).unwrap();
    let plain = run(&of(""), Mode::Train);
    let inside = run(&of("penalty = 0.25"), Mode::Train);
    let outside = run(&of("penalty = 0.25\npenalty_in = 'batch'"), Mode::Train);
    // With weights of 1, the penalty counts once per example.
    close(&[inside.loss], &[plain.loss + 2.0 * 0.25 * half], 1e-14);
    close(&[outside.loss], &[plain.loss + 0.25 * half], 1e-14);
    assert_eq!(outside.per_example, plain.per_example);
    for (i, x) in p.iter().enumerate() {
        let gap = [
            inside.gradient[i] - plain.gradient[i],
            outside.gradient[i] - plain.gradient[i],
        ];
        close(&gap, &[2.0 * 0.25 * x, 0.25 * x], 1e-12);
    }
    // Evaluation has no penalty.
    let evaluated = run(&of("penalty = 0.25"), Mode::Evaluate);
    assert_eq!(evaluated.loss, run(&of(""), Mode::Evaluate).loss);
}

/// Checks that the input shape of each node is the output shape of the node before it.
fn walk(nodes: &[Node], x: &mut Vec<usize>) {
    for node in nodes {
        assert_eq!(&node.input, x, "{}", node.path);
        if let Op::Residual { body, projection } = &node.op {
            for path in [body, projection] {
                let mut y = x.clone();
                walk(path, &mut y);
                assert_eq!(y, node.output);
            }
        }
        x.clone_from(&node.output);
    }
}

#[test]
fn inferred_shapes_equal_the_shapes_of_outputs() {
    let net = all_layers("[schedule]");
    walk(net.nodes(), &mut vec![2, 6, 7]);
    assert_eq!(net.output_shape(), [3]);
    // Each layer in turn is the last layer of a net.
    let prefix = "[2, 9, 8]";
    let cases = [
        (
            "{ kind = 'conv2d', out = 3, kernel = [3, 2], stride = [2, 3], padding = [1, 2] }",
            vec![3, 5, 4],
        ),
        (
            "{ kind = 'conv_transpose2d', out = 3, kernel = [3, 2], stride = 2, padding = [1, 0], output_padding = [1, 0] }",
            vec![3, 18, 16],
        ),
        (
            "{ kind = 'conv2d', out = 2, kernel = 1 }, { kind = 'max_pool2d', kernel = 2, stride = 1 }",
            vec![2, 8, 7],
        ),
        (
            "{ kind = 'conv2d', out = 2, kernel = 1 }, { kind = 'relu' }, { kind = 'max_pool2d', kernel = 3 }",
            vec![2, 3, 2],
        ),
        (
            "{ kind = 'conv2d', out = 2, kernel = 1 }, { kind = 'avg_pool2d', kernel = [3, 2], stride = [1, 2] }",
            vec![2, 7, 4],
        ),
        ("{ kind = 'batch_norm' }", vec![2, 9, 8]),
        (
            "{ kind = 'batch_norm' }, { kind = 'dropout' }, { kind = 'flatten' }",
            vec![144],
        ),
    ];
    for (layers, shape) in cases {
        let net = net_of(&with_layers(prefix, layers, "mean-squared-error"));
        assert_eq!(net.output_shape(), shape, "{layers}");
        let p = tensors(
            "p",
            &net.initial_parameters::<f32>(1),
            net.parameters(),
            &Device::Cpu,
        )
        .unwrap();
        let r = tensors(
            "r",
            &net.initial_buffers::<f32>(),
            net.buffers(),
            &Device::Cpu,
        )
        .unwrap();
        let mut dims = vec![3];
        dims.extend(&shape);
        let batch = Batch {
            indices: vec![0, 1, 2],
            inputs: Tensor::ones((3, 2, 9, 8), DType::F32, &Device::Cpu).unwrap(),
            targets: Tensor::zeros(dims.as_slice(), DType::F32, &Device::Cpu).unwrap(),
        };
        let pass = Pass {
            parameters: &p,
            buffers: &r,
            batch: &batch,
            mode: Mode::Train,
            draws: DRAWS,
        };
        assert_eq!(net.losses(&pass).unwrap().outputs.dims(), dims, "{layers}");
    }
}

#[test]
fn the_dropout_mask_of_a_row_does_not_depend_on_other_rows() {
    let text = with_layers(
        "[64]",
        "{ kind = 'dropout', p = 0.25 }, { kind = 'linear', out = 2 }, { kind = 'dropout' }",
        "cross-entropy",
    );
    let net = net_of(&text);
    let p = tensors(
        "p",
        &net.initial_parameters::<f64>(0),
        net.parameters(),
        &Device::Cpu,
    )
    .unwrap();
    let outputs = |indices: &[u64], mode, draws| {
        let batch = Batch {
            indices: indices.to_vec(),
            inputs: Tensor::ones((indices.len(), 64), DType::F64, &Device::Cpu).unwrap(),
            targets: Tensor::zeros(indices.len(), DType::U32, &Device::Cpu).unwrap(),
        };
        let pass = Pass {
            parameters: &p,
            buffers: &[],
            batch: &batch,
            mode,
            draws,
        };
        net.losses(&pass).unwrap().outputs.to_vec2::<f64>().unwrap()
    };
    let all = outputs(&[7, 3, 9, 3], Mode::Train, DRAWS);
    assert_eq!(outputs(&[9], Mode::Train, DRAWS)[0], all[2]);
    assert_eq!(outputs(&[3, 5, 3], Mode::Train, DRAWS)[0], all[1]);
    // The second occurrence of an example has another mask, which is reproducible.
    assert_ne!(all[1], all[3]);
    assert_eq!(outputs(&[3, 5, 3], Mode::Train, DRAWS)[2], all[3]);
    assert_ne!(
        outputs(&[9], Mode::Train, Draws { seed: 3, step: 6 })[0],
        all[2]
    );
    let still = outputs(&[7, 3], Mode::Evaluate, DRAWS);
    assert_eq!(still[0], still[1]);
}

#[test]
fn dropout_keeps_the_mean_and_drops_its_share() {
    let text = with_layers(
        "[10000]",
        "{ kind = 'dropout', p = 0.25 }, { kind = 'linear', out = 1, bias = false }",
        "mean-squared-error",
    );
    let net = net_of(&text);
    let batch = Batch {
        indices: vec![0],
        inputs: Tensor::ones((1, 10000), DType::F64, &Device::Cpu).unwrap(),
        targets: Tensor::zeros((1, 1), DType::F64, &Device::Cpu).unwrap(),
    };
    // The gradient of a linear output is its input, which is the mask.
    let w = vec![1.0 / 10000.0; 10000];
    let g = gradient(&net, &w, &[], &batch, Mode::Train, DRAWS, &[1.0]).unwrap();
    let mask: Vec<f64> = g
        .gradient
        .iter()
        .map(|x| x / (2.0 * g.per_example[0].sqrt()))
        .collect();
    let kept = mask.iter().filter(|&&m| m > 0.0).count() as f64;
    assert!(
        mask.iter()
            .all(|&m| m == 0.0 || (m - 4.0 / 3.0).abs() < 1e-12)
    );
    assert!((kept / 10000.0 - 0.75).abs() < 0.018, "{kept}");
}

#[test]
fn initial_values_are_seeded_and_bounded() {
    let net = all_layers("[schedule]");
    let (a, b) = (
        net.initial_parameters::<f64>(1),
        net.initial_parameters::<f64>(1),
    );
    assert_eq!(a, b);
    assert_ne!(a, net.initial_parameters::<f64>(2));
    let narrow: Vec<f32> = a.iter().map(|&x| x as f32).collect();
    assert_eq!(narrow, net.initial_parameters::<f32>(1));
    let mut start = 0;
    for def in net.parameters() {
        let part = &a[start..start + size(def)];
        start += size(def);
        let bound = match def.name.as_str() {
            "00.conv2d.weight" | "00.conv2d.bias" => 1.0 / 12f64.sqrt(),
            // For a transposed convolution, PyTorch takes fan_in from the outputs.
            "05.conv_transpose2d.weight" => 1.0 / 27f64.sqrt(),
            "10.linear.weight" => 1.0 / 30f64.sqrt(),
            name if name.ends_with("batch_norm.weight") => 1.0,
            _ => continue,
        };
        let largest = part.iter().fold(0f64, |m, x| m.max(x.abs()));
        assert!(
            largest <= bound && largest > 0.6 * bound,
            "{} {largest} {bound}",
            def.name
        );
    }
}

#[test]
fn a_pass_that_does_not_fit_is_refused_with_both_shapes() {
    let net = net_of(&with_layers(
        "[3]",
        "{ kind = 'linear', out = 2 }",
        "cross-entropy",
    ));
    let run = |p: &[f64], batch: &Batch, w: &[f64]| {
        gradient(&net, p, &[], batch, Mode::Train, DRAWS, w)
            .unwrap_err()
            .to_string()
    };
    let good = batch(&[3], vec![0.0; 3], &[0]);
    let e = run(&[0.0; 7], &good, &[1.0]);
    assert!(e.contains("parameters: expected 8 values, got 7"), "{e}");
    let e = run(&[0.0; 8], &good, &[1.0, 1.0]);
    assert!(
        e.contains("weights of the batch: expected 1 values, got 2"),
        "{e}"
    );
    let e = run(&[0.0; 8], &batch(&[4], vec![0.0; 4], &[0]), &[1.0]);
    assert!(
        e.contains("inputs of shape [3]") && e.contains("[1, 4]"),
        "{e}"
    );
    let e = run(&[0.0; 8], &batch(&[3], vec![0.0; 3], &[2]), &[1.0]);
    assert!(e.contains("class 2"), "{e}");
}
