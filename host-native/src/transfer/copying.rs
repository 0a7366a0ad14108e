//! Takes items from one end to the other, and keeps count of what became of them.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashSet};

use super::entry::{Entry, ItemSink, ItemSource, Origin, Refused, SinkError, SourceError};
use super::progress::Progress;

/// How many lines are told of each kind of trouble; the rest is counted.
const TOLD_MAX: u64 = 20;

/// What became of the items.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Items that were taken, those that were refused later among them.
    pub items: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Lines, files or items that could not be read.
    pub damaged: u64,
    /// Items that were refused.
    pub refused: u64,
    /// Items that came again; the last one counts.
    pub repeated: u64,
    /// Items whose time was over; they were left out.
    pub expired: u64,
}

/// Why a move ended early.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source.
    #[error(transparent)]
    Source(SourceError),
    /// The sink.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

/// What is done about what cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It ends the move.
    Stop,
    /// It is told, and the rest goes on.
    Skip,
}

/// Reads everything and keeps nothing, to know whether it can be read. Tells what cannot.
///
/// Errors: [`CopyError::Source`] where nothing more can be read.
pub fn look_through(
    source: &mut dyn ItemSource,
    progress: &mut Progress,
) -> Result<Tally, CopyError> {
    let mut tally = Tally::default();
    loop {
        match source.next_item() {
            Ok(None) => break,
            Ok(Some(_)) => {
                tally.items += 1;
                progress.item(source.bytes_read());
            }
            Err(damaged @ SourceError::Damaged { .. }) => {
                tally.damaged += 1;
                tell(progress, tally.damaged, &format!("damaged: {damaged}"));
            }
            Err(error) => return Err(CopyError::Source(error)),
        }
    }
    tell_rest(progress, tally.damaged, "damaged");
    tally.bytes = source.bytes_read();
    Ok(tally)
}

/// Takes every item from `source` to `sink`. Items whose time is over at `now_ms`, in Unix milliseconds, are left out.
///
/// Errors: whatever ends it early. What was taken before is kept.
pub fn copy(
    source: &mut dyn ItemSource,
    sink: &mut dyn ItemSink,
    on_damage: OnDamage,
    now_ms: u64,
    progress: &mut Progress,
) -> Result<Tally, CopyError> {
    let mut copying = Copying {
        tally: Tally::default(),
        seen: Seen::default(),
        refused: Vec::new(),
        progress,
    };
    let copied = copying.copy(source, sink, on_damage, now_ms);
    copying.tally.bytes = source.bytes_read();
    copying.tell_refused();
    copied?;
    let Copying {
        tally, progress, ..
    } = copying;
    tell_rest(progress, tally.damaged, "damaged");
    tell_rest(progress, tally.refused, "refused");
    tell_rest(progress, tally.repeated, "given again");
    Ok(tally)
}

struct Copying<'a> {
    tally: Tally,
    seen: Seen,
    refused: Vec<Refused>,
    progress: &'a mut Progress,
}

impl Copying<'_> {
    fn copy(
        &mut self,
        source: &mut dyn ItemSource,
        sink: &mut dyn ItemSink,
        on_damage: OnDamage,
        now_ms: u64,
    ) -> Result<(), CopyError> {
        loop {
            match source.next_item() {
                Ok(None) => break,
                Ok(Some((entry, origin))) => {
                    if entry.expires_ms.is_some_and(|at_ms| at_ms <= now_ms) {
                        self.tally.expired += 1;
                    } else {
                        self.tell_repeated(&entry, &origin);
                        sink.put(&entry, &origin, &mut self.refused)?;
                        self.tally.items += 1;
                        self.progress.item(source.bytes_read());
                    }
                }
                Err(damaged @ SourceError::Damaged { .. }) if on_damage == OnDamage::Skip => {
                    self.tally.damaged += 1;
                    let line = format!("damaged and skipped: {damaged}");
                    tell(self.progress, self.tally.damaged, &line);
                }
                Err(error) => {
                    // What was taken before is waited for.
                    sink.finish(&mut self.refused)?;
                    return Err(CopyError::Source(error));
                }
            }
            self.tell_refused();
        }
        Ok(sink.finish(&mut self.refused)?)
    }

    fn tell_repeated(&mut self, entry: &Entry, origin: &Origin) {
        if self.seen.is_new(entry) {
            return;
        }
        self.tally.repeated += 1;
        let line = format!("{origin}: {} came before; the last one counts", entry.place);
        tell(self.progress, self.tally.repeated, &line);
    }

    fn tell_refused(&mut self) {
        for refused in self.refused.drain(..) {
            self.tally.refused += 1;
            let Refused {
                place,
                origin,
                reason,
            } = refused;
            let line = format!("refused: {origin}: {place}: {reason}");
            tell(self.progress, self.tally.refused, &line);
        }
    }
}

