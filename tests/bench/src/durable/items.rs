//! The many items that a start finds: written, and read one at a time.

use std::io;
use std::time::{Duration, Instant};

use iii_stream::bench::caller::Caller;
use iii_stream::bench::events::padded;
use iii_stream::bench::stream_medium::STREAM;

use crate::server_process::ServerProcess;

/// Items in each group.
const GROUP_ITEMS: u64 = 100;
const VALUE_BYTES: usize = 200;
/// Connections that write: one would wait for its own replies most of the time.
const WRITERS: u64 = 4;

/// So many items, an equal number in each group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Items {
    pub(crate) count: u64,
}

impl Items {
    /// Groups that hold them.
    pub(crate) fn groups(self) -> u64 {
        (self.count / GROUP_ITEMS).max(1)
    }

    /// Writes all, one group after the other in turn: what belongs to a group lies all over the log.
    pub(crate) fn write(self, server: &ServerProcess) -> io::Result<()> {
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let calls = (writer..self.count)
                        .step_by(WRITERS as usize)
                        .map(move |item| self.set(item));
                    scope.spawn(move || {
                        Caller::at(server.workers, None)?.pipeline("stream::set", calls)
                    })
                })
                .collect();
            for writer in writers {
                writer
                    .join()
                    .map_err(|_| io::Error::other("a writer panicked"))??;
            }
            Ok(())
        })
    }

    /// Reads the first item of a group, and says how long that took.
    ///
    /// Errors: an item that is not as it was written.
    pub(crate) fn read(self, caller: &mut Caller, group: u64) -> io::Result<Duration> {
        let call = format!(r#"{{"stream_name":"{STREAM}",{}}}"#, self.place(group));
        let start = Instant::now();
        let found = caller.call("stream::get", &call)?;
        let elapsed = start.elapsed();
        if found["id"] == group {
            Ok(elapsed)
        } else {
            Err(io::Error::other(format!("item {group} is {found}")))
        }
    }

    fn place(self, item: u64) -> String {
        let group = item % self.groups();
        format!(r#""group_id":"group-{group:05}","item_id":"item-{item:07}""#)
    }

    fn set(self, item: u64) -> String {
        let value = padded(format!(r#"{{"id":{item},"text":""#), VALUE_BYTES, "\"}");
        format!(
            r#"{{"stream_name":"{STREAM}",{},"data":{value},"returning":"none"}}"#,
            self.place(item)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_items_are_in_groups_of_their_own() {
        let items = Items { count: 1_000 };
        assert_eq!(items.groups(), 10);
        assert_eq!(
            items.place(3),
            r#""group_id":"group-00003","item_id":"item-0000003""#
        );
        assert!(items.place(13).starts_with(r#""group_id":"group-00003""#));
        let call: serde_json::Value = serde_json::from_str(&items.set(7)).expect("a call is JSON");
        assert_eq!(call["data"]["id"], 7);
        assert_eq!(call["data"].to_string().len(), VALUE_BYTES);
    }
}
