//! Rows of the exactness matrix, for runs that are trained and swept on the device.

use super::report::{Line, Lines};
use super::setting::Setting;
use crate::exactness::{LIMIT, rows_on};

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    let quick = setting.quick;
    let wanted = move |name: &str| {
        // Matrix rows of operations are the section of the layers.
        if name.starts_with("layer ") {
            let circumstances = ["plain", "batch-norm", "dropout"];
            let all = name.contains(" cross-entropy mean ")
                && circumstances.iter().any(|last| name.ends_with(last));
            all && (!quick || name.ends_with("plain"))
        } else if name.starts_with("optimizer ") {
            let plain = name.ends_with(" plain");
            plain && (!quick || name.contains(" adamw plain"))
        } else {
            false
        }
    };
    for row in rows_on(&setting.device, &wanted, &|_, _| {})? {
        lines.push(Line::error(row.name, row.error, LIMIT));
    }
    Ok(())
}
