//! The store in Redis, which many servers share.

mod watching;
