//! Times that include the work that a device still has to do.

use std::time::Instant;

use candle_core::Device;

/// Milliseconds of `run`, from an idle device until the device is idle again.
pub(super) fn ms(device: &Device, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    device.synchronize()?;
    let begun = Instant::now();
    run()?;
    device.synchronize()?;
    Ok(1e3 * begun.elapsed().as_secs_f64())
}

/// The value at this share of the sorted values; NaN if there are none.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (share * sorted.len() as f64) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}
