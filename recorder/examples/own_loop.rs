//! Records your own candle training loop: `cargo run -p hindcast-recorder --example own_loop [FOLDER]`.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss::mse};
use hindcast_recorder::{Keep, Recorder};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    record(
        &std::env::args()
            .nth(1)
            .unwrap_or_else(|| "own-loop-run".to_owned()),
    )
}

/// Fits a linear model and records every step of it in the folder `path`.
pub fn record(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let variables = VarMap::new();
    let model = linear(
        4,
        1,
        VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu),
    )?;
    let x = Tensor::randn(0f32, 1., (64, 4), &Device::Cpu)?;
    let y = x.sum_keepdim(1)?;

    let run = Recorder::builder(path)
        .keep(Keep::All)
        .expected_steps(40, 8)
        .create(&variables)?;
    eprintln!("{}", run.estimate());
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1)?);
    for epoch in 0..5 {
        for start in (0..64u64).step_by(8) {
            let indices: Vec<u64> = (start..start + 8).collect();
            let (x, y) = (
                x.narrow(0, start as usize, 8)?,
                y.narrow(0, start as usize, 8)?,
            );
            let loss = mse(&model.forward(&x)?, &y)?;
            run.batch(epoch, &indices)?; // the examples of the next step
            sgd.backward_step(&loss)?; // records the parameters, then steps
        }
    }
    println!("{}", run.finish()?);
    Ok(())
}
