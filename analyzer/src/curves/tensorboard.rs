//! A history as an event file of TensorBoard.
//!
//! An event file is a sequence of TFRecords. A record is the length of its data (8 bytes, little endian), the masked CRC-32C of
//! these bytes, the data, and the masked CRC-32C of the data. The data is a protobuf message `Event`, of which only the fields that
//! are used here are declared (tensorflow/core/util/event.proto and tensorflow/core/framework/summary.proto).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use prost::Message;

use super::columns::{Cell, more_columns};
use super::history::{History, HistoryRow};
use crate::error::{AnalysisError, Result};
use crate::output::{EVENTS_VERSION, EVENTS_WRITER, Kind, replace, replaceable, try_folder};

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Values>,
    #[prost(message, optional, tag = "10")]
    source_metadata: Option<SourceMetadata>,
}

/// `Summary`.
#[derive(Clone, PartialEq, Message)]
struct Values {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `Summary.Value`.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// One of several kinds of values, which is written even if it is 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SourceMetadata {
    #[prost(string, tag = "1")]
    writer: String,
}

/// The event file of the run with this head digest in `folder`. The name depends only on the run, so that writing it again
/// replaces it.
pub fn event_file(folder: &Path, head: &str) -> PathBuf {
    let run = head.get(..16).unwrap_or("run");
    folder.join(format!("events.out.tfevents.{run}.hindcast"))
}

/// Refuses a path at which [`write_events`] would fail. Called before a computation that may take hours. The folder needn't exist.
///
/// # Errors
/// As [`write_events`].
pub fn check_event_file(path: &Path) -> Result<()> {
    let check = || -> io::Result<()> {
        replaceable(path, Kind::Events)?;
        alone(path)?;
        // A folder that doesn't exist is made in the nearest one that does.
        let mut folders = path.ancestors().skip(1);
        let folder = folders.find(|folder| folder.as_os_str().is_empty() || folder.exists());
        match (folder, path.file_name()) {
            (Some(folder), Some(name)) => try_folder(&folder.join(name), Kind::Events),
            _ => Ok(()),
        }
    };
    check().map_err(|e| failed(path, &e))
}

fn failed(path: &Path, e: &io::Error) -> AnalysisError {
    AnalysisError::File {
        path: path.to_owned(),
        problem: e.to_string(),
    }
}

/// Writes a history as an event file, which TensorBoard shows as scalars by step: `train/loss`, `train/learning_rate`,
/// `train/epoch`, `train/batch_size`, and those of `train/gradient_norm`, `train/parameter_norm`, `train/update_norm`,
/// `validation/loss`, `validation/error` and `scalar/NAME` that have a value. TensorBoard stores float32. A run doesn't record when its
/// steps were computed, so every event has the same time, `seconds` since 1970. Returns the number of events.
///
/// # Errors
/// The file can't be written, or it exists and isn't an event file of this program; `folder` has event files of other writers,
/// with which TensorBoard would mix the curves.
pub fn write_events(history: &History, seconds: f64, path: &Path) -> Result<u64> {
    replaceable(path, Kind::Events)
        .and_then(|()| alone(path))
        .map_err(|e| failed(path, &e))?;
    let tags = tags(history);
    let mut count = 0;
    replace(path, Kind::Events, |to| {
        let mut file = BufWriter::new(File::create(to)?);
        let first = Event {
            wall_time: seconds,
            file_version: Some(EVENTS_VERSION.to_owned()),
            source_metadata: Some(SourceMetadata {
                writer: EVENTS_WRITER.to_owned(),
            }),
            ..Event::default()
        };
        record(&mut file, &first.encode_to_vec())?;
        for row in &history.rows {
            let event = Event {
                wall_time: seconds,
                step: i64::try_from(row.step).unwrap_or(i64::MAX),
                summary: Some(values(&tags, row)),
                ..Event::default()
            };
            record(&mut file, &event.encode_to_vec())?;
            count += 1;
        }
        file.flush()
    })
    .map_err(|e| failed(path, &e))?;
    Ok(count)
}

/// Refuses a folder with other event files.
fn alone(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        // The temporary file of an interrupted command ends in .tmp, and the next command removes it.
        if text.contains("tfevents")
            && Some(name.as_os_str()) != path.file_name()
            && !text.ends_with(".tmp")
        {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!(
                    "the folder has the event file {text} of another run or program, and TensorBoard would mix the two: name another folder"
                ),
            ));
        }
    }
    Ok(())
}

type Tags = Vec<(String, Cell)>;

/// The tags with their values.
fn tags(history: &History) -> Tags {
    let mut tags: Tags = vec![
        ("train/loss".to_owned(), Box::new(|row| row.loss)),
        (
            "train/learning_rate".to_owned(),
            Box::new(|row| row.learning_rates.first().copied()),
        ),
        (
            "train/epoch".to_owned(),
            Box::new(|row| Some(row.epoch as f64)),
        ),
        (
            "train/batch_size".to_owned(),
            Box::new(|row| Some(row.batch_size as f64)),
        ),
    ];
    let more = more_columns(history).into_iter();
    tags.extend(more.map(|column| (column.tag, column.of)));
    tags
}

