//! The part of this process, from its beginning to its end.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::commands::Usage;
use crate::terminal;
use crate::terminal::{field, say};
use crate::words::{duration, quoted};
use hindcast_analyzer::shards::{
    Begun, Published, Request, Shard, ShardFolder, ShardPlace, ShardRecord,
};

/// A part that this process computes.
pub(crate) struct Work {
    place: ShardPlace,
    folder: ShardFolder,
    request: Request,
    units: Range<usize>,
}

/// Begins a part of the work whose result is to be at `out`. `None` if the part is complete already, which is said.
pub(crate) fn begin(
    out: &Path,
    shard: Shard,
    request: Request,
    as_json: bool,
) -> anyhow::Result<Option<Work>> {
    let folder = ShardFolder::beside(out);
    let units = shard.units(request.units.len());
    match folder.begin(&request, shard)? {
        Begun::Complete(record) => {
            say!("shard {shard}: complete already, by {}", field(by(&record)));
            tell(&folder, &request, shard, &units, as_json)?;
            Ok(None)
        }
        Begun::Here(place) => {
            say!(
                "shard {shard}: {}{}",
                of_all(&units, &request),
                if place.is_continued() {
                    "; an earlier process was stopped, and this one continues its work"
                } else {
                    ""
                }
            );
            Ok(Some(Work {
                place,
                folder,
                request,
                units,
            }))
        }
    }
}

impl Work {
    /// The units of work of this part, among all.
    pub fn units(&self) -> Range<usize> {
        self.units.clone()
    }

    /// The path of a file of the part.
    pub fn file(&self, name: &str) -> PathBuf {
        self.place.file(name)
    }

    /// Whether an earlier process began the part and was stopped.
    pub fn is_continued(&self) -> bool {
        self.place.is_continued()
    }

    /// Publishes the part, whose files are written, and says so.
    pub fn end(self, as_json: bool) -> anyhow::Result<()> {
        let shard = self.place.shard();
        if self.place.publish(self.units.len())? == Published::Elsewhere {
            say!("shard {shard}: another process has completed it meanwhile");
        }
        tell(&self.folder, &self.request, shard, &self.units, as_json)
    }
}

/// The name of the file that the parts are merged to, which stands in their request.
pub(crate) fn file_name(out: &Path) -> Result<&str, Usage> {
    let name = out.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| {
        Usage(format!(
            "--out {}: with --shard, expected the name of a file in UTF-8",
            out.display()
        ))
    })
}

/// The name of a part's file, which has the extension of the merged one.
pub(crate) fn part_name(out: &Path) -> String {
    match out.extension() {
        Some(extension) => format!("part.{}", extension.to_string_lossy()),
        None => "part".to_owned(),
    }
}

/// Which units of work a part has, in words.
fn of_all(units: &Range<usize>, request: &Request) -> String {
    let (all, unit) = (request.units.len(), &request.unit);
    if units.is_empty() {
        return format!("nothing to do: there are more shards than {unit} ({all})");
    }
    format!("{unit} {}..{} of {all}", units.start, units.end)
}

/// Where and in what time a part was computed.
fn by(record: &ShardRecord) -> String {
    let hosts = record.sittings.iter().map(|sitting| sitting.host.as_str());
    let mut hosts: Vec<&str> = hosts.collect();
    hosts.dedup();
    let time = std::time::Duration::from_secs(record.seconds());
    format!("{} in {}", hosts.join(" and "), duration(time))
}

/// Says that a part is complete, and what is left to do.
fn tell(
    folder: &ShardFolder,
    request: &Request,
    shard: Shard,
    units: &Range<usize>,
    as_json: bool,
) -> anyhow::Result<()> {
    let (_, complete) = folder.complete()?;
    let path = folder.path().display();
    let mut out = terminal::stdout();
    if as_json {
        let report = json!({
            "shard": shard.index,
            "of": shard.of,
            "units": units.clone().map(|k| request.units.get(k)).collect::<Vec<_>>(),
            "shards": path.to_string(),
            "complete": complete,
        });
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(out, "{}/shard-{}", field(path), shard.index)?;
    let done = complete.len();
    let all = request.of as usize;
    if done == all {
        let folder = quoted(&folder.path().display().to_string());
        say!(
            "{done} of {all} shards are complete; next: hindcast merge {}",
            field(folder)
        );
    } else {
        say!("{done} of {all} shards are complete");
    }
    Ok(())
}
