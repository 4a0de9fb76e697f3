//! How often a writer syncs.

/// What a power cut may take. A killed process loses nothing at any level, because appended bytes are already with the operating system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing is synced before the run ends or a segment is dropped. A power cut may take everything since then; a valid prefix is left.
    Os,
    /// Synced when a segment is sealed. A power cut takes at most the open segment, which has at most 256 steps by default.
    #[default]
    Seals,
    /// Also synced whenever this number of steps has been appended since the last sync. A power cut takes fewer steps than that.
    Every(u32),
    /// Synced after every step.
    Always,
}
