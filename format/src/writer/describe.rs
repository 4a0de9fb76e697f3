//! Changes the description of a run that has no segment yet.

use super::run::RunWriter;
use crate::FormatError;
use crate::context::Context;
use crate::info::RunInfo;

impl RunWriter {
    /// Whether a segment repeats the run's description, so that it can't be changed any more.
    pub fn is_described(&self) -> bool {
        self.state
            .as_ref()
            .is_ok_and(|live| live.open.is_some() || !live.manifest.segments.is_empty())
    }

    /// Replaces the run's description, as long as no segment repeats it. A recorder learns some of it from the optimizer, which may exist
    /// only after the run was created. Returns whether anything changed; then the manifest has been replaced. Encoders must be made from
    /// the new description ([`Encoder::new`](crate::Encoder::new)).
    ///
    /// # Errors
    /// The description is that of another run, a segment exists already (then nothing is changed and the writer stays usable), the
    /// description contradicts itself, or the storage fails.
    pub fn describe(&mut self, info: &RunInfo) -> Result<bool, FormatError> {
        if let Ok(live) = &self.state {
            let now = &live.manifest.run;
            if now == info {
                return Ok(false);
            }
            let refuse = |why: &str| {
                Err(FormatError::Order {
                    step: 0,
                    why: why.to_owned(),
                })
            };
            if (now.salt, &now.created) != (info.salt, &info.created) {
                return refuse("the new description is that of another run");
            }
            if self.is_described() {
                return refuse("a segment repeats the run's description, so it can't be changed");
            }
        }
        self.sticky(|live, _| {
            live.context = Context::new(info)?;
            live.manifest.run = info.clone();
            live.publish()?;
            Ok(true)
        })
    }
}
