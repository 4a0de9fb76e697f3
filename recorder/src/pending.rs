//! The batch that waits for its step.

use hindcast_format::meta::{BatchWeights, StepMeta};
use hindcast_format::{MAX_META_BYTES, RowRecord, RowSplit};

use crate::batch::BatchInfo;
use crate::pool::Pool;
use crate::row_block::RowBlock;
use crate::rows::{BatchRows, RowBook};
use crate::statistics::Bytes;

/// An announced batch, as metadata and as rows if these identify its examples.
pub(crate) struct Pending {
    pub(crate) meta: StepMeta,
    rows: Option<BatchRows>,
}

impl Pending {
    /// Bytes that the rows hold in the queue, and those in addition if the step opens a segment.
    pub(crate) fn row_bytes(&self, book: &RowBook) -> (u64, u64) {
        self.rows.as_ref().map_or((0, 0), |rows| book.held(rows))
    }

    /// The records of rows for the step's metadata. `opens` says whether the step opens a segment.
    pub(crate) fn records(&self, book: &mut RowBook, opens: bool) -> Vec<RowRecord> {
        book.identified(self.rows.is_some());
        self.rows
            .as_ref()
            .map_or_else(Vec::new, |rows| book.records(rows, self.meta.step, opens))
    }

    /// Whether a segment of a ring has no room for the rows.
    pub(crate) fn needs_segment(&self, book: &RowBook) -> bool {
        let mut rows = self.rows.iter();
        rows.any(|rows| book.needs_segment(rows))
    }

    /// Refuses a batch that doesn't fit into a step's metadata. The encoder would refuse it when the step is already done.
    fn check_size(&self, book: &RowBook) -> Result<(), String> {
        let rows = self.rows.as_ref().map_or(0, |rows| book.most_bytes(rows));
        let lists = list_bytes(&self.meta);
        let all = lists.saturating_add(rows);
        if all <= MAX_META_BYTES - ROOM {
            return Ok(());
        }
        let rows = if rows > 0 {
            format!(
                " and its rows, with those of validation_of and test_of, {}",
                Bytes(rows)
            )
        } else {
            String::new()
        };
        Err(format!(
            "the lists of this batch (indices, weights, micro-batches) take {}{rows}, and the metadata of a step has room for {}: use smaller batches",
            Bytes(lists),
            Bytes(MAX_META_BYTES - ROOM)
        ))
    }
}

/// Bytes of a step's metadata besides the batch: groups, flags of the trained parameters, lengths.
const ROOM: u64 = 2 << 20;

/// Bytes of the batch's lists in a step's metadata.
fn list_bytes(meta: &StepMeta) -> u64 {
    let width = match meta.indices.iter().max() {
        Some(&max) if max > u64::from(u32::MAX) => 8,
        Some(&max) if max > u64::from(u16::MAX) => 4,
        _ => 2,
    };
    let weights = match &meta.weights {
        BatchWeights::Mean | BatchWeights::Sum => 0,
        BatchWeights::Each(weights) | BatchWeights::SumOfEach(weights) => 8 * weights.len(),
    };
    let scalars: usize = meta.scalars.iter().map(|(name, _)| 16 + name.len()).sum();
    (width * meta.indices.len() + weights + 4 * meta.micro_batches.len() + scalars) as u64
}

/// Makes announced batches.
pub(crate) struct Batches {
    book: RowBook,
    /// Number of training examples, if the data's identity tells it.
    examples: Option<u64>,
}

impl Batches {
    pub(crate) fn new(book: RowBook, examples: Option<u64>) -> Self {
        Self { book, examples }
    }

    pub(crate) fn book(&mut self) -> &mut RowBook {
        &mut self.book
    }

    /// A batch whose indices the loop gives. The error text says what is wrong.
    pub(crate) fn by_indices(&self, batch: &BatchInfo<'_>, pool: &Pool) -> Result<Pending, String> {
        self.book.identify(false)?;
        batch.check(self.examples)?;
        let mut meta = pool.meta();
        batch.write(&mut meta);
        let pending = Pending { meta, rows: None };
        match pending.check_size(&self.book) {
            Ok(()) => Ok(pending),
            Err(why) => {
                pool.give_back_meta(pending.meta);
                Err(why)
            }
        }
    }

