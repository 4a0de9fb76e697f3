//! Offsets of a chunk's values in its store.
//!
//! Each slot has a range for its values (with tangents) and one for its cotangents (with theirs) for as long as they
//! are needed. Ranges are reused afterwards, so that a chunk's passes stay in cache.

use std::ops::Range;

use super::program::{OpKind, Program};

/// The ranges for chunks of up to `capacity` examples and a number of tangents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkLayout {
    pub capacity: usize,
    pub tangents: usize,
    values: Vec<usize>,
    cotangents: Vec<usize>,
    masks: Vec<usize>,
    sizes: Vec<usize>,
    mask_sizes: Vec<usize>,
    /// Elements of the store.
    pub len: usize,
    winners: Vec<usize>,
    winner_sizes: Vec<usize>,
    /// Elements of the store of winners.
    pub winners_len: usize,
}

/// Ranges start at multiples of this many elements.
const ALIGN: usize = 16;

impl ChunkLayout {
    pub fn new(program: &Program, capacity: usize, tangents: usize) -> Self {
        let lives = lives(program);
        let mut requests = Vec::new();
        let mut request = |size: usize, blocks: usize, life: Option<(usize, usize)>| {
            requests.push(Request {
                len: (size * capacity * blocks).next_multiple_of(ALIGN),
                life,
            });
        };
        for (slot, life) in program.slots.iter().zip(&lives.values) {
            let blocks = if slot.moves { 1 + tangents } else { 1 };
            request(slot.size(), blocks, *life);
        }
        for (slot, life) in program.slots.iter().zip(&lives.cotangents) {
            request(slot.size(), 1 + tangents, *life);
        }
        for (size, life) in program.masks.iter().zip(&lives.masks) {
            request(*size, 1, *life);
        }
        let (mut values, len) = place(&requests);
        let mut cotangents = values.split_off(program.slots.len());
        let masks = cotangents.split_off(program.slots.len());
        let mut winners_len = 0;
        let winners = program
            .winners
            .iter()
            .map(|size| {
                let at = winners_len;
                winners_len += size * capacity;
                at
            })
            .collect();
        Self {
            capacity,
            tangents,
            values,
            cotangents,
            masks,
            sizes: program.slots.iter().map(|s| s.size()).collect(),
            mask_sizes: program.masks.clone(),
            len,
            winners,
            winner_sizes: program.winners.clone(),
            winners_len,
        }
    }

    /// Values (block 0) and tangents (blocks 1 to Q) of a slot for a chunk of `n` examples.
    pub fn values(&self, slot: usize, blocks: Range<usize>, n: usize) -> Range<usize> {
        span(self.values[slot], self.sizes[slot] * n, blocks)
    }

    /// Cotangent (block 0) and its tangents (blocks 1 to Q).
    pub fn cotangents(&self, slot: usize, blocks: Range<usize>, n: usize) -> Range<usize> {
        span(self.cotangents[slot], self.sizes[slot] * n, blocks)
    }

    pub fn mask(&self, mask: usize, n: usize) -> Range<usize> {
        span(self.masks[mask], self.mask_sizes[mask] * n, 0..1)
    }

    /// In the store of winners.
    pub fn winners(&self, pool: usize, n: usize) -> Range<usize> {
        span(self.winners[pool], self.winner_sizes[pool] * n, 0..1)
    }
}

fn span(at: usize, block: usize, blocks: Range<usize>) -> Range<usize> {
    at + block * blocks.start..at + block * blocks.end
}

/// First and last time at which each range is in use. Operation i runs forward at time i, the loss at n, and
/// operation i backward at 2n − i.
struct Lives {
    values: Vec<Option<(usize, usize)>>,
    cotangents: Vec<Option<(usize, usize)>>,
    masks: Vec<Option<(usize, usize)>>,
}

fn lives(program: &Program) -> Lives {
    let n = program.ops.len();
    let mut lives = Lives {
        values: vec![None; program.slots.len()],
        cotangents: vec![None; program.slots.len()],
        masks: vec![None; program.masks.len()],
    };
    fn use_at(life: &mut Option<(usize, usize)>, moment: usize) {
        let (from, to) = life.get_or_insert((moment, moment));
        (*from, *to) = ((*from).min(moment), (*to).max(moment));
    }
    for (i, op) in program.ops.iter().enumerate() {
        let (forward, backward) = (i, 2 * n - i);
        let (input, output) = (&program.slots[op.input], &program.slots[op.output]);
        let mut reads = [None; 2];
        if !input.raw {
            reads[0] = Some(op.input);
            use_at(&mut lives.values[op.input], forward);
        }
        use_at(&mut lives.values[op.output], forward);
        if let OpKind::Add { other, .. } = op.kind {
            reads[1] = Some(other);
            use_at(&mut lives.values[other], forward);
        }
        if let OpKind::Dropout { mask, .. } = op.kind {
            use_at(&mut lives.masks[mask], forward);
            use_at(&mut lives.masks[mask], backward);
        }
        if !output.moves {
            continue;
        }
        match op.kind {
            OpKind::Convolution(_) | OpKind::Transposed(_) | OpKind::Norm(_) | OpKind::Gelu
                if !input.raw =>
            {
                use_at(&mut lives.values[op.input], backward);
            }
            OpKind::Relu | OpKind::Tanh | OpKind::Sigmoid => {
                use_at(&mut lives.values[op.output], backward);
            }
            _ => {}
        }
        use_at(&mut lives.cotangents[op.output], backward);
        for slot in reads.into_iter().flatten() {
            if program.slots[slot].moves {
                use_at(&mut lives.cotangents[slot], backward);
            }
        }
    }
    use_at(&mut lives.values[program.output], n);
    use_at(&mut lives.cotangents[program.output], n);
    lives
}

struct Request {
    len: usize,
    life: Option<(usize, usize)>,
}

/// Places the largest range first, each at the lowest offset that is free for its lifetime. Returns the offsets and
/// the total length.
fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..requests.len())
        .filter(|&i| requests[i].life.is_some())
        .collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].len), i));
    let mut places = vec![0; requests.len()];
    let mut placed: Vec<usize> = Vec::new();
    let mut len = 0;
    for i in order {
        let Some((from, to)) = requests[i].life else {
            continue;
        };
        let mut taken: Vec<Range<usize>> = placed
            .iter()
            .filter(|&&j| requests[j].life.is_some_and(|(f, t)| f <= to && from <= t))
            .map(|&j| places[j]..places[j] + requests[j].len)
            .collect();
        taken.sort_by_key(|r| r.start);
        let mut at = 0;
        for r in taken {
            if r.start >= at + requests[i].len {
                break;
            }
            at = at.max(r.end);
        }
        places[i] = at;
        len = len.max(at + requests[i].len);
        placed.push(i);
    }
    (places, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_in_use_at_the_same_time_do_not_overlap() {
        let requests: Vec<Request> = [
            (10, (0, 3)),
            (30, (2, 4)),
            (10, (4, 6)),
            (20, (5, 9)),
            (5, (0, 9)),
        ]
        .map(|(len, life)| Request {
            len,
            life: Some(life),
        })
        .into();
        let (places, len) = place(&requests);
        for (i, a) in requests.iter().enumerate() {
            for (j, b) in requests.iter().enumerate().skip(i + 1) {
                let ((af, at), (bf, bt)) = (a.life.unwrap(), b.life.unwrap());
                let apart = places[i] + a.len <= places[j] || places[j] + b.len <= places[i];
                assert!(apart || at < bf || bt < af, "{i} and {j}");
            }
        }
        assert_eq!(len, 45);
    }
}
