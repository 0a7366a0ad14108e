//! Pages of a snapshot: each comes after all changes that it knows of, or has to wait.

use super::*;

impl Fixture {
    fn tell_up_to(&mut self, id: &str, seq: u64) -> bool {
        self.with(|member, context| member.tell_up_to(id, seq, context))
    }
}

#[test]
fn what_a_page_knows_is_told_before_it_and_the_rest_after_it() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.read();
    // As the connection does it: held back while the page is read, which knows of 12.
    fixture.hold();
    fixture.take(11..=13);
    assert_eq!(fixture.read(), "");
    assert!(fixture.tell_up_to("a", 12));
    assert_eq!(fixture.read(), " 11  12 ");
    assert_eq!(fixture.member.position("a"), 12);
    assert!(fixture.tell_up_to("a", 12), "once is enough");
    fixture.take(14..=14);
    assert_eq!(fixture.read(), "", "the page goes out now");
    fixture.release();
    assert_eq!(fixture.read(), " 13  14 ");
}

#[test]
fn a_page_waits_for_changes_that_have_yet_to_come() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.read();
    fixture.hold();
    fixture.take(11..=11);
    assert!(!fixture.tell_up_to("a", 12));
    assert_eq!(fixture.read(), " 11 ");
    fixture.take(12..=12);
    assert!(fixture.tell_up_to("a", 12));
    assert_eq!(fixture.read(), " 12 ");
    fixture.release();
    // Nothing is held back: it is as far as was told.
    assert!(fixture.tell_up_to("a", 12));
    assert!(!fixture.tell_up_to("a", 13));
}

#[test]
fn a_page_waits_where_changes_were_dropped_before_it() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.read();
    fixture.hold();
    // One more than is held back.
    fixture.take(11..=111);
    assert!(!fixture.tell_up_to("a", 10), "its place among them is lost");
    fixture.release();
    assert!(!fixture.tell_up_to("a", 10), "it is owed what was dropped");
    assert_eq!(behind(&fixture.take_lag()), [("a", 10)]);
    assert_eq!(fixture.read(), "");
}

#[test]
fn a_page_waits_while_the_peer_reads_too_slowly() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.hold();
    fixture.take(11..=12);
    fixture.fill();
    assert!(!fixture.tell_up_to("a", 12), "there is no room for them");
    assert!(!fixture.tell_up_to("a", 10));
    assert_eq!(fixture.read(), "<a:10>");
}

#[test]
fn a_page_waits_for_another_subscription_that_begins_anew() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.begin("b", None, 10);
    fixture.fill();
    fixture.take(11..=12);
    fixture.read();
    assert_eq!(behind(&fixture.take_lag()), [("a", 10), ("b", 10)]);
    fixture.begin("a", None, 12);
    fixture.release();
    fixture.read();
    fixture.take(13..=13);
    assert!(!fixture.tell_up_to("a", 13), "b would not be shown it");
    assert_eq!(fixture.read(), "");
    fixture.begin("b", None, 12);
    assert!(fixture.tell_up_to("a", 13));
    assert_eq!(fixture.read(), "<b:12> 13 ");
}

#[test]
fn a_page_waits_where_the_history_has_begun_anew() {
    let mut fixture = Fixture::new();
    fixture.begin("a", None, 10);
    fixture.read();
    fixture.hold();
    fixture.take(11..=11);
    // The topic knows already, the member does not.
    fixture.restarts = 1;
    assert!(!fixture.tell_up_to("a", 11));
    assert_eq!(fixture.read(), "");
    fixture.restarts = 0;
    fixture.restart("f", None);
    assert!(!fixture.tell_up_to("a", 0), "it has to begin anew");
    assert_eq!(restarted(&fixture.take_lag()), ["a"]);
}

#[test]
fn a_seat_that_was_given_up_has_no_page_to_come() {
    let hub = crate::hub::Hub::new(100, None, Arc::default());
    let outbox = Arc::new(Outbox::to_taker(QUEUE_BYTES_MAX));
    let seat = hub.enter(&GROUP.to_key(), 1, &outbox, VERSION_2, &View::All);
    assert!(seat.tell_up_to("a", 0), "nothing has happened");
    assert!(!seat.tell_up_to("a", 1));
    hub.exit(&seat);
    assert!(!seat.tell_up_to("a", 0));
}
