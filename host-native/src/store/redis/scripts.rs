//! The scripts that run at the server.

use crate::redis_client::Script;

/// Commits a batch of commands of one group.
pub(super) static COMMIT: Script = Script::new(include_str!("scripts/commit.lua"));

/// How many arguments of [`COMMIT`] are of the group.
pub(super) const COMMIT_GROUP_ARGS: usize = 20;

/// Reads a group at one moment.
pub(super) static LOOK: Script = Script::new(include_str!("scripts/look.lua"));

/// Finds out what became of a batch whose answer was lost.
pub(super) static RESOLVE: Script = Script::new(include_str!("scripts/resolve.lua"));

/// Notes when a group's next item goes.
pub(super) static DUE_NOTE: Script = Script::new(include_str!("scripts/due_note.lua"));

/// Changes a score that nobody else has changed.
pub(super) static COMPARE_AND_SCORE: Script =
    Script::new(include_str!("scripts/compare_and_score.lua"));
