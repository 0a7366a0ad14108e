//! Changes on their way between instances, and in a history that is kept elsewhere: written as bytes, and read again.
//!
//! ```text
//! message = epoch, " ", group, LF, for each change: seq, " ", timestamp, " ", base or "-", " ", bytes of the body or "-", LF, [body]
//! group   = stream ":" group, each percent-encoded
//! body    = flags, [item], [label], [value], [ops], [tag, mutation]
//! ```
//!
//! A body is made before sequence, timestamp and base are known: these come beside it, counted where the group is kept. In
//! a message, numbers are decimal, so that a script can write them; a body that was too large for it is left out.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::decide::{Draft, Kind};
use crate::kept::{RestoreError, Source, push_number, push_text};
use crate::mutation::Echo;
use crate::name::{GroupKey, GroupRef, is_name};
use crate::stamp::Change;
use crate::text::Json;

/// Flags of a body; the two low bits are the change's kind.
const CREATE: u8 = 0;
const UPDATE: u8 = 1;
const DELETE: u8 = 2;
const EVENT: u8 = 3;
const HAS_ITEM: u8 = 1 << 2;
const HAS_VALUE: u8 = 1 << 3;
const HAS_OPS: u8 = 1 << 4;
const HAS_MUTATION: u8 = 1 << 5;
const UNUSED: u8 = 0b1100_0000;

/// What happened in a group, as one message tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed {
    /// Names the group's history.
    pub epoch: Arc<str>,
    /// The group.
    pub group: GroupKey,
    /// Its changes, in order.
    pub changes: Vec<RelayedChange>,
}

/// A change as a message tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelayedChange {
    /// The change.
    Whole(Arc<Change>),
    /// A change that was too large for the message.
    LeftOut {
        /// Its sequence.
        seq: u64,
        /// Its timestamp.
        timestamp: u64,
    },
}

impl RelayedChange {
    /// The sequence of the change.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Whole(change) => change.seq,
            Self::LeftOut { seq, .. } => *seq,
        }
    }
}

/// Appends the body of a change. Gives where in `out` its value begins, if it has one.
pub fn write_body(draft: &Draft, out: &mut Vec<u8>) -> Option<usize> {
    let kind = match draft.kind {
        Kind::Create => CREATE,
        Kind::Update => UPDATE,
        Kind::Delete => DELETE,
        Kind::Event { .. } => EVENT,
    };
    let flag = |flag, is_set| if is_set { flag } else { 0 };
    out.push(
        kind | flag(HAS_ITEM, draft.item.is_some())
            | flag(HAS_VALUE, draft.value.is_some())
            | flag(HAS_OPS, draft.ops.is_some())
            | flag(HAS_MUTATION, draft.mutation.is_some()),
    );
    if let Some(item) = &draft.item {
        push_text(out, item);
    }
    if let Kind::Event { label } = &draft.kind {
        push_text(out, label.as_str());
    }
    let value_at = draft.value.as_ref().map(|value| {
        push_text(out, value.as_str());
        out.len() - value.as_str().len()
    });
    if let Some(ops) = &draft.ops {
        push_text(out, ops.as_str());
    }
    if let Some(Echo { tag, seq }) = &draft.mutation {
        push_text(out, tag);
        push_number(out, *seq);
    }
    value_at
}

/// Reads the change whose body [`write_body`] wrote.
///
/// Errors: [`RestoreError::Malformed`].
pub fn read_body(
    body: &[u8],
    seq: u64,
    timestamp: u64,
    base: Option<u64>,
) -> Result<Change, RestoreError> {
    let mut source = Source::new(body);
    let flags = source.byte()?;
    let has = |flag| flags & flag != 0;
    if has(UNUSED) {
        return Err(source.wrong("these flags are never written"));
    }
    let item = match has(HAS_ITEM) {
        true => Some(Arc::from(source.text()?)),
        false => None,
    };
    let kind = match flags & EVENT {
        CREATE => Kind::Create,
        UPDATE => Kind::Update,
        DELETE => Kind::Delete,
        _ => Kind::Event {
            label: json(&mut source)?,
        },
    };
    if item.is_none() && !matches!(kind, Kind::Event { .. }) {
        return Err(source.wrong("an item is changed without being named"));
    }
    let mut text = |flag| match has(flag) {
        true => json(&mut source).map(Some),
        false => Ok(None),
    };
    let (value, ops) = (text(HAS_VALUE)?, text(HAS_OPS)?);
    let mutation = match has(HAS_MUTATION) {
        true => Some(Echo {
            tag: source.text()?.into(),
            seq: source.number()?,
        }),
        false => None,
    };
    source.end()?;
    Ok(Change {
        seq,
        timestamp,
        item,
        kind,
        value,
        ops,
        base,
        mutation,
    })
}

