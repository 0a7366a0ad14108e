//! Moving items from one place to another: what `iii-stream export`, `import` and `verify` do.
//!
//! Reading order: [`entry`] is one item with its names, and the two ends of every move; [`lines`], [`kv_directory`]
//! and [`data_directory`] are ends that are files, [`redis_engine`] is one in Redis; [`naming`] says which group an engine's
//! name stands for; [`members`] reads an object of any size member by member; [`copying`] takes items from one end
//! to the other; [`progress`] shows how far it is. The end that is a running server is with the commands.

pub mod copying;
pub mod data_directory;
pub mod entry;
pub mod kv_directory;
pub mod lines;
pub mod members;
pub mod naming;
pub mod progress;
pub mod redis_engine;
