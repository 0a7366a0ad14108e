//! What becomes of changes that were not synced when the power is cut.

use super::random::Random;

/// What a power cut leaves of the changes to one file, or to the names, that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// The first ones; the next one torn.
    Prefix,
    /// The file's length without the bytes: zeros. Of names: some.
    LengthOnly,
    /// Each sector as it was at some time: what a page cache and an honest drive can leave. Of names: some.
    Moments,
    /// Of each write each sector or not. Of names: some.
    Subset,
    /// One sector of one write is missing. Of names: one, and what needs it.
    AllButOne,
    /// As [`Fate::Subset`], and in any order: harder than a drive would be. Of names: some.
    Reordered,
}

impl Fate {
    pub(crate) const ALL: [Self; 8] = [
        Self::Nothing,
        Self::Everything,
        Self::Prefix,
        Self::LengthOnly,
        Self::Moments,
        Self::Subset,
        Self::AllButOne,
        Self::Reordered,
    ];

    pub(super) fn any(random: &mut Random) -> Self {
        Self::ALL[random.below(Self::ALL.len())]
    }
}
