//! A training step and a double backward pass of the convolutional nets, with these layers and with candle's.
//!
//! `cargo bench -p hindcast-model --bench train_step [-- FILTER]` prints milliseconds (median and minimum over
//! interleaved rounds) and GFLOP/s. Only the operations of convolutions and linear layers count. For one query u, a
//! double backward pass computes all per-example products and the Hessian-vector product. Without `--bench`, as in
//! `cargo test --benches`, each case runs once.

use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use hindcast_model::ops::{self, second_order};

/// The implementation of the layers.
#[derive(Clone, Copy, PartialEq)]
enum Layers {
    Ours,
    /// Convolution, bias, ReLU and max pooling in one pass.
    OursFused,
    /// candle's conv2d, relu and matmul. The gradient of candle's max pooling is wrong, so windows are reshaped and reduced.
    Candle,
}

struct Net {
    layers: Layers,
    params: Vec<Var>,
    buffers: Vec<Tensor>,
    forward: fn(&Net, &[Tensor], &Tensor) -> Result<Tensor>,
    input: Tensor,
    targets: Tensor,
    /// Operations of a forward pass. A multiplication and an addition count as two.
    flops: f64,
    /// Operations of layers whose input needs no gradient.
    first_layer_flops: f64,
}

fn random(dims: &[usize], scale: f64) -> Result<Tensor> {
    Tensor::randn(0f32, scale as f32, dims, &Device::Cpu)
}

impl Net {
    fn conv(&self, x: &Tensor, w: &Tensor, b: &Tensor, padding: usize) -> Result<Tensor> {
        match self.layers {
            Layers::Candle => {
                x.conv2d(w, padding, 1, 1, 1)?
                    .broadcast_add(&b.reshape((1, (), 1, 1))?)
            }
            _ => ops::conv2d(x, w, Some(b), (1, 1), (padding, padding)),
        }
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        match self.layers {
            Layers::Candle => x.relu(),
            _ => ops::relu(x),
        }
    }

    fn relu_pool(&self, x: &Tensor) -> Result<Tensor> {
        match self.layers {
            Layers::Candle => {
                let (b, c, h, w) = x.dims4()?;
                x.relu()?
                    .reshape(&[b, c, h / 2, 2, w / 2, 2][..])?
                    .max(5)?
                    .max(3)
            }
            Layers::Ours => ops::max_pool2d(&ops::relu(x)?, (2, 2), (2, 2), (0, 0)),
            Layers::OursFused => ops::relu_max_pool2d(x, (2, 2), (2, 2), (0, 0)),
        }
    }

    /// Convolution, ReLU, max pooling by 2.
    fn block(&self, x: &Tensor, w: &Tensor, b: &Tensor, padding: usize) -> Result<Tensor> {
        let (pad, two) = ((padding, padding), (2, 2));
        match self.layers {
            Layers::OursFused => {
                ops::conv2d_relu_max_pool2d(x, w, Some(b), (1, 1), pad, two, two, (0, 0))
            }
            _ => self.relu_pool(&self.conv(x, w, b, padding)?),
        }
    }

    fn norm(&self, x: &Tensor, gamma: &Tensor, beta: &Tensor, at: usize) -> Result<Tensor> {
        let (mean, var) = (&self.buffers[2 * at], &self.buffers[2 * at + 1]);
        if self.layers == Layers::Candle {
            let lift = |t: &Tensor| t.reshape((1, (), 1, 1));
            let centred = x.broadcast_sub(&x.mean_keepdim((0, 2, 3))?)?;
            let var = centred.sqr()?.mean_keepdim((0, 2, 3))?;
            return centred
                .broadcast_div(&(var + 1e-5)?.sqrt()?)?
                .broadcast_mul(&lift(gamma)?)?
                .broadcast_add(&lift(beta)?);
        }
        Ok(ops::batch_norm(x, gamma, beta, mean, var, 0.1, 1e-5, true)?.0)
    }

    fn linear(&self, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
        match self.layers {
            Layers::Candle => x.matmul(&w.t()?)?.broadcast_add(b),
            _ => ops::linear(x, w, Some(b)),
        }
    }

