//! The batch that waits for its step.

use hindcast_format::meta::StepMeta;
use hindcast_format::{RowRecord, RowSplit};

use crate::batch::BatchInfo;
use crate::pool::Pool;
use crate::rows::{BatchRows, RowBlock, RowBook};

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
            .map_or_else(Vec::new, |rows| book.records(rows, opens))
    }
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
        Ok(Pending { meta, rows: None })
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
        Ok(Pending {
            meta,
            rows: Some(rows),
        })
    }

    /// Drops a batch that is not trained on.
    pub(crate) fn withdraw(&mut self, pending: Pending, pool: &Pool) {
        if let Some(rows) = &pending.rows {
            self.book.undo(rows);
        }
        pool.give_back_meta(pending.meta);
    }

    /// Takes held-out rows. The error text says what is wrong.
    pub(crate) fn hold_out(&mut self, split: RowSplit, block: RowBlock) -> Result<(), String> {
        self.book.identify(true)?;
        self.book.hold_out(split, block)
    }
}
