//! Reads lists of grants: as JSON text, and by serde where a configuration has them. Both take the same and nothing else.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::{Abilities, Ability, Grant, Grants, Pattern};
use crate::fields::{kind_of, string_of};
use crate::limits::{GRANT_PATTERNS_BYTES_MAX, GRANTS_MAX};
use crate::raw::{Raw, Reader, members};

/// The abilities by their names.
const ABILITIES: [(&str, Ability); 5] = [
    ("read", Ability::Read),
    ("set", Ability::Set),
    ("update", Ability::Update),
    ("delete", Ability::Delete),
    ("send", Ability::Send),
];

/// Reads a list of grants; what is wrong with it, in words.
pub(super) fn read_list(json: &str) -> Result<Grants, String> {
    let mut reader = Reader::new(json, 0);
    let list = reader.value().filter(|_| reader.is_at_end());
    let list = list.ok_or("the grants are not JSON")?.get();
    if !list.starts_with('[') {
        return Err(format!(
            "a list of grants was expected, got {}",
            kind_of(list)
        ));
    }
    let mut bounded = Bounded::default();
    for (index, grant) in members(list).enumerate() {
        let grant = read_grant(grant.get()).map_err(|reason| format!("grant {index}: {reason}"))?;
        bounded.push(grant)?;
    }
    Ok(Grants(bounded.grants))
}

fn read_grant(json: &str) -> Result<Grant, String> {
    const NAMES: [&str; 4] = ["stream", "group", "item", "can"];
    let mut fields = [None; NAMES.len()];
    let mut fault = None;
    let read = Reader::new(json, 0).members(|key, value| {
        let Some(index) = NAMES.iter().position(|name| *name == key) else {
            fault = Some(format!("there is no field `{key}`"));
            return None;
        };
        if fields[index].replace(value).is_some() {
            fault = Some(format!("field `{key}` is given twice"));
            return None;
        }
        Some(())
    });
    if read.is_none() {
        let got = || {
            format!(
                "an object with plain keys was expected, got {}",
                kind_of(json)
            )
        };
        return Err(fault.unwrap_or_else(got));
    }
    let mut patterns = [None, None, None];
    for (index, pattern) in patterns.iter_mut().enumerate() {
        if let Some(raw) = fields[index] {
            *pattern = Some(read_pattern(NAMES[index], raw)?);
        }
    }
    let can = fields[3].map(Raw::get);
    if let Some(can) = can.filter(|can| !can.starts_with('[')) {
        let got = kind_of(can);
        return Err(format!(
            "field `can` must be a list of abilities, got {got}"
        ));
    }
    let mut abilities = Vec::new();
    for name in members(can.unwrap_or("[]")) {
        let found = ABILITIES.iter().find(|(known, _)| {
            let text = string_of(name);
            text.is_some_and(|text| text == *known)
        });
        let Some((_, ability)) = found else {
            let name = string_of(name).map_or_else(|| name.get().to_string(), String::from);
            return Err(format!(
                "field `can`: there is no ability `{name}`, but read, set, update, delete and send"
            ));
        };
        abilities.push(*ability);
    }
    let [stream, group, item] = patterns;
    let grant = Grant {
        stream: stream.ok_or("field `stream` is missing")?,
        group: group.ok_or("field `group` is missing")?,
        item: item.unwrap_or_default(),
        can: Abilities::of(&abilities),
    };
    can.ok_or("field `can` is missing")?;
    Ok(grant)
}

fn read_pattern(name: &str, raw: Raw<'_>) -> Result<Pattern, String> {
    let Some(text) = string_of(raw) else {
        let got = kind_of(raw.get());
        return Err(format!(
            "field `{name}` must be a string of whole characters, got {got}"
        ));
    };
    if text.is_empty() {
        return Err(format!("field `{name}`: a pattern must not be empty"));
    }
    Ok(Pattern(text.as_ref().into()))
}

/// Grants, of which there are no more than there may be.
#[derive(Default)]
struct Bounded {
    grants: Vec<Grant>,
    pattern_bytes: usize,
}

impl Bounded {
    fn push(&mut self, grant: Grant) -> Result<(), String> {
        if self.grants.len() == GRANTS_MAX {
            return Err(format!("there are more than {GRANTS_MAX} grants"));
        }
        let patterns = [&grant.stream, &grant.group, &grant.item];
        self.pattern_bytes += patterns
            .map(|pattern| pattern.0.len())
            .iter()
            .sum::<usize>();
        if GRANT_PATTERNS_BYTES_MAX < self.pattern_bytes {
            return Err(format!(
                "the patterns of all grants have more than {GRANT_PATTERNS_BYTES_MAX} bytes"
            ));
        }
        self.grants.push(grant);
        Ok(())
    }
}

/// A grant as a configuration has it, where errors say where they are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    stream: Pattern,
    group: Pattern,
    #[serde(default)]
    item: Pattern,
    can: Vec<Ability>,
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Err(D::Error::custom("a pattern must not be empty"));
        }
        Ok(Self(text.into()))
    }
}

impl<'de> Deserialize<'de> for Grants {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(GrantsVisitor)
    }
}

struct GrantsVisitor;

impl<'de> Visitor<'de> for GrantsVisitor {
    type Value = Grants;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of grants")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Grants, A::Error> {
        let mut bounded = Bounded::default();
        while let Some(written) = seq.next_element::<Written>()? {
            let grant = Grant {
                stream: written.stream,
                group: written.group,
                item: written.item,
                can: Abilities::of(&written.can),
            };
            bounded.push(grant).map_err(A::Error::custom)?;
        }
        Ok(Grants(bounded.grants))
    }
}
