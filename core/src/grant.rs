//! What a client may do: abilities, each with patterns of the streams, groups and items that it holds for. Knows no
//! connections and no calls.
//!
//! Whatever is not granted is not allowed, and grants that cannot be read to the last word are none at all: a misspelled
//! field would otherwise grant more than was meant.

mod pattern;
mod reading;

pub use pattern::Pattern;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write as _;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::name::GroupRef;

/// Something that a client may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ability {
    /// Seeing items and events, by subscription, by reading and by calls that only read.
    Read,
    /// `stream::set`.
    Set,
    /// `stream::update`.
    Update,
    /// `stream::delete`.
    Delete,
    /// `stream::send`.
    Send,
}

/// Everything that one client may do. Reading a list of a thousand takes its time once; asking costs in proportion to the
/// list and the length of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

/// Why a list of grants is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct GrantError {
    reason: String,
}

/// Some abilities for whatever three patterns match.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    stream: Pattern,
    group: Pattern,
    item: Pattern,
    can: Abilities,
}

/// A set of [`Ability`], one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Abilities(u8);

/// What of one group a client may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Whatever there is.
    All,
    /// Nothing.
    Nothing,
    /// Items that match, and events without an item.
    Some(ItemPatterns),
}

/// Patterns of items. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemPatterns(Arc<Part>);

/// The part of a group that some patterns show.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    items: Vec<Pattern>,
    /// Another one for other patterns, of as many characters as any.
    name: String,
}

impl Grants {
    /// Reading everything, and nothing else: what a client may do of whom nobody said more.
    pub fn read_only() -> Self {
        Self::of_everything(Abilities::of(&[Ability::Read]))
    }

    /// Everything.
    pub fn everything() -> Self {
        Self::of_everything(Abilities::of(&[
            Ability::Read,
            Ability::Set,
            Ability::Update,
            Ability::Delete,
            Ability::Send,
        ]))
    }

    /// Reads a list of grants.
    ///
    /// Shape: `[{"stream":"chat","group":"room-*","item":"*","can":["read","set","update","delete","send"]}]`. Only `item` may be
    /// left out, which is `*`; `null` and the empty text are no patterns. At most
    /// [`GRANTS_MAX`](crate::limits::GRANTS_MAX), whose patterns have at most
    /// [`GRANT_PATTERNS_BYTES_MAX`](crate::limits::GRANT_PATTERNS_BYTES_MAX) bytes together.
    ///
    /// Errors: [`GrantError`] for everything else, fields that there are not and fields that repeat included.
    pub fn from_text(json: &str) -> Result<Self, GrantError> {
        // Not by serde: what words its errors would be a tenth of the wasm module.
        reading::read_list(json).map_err(|reason| GrantError { reason })
    }

    /// Whether `ability` is granted for an item. Without one, as for an event that names none, it takes a grant for all items
    /// of the group.
    pub fn may(&self, ability: Ability, group: GroupRef<'_>, item: Option<&str>) -> bool {
        self.of_group(ability, group)
            .any(|pattern| item.map_or(pattern.is_any(), |item| pattern.matches(item)))
    }

    /// What of a group may be read.
    pub fn view(&self, group: GroupRef<'_>) -> View {
        let mut items = Vec::new();
        for pattern in self.of_group(Ability::Read, group) {
            if pattern.is_any() {
                return View::All;
            }
            items.push(pattern.clone());
        }
        if items.is_empty() {
            View::Nothing
        } else {
            let name = name_of(&items);
            View::Some(ItemPatterns(Arc::new(Part { items, name })))
        }
    }

    /// Whether there may be a group of this stream of which something may be read.
    pub fn may_read_any_of_stream(&self, stream: &str) -> bool {
        let mut grants = self.0.iter();
        grants.any(|grant| grant.can.has(Ability::Read) && grant.stream.matches(stream))
    }

    /// Whether anything of a group may be read.
    pub fn may_read_any(&self, group: GroupRef<'_>) -> bool {
        self.of_group(Ability::Read, group).next().is_some()
    }

    fn of_everything(can: Abilities) -> Self {
        Self(Vec::from([Grant {
            stream: Pattern::default(),
            group: Pattern::default(),
            item: Pattern::default(),
            can,
        }]))
    }

    /// The patterns of the items of a group for which `ability` is granted.
    fn of_group<'g>(
        &'g self,
        ability: Ability,
        group: GroupRef<'g>,
    ) -> impl Iterator<Item = &'g Pattern> {
        let grants = self.0.iter().filter(move |grant| {
            grant.can.has(ability)
                && grant.stream.matches(group.stream)
                && grant.group.matches(group.group)
        });
        grants.map(|grant| &grant.item)
    }
}

