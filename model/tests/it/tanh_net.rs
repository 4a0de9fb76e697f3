//! A small problem with explicit formulas for its gradient and Hessian: a net of one tanh layer with a logistic loss.

use hindcast_model::random::{Purpose, Stream};

/// Number of inputs of an example.
pub const D: usize = 4;
/// Number of hidden units.
pub const H: usize = 3;
/// Parameters: a matrix (D, H) and a vector (H).
pub const P: usize = D * H + H;

/// Examples with labels ±1.
pub struct Examples {
    pub x: Vec<[f64; D]>,
    pub y: Vec<f64>,
}

impl Examples {
    pub fn draw(stream: &mut Stream, n: usize) -> Self {
        let x = (0..n)
            .map(|_| std::array::from_fn(|_| stream.normal()))
            .collect();
        let y = (0..n)
            .map(|_| if stream.bernoulli(0.5) { 1.0 } else { -1.0 })
            .collect();
        Self { x, y }
    }

    /// Loss of example j.
    pub fn loss(&self, theta: &[f64], j: usize) -> f64 {
        let (_, f) = self.forward(theta, j);
        (-self.y[j] * f).exp().ln_1p()
    }

    /// Mean loss of all examples.
    pub fn mean_loss(&self, theta: &[f64]) -> f64 {
        (0..self.y.len()).map(|j| self.loss(theta, j)).sum::<f64>() / self.y.len() as f64
    }

    /// Its gradient.
    pub fn mean_gradient(&self, theta: &[f64]) -> Vec<f64> {
        let mut sum = vec![0.0; P];
        for j in 0..self.y.len() {
            add(
                &mut sum,
                1.0 / self.y.len() as f64,
                &self.gradient(theta, j),
            );
        }
        sum
    }

    fn forward(&self, theta: &[f64], j: usize) -> ([f64; H], f64) {
        let z: [f64; H] =
            std::array::from_fn(|k| (0..D).map(|i| self.x[j][i] * theta[i * H + k]).sum());
        let z = z.map(f64::tanh);
        let f = (0..H).map(|k| z[k] * theta[D * H + k]).sum();
        (z, f)
    }

    /// Gradient of example j's loss.
    pub fn gradient(&self, theta: &[f64], j: usize) -> Vec<f64> {
        self.tangent(theta, &[0.0; P], j).0
    }

    /// Gradient of example j's loss and its derivative along `s`: the Hessian times `s`.
    pub fn tangent(&self, theta: &[f64], s: &[f64], j: usize) -> (Vec<f64>, Vec<f64>) {
        let (z, f) = self.forward(theta, j);
        let (x, y) = (&self.x[j], self.y[j]);
        let a = |k: usize| theta[D * H + k];
        let (along, back) = (1.0 / (1.0 + (-y * f).exp()), 1.0 / (1.0 + (y * f).exp()));
        let (c, curvature) = (-y * back, along * back);
        let dz: [f64; H] = std::array::from_fn(|k| {
            (1.0 - z[k] * z[k]) * (0..D).map(|i| x[i] * s[i * H + k]).sum::<f64>()
        });
        let df: f64 = (0..H).map(|k| dz[k] * a(k) + z[k] * s[D * H + k]).sum();
        let dc = curvature * df;
        let (mut g, mut h) = (vec![0.0; P], vec![0.0; P]);
        for k in 0..H {
            let slope = 1.0 - z[k] * z[k];
            for i in 0..D {
                g[i * H + k] = x[i] * c * a(k) * slope;
                h[i * H + k] =
                    x[i] * ((dc * a(k) + c * s[D * H + k]) * slope - c * a(k) * 2.0 * z[k] * dz[k]);
            }
            g[D * H + k] = c * z[k];
            h[D * H + k] = dc * z[k] + c * dz[k];
        }
        (g, h)
    }
}

/// `to += factor · from`.
pub fn add(to: &mut [f64], factor: f64, from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += factor * from;
    }
}

/// ‖a − b‖ / ‖b‖.
pub fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let gap: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    let size: f64 = b.iter().map(|b| b * b).sum();
    (gap / size).sqrt()
}

/// A stream for tests.
pub fn stream(index: u32) -> Stream {
    Stream::of_run(0, Purpose::Other(1 << 31, index))
}