fn values(tags: &Tags, row: &HistoryRow) -> Values {
    let values = tags.iter().filter_map(|(tag, of)| {
        Some(Value {
            tag: tag.clone(),
            simple_value: Some(of(row)? as f32),
        })
    });
    Values {
        value: values.collect(),
    }
}

/// Writes a TFRecord.
fn record(to: &mut impl Write, data: &[u8]) -> io::Result<()> {
    let length = (data.len() as u64).to_le_bytes();
    to.write_all(&length)?;
    to.write_all(&masked(&length).to_le_bytes())?;
    to.write_all(data)?;
    to.write_all(&masked(data).to_le_bytes())
}

/// The checksum of a TFRecord: CRC-32C, rotated, plus a constant (tensorflow/core/lib/hash/crc32c.h).
fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::super::history::Measured;
    use super::super::summary::tests::history;
    use super::*;
    use hindcast_model::objective::Split;

    /// CRC-32C bit by bit.
    fn plain_crc(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
            }
        }
        !crc
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        value
    }

    /// The fields of a message: number, and the bytes of the value (8 of a varint).
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    out.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                other => panic!("wire type {other}"),
            };
            let (value, rest) = bytes.split_at(length);
            out.push((key >> 3, value.to_vec()));
            bytes = rest;
        }
        out
    }

    /// The records of a file, with their checksums checked.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let unmask = |masked: &[u8]| {
            let rotated = u32::from_le_bytes(masked.try_into().unwrap()).wrapping_sub(0xa282_ead8);
            rotated.rotate_left(15)
        };
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_at(12);
            assert_eq!(unmask(&head[8..]), plain_crc(&head[..8]));
            let length = u64::from_le_bytes(head[..8].try_into().unwrap()) as usize;
            let (data, rest) = rest.split_at(length);
            assert_eq!(unmask(&rest[..4]), plain_crc(data));
            out.push(data.to_vec());
            bytes = &rest[4..];
        }
        out
    }

    #[test]
    fn an_independent_reader_finds_every_value() {
        let mut history = history(&[(0, Some(0.5)), (0, None), (1, Some(0.0))]);
        history.rows[2].held_out_loss = Some(0.25);
        history.rows[0].scalars = vec![Some(7.0)];
        history.scalars = vec!["lag".to_owned()];
        history.held_out = Some(Measured {
            split: Split::Validation,
            examples: 4,
            of: 4,
        });
        let folder = tempfile::tempdir().unwrap();
        let path = event_file(folder.path(), "00112233445566778899");
        assert_eq!(write_events(&history, 1.5e9, &path).unwrap(), 3);
        // The same run again.
        write_events(&history, 1.5e9, &path).unwrap();
        let records = records(&std::fs::read(&path).unwrap());
        let first = fields(&records[0]);
        assert_eq!(first[0], (1, 1.5e9f64.to_le_bytes().to_vec()));
        assert_eq!(first[1], (3, b"brain.Event:2".to_vec()));
        let mut found = Vec::new();
        for record in &records[1..] {
            let fields_of = fields(record);
            let of = |number| {
                fields_of
                    .iter()
                    .find(|f| f.0 == number)
                    .map(|f| f.1.clone())
            };
            let step = of(2).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap()));
            for (number, value) in fields(&of(5).unwrap()) {
                assert_eq!(number, 1);
                let value = fields(&value);
                let tag = String::from_utf8(value[0].1.clone()).unwrap();
                assert_eq!((value[0].0, value[1].0), (1, 2));
                let number = f32::from_le_bytes(value[1].1.clone().try_into().unwrap());
                found.push((step, tag, number));
            }
        }
        let of = |tag: &str| -> Vec<(u64, f32)> {
            let of_tag = found.iter().filter(|f| f.1 == tag);
            of_tag.map(|f| (f.0, f.2)).collect()
        };
        assert_eq!(of("train/loss"), [(0, 0.5), (2, 0.0)]);
        assert_eq!(of("train/learning_rate"), [(0, 0.1), (1, 0.1), (2, 0.1)]);
        assert_eq!(of("train/epoch"), [(0, 0.0), (1, 0.0), (2, 1.0)]);
        assert_eq!(of("validation/loss"), [(2, 0.25)]);
        assert_eq!(of("scalar/lag"), [(0, 7.0)]);
    }

    #[test]
    fn a_folder_with_other_event_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.out.tfevents.1.host"), "x").unwrap();
        let path = event_file(folder.path(), "00112233445566778899");
        for said in [
            write_events(&History::default(), 0.0, &path).unwrap_err(),
            check_event_file(&path).unwrap_err(),
        ] {
            assert!(said.to_string().contains("tfevents.1.host"), "{said}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_target_is_checked_without_making_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let head = "00112233445566778899";
        check_event_file(&event_file(&folder.path().join("a/b"), head)).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(folder.path().join("file"), "x").unwrap();
        let path = event_file(&folder.path().join("file/b"), head);
        assert!(check_event_file(&path).is_err());
    }
}