    /// A batch whose examples are identified by rows, one block per micro-batch. The error text says what is wrong.
    pub(crate) fn by_rows(
        &mut self,
        batch: BatchInfo<'_>,
        blocks: Vec<RowBlock>,
        pool: &Pool,
    ) -> Result<Pending, String> {
        self.book.identify(true)?;
        if self.examples.is_some() {
            return Err(
                "the builder has the fingerprint of a data set, whose examples are numbered by the data set; rows are numbered by the run: \
                 leave out Builder::fingerprint, or give the batch by its indices"
                    .to_owned(),
            );
        }
        if !batch.indices.is_empty() {
            return Err(format!(
                "the batch has {} indices, but its rows get theirs from the run: make it with BatchInfo::new(epoch, &[])",
                batch.indices.len()
            ));
        }
        let mut lengths = Vec::new();
        if blocks.len() > 1 {
            if !batch.micro_batches.is_empty() {
                return Err(
                    "the micro-batches are given twice: by RowBatch::and and by micro_batches"
                        .to_owned(),
                );
            }
            let each = blocks.iter().map(|block| u32::try_from(block.len()));
            lengths = each
                .collect::<Result<_, _>>()
                .map_err(|_| "a micro-batch has more than 2^32 rows".to_owned())?;
        }
        let rows = self.book.take(blocks)?;
        let mut info = BatchInfo {
            indices: &rows.indices,
            ..batch
        };
        if !lengths.is_empty() {
            info.micro_batches = &lengths;
        }
        if let Err(why) = info.check(None) {
            self.book.undo(&rows);
            return Err(why);
        }
        let mut meta = pool.meta();
        info.write(&mut meta);
        let pending = Pending {
            meta,
            rows: Some(rows),
        };
        match pending.check_size(&self.book) {
            Ok(()) => Ok(pending),
            Err(why) => {
                self.withdraw(pending, pool);
                Err(why)
            }
        }
    }

    /// Drops a batch that is not trained on.
    pub(crate) fn withdraw(&mut self, pending: Pending, pool: &Pool) {
        if let Some(rows) = &pending.rows {
            self.book.undo(rows);
        }
        pool.give_back_meta(pending.meta);
    }

    /// Takes held-out rows, and returns their number. The error text says what is wrong.
    pub(crate) fn hold_out(&mut self, split: RowSplit, block: RowBlock) -> Result<u64, String> {
        self.book.identify(true)?;
        self.book.hold_out(split, block)
    }
}

#[cfg(test)]
mod tests {
    use hindcast_format::layout::{DType, Layout, Role, TensorSpec};
    use hindcast_format::meta::GroupHyper;
    use hindcast_format::{Encoder, MAX_RECORD_BYTES, RowLayout, RowTensor, RowType, RunInfo};

    use super::*;
    use crate::rows::StoreRows;

    fn layout() -> Layout {
        let spec = TensorSpec {
            name: "w".into(),
            role: Role::Parameter,
            dtype: DType::F32,
            shape: vec![1],
            group: 0,
        };
        Layout::new(vec![spec]).unwrap()
    }

    /// The number of indices that fit is the one that the encoder still writes, up to the room for everything else.
    #[test]
    fn a_batch_that_does_not_fit_into_a_step_is_refused_when_it_is_announced() {
        let pool = Pool::new(layout());
        let batches = Batches::new(RowBook::new(StoreRows::default(), false), None);
        let mut encoder = Encoder::new(&RunInfo::new(layout(), 0)).unwrap();
        let weights = vec![0.5; 30 << 20];
        // Each example takes 2 bytes of index and 8 of weight.
        for (examples, fits) in [(26 << 20, false), (25 << 20, true)] {
            let indices = vec![7; examples];
            let info = BatchInfo::new(0, &indices).weights(&weights[..examples]);
            let pending = batches.by_indices(&info, &pool);
            assert_eq!(pending.is_ok(), fits, "{examples}");
            match pending {
                Ok(mut pending) => {
                    pending.meta.trained = vec![true];
                    pending.meta.groups = vec![GroupHyper {
                        learning_rate: 0.1,
                        weight_decay: 0.0,
                    }];
                    encoder.gap(&pending.meta, &[0; 32]).unwrap();
                }
                Err(why) => assert!(
                    why.contains("take 272.6 MB") && why.contains("use smaller"),
                    "{why}"
                ),
            }
        }
        // Rows, and the held-out rows that the same step stores.
        let tensor = RowTensor {
            dtype: RowType::U8,
            shape: vec![1 << 19],
        };
        let block = |rows: usize, first: u8| RowBlock {
            layout: RowLayout::new(vec![tensor.clone()]).unwrap(),
            bytes: (0..rows)
                .flat_map(|row| vec![first + row as u8; 1 << 19])
                .collect(),
        };
        let mut batches = Batches::new(RowBook::new(StoreRows::default(), false), None);
        let rows = (MAX_RECORD_BYTES >> 19) as usize - 3;
        batches.hold_out(RowSplit::Test, block(rows, 0)).unwrap();
        let info = BatchInfo::new(0, &[]);
        let why = batches.by_rows(info, vec![block(rows + 2, 0)], &pool);
        let why = why.err().unwrap();
        assert!(why.contains("with those of validation_of"), "{why}");
        assert_eq!(batches.book().totals(), (0, 0, 0));
        let pending = batches.by_rows(info, vec![block(rows, 0)], &pool).unwrap();
        assert_eq!(pending.meta.indices.len(), rows);
        let records = pending.records(batches.book(), true);
        let bytes = records
            .iter()
            .map(|record| record.rows.as_ref().map_or(0, |rows| rows.len()));
        assert_eq!(bytes.sum::<usize>(), (2 * rows) << 19);
        let given = batches.by_rows(BatchInfo::new(0, &[1]), vec![block(1, 0)], &pool);
        assert!(given.err().unwrap().contains("BatchInfo::new(epoch, &[])"));
    }
}
