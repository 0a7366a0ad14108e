//! A group in pages, as subscribers of version 2 get it.

use super::subject::{GROUP, Open, roomy};
use crate::store::{PAGE_BYTES_MAX, PAGE_ITEMS_MAX, PageWish};

pub(super) fn pages_have_each_item_once(open: Open<'_>) {
    let subject = open(roomy());
    let count = 2 * PAGE_ITEMS_MAX as u64 + 100;
    for n in 0..count {
        subject.set(&format!("i{n}"), n);
    }
    subject.commit(GROUP, "delete", r#"{"item_id":"i7"}"#);
    subject.set("i3", 0);
    let (mut after, mut sizes, mut ids) = (0, Vec::new(), Vec::new());
    loop {
        let page = subject.page(PageWish {
            after,
            ..PageWish::default()
        });
        assert_eq!(page.seq, count + 2);
        sizes.push(page.items.len());
        ids.extend(page.items.iter().map(|(id, _)| id.to_string()));
        let Some(next) = page.next_after else { break };
        after = next;
    }
    assert_eq!(sizes, [PAGE_ITEMS_MAX, PAGE_ITEMS_MAX, 99]);
    let expected = (0..count).filter(|n| *n != 7).map(|n| format!("i{n}"));
    assert_eq!(ids, expected.collect::<Vec<_>>());
    let page = subject.page(PageWish {
        after: count + 2,
        ..PageWish::default()
    });
    assert_eq!((page.items.len(), page.next_after), (0, None));
}

pub(super) fn a_page_ends_when_it_is_large(open: Open<'_>) {
    let subject = open(roomy());
    let text = "x".repeat(PAGE_BYTES_MAX / 3);
    for n in 0..5 {
        let input = format!(r#"{{"item_id":"i{n}","data":"{text}","returning":"none"}}"#);
        subject.commit(GROUP, "set", &input);
    }
    let first = subject.page(PageWish::default());
    assert_eq!(first.items.len(), 3);
    let after = first.next_after.expect("more");
    let second = subject.page(PageWish {
        after,
        ..PageWish::default()
    });
    assert_eq!((second.items.len(), second.next_after), (2, None));
}

pub(super) fn a_page_of_one_item_has_it_or_nothing(open: Open<'_>) {
    let subject = open(roomy());
    subject.set("a", 1);
    subject.set("b", 2);
    let page = |item: &str| {
        let page = subject.page(PageWish {
            item: Some(item.into()),
            ..PageWish::default()
        });
        assert_eq!((page.seq, page.next_after), (2, None));
        assert_eq!(page.epoch, subject.position(GROUP).epoch);
        let items = page
            .items
            .iter()
            .map(|(id, item)| format!("{id} {}", item.value.as_str()));
        items.collect::<Vec<_>>()
    };
    assert_eq!(page("a"), ["a 1"]);
    assert!(page("nothing").is_empty());
}
