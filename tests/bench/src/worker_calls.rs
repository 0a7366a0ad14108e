//! The calls of the worker port's benchmark.

use iii_stream::bench::stream_medium::STREAM;
use iii_stream::bench::worker_calls::Calls;

use crate::values::{GROUP, ITEMS, item_id, value_text};

/// What every good reply has.
const SIGN: &str = r#""new_value":"#;

/// `stream::set` of each item's value.
pub(crate) fn set() -> Calls {
    calls("stream::set", |item| {
        format!(r#""data":{}"#, value_text(item))
    })
}

/// `stream::update` of each item with one increment.
pub(crate) fn update() -> Calls {
    calls("stream::update", |_| {
        r#""ops":[{"type":"increment","path":"n","by":1}]"#.into()
    })
}

/// `stream::set` of each item's value, the items spread over so many streams with one group each.
pub(crate) fn set_in_streams(streams: usize) -> Calls {
    let stream = |item| format!("{STREAM}-{}", item % streams);
    Calls::in_streams("stream::set", SIGN, ITEMS, stream, |item| {
        let id = item_id(item);
        let value = value_text(item);
        format!(r#""group_id":"{GROUP}","item_id":"{id}","data":{value}"#)
    })
}

fn calls(function: &str, rest: impl Fn(usize) -> String) -> Calls {
    Calls::new(function, SIGN, ITEMS, |item| {
        let id = item_id(item);
        format!(r#""group_id":"{GROUP}","item_id":"{id}",{}"#, rest(item))
    })
}
