//! The rows that a run stores, for `info` and `export`.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use hindcast_format::{FormatError, RowGroup, RowSplit, RowType, Trace, hex};
use safetensors::tensor::{Dtype, View};
use serde::Serialize;

use crate::words;

/// The numbers that `info` shows.
#[derive(Serialize)]
pub(super) struct RowCounts {
    /// Distinct training rows.
    pub distinct: u64,
    /// Those of them whose content is stored, and its size in bytes before compression.
    pub stored: u64,
    pub raw_bytes: u64,
    pub validation: u64,
    pub test: u64,
}

impl RowCounts {
    /// Returns `None` if the run doesn't identify its examples by rows.
    ///
    /// # Errors
    /// Damage, after which the numbers aren't known; the storage fails; or the list of the rows needs too much memory.
    pub fn of(trace: &Trace) -> Result<Option<RowCounts>, FormatError> {
        if !trace.has_rows()? {
            return Ok(None);
        }
        let index = trace.row_index(0..u64::MAX)?;
        let [validation, test] = index.held_out;
        Ok(Some(RowCounts {
            distinct: index.next,
            stored: index.stored.len() as u64,
            raw_bytes: index.raw_bytes,
            validation,
            test,
        }))
    }

    /// The numbers in words.
    pub fn words(&self) -> String {
        let stored = match (self.stored, self.distinct) {
            (0, _) => "only their digests are stored".to_owned(),
            (stored, distinct) if stored == distinct => {
                format!(
                    "stored, {} before compression",
                    words::bytes(self.raw_bytes)
                )
            }
            (stored, _) => format!(
                "{stored} of them stored, {} before compression",
                words::bytes(self.raw_bytes)
            ),
        };
        let mut text = format!("{} distinct training rows, {stored}", self.distinct);
        for (count, what) in [(self.validation, "validation"), (self.test, "test")] {
            if count > 0 {
                text.push_str(&format!("; {count} {what} rows"));
            }
        }
        text
    }
}

/// A line of rows.jsonl.
#[derive(Serialize)]
struct Line<'a> {
    digest: String,
    file: &'a str,
    index: u64,
    row: usize,
    split: &'static str,
}

/// Writes the stored rows with these indices, and all held-out rows: a safetensors file per split and shape, whose tensors
/// `0`, `1`, … are those of the batches, and rows.jsonl with each row's place. Does nothing for a run without stored rows.
///
/// # Errors
/// Rows of these steps are damaged or missing. The others are written.
pub(super) fn export(trace: &Trace, used: &BTreeSet<u64>, folder: &Path) -> anyhow::Result<()> {
    if !trace.has_rows()? {
        return Ok(());
    }
    let rows = trace.rows_of(used)?;
    let mut missing = used.clone();
    // Of some rows, only the digest was recorded.
    missing.retain(|&index| rows.split(RowSplit::Train).digest_only(index).is_none());
    let stored = RowSplit::ALL
        .iter()
        .any(|&split| !rows.split(split).groups().is_empty());
    if !stored && missing.is_empty() {
        return Ok(());
    }
    let path = folder.join("rows.jsonl");
    let cannot = |path: &Path| format!("cannot write {}", path.display());
    let file = fs::File::create(&path).with_context(|| cannot(&path))?;
    let mut lines = BufWriter::new(file);
    for split in RowSplit::ALL {
        for (number, group) in rows.split(split).groups().iter().enumerate() {
            // Rows that contradict each other have no place.
            let placed = |at: &usize| {
                let index = group.indices.get(*at);
                index.and_then(|index| rows.split(split).place(*index)) == Some((number, *at))
            };
            let kept: Vec<usize> = (0..group.indices.len()).filter(placed).collect();
            if kept.is_empty() {
                continue;
            }
            let name = format!("rows-{}-{number}.safetensors", split.name());
            let path = folder.join(&name);
            write_group(&path, group, &kept).with_context(|| cannot(&path))?;
            for (row, &at) in kept.iter().enumerate() {
                let (Some(&index), Some(digest)) = (group.indices.get(at), group.digests.get(at))
                else {
                    continue;
                };
                if split == RowSplit::Train {
                    missing.remove(&index);
                }
                let line = Line {
                    digest: hex(digest),
                    file: &name,
                    index,
                    row,
                    split: split.name(),
                };
                serde_json::to_writer(&mut lines, &line)?;
                writeln!(lines)?;
            }
        }
    }
    lines.flush().with_context(|| cannot(&path))?;
    let damage = rows.damage().first();
    let Some(first) = missing.first() else {
        return Ok(());
    };
    Err(Unreadable(format!(
        "{} of the {} rows that these steps use can't be read, the first with index {first}{}. The other rows and all steps \
         were written. `hindcast verify` lists the damage; another copy of the run may hold these rows",
        missing.len(),
        used.len(),
        damage.map_or_else(String::new, |e| format!(" ({e})"))
    ))
    .into())
}

/// Some rows can't be read; all others and the steps are written.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreadable(String);

fn write_group(path: &Path, group: &RowGroup, kept: &[usize]) -> anyhow::Result<()> {
    let mut offset = 0;
    let mut columns = Vec::new();
    for (number, tensor) in group.layout.tensors().iter().enumerate() {
        let mut shape = vec![kept.len()];
        shape.extend(&tensor.shape);
        let part = offset..offset + tensor.bytes();
        offset = part.end;
        let column = Column {
            group,
            kept,
            part,
            dtype: dtype(tensor.dtype),
            shape,
        };
        columns.push((number.to_string(), column));
    }
    Ok(super::tensors::write(path, columns, None)?)
}

/// One tensor of the kept rows. Its bytes are copied when they are written, so that only one tensor is in memory twice.
struct Column<'a> {
    group: &'a RowGroup,
    kept: &'a [usize],
    /// The tensor's bytes in a row.
    part: Range<usize>,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl View for Column<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let length = self.group.layout.bytes();
        let mut bytes = Vec::with_capacity(self.data_len());
        for at in self.kept {
            let (start, end) = (at * length + self.part.start, at * length + self.part.end);
            bytes.extend_from_slice(self.group.bytes.get(start..end).unwrap_or_default());
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.kept.len() * self.part.len()
    }
}

fn dtype(of: RowType) -> Dtype {
    match of {
        RowType::U8 => Dtype::U8,
        RowType::U32 => Dtype::U32,
        RowType::I64 => Dtype::I64,
        RowType::F32 => Dtype::F32,
        RowType::F64 => Dtype::F64,
        RowType::Bf16 => Dtype::BF16,
        RowType::F16 => Dtype::F16,
        RowType::I16 => Dtype::I16,
        RowType::I32 => Dtype::I32,
    }
}
