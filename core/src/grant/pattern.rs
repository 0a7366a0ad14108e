//! Text with stars, and what it matches. Knows no grants.

use alloc::sync::Arc;

/// Text in which `*` stands for any run of characters, none included. Everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub(super) Arc<str>);

impl Default for Pattern {
    fn default() -> Self {
        Self("*".into())
    }
}

impl Pattern {
    /// A pattern of this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether it matches a name, found out in time proportional to the lengths of both: what stands between two stars is searched for once, from left to right, as
    /// the first place where it stands leaves most to the rest.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = parts.next().and_then(|head| name.strip_prefix(head)) else {
            return false;
        };
        let Some(tail) = parts.next_back() else {
            // There is no star.
            return rest.is_empty();
        };
        let Some(mut rest) = rest.strip_suffix(tail) else {
            return false;
        };
        for part in parts {
            let Some(at) = rest.find(part) else {
                return false;
            };
            rest = &rest[at + part.len()..];
        }
        true
    }

    /// Whether it matches whatever there is.
    pub fn is_any(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }
}
