//! What is printed about a run that was made from another one.

use hindcast_format::Status;

/// The steps without tensors, as an addition to the number of the others, and how the run ends.
pub(super) fn content(gaps: u64, status: Status) -> (String, &'static str) {
    let gaps = match gaps {
        0 => String::new(),
        n => format!(", {n} more without tensors"),
    };
    let end = match status {
        Status::Finished => "with its final state",
        // Every run that is made from another one is closed.
        Status::Unfinished | Status::Open => "without a final state",
    };
    (gaps, end)
}
