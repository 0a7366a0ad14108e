//! The calls of the worker port's benchmark.

use iii_stream::bench::worker_calls::Calls;

use crate::values::{GROUP, ITEMS, item_id, value_text};

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

fn calls(function: &str, rest: impl Fn(usize) -> String) -> Calls {
    Calls::new(function, r#""new_value":"#, ITEMS, |item| {
        let id = item_id(item);
        format!(r#""group_id":"{GROUP}","item_id":"{id}",{}"#, rest(item))
    })
}