/// Reads the change of a body whose value was cut out: what stands before the value's text, and what stands after it.
///
/// Errors: [`RestoreError::Malformed`].
pub fn read_body_without_value(
    before: &[u8],
    after: &[u8],
    seq: u64,
    timestamp: u64,
    base: Option<u64>,
) -> Result<Change, RestoreError> {
    let mut source = Source::new(before);
    let flags = source.byte()?;
    if flags & EVENT == EVENT || flags & HAS_VALUE == 0 {
        return Err(source.wrong("this is no body that a value was cut out of"));
    }
    let mut body = Vec::with_capacity(before.len() + after.len());
    body.push(flags & !HAS_VALUE);
    if flags & HAS_ITEM != 0 {
        push_text(&mut body, source.text()?);
    }
    // The length of the value is left.
    source.number()?;
    source.end()?;
    body.extend_from_slice(after);
    read_body(&body, seq, timestamp, base)
}

/// No checksum vouches for what comes from elsewhere, so texts are checked again.
fn json(source: &mut Source<'_>) -> Result<Json, RestoreError> {
    let text = Json::from_text(source.text()?);
    text.map_err(|_| source.wrong("a text is not JSON"))
}

/// Reads a message.
///
/// Errors: [`RestoreError::Malformed`].
pub fn read_message(message: &[u8]) -> Result<Relayed, RestoreError> {
    let mut source = Lines {
        bytes: message,
        at: 0,
    };
    let mut head = source.line()?.split(' ');
    let (Some(epoch), Some(group), None) = (head.next(), head.next(), head.next()) else {
        return Err(source.wrong("the first line is not an epoch and a group"));
    };
    let group = read_group(group).ok_or_else(|| source.wrong("this is no group"))?;
    let epoch = epoch.into();
    let mut changes = Vec::new();
    while source.at < message.len() {
        changes.push(source.change()?);
    }
    Ok(Relayed {
        epoch,
        group,
        changes,
    })
}

/// Goes through a message.
struct Lines<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Lines<'b> {
    fn wrong(&self, what: &'static str) -> RestoreError {
        RestoreError::Malformed { what, at: self.at }
    }

    fn line(&mut self) -> Result<&'b str, RestoreError> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = end.and_then(|end| core::str::from_utf8(&rest[..end]).ok());
        let line = line.ok_or_else(|| self.wrong("this is no line"))?;
        self.at += line.len() + 1;
        Ok(line)
    }

    fn change(&mut self) -> Result<RelayedChange, RestoreError> {
        let mut fields = self.line()?.split(' ');
        let mut number = || {
            let field = fields.next()?;
            if field == "-" {
                return Some(None);
            }
            field.parse::<u64>().ok().map(Some)
        };
        let (Some(Some(seq)), Some(Some(timestamp)), Some(base), Some(length), None) =
            (number(), number(), number(), number(), fields.next())
        else {
            return Err(self.wrong("this line is not four numbers"));
        };
        let Some(length) = length else {
            return Ok(RelayedChange::LeftOut { seq, timestamp });
        };
        let end = usize::try_from(length).ok();
        let end = end.and_then(|length| self.at.checked_add(length));
        let body = end.and_then(|end| self.bytes.get(self.at..end));
        let body = body.ok_or_else(|| self.wrong("a body is longer than the message"))?;
        let change = read_body(body, seq, timestamp, base)?;
        self.at += body.len();
        Ok(RelayedChange::Whole(Arc::new(change)))
    }
}

/// Appends a name with every byte outside `A-Z a-z 0-9 - _ . ~` written as `%XX`.
pub fn push_encoded(out: &mut String, name: &str) {
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            let digit = |digit: u8| char::from(b"0123456789ABCDEF"[usize::from(digit)]);
            out.extend(['%', digit(byte >> 4), digit(byte & 0xF)]);
        }
    }
}

/// Appends a group as messages name it: stream and group, each encoded, with a colon between.
pub fn push_group(out: &mut String, group: GroupRef<'_>) {
    push_encoded(out, group.stream);
    out.push(':');
    push_encoded(out, group.group);
}

/// The group that [`push_group`] wrote; `None` if it did not.
pub fn read_group(text: &str) -> Option<GroupKey> {
    let (stream, group) = text.split_once(':')?;
    Some(GroupKey {
        stream: read_encoded(stream)?.into(),
        group: read_encoded(group)?.into(),
    })
}

