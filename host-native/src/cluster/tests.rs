//! Instances on a real Redis.
