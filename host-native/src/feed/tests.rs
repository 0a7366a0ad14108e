//! The order in which a follower learns what was queued.

use iii_stream_core::{Change, GroupKey, Json, Kind, Position};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::*;

/// Writes down what it is told, in short.
#[derive(Default)]
struct Told {
    lines: Mutex<Vec<String>>,
    last: Notify,
}

impl Follower for Told {
    fn interest(&self, _group: GroupRef<'_>) -> Interest {
        Interest::Values
    }

    fn deliver<'a>(
        &'a self,
        _group: &'a GroupKey,
        changes: &'a [Arc<Change>],
    ) -> BoxFuture<'a, ()> {
        let seqs: Vec<_> = changes
            .iter()
            .map(|change| change.seq.to_string())
            .collect();
        self.lines.lock().push(seqs.join(" "));
        if changes.iter().any(|change| change.seq == LAST) {
            self.last.notify_one();
        }
        Box::pin(std::future::ready(()))
    }

    fn missed(&self, _group: &GroupKey, events: bool) {
        self.lines.lock().push(format!("missed {events}"));
    }

    fn restarted(&self, _group: &GroupKey, at: &Position) {
        self.lines.lock().push(format!("restarted {at}"));
    }
}

/// The change after which nothing is queued any more.
const LAST: u64 = 1_000;

fn change(seq: u64, kind: Kind) -> Arc<Change> {
    Arc::new(Change {
        seq,
        timestamp: seq,
        item: Some("i".into()),
        kind,
        value: Some(Json::from_text("1").expect("JSON")),
        ops: None,
        base: None,
        mutation: None,
    })
}

/// What a follower is told of what is queued before its task has run.
async fn told(pending_max: usize, queue: impl FnOnce(&Feed, &GroupKey)) -> Vec<String> {
    let feed = Feed::new(
        tokio::runtime::Handle::current(),
        pending_max,
        true,
        Arc::new(Metrics::default()),
    );
    let told = Arc::new(Told::default());
    feed.start(vec![told.clone()]);
    let group = GroupKey {
        stream: "s".into(),
        group: "g".into(),
    };
    queue(&feed, &group);
    feed.publish(&group, change(LAST, Kind::Update), None);
    told.last.notified().await;
    let mut lines = told.lines.lock();
    std::mem::take(&mut *lines)
}

fn at(epoch: &str, seq: u64) -> Position {
    Position {
        epoch: epoch.into(),
        seq,
    }
}

#[tokio::test]
async fn changes_and_new_beginnings_keep_their_order() {
    let lines = told(100, |feed, group| {
        feed.restarted(group, &at("a", 1));
        feed.publish(group, change(2, Kind::Update), None);
        feed.publish(group, change(3, Kind::Update), None);
        feed.restarted(group, &at("b", 1));
        feed.restarted(group, &at("c", 7));
        feed.publish(group, change(8, Kind::Update), None);
    });
    assert_eq!(
        lines.await,
        [
            "restarted a:1",
            "2 3",
            "restarted b:1",
            "restarted c:7",
            "8 1000"
        ]
    );
}

#[tokio::test]
async fn what_is_dropped_is_told_before_what_comes_after_it() {
    let lines = told(2, |feed, group| {
        feed.publish(
            group,
            change(
                2,
                Kind::Event {
                    label: Json::from_text("\"n\"").expect("JSON"),
                },
            ),
            None,
        );
        feed.restarted(group, &at("b", 1));
        feed.publish(group, change(2, Kind::Update), None);
        feed.publish(group, change(3, Kind::Update), None);
    });
    assert_eq!(lines.await, ["missed true", "restarted b:1", "3 1000"]);
    let lines = told(100, |feed, group| {
        feed.publish(group, change(2, Kind::Update), None);
        feed.missed(group, false);
    });
    assert_eq!(lines.await, ["missed false", "1000"]);
}

#[tokio::test]
async fn new_beginnings_that_wait_are_bounded() {
    let lines = told(100, |feed, group| {
        for seq in 1..=100 {
            feed.restarted(group, &at("b", seq));
        }
    });
    let lines = lines.await;
    assert!(lines.len() <= RUNS_MAX + 2, "{lines:?}");
    assert_eq!(lines[lines.len() - 2..], ["restarted b:100", "1000"]);
}
