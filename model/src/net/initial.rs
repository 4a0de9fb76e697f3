//! Initial values of parameters and buffers.

use super::model::{Net, Start};
use crate::random::{Purpose, Stream};
use crate::real::Real;

impl Net {
    /// Initial parameters θ_0, flat, in the order of the parameters. Weights and biases of linear and convolution layers
    /// are uniform in ±1/√fan_in, as in PyTorch. Scales are 1 and shifts are 0. Tensor i is drawn from the run's stream
    /// [`Purpose::Init`]`(i)` in float64 and then rounded, so that f32 and f64 runs start from the same values.
    pub fn initial_parameters<T: Real>(&self, seed: u64) -> Vec<T> {
        let mut flat = Vec::with_capacity(self.parameter_values());
        for (i, (def, start)) in self.parameters.iter().zip(&self.starts).enumerate() {
            let size = def.shape.iter().product();
            match *start {
                Start::Constant(x) => flat.extend(std::iter::repeat_n(T::of(x), size)),
                Start::Uniform(bound) => {
                    let mut stream = Stream::of_run(seed, Purpose::Init(i as u32));
                    flat.extend((0..size).map(|_| T::of(stream.uniform_in(-bound, bound))));
                }
            }
        }
        flat
    }

    /// Initial buffers r_0, flat, in the order of the buffers. Running means are 0 and running variances are 1.
    pub fn initial_buffers<T: Real>(&self) -> Vec<T> {
        self.buffers
            .iter()
            .zip(&self.buffer_starts)
            .flat_map(|(def, &x)| std::iter::repeat_n(T::of(x), def.shape.iter().product()))
            .collect()
    }
}