impl View {
    /// Whether an item may be seen, or what is told of it. An event without an item may be seen by whoever may see anything
    /// of the group.
    pub fn shows(&self, item: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Some(items) => {
                item.is_none_or(|item| items.0.items.iter().any(|pattern| pattern.matches(item)))
            }
        }
    }

    /// The name by which a client is told of a group's history, of which it sees no more than this: another one for each
    /// view. So whoever comes back with other grants than before is not taken for one who only missed the last changes.
    pub fn epoch<'e>(&self, epoch: &'e str) -> Cow<'e, str> {
        match self {
            Self::All | Self::Nothing => Cow::Borrowed(epoch),
            Self::Some(items) => Cow::Owned(format!("{epoch}{}", items.0.name)),
        }
    }

    /// The history that a client was told of by such a name; `None` if that was another view's.
    pub fn history<'e>(&self, epoch: &'e str) -> Option<&'e str> {
        match self {
            Self::All => Some(epoch),
            Self::Nothing => None,
            Self::Some(items) => epoch.strip_suffix(&*items.0.name),
        }
    }
}

/// A name of characters that an epoch may have.
fn name_of(patterns: &[Pattern]) -> String {
    let mut digest = Sha256::new();
    for Pattern(pattern) in patterns {
        // Their lengths keep apart what would be one text otherwise.
        digest.update(pattern.len().to_le_bytes());
        digest.update(pattern.as_bytes());
    }
    let mut name = String::from("v");
    for byte in &digest.finalize()[..8] {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

impl Abilities {
    fn of(abilities: &[Ability]) -> Self {
        let bits = abilities.iter().map(|&ability| Self::bit(ability));
        Self(bits.fold(0, core::ops::BitOr::bitor))
    }

    fn has(self, ability: Ability) -> bool {
        self.0 & Self::bit(ability) != 0
    }

    fn bit(ability: Ability) -> u8 {
        1 << ability as u8
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::limits::{GRANT_PATTERNS_BYTES_MAX, GRANTS_MAX};

    const GROUP: GroupRef<'_> = GroupRef {
        stream: "chat",
        group: "room-1",
    };

    fn read(json: &str) -> Grants {
        Grants::from_text(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    fn group<'a>(stream: &'a str, group: &'a str) -> GroupRef<'a> {
        GroupRef { stream, group }
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        let cases = [
            ("*", &["", "a", "a*b", "😀"][..], &[][..]),
            ("**", &["", "a"], &[]),
            ("a", &["a"], &["", "b", "aa", "A"]),
            (
                "room-*",
                &["room-", "room-1", "room-*"],
                &["room", "Room-1", "a room-1"],
            ),
            ("*-log", &["-log", "a-log", "-log-log"], &["log", "a-log "]),
            ("a*a", &["aa", "aba"], &["a", "ab"]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["acb", "abcd", "ac"]),
            (
                "*ab*ab*",
                &["abab", "xabyabz", "ababab"],
                &["ab", "aab", "abba"],
            ),
            ("*é*", &["é", "aéb"], &["e\u{301}", "è"]),
            ("\\*", &["\\", "\\x"], &["*"]),
            ("a?c.[d]", &["a?c.[d]"], &["abc.d"]),
        ];
        for (pattern, matching, others) in cases {
            let matches = |name: &&str| Pattern(pattern.into()).matches(name);
            assert!(matching.iter().all(matches), "{pattern}");
            assert!(!others.iter().any(matches), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        // Whatever tries again for each star needs more steps here than there is time.
        let pattern = Pattern(("*a".repeat(10_000) + "b").into());
        let name = "a".repeat(100_000);
        assert!(!pattern.matches(&name));
        assert!(pattern.matches(&(name + "b")));
    }

    #[test]
    fn what_is_not_granted_is_not_allowed() {
        let grants = read(
            r#"[{"stream":"chat","group":"room-*","item":"*","can":["read","send"]},{"stream":"chat","group":"room-1","item":"me:*","can":["set"]},{"stream":"*","group":"*","can":[]}]"#,
        );
        assert!(grants.may(Ability::Read, GROUP, Some("x")));
        assert!(grants.may(Ability::Send, GROUP, None));
        assert!(grants.may(Ability::Set, GROUP, Some("me:1")));
        for (ability, group, item) in [
            (Ability::Set, GROUP, Some("you:1")),
            // For some items is not for all of them.
            (Ability::Set, GROUP, None),
            (Ability::Set, group("chat", "room-2"), Some("me:1")),
            (Ability::Read, group("chat", "hall"), Some("x")),
            (Ability::Read, group("chats", "room-1"), Some("x")),
            (Ability::Update, GROUP, Some("x")),
            (Ability::Delete, GROUP, Some("x")),
        ] {
            assert!(
                !grants.may(ability, group, item),
                "{ability:?} {group:?} {item:?}"
            );
        }
        assert!(!Grants::default().may(Ability::Read, GROUP, Some("x")));
    }

    #[test]
    fn everything_is_everything_and_read_only_is_reading() {
        let all = [
            Ability::Read,
            Ability::Set,
            Ability::Update,
            Ability::Delete,
            Ability::Send,
        ];
        for ability in all {
            assert!(Grants::everything().may(ability, GROUP, None));
            let is_read = ability == Ability::Read;
            assert_eq!(Grants::read_only().may(ability, GROUP, None), is_read);
        }
        let written = r#"[{"stream":"*","group":"*","item":"*","can":["read","set","update","delete","send"]}]"#;
        assert_eq!(read(written), Grants::everything());
        assert_eq!(
            read(r#"[{"stream":"*","group":"*","can":["read"]}]"#),
            Grants::read_only()
        );
    }

    #[test]
    fn a_view_tells_what_of_a_group_may_be_read() {
        let grants = read(
            r#"[{"stream":"s","group":"all","can":["read"]},{"stream":"s","group":"some","item":"a*","can":["read"]},{"stream":"s","group":"s*","item":"b","can":["read"]},{"stream":"s","group":"none","can":["set"]}]"#,
        );
        assert_eq!(grants.view(group("s", "all")), View::All);
        for nothing in [group("s", "none"), group("s", "other"), group("t", "all")] {
            assert_eq!(grants.view(nothing), View::Nothing);
        }
        let view = grants.view(group("s", "some"));
        let shown = ["a", "a1", "b", "b1", "c"].map(|item| view.shows(Some(item)));
        assert_eq!(shown, [true, true, true, false, false]);
        assert!(view.shows(None) && View::All.shows(None) && !View::Nothing.shows(None));
        assert!(grants.may_read_any_of_stream("s"));
        assert!(!grants.may_read_any_of_stream("t"));
    }

    #[test]
    fn a_part_of_a_group_has_a_history_of_its_own() {
        let view = |item: &str| {
            let text = [item, "x"].map(|item| {
                format!(r#"{{"stream":"*","group":"*","item":"{item}","can":["read"]}}"#)
            });
            let text = format!("[{}]", text.join(","));
            read(&text).view(GROUP)
        };
        let (part, other, all) = (view("a*"), view("a*b"), view("*"));
        let told = part.epoch("k3");
        assert!(format!("{told}:1").parse::<crate::Position>().is_ok());
        assert_eq!(told, view("a*").epoch("k3"));
        assert_eq!(part.history(&told), Some("k3"));
        assert_eq!(other.history(&told), None);
        assert_eq!(part.history("k3"), None);
        assert_eq!(all.epoch("k3"), "k3");
        assert_eq!(all.history(&told), Some(&*told), "no history has this name");
    }

    #[test]
    fn what_cannot_be_read_to_the_last_word_is_refused_and_named() {
        let many = [r#"{"stream":"*","group":"*","can":[]}"#; GRANTS_MAX + 1].join(",");
        let many = format!("[{many}]");
        let pattern = "x".repeat(GRANT_PATTERNS_BYTES_MAX);
        let long = format!(r#"[{{"stream":"*","group":"{pattern}","can":[]}}]"#);
        for (json, named) in [
            ("null", "a list of grants"),
            ("{}", "a list of grants"),
            ("[1]", "number"),
            ("[{}]", "`stream`"),
            (r#"[{"stream":"a","can":["read"]}]"#, "`group`"),
            (r#"[{"group":"a","can":["read"]}]"#, "`stream`"),
            (r#"[{"stream":"a","group":"b"}]"#, "`can`"),
            (r#"[{"can":"read"}]"#, "got string"),
            (r#"[{"can":["write"]}]"#, "`write`"),
            (r#"[{"can":["Read"]}]"#, "`Read`"),
            (r#"[{"groups":"a","can":["read"]}]"#, "`groups`"),
            (r#"[{"group":"a","group":"b","can":["read"]}]"#, "`group`"),
            (r#"[{"group":null,"can":["read"]}]"#, "null"),
            (r#"[{"group":7,"can":["read"]}]"#, "got number"),
            (r#"[{"group":"","can":["read"]}]"#, "empty"),
            (r#"[{"group":"\ud800","can":["read"]}]"#, "whole characters"),
            (
                r#"[{"stream":"*","group":"*","can":["read"]}] x"#,
                "not JSON",
            ),
            (&many, "1000 grants"),
            (&long, "65536 bytes"),
        ] {
            let error = Grants::from_text(json).expect_err(named).to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }
}
