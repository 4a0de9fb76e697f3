//! Ranks that are threads of one process, for tests and for programs that divide a step by themselves.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::{Ranks, Transport};

/// The ends of a rank's channels to all others and from them.
struct Local {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// As many ranks as asked for, in order. Each is to be used on a thread of its own.
pub fn local(size: usize) -> Vec<Ranks> {
    let mut ends: Vec<Local> = (0..size)
        .map(|rank| Local {
            rank,
            to: Vec::new(),
            from: Vec::new(),
        })
        .collect();
    for receiving in 0..size {
        for sending in 0..size {
            let (to, from) = channel();
            ends[sending].to.push(to);
            ends[receiving].from.push(from);
        }
    }
    ends.into_iter().map(Ranks::new).collect()
}

impl Transport for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), String> {
        self.to[to].send(bytes.to_vec()).map_err(|_| ended(to))
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), String> {
        let got = self.from[from].recv().map_err(|_| ended(from))?;
        if got.len() != bytes.len() {
            return Err(format!(
                "rank {from} sent {} bytes, but {} are expected",
                got.len(),
                bytes.len()
            ));
        }
        bytes.copy_from_slice(&got);
        Ok(())
    }

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        if self.rank > 0 {
            return self.receive(0, bytes);
        }
        (1..self.size()).try_for_each(|to| self.send(to, bytes))
    }

    fn all_gather(&mut self, own: &[u8], lengths: &[usize], all: &mut [u8]) -> Result<(), String> {
        for to in (0..self.size()).filter(|to| *to != self.rank) {
            self.to[to].send(own.to_vec()).map_err(|_| ended(to))?;
        }
        let mut rest = all;
        for (from, length) in lengths.iter().enumerate() {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(*length);
            if from == self.rank {
                piece.copy_from_slice(own);
            } else {
                self.receive(from, piece)?;
            }
            rest = after;
        }
        Ok(())
    }
}

fn ended(rank: usize) -> String {
    format!("rank {rank} has ended")
}