/// The name that [`push_encoded`] wrote; `None` if it did not.
pub fn read_encoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            b':' => return None,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok().filter(|name| is_name(name))
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;

    use super::*;
    use crate::decide::Ttl;

    fn checked(text: &str) -> Json {
        Json::from_text(text).expect("JSON")
    }

    fn drafts() -> Vec<Draft> {
        let draft =
            |item: Option<&str>, kind, value: Option<&str>, ops: Option<&str>, base| Draft {
                item: item.map(Into::into),
                kind,
                value: value.map(checked),
                ops: ops.map(checked),
                base,
                ttl: Ttl::Keep,
                mutation: None,
            };
        let label = checked(r#""typing""#);
        let mut drafts = Vec::from([
            draft(Some("é\n"), Kind::Create, Some(r#"{"n":1}"#), None, None),
            draft(Some("a"), Kind::Update, Some("2"), Some("[]"), Some(7)),
            draft(Some("a"), Kind::Delete, Some("null"), None, Some(8)),
            draft(None, Kind::Event { label }, Some("[1]"), None, None),
        ]);
        drafts[1].mutation = Some(Echo {
            tag: "00ff".into(),
            seq: 300,
        });
        drafts
    }

    fn change_of(draft: &Draft, seq: u64, timestamp: u64) -> Change {
        let draft = draft.clone();
        Change {
            seq,
            timestamp,
            item: draft.item,
            kind: draft.kind,
            value: draft.value,
            ops: draft.ops,
            base: draft.base,
            mutation: draft.mutation,
        }
    }

    #[test]
    fn bodies_come_back() {
        for draft in drafts() {
            let mut out = b"before".to_vec();
            let value_at = write_body(&draft, &mut out).expect("a value");
            let value = draft.value.as_ref().expect("a value").as_str();
            assert!(out[value_at..].starts_with(value.as_bytes()));
            let change = read_body(&out[6..], 9, 100, draft.base);
            assert_eq!(change, Ok(change_of(&draft, 9, 100)));
        }
    }

    #[test]
    fn messages_come_back() {
        let mut message = b"e1 a%3Ab:c%20d\n".to_vec();
        for (draft, seq) in drafts().iter().zip(9..) {
            let mut body = Vec::new();
            write_body(draft, &mut body);
            let base = draft.base.map_or("-".into(), |base| base.to_string());
            message.extend(format!("{seq} 100 {base} {}\n", body.len()).into_bytes());
            message.extend(body);
        }
        message.extend(b"13 101 4 -\n");
        let relayed = read_message(&message).expect("a message");
        assert_eq!(&*relayed.epoch, "e1");
        assert_eq!(
            (&*relayed.group.stream, &*relayed.group.group),
            ("a:b", "c d")
        );
        let whole = drafts();
        let whole = whole.iter().zip(9..);
        let mut expected: Vec<_> = whole
            .map(|(draft, seq)| RelayedChange::Whole(Arc::new(change_of(draft, seq, 100))))
            .collect();
        expected.push(RelayedChange::LeftOut {
            seq: 13,
            timestamp: 101,
        });
        assert_eq!(relayed.changes, expected);
        let seqs: Vec<_> = relayed.changes.iter().map(RelayedChange::seq).collect();
        assert_eq!(seqs, [9, 10, 11, 12, 13]);
    }

    #[test]
    fn a_message_that_was_cut_or_changed_is_refused_or_another() {
        let mut body = Vec::new();
        write_body(&drafts()[1], &mut body);
        let mut message = format!("e s:g\n5 6 4 {}\n", body.len()).into_bytes();
        message.extend(&body);
        for cut in (0..message.len()).filter(|cut| *cut != 6) {
            assert!(read_message(&message[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..message.len() {
            for byte in [0, b' ', b'\n', b'-', 0xFF] {
                let mut other = message.clone();
                other[at] = byte;
                if other != message {
                    assert_ne!(read_message(&other), read_message(&message), "byte {at}");
                }
            }
        }
        assert!(read_body(&[], 1, 1, None).is_err());
        assert!(read_body(&[UPDATE], 1, 1, None).is_err());
        assert!(read_body(&[0xFF, 0], 1, 1, None).is_err());
    }

    #[test]
    fn names_come_back() {
        let mut text = String::new();
        let group = GroupRef {
            stream: "a:b{}%",
            group: "é x~",
        };
        push_group(&mut text, group);
        assert_eq!(text, "a%3Ab%7B%7D%25:%C3%A9%20x~");
        assert_eq!(read_group(&text), Some(group.to_key()));
        for wrong in ["a", "a:", ":a", "a:b:c", "a:%4", "a:%G0", "a:%FF"] {
            assert_eq!(read_group(wrong), None, "{wrong}");
        }
    }
}