    fn losses(&self, p: &[Tensor]) -> Result<Tensor> {
        let logits = (self.forward)(self, p, &self.input)?;
        ops::cross_entropy(&logits, &self.targets)
    }

    /// Forward pass, backward pass and a plain SGD update.
    fn step(&self) -> Result<()> {
        let p: Vec<Tensor> = self.params.iter().map(|v| v.as_tensor().clone()).collect();
        let grads = self.losses(&p)?.mean_all()?.backward()?;
        for v in &self.params {
            if let Some(g) = grads.get(v) {
                v.set(&v.sub(&g.affine(1e-3, 0.0)?)?)?;
            }
        }
        Ok(())
    }

    /// <u, g_j> of each example, and H u.
    fn double_backward(&self, u: &[Tensor]) -> Result<()> {
        let b = self.targets.elem_count();
        let weights = Var::from_tensor(&Tensor::full(1.0 / b as f32, b, &Device::Cpu)?)?;
        let p: Vec<Tensor> = self.params.iter().map(|v| v.as_tensor().clone()).collect();
        let loss = self.losses(&p)?.mul(&weights)?.sum_all()?;
        let grads = loss.backward()?;
        let mut along = Tensor::zeros((), DType::F32, &Device::Cpu)?;
        for (v, u) in self.params.iter().zip(u) {
            if let Some(g) = grads.get(v) {
                along = along.add(&g.mul(u)?.sum_all()?)?;
            }
        }
        let second = along.backward()?;
        assert!(second.get(&weights).is_some() && second.get(&self.params[0]).is_some());
        Ok(())
    }
}

/// conv 5x5 1->20, ReLU, max-pool 2, conv 5x5 20->20, ReLU, max-pool 2, linear 320->10.
fn mnist(layers: Layers, batch: usize) -> Result<Net> {
    let shapes: [(&[usize], f64); 6] = [
        (&[20, 1, 5, 5], 0.2),
        (&[20], 0.1),
        (&[20, 20, 5, 5], 0.045),
        (&[20], 0.1),
        (&[10, 320], 0.055),
        (&[10], 0.1),
    ];
    let params = shapes
        .iter()
        .map(|(s, scale)| Var::from_tensor(&random(s, *scale)?))
        .collect::<Result<_>>()?;
    let first = 2.0 * 20.0 * 25.0 * 576.0 * batch as f64;
    Ok(Net {
        layers,
        params,
        buffers: vec![],
        forward: |net, p, x| {
            let x = net.block(x, &p[0], &p[1], 0)?;
            let x = net.block(&x, &p[2], &p[3], 0)?;
            net.linear(&x.flatten_from(1)?, &p[4], &p[5])
        },
        input: random(&[batch, 1, 28, 28], 1.0)?,
        targets: classes(batch)?,
        flops: first + 2.0 * batch as f64 * (20.0 * 500.0 * 64.0 + 3200.0),
        first_layer_flops: first,
    })
}

/// Three blocks of conv 3x3, batch norm, ReLU, conv 3x3, ReLU, max-pool 2 with 32, 64 and 128 channels; linear 2048->10.
fn cifar(layers: Layers, batch: usize) -> Result<Net> {
    let (mut params, mut buffers, mut flops, mut first) = (vec![], vec![], 0.0, 0.0);
    let (mut c, mut side) = (3usize, 32usize);
    for o in [32usize, 64, 128] {
        for (i, c) in [c, o].into_iter().enumerate() {
            params.push(random(&[o, c, 3, 3], (1.0 / (9 * c) as f64).sqrt())?);
            params.push(random(&[o], 0.1)?);
            let work = 2.0 * (batch * o * c * 9 * side * side) as f64;
            flops += work;
            if first == 0.0 {
                first = work;
            }
            if i == 0 {
                params.push(Tensor::ones(o, DType::F32, &Device::Cpu)?);
                params.push(Tensor::zeros(o, DType::F32, &Device::Cpu)?);
                buffers.push(Tensor::zeros(o, DType::F32, &Device::Cpu)?);
                buffers.push(Tensor::ones(o, DType::F32, &Device::Cpu)?);
            }
        }
        (c, side) = (o, side / 2);
    }
    params.push(random(&[10, 2048], 0.02)?);
    params.push(random(&[10], 0.02)?);
    Ok(Net {
        layers,
        params: params.iter().map(Var::from_tensor).collect::<Result<_>>()?,
        buffers,
        forward: |net, p, x| {
            let mut x = x.clone();
            for block in 0..3 {
                let p = &p[6 * block..];
                x = net.norm(&net.conv(&x, &p[0], &p[1], 1)?, &p[2], &p[3], block)?;
                x = net.block(&net.relu(&x)?, &p[4], &p[5], 1)?;
            }
            net.linear(&x.flatten_from(1)?, &p[18], &p[19])
        },
        input: random(&[batch, 3, 32, 32], 1.0)?,
        targets: classes(batch)?,
        flops: flops + 2.0 * (batch * 20480) as f64,
        first_layer_flops: first,
    })
}

