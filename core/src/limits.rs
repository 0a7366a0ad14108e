//! Every cap of the core: one constant each, its unit in its name.
//!
//! Knows nothing else. The caps on paths and merge values come from the wire
//! specification (update operations, section 4); the others are ours.

/// Longest stream name, group id or item id, in bytes of UTF-8. The shortest is one byte.
pub const NAME_BYTES_MAX: usize = 1_024;

/// Longest path, in segments.
pub const PATH_SEGMENTS_MAX: usize = 32;

/// Longest path segment, in bytes of UTF-8.
pub const PATH_SEGMENT_BYTES_MAX: usize = 256;

/// Most top-level keys of a `merge` value.
pub const MERGE_VALUE_KEYS_MAX: usize = 1_024;

/// Deepest nesting of a `merge` value, in levels: a scalar has 0, `{}` and `{"a":1}` have 1.
pub const MERGE_VALUE_DEPTH_MAX: usize = 16;

/// Deepest nesting of any value that is stored or sent, in levels.
///
/// JSON readers commonly stop at 127 levels; a value stands two levels deep in the call that
/// brings it. So whatever such a reader could send is accepted, and a stored value can always be
/// parsed again by a later update.
pub const VALUE_DEPTH_MAX: usize = 125;

/// Most operations of one update. Bounds the size of the error list and the work of one call.
pub const OPS_MAX: usize = 10_000;

/// Longest time to live of an item, in milliseconds: ten years. The shortest is 1.
pub const TTL_MS_MAX: u64 = 315_360_000_000;

/// Longest mutation client, in bytes of UTF-8. The shortest is one byte.
pub const MUTATION_CLIENT_BYTES_MAX: usize = 256;

/// Most mutation clients that a join may ask about.
pub const JOIN_CLIENTS_MAX: usize = 16;

/// Longest id of a subscription, in bytes of UTF-8. The shortest is one byte.
pub const SUBSCRIPTION_ID_BYTES_MAX: usize = 256;

/// Most mutations of a replica that are pending at a time.
pub const REPLICA_PENDING_MAX: usize = 10_000;

/// Keys that no path segment and no top-level key of a `merge` value may be: JavaScript readers
/// would change their prototypes with them.
pub const PROTO_KEYS: [&str; 3] = ["__proto__", "constructor", "prototype"];

/// Most grants of one client.
pub const GRANTS_MAX: usize = 1_000;

/// Longest patterns of all grants of one client together, in bytes of UTF-8.
pub const GRANT_PATTERNS_BYTES_MAX: usize = 65_536;
