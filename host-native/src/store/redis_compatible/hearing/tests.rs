//! What is heard, without a Redis: order, places of reads, losses and bounds.

use bytes::Bytes;
use iii_stream_core::{Demand, Json};

use super::*;
use crate::store::ChangeSink;

/// Keeps what subscribers are told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl ChangeSink for Told {
    fn demand(&self, _: &GroupKey) -> Demand {
        Demand::Values
    }

    fn publish(&self, group: &GroupKey, change: Arc<Change>, _: Option<&Json>) {
        let Change {
            seq,
            timestamp,
            item,
            ..
        } = &*change;
        let item = item.as_deref().unwrap_or("-");
        let line = format!("{} {item} seq {seq} at {timestamp}", group.group);
        self.0.lock().push(line);
    }
}

impl RelaySink for Told {
    fn missed(&self, group: &GroupKey, events: bool) {
        self.0
            .lock()
            .push(format!("{} missed, events {events}", group.group));
    }

    fn restarted(&self, group: &GroupKey, _: &Position) {
        self.0.lock().push(format!("{} restarted", group.group));
    }
}

struct Fixture {
    told: Arc<Told>,
    metrics: Arc<Metrics>,
    hearing: Hearing,
}

const NOW_MS: u64 = 1_000;

impl Fixture {
    fn new() -> Self {
        let (told, metrics) = (Arc::new(Told::default()), Arc::new(Metrics::default()));
        let hearing = Hearing::new(Some(told.clone()), "e".into(), metrics.clone());
        let this = Self {
            told,
            metrics,
            hearing,
        };
        this.both(&ChannelEvent::Ready);
        this
    }

    fn both(&self, event: &ChannelEvent) {
        for channel in [EVENTS, &self.hearing.fences.clone()] {
            self.hearing.hear(channel, event, NOW_MS);
        }
    }

    fn event(&self, group: &str, item: &str, timestamp: u64) {
        let text = format!(
            r#"{{"type":"stream","timestamp":{timestamp},"streamName":"s","groupId":"{group}","id":"{item}","event":{{"type":"update","data":1}}}}"#
        );
        self.message(EVENTS, text);
    }

    fn message(&self, channel: &str, text: String) {
        let message = ChannelEvent::Message(Bytes::from(text));
        self.hearing.hear(channel, &message, NOW_MS);
    }

    /// A read takes place now.
    async fn read(&self, group: &str) -> Option<Fence> {
        let fence = self.hearing.fence(key(group).as_ref());
        self.message(&self.hearing.fences.clone(), fence.token.to_string());
        self.hearing.place(fence, Instant::now()).await
    }
}

fn key(group: &str) -> GroupKey {
    GroupRef { stream: "s", group }.to_key()
}

#[tokio::test]
async fn reads_have_their_place_among_the_changes() {
    let fixture = Fixture::new();
    fixture.hearing.came(&key("g"));
    fixture.event("g", "a", 900);
    fixture.event("other", "a", 900);
    let first = fixture.read("g").await.expect("a place");
    fixture.event("g", "a", 900);
    let second = fixture.read("g").await.expect("a place");
    assert_eq!((first.seq, first.timestamp), (1, 1_000));
    assert_eq!((second.seq, second.timestamp), (2, 1_002));
    assert_eq!(
        fixture.told.take(),
        ["g a seq 1 at 900", "g a seq 2 at 1001"]
    );
    fixture.hearing.went(&key("g"));
    fixture.event("g", "a", 2_000);
    assert_eq!(fixture.told.take(), Vec::<String>::new());
    assert_eq!(
        fixture.hearing.position(key("g").as_ref()).to_string(),
        "e:3"
    );
}

#[tokio::test]
async fn after_a_loss_all_that_is_watched_was_missed() {
    let fixture = Fixture::new();
    fixture.hearing.came(&key("g"));
    fixture.event("unwatched", "a", 900);
    let waiting = fixture.hearing.fence(key("g").as_ref());
    fixture.both(&ChannelEvent::Lost);
    let place = fixture
        .hearing
        .place(waiting, Instant::now() + std::time::Duration::from_secs(60));
    assert_eq!(place.await, None, "at once, not after a minute");
    let not_ready = fixture
        .hearing
        .ready(Instant::now())
        .await
        .expect_err("lost");
    assert_eq!(not_ready.cause, StoreErrorCause::Unavailable);
    assert_eq!(fixture.told.take(), Vec::<String>::new());
    fixture.both(&ChannelEvent::Ready);
    assert!(fixture.hearing.ready(Instant::now()).await.is_ok());
    assert_eq!(fixture.told.take(), ["g missed, events false"]);
    fixture.both(&ChannelEvent::Ready);
    assert_eq!(fixture.told.take(), Vec::<String>::new(), "once");
}

#[test]
fn what_is_no_change_is_counted_and_left_out() {
    let fixture = Fixture::new();
    fixture.hearing.came(&key("g"));
    fixture.message(EVENTS, "{oops".to_owned());
    fixture.message(EVENTS, String::new());
    let sync = r#"{"type":"stream","timestamp":1,"streamName":"s","groupId":"g","id":null,"event":{"type":"sync","data":[]}}"#;
    fixture.message(EVENTS, sync.to_owned());
    fixture.message(&fixture.hearing.fences.clone(), "no token".to_owned());
    assert_eq!(fixture.metrics.redis_frames_unreadable.get(), 3);
    assert_eq!(fixture.told.take(), Vec::<String>::new());
}

#[test]
fn own_frames_are_written_with_times_that_need_no_lift() {
    let fixture = Fixture::new();
    fixture.hearing.came(&key("g"));
    fixture.event("g", "a", 1_000);
    let items = [Some("a"), Some("a"), Some("b")];
    let planned = fixture.hearing.plan(&key("g"), items.into_iter(), NOW_MS);
    assert_eq!(planned, [1_001, 1_002, 1_002]);
    let again = fixture
        .hearing
        .plan(&key("g"), [Some("b")].into_iter(), NOW_MS);
    assert_eq!(again, [1_003], "those before are still on their way");
    fixture.event("g", "a", 1_001);
    fixture.event("g", "a", 1_002);
    fixture.event("g", "b", 1_002);
    fixture.event("g", "b", 1_003);
    let told = fixture.told.take();
    assert!(
        told[1].ends_with("at 1001") && told[2].ends_with("at 1002"),
        "{told:?}"
    );
    assert!(
        told[3].ends_with("at 1002") && told[4].ends_with("at 1003"),
        "{told:?}"
    );
}

#[test]
fn groups_without_subscribers_are_forgotten_and_leave_their_time() {
    let fixture = Fixture::new();
    fixture.hearing.came(&key("watched"));
    fixture.event("late", "a", 5_000);
    for group in 0..=GROUPS_MAX {
        fixture.event(&group.to_string(), "a", 1_000);
    }
    assert!(fixture.hearing.state.lock().groups.len() < GROUPS_MAX);
    fixture.event("watched", "a", 1_000);
    fixture.hearing.came(&key("new"));
    fixture.event("new", "a", 1_000);
    assert_eq!(
        fixture.told.take(),
        ["watched a seq 1 at 1000", "new a seq 2 at 5001"]
    );
}