fn classes(batch: usize) -> Result<Tensor> {
    Tensor::arange(0u32, batch as u32, &Device::Cpu)?
        .to_dtype(DType::F32)?
        .affine(0.3, 0.0)?
        .to_dtype(DType::U32)?
        .minimum(9u32)
}

struct Case {
    name: String,
    gflop: f64,
    run: Box<dyn Fn() -> Result<()>>,
    times: Vec<f64>,
    heavy: bool,
}

/// Makes a net of these layers for batches of this size.
type Build = fn(Layers, usize) -> Result<Net>;

fn cases() -> Result<Vec<Case>> {
    let mut out = Vec::new();
    let builders: [(&str, Build, bool); 2] =
        [("mnist-cnn", mnist, false), ("cifar10-cnn", cifar, true)];
    for (net, build, heavy) in builders {
        for (layers, who) in [
            (Layers::OursFused, "ops, blocks"),
            (Layers::Ours, "ops"),
            (Layers::Candle, "candle"),
        ] {
            let model = std::rc::Rc::new(build(layers, 64)?);
            let u = model
                .params
                .iter()
                .map(|p| random(p.dims(), 0.01))
                .collect::<Result<Vec<_>>>()?;
            let step = 3.0 * model.flops - model.first_layer_flops;
            // The second pass takes four times the products of the forward pass, except for the first layer's input.
            let double = 9.0 * model.flops - 4.0 * model.first_layer_flops;
            let m = model.clone();
            out.push(Case {
                name: format!("{net} step, {who}"),
                gflop: step / 1e9,
                run: Box::new(move || m.step()),
                times: vec![],
                heavy: heavy || layers == Layers::Candle,
            });
            out.push(Case {
                name: format!("{net} double backward, {who}"),
                gflop: double / 1e9,
                run: Box::new(move || model.double_backward(&u)),
                times: vec![],
                heavy: heavy || layers == Layers::Candle,
            });
        }
    }
    // Labels must be below the number of classes.
    debug_assert!(classes(4)?.max(D::Minus1)?.to_scalar::<u32>()? < 10);
    Ok(out)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let measure = args.iter().any(|a| a == "--bench");
    let filter = args.iter().find(|a| !a.starts_with("--")).cloned();
    second_order::with_big_stack(move || {
        let mut cases = cases()?;
        if let Some(f) = &filter {
            cases.retain(|c| c.name.contains(f.as_str()));
        }
        if !measure {
            return cases.iter().try_for_each(|c| (c.run)());
        }
        println!("threads {}, batch 64, f32", rayon::current_num_threads());
        for _round in 0..6 {
            for case in &mut cases {
                (case.run)()?;
                for _ in 0..if case.heavy { 2 } else { 12 } {
                    let start = Instant::now();
                    (case.run)()?;
                    case.times.push(start.elapsed().as_secs_f64() * 1e3);
                }
            }
        }
        println!(
            "{:<48} {:>9} {:>9} {:>9}",
            "case", "median ms", "min ms", "GFLOP/s"
        );
        for case in &mut cases {
            case.times.sort_by(f64::total_cmp);
            let (median, min) = (case.times[case.times.len() / 2], case.times[0]);
            let rate = case.gflop / (min / 1e3);
            println!("{:<48} {median:>9.2} {min:>9.2} {rate:>9.1}", case.name);
        }
        Ok(())
    })
}
