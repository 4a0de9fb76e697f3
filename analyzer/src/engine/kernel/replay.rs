//! One micro-batch through all phases, and the sums over its lanes.

use std::ops::Range;

use hindcast_model::net::Net;
use hindcast_model::objective::Mode;
use hindcast_model::task::LossKind;
use rayon::prelude::*;

use super::chunk::{Examples, Goal, Shared};
use super::lanes::{Cut, LaneValues, Lanes};
use super::layout::ChunkLayout;
use super::norms::Norms;
use super::number::Number;
use super::part::part;
use super::point::Point;
use super::program::{Barrier, Program, Work};
use super::totals::Totals;
use crate::error::Result;
use crate::ranks::Ranks;
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

    /// Divides the work among these ranks.
    pub fn over(&mut self, ranks: &Ranks) {
        self.lanes.ranks = Some(ranks.clone());
    }

    /// Whether another rank leads.
    pub fn follows(&self) -> bool {
        self.lanes
            .ranks
            .as_ref()
            .is_some_and(|ranks| !ranks.leads())
    }

    /// The rows that a rank computes in a batch of `examples`.
    pub fn rows_of(&self, rank: usize, examples: usize) -> Range<usize> {
        let Some(ranks) = &self.lanes.ranks else {
            return 0..examples;
        };
        let (chunks, lanes) = (self.cut.chunks(examples), self.cut.lanes(examples));
        let lanes_of = ranks.part_of(rank, lanes);
        let edge = |lane: usize| {
            part(
                examples,
                part(chunks, lane, lanes.max(1)).start,
                chunks.max(1),
            )
            .start
        };
        edge(lanes_of.start)..edge(lanes_of.end)
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
    /// Batch norm has a single value per channel, or a rank is gone.
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
                Barrier::Statistics(op) => norms.gather(program, op, &mut self.lanes)?,
                Barrier::Sums(op) => norms.add_up(program, op, &mut self.lanes)?,
                Barrier::End => {
                    for &op in &program.norms {
                        if !program.norm(op).batch {
                            norms.add_up(program, op, &mut self.lanes)?;
                        }
                    }
                }
            }
        }
        self.share_results()
    }

    /// Gives all ranks the losses and the outputs.
    fn share_results(&mut self) -> Result<()> {
        self.lanes.share(
            |lane| lane.losses.len() + lane.outputs.len(),
            |lane, to| {
                to.extend_from_slice(&lane.losses);
                to.extend(lane.outputs.iter().map(|x| x.wide()));
            },
            |lane, from| {
                let (losses, outputs) = from.split_at(lane.losses.len());
                lane.losses.copy_from_slice(losses);
                for (to, from) in lane.outputs.iter_mut().zip(outputs) {
                    *to = T::of(*from);
                }
            },
        )
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

    /// Calls `see` with the gradient of each lane's examples, in float64 and in the order of the lanes. Not for ranks.
    ///
    /// # Errors
    /// Those of [`Totals::add`], which has none without ranks.
    pub fn each_lane(&mut self, see: &mut dyn FnMut(&mut [f64])) -> Result<()> {
        let mut gradient = vec![0.0; self.program.parameters];
        for lane in self.lanes.in_order() {
            gradient.fill(0.0);
            let totals = Totals {
                program: &self.program,
                lanes: vec![&*lane.gradient],
                directions: 1,
                ranks: None,
            };
            totals.add(0, 1.0, &mut gradient)?;
            see(&mut gradient);
        }
        Ok(())
    }

    /// Adds the sums over the lanes' accumulators, in float64: for each direction, or once for the gradient. Only rank 0 has the
    /// sums of all ranks.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn add_gradients(&mut self, out: &mut [Vec<f64>]) -> Result<()> {
        let ranks = self.lanes.ranks.clone();
        let totals = Totals {
            program: &self.program,
            lanes: self.lanes.own().map(|lane| &*lane.gradient).collect(),
            directions: self.layout.tangents.max(1),
            ranks: ranks.as_ref(),
        };
        let scales = &self.point.scales;
        let add = |(q, out): (usize, &mut Vec<f64>)| {
            let back = scales.get(q).map_or(1.0, |scale| 1.0 / scale);
            totals.add(q, back, out)
        };
        let values = totals.lanes.len() * totals.directions * self.program.parameters;
        // Ranks add one direction after the other.
        if ranks.is_none() && totals.directions > 1 && values >= SHARED_SUMS {
            out.par_iter_mut().enumerate().try_for_each(add)
        } else {
            out.iter_mut().enumerate().try_for_each(add)
        }
    }
}