fn tell(progress: &Progress, number: u64, line: &str) {
    if number <= TOLD_MAX {
        progress.say(line);
    }
}

fn tell_rest(progress: &Progress, count: u64, what: &str) {
    if let Some(rest) = count.checked_sub(TOLD_MAX).filter(|&rest| 0 < rest) {
        progress.say(&format!("… and {rest} more {what}"));
    }
}

/// Which places came, by 64 bits of each: two of ten million are taken for the same once in hundreds of thousands of moves.
#[derive(Default)]
struct Seen {
    hashes: HashSet<u64>,
    hasher: DefaultHashBuilder,
}

impl Seen {
    fn is_new(&mut self, entry: &Entry) -> bool {
        self.hashes.insert(self.hasher.hash_one(&entry.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::lines::{LineSink, LineSource};

    fn copied(text: &str, on_damage: OnDamage) -> (Result<Tally, String>, String) {
        let mut source = LineSource::new(text.as_bytes(), "test");
        let mut sink = LineSink::new(Vec::new());
        let mut progress = Progress::start("moved", None);
        let tally = copy(&mut source, &mut sink, on_damage, 1_000, &mut progress);
        let written = String::from_utf8(sink.into_inner()).expect("text");
        (tally.map_err(|error| error.to_string()), written)
    }

    const A: &str = r#"{"scope":"s","key":"a","value":1}"#;

    #[test]
    fn counts_what_came_again_and_leaves_out_what_is_over() {
        let item = |expires_ms: u64| {
            format!(
                r#"{{"stream":"s","group":"g","item":"i{expires_ms}","value":1,"ttl_ms":5,"expires_ms":{expires_ms}}}"#
            )
        };
        let (over, live) = (item(1_000), item(1_001));
        let text = format!("{A}\n{over}\n{live}\n{A}\n");
        let (tally, written) = copied(&text, OnDamage::Stop);
        let expected = Tally {
            items: 3,
            bytes: text.len() as u64,
            repeated: 1,
            expired: 1,
            ..Tally::default()
        };
        assert_eq!(tally, Ok(expected));
        assert_eq!(written, format!("{A}\n{live}\n{A}\n"));
    }

    #[test]
    fn damage_stops_or_is_skipped() {
        let text = format!("{A}\nx\n{A}\n");
        let (stopped, written) = copied(&text, OnDamage::Stop);
        assert!(stopped.is_err_and(|error| error.starts_with("line 2: ")));
        assert_eq!(written, format!("{A}\n"));
        let (skipped, written) = copied(&text, OnDamage::Skip);
        assert!(skipped.is_ok_and(|tally| (tally.items, tally.damaged) == (2, 1)));
        assert_eq!(written, format!("{A}\n{A}\n"));
        let mut source = LineSource::new(text.as_bytes(), "test");
        let mut progress = Progress::start("read", None);
        let seen = look_through(&mut source, &mut progress).expect("memory can be read");
        assert_eq!((seen.items, seen.damaged), (2, 1));
    }
}
