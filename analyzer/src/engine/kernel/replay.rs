//! One micro-batch through all phases, and the sums over its lanes.

use hindcast_model::net::Net;
use hindcast_model::objective::Mode;
use hindcast_model::task::LossKind;
use rayon::prelude::*;

use super::chunk::{Examples, Goal, Shared};
use super::lanes::{Cut, LaneValues, Lanes};
use super::layout::ChunkLayout;
use super::norms::Norms;
use super::number::Number;
use super::point::Point;
use super::program::{Barrier, Program, Work};
use super::totals::Totals;
use crate::error::Result;
use crate::run::floats::FloatSlice;

/// Number of operations below which a batch is computed on the calling thread: handing it to the pool would take
/// longer.
const SMALL: f64 = 1e7;

/// Threads share the directions' sums if there are at least this many accumulators.
const SHARED_SUMS: usize = 1 << 19;

/// A net in one mode, with everything that lives from step to step.
pub(super) struct Replay<T> {
    pub program: Program,
    cut: Cut,
    loss: LossKind,
    layout: ChunkLayout,
    pub point: Point<T>,
    pub norms: Norms,
    lanes: Lanes<T>,
}

impl<T: Number> Replay<T> {
    /// # Errors
    /// The net has a layer without kernels.
    pub fn new(net: &Net, mode: Mode) -> Result<Self> {
        Self::cut_by(net, mode, Cut::of::<T>)
    }

    /// A net whose batches are cut as `cut` says.
    ///
    /// # Errors
    /// The net has a layer without kernels.
    pub fn cut_by(net: &Net, mode: Mode, cut: impl FnOnce(&Program) -> Cut) -> Result<Self> {
        let program = Program::new(net, mode)?;
        let cut = cut(&program);
        Ok(Self {
            layout: ChunkLayout::new(&program, cut.largest, 0),
            cut,
            loss: net.loss().kind,
            point: Point::default(),
            norms: Norms::default(),
            lanes: Lanes::default(),
            program,
        })
    }

    /// Bytes of a pass over this many examples.
    pub fn bytes(&self, examples: usize, tangents: usize) -> u64 {
        let layout = ChunkLayout::new(&self.program, self.cut.largest, tangents);
        let (blocks, width) = (tangents.max(1), size_of::<T>());
        let store = layout.len * width + layout.winners_len * size_of::<u32>();
        let stores = if self.program.has_barriers() {
            self.cut.chunks(examples)
        } else {
            self.cut.lanes(examples).min(rayon::current_num_threads())
        };
        let sums = self.cut.lanes(examples) * blocks * self.program.parameters;
        let point = (1 + tangents) * self.program.parameters + blocks * self.program.stacked;
        (stores * store + width * (sums + point)) as u64
    }

    /// Sets a step's parameters and directions, and the adjoints that belong to them.
    pub fn set(&mut self, theta: FloatSlice<'_>, directions: &[&[f64]], rho: &[Vec<f64>]) {
        self.point.set(&self.program, theta, directions, rho);
        if self.layout.tangents != directions.len() {
            self.layout = ChunkLayout::new(&self.program, self.cut.largest, directions.len());
        }
    }

    /// Runs a micro-batch at the point that was set. `rho` are the adjoints of the buffers after it.
    ///
    /// # Errors
    /// Batch norm has a single value per channel.
    pub fn run(
        &mut self,
        goal: Goal,
        examples: &Examples<'_, T>,
        buffers: &[f64],
        rho: &[Vec<f64>],
    ) -> Result<()> {
        let n = examples.indices.len();
        let (program, norms) = (&self.program, &mut self.norms);
        norms.begin(program, n, buffers, rho, &self.point)?;
        let products = match goal {
            Goal::Losses => 1.0,
            Goal::Gradient => 3.0,
            Goal::Products => 2.0 + 6.0 * self.layout.tangents as f64,
        };
        let threads = if program.flops * n as f64 * products < SMALL {
            1
        } else {
            rayon::current_num_threads()
        };
        let kept = LaneValues {
            sums: norms.len,
            outputs: match goal {
                Goal::Losses => program.slots[program.output].size(),
                Goal::Gradient | Goal::Products => 0,
            },
            gradient: match goal {
                Goal::Losses => 0,
                Goal::Gradient | Goal::Products => self.layout.tangents.max(1) * program.parameters,
            },
        };
        self.lanes
            .begin(program, &self.layout, self.cut, n, kept, threads);
        for (works, barrier) in &program.phases {
            let shared = Shared {
                program,
                layout: &self.layout,
                point: &self.point,
                examples,
                moments: &norms.moments,
                sums_at: &norms.at,
                loss: self.loss,
                goal,
            };
            self.lanes.run(&shared, works, norms.len, threads);
            if goal == Goal::Losses && works.contains(&Work::Loss) {
                break;
            }
            match *barrier {
                Barrier::Statistics(op) => norms.gather(program, op, &mut self.lanes),
                Barrier::Sums(op) => norms.add_up(program, op, &mut self.lanes),
                Barrier::End => {
                    for &op in &program.norms {
                        if !program.norm(op).batch {
                            norms.add_up(program, op, &mut self.lanes);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Block `block` of the examples' losses: the losses themselves, or their tangents along a direction.
    pub fn losses(&mut self, block: usize, out: &mut [f64]) {
        let back = match block {
            0 => 1.0,
            _ => 1.0 / self.point.scales[block - 1],
        };
        for lane in self.lanes.in_order() {
            let examples = lane.examples();
            let losses = &lane.losses[block * examples.len()..][..examples.len()];
            for (out, loss) in out[examples].iter_mut().zip(losses) {
                *out = back * loss;
            }
        }
    }

    /// Appends the examples' outputs, after a pass for losses.
    pub fn outputs(&mut self, out: &mut Vec<f64>) {
        for lane in self.lanes.in_order() {
            out.extend(lane.outputs.iter().map(|x| x.wide()));
        }
    }

    /// Calls `see` with the gradient of each lane's examples, in float64 and in the order of the lanes.
    pub fn each_lane(&mut self, see: &mut dyn FnMut(&mut [f64])) {
        let mut gradient = vec![0.0; self.program.parameters];
        for lane in self.lanes.in_order() {
            gradient.fill(0.0);
            let totals = Totals {
                program: &self.program,
                lanes: vec![&*lane.gradient],
                directions: 1,
            };
            totals.add(0, 1.0, &mut gradient);
            see(&mut gradient);
        }
    }

    /// Adds the sums over the lanes' accumulators, in float64: for each direction, or once for the gradient.
    pub fn add_gradients(&mut self, out: &mut [Vec<f64>]) {
        let totals = Totals {
            program: &self.program,
            lanes: self.lanes.in_order().map(|lane| &*lane.gradient).collect(),
            directions: self.layout.tangents.max(1),
        };
        let scales = &self.point.scales;
        let add = |(q, out): (usize, &mut Vec<f64>)| {
            let back = scales.get(q).map_or(1.0, |scale| 1.0 / scale);
            totals.add(q, back, out);
        };
        let values = totals.lanes.len() * totals.directions * self.program.parameters;
        if totals.directions > 1 && values >= SHARED_SUMS {
            out.par_iter_mut().enumerate().for_each(add)
        } else {
            out.iter_mut().enumerate().for_each(add)
        }
    }
}
