//! A Lua script that runs at the server, called by its digest.

use std::sync::{Arc, OnceLock};

/// A script. Its text goes to a server once; from then on its digest names it.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    digest: OnceLock<Arc<str>>,
}

impl Script {
    /// A script of this text.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            digest: OnceLock::new(),
        }
    }

    pub(super) fn text(&self) -> &'static str {
        self.text
    }

    /// What names the script, once a server has told it.
    pub(super) fn digest(&self) -> Option<Arc<str>> {
        self.digest.get().cloned()
    }

    /// Keeps the digest that a server told. All servers tell the same one: it is the SHA-1 of the text.
    pub(super) fn keep_digest(&self, digest: &str) -> Arc<str> {
        self.digest.get_or_init(|| Arc::from(digest)).clone()
    }
}
