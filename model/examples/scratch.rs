use candle_core::Device;
use hindcast_model::{
    net::Net,
    objective::Split,
    task::Task,
    train::{self, TrainError, Trainer},
};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let mut task = Task::builtin(&args[1])?;
    let dir = args[2].clone();
    let sets: Vec<(&str, &str)> = args[3..]
        .iter()
        .map(|a| a.split_once('=').unwrap())
        .collect();
    task.set_all(&sets)?;
    let data = task.load_data(if dir == "-" {
        None
    } else {
        Some(std::path::Path::new(&dir))
    })?;
    let net = Net::new(&task)?;
    let mut t = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu)?;
    let mut start = std::time::Instant::now();
    let per = t.batches().steps_per_epoch();
    let mut last = 0;
    let mut sum = 0.0;
    while t.step(|s| {
        sum += s.loss;
        Ok::<(), TrainError>(())
    })? {
        last += 1;
        if last % per == 0 {
            let secs = start.elapsed().as_secs_f64();
            let v = train::evaluate(
                &net,
                &t.state().parameters,
                &t.state().buffers,
                data.as_ref(),
                Split::Validation,
                &Device::Cpu,
            )?;
            let n = data.len(Split::Train);
            let idx: Vec<u64> = (0..n).collect();
            let l = train::losses(
                &net,
                &t.state().parameters,
                &t.state().buffers,
                data.as_ref(),
                Split::Train,
                &idx,
                &Device::Cpu,
            )?;
            let planted: Vec<u64> = idx
                .iter()
                .copied()
                .filter(|&i| data.planted(Split::Train, i) == Some(true))
                .collect();
            let mut order = idx.clone();
            order.sort_by(|a, b| l[*b as usize].total_cmp(&l[*a as usize]));
            let hit = order[..planted.len()]
                .iter()
                .filter(|i| planted.contains(i))
                .count();
            println!(
                "epoch {} train {:.4} val loss {:.4} err {:?} {:.2}s ({:.0} us/step); planted {} mean loss {:.2} top-loss hit {:.3}",
                last / per,
                sum / per as f64,
                v.loss,
                v.error_rate(),
                secs,
                secs / per as f64 * 1e6,
                planted.len(),
                planted.iter().map(|i| l[*i as usize]).sum::<f64>() / planted.len().max(1) as f64,
                hit as f64 / planted.len().max(1) as f64
            );
            start = std::time::Instant::now();
            sum = 0.0;
        }
    }
    Ok(())
}
