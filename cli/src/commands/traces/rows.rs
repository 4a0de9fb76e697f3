//! The rows that a run stores, for `info` and `export`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_format::{RowGroup, RowSplit, RowType, Trace, hex};
use safetensors::tensor::{Dtype, TensorView};
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
    /// Returns `None` if the run doesn't identify its examples by rows. Damage is reported elsewhere.
    pub fn of(trace: &Trace) -> Option<RowCounts> {
        if !trace.has_rows().unwrap_or(false) {
            return None;
        }
        let index = trace.row_index(0..u64::MAX).ok()?;
        let [validation, test] = index.held_out;
        Some(RowCounts {
            distinct: index.next,
            stored: index.stored.len() as u64,
            raw_bytes: index.raw_bytes,
            validation,
            test,
        })
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
    let rows = trace.rows(&RowSplit::ALL)?;
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
            let kept: Vec<usize> = (0..group.indices.len())
                .filter(|&at| {
                    split != RowSplit::Train
                        || group.indices.get(at).is_some_and(|i| used.contains(i))
                })
                .collect();
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
    bail!(
        "{} of the {} rows that these steps use can't be read, the first with index {first}{}. The other rows and all steps \
         were written. `hindcast verify` lists the damage; another copy of the run may hold these rows",
        missing.len(),
        used.len(),
        damage.map_or_else(String::new, |e| format!(" ({e})"))
    )
}

fn write_group(path: &Path, group: &RowGroup, kept: &[usize]) -> anyhow::Result<()> {
    let length = group.layout.bytes();
    let mut offset = 0;
    let mut tensors = Vec::new();
    for (number, tensor) in group.layout.tensors().iter().enumerate() {
        let part = tensor.bytes();
        let mut bytes = Vec::with_capacity(kept.len() * part);
        for &at in kept {
            let start = at * length + offset;
            bytes.extend_from_slice(group.bytes.get(start..start + part).unwrap_or_default());
        }
        offset += part;
        let mut shape = vec![kept.len()];
        shape.extend(&tensor.shape);
        tensors.push((number.to_string(), dtype(tensor.dtype), shape, bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            Ok((name.clone(), TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, path)?)
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
