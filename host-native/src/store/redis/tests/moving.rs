//! A cluster, and a group whose slot moves from one server to another.

use std::sync::Arc;
use std::time::Duration;

use super::faults::{count, value_of};
use super::{GROUP, RedisStoreOptions, commit, done, options, set, store_with, wide};
use crate::redis_client::test_cluster::TestCluster;
use crate::redis_client::test_server::is_installed;
use crate::redis_client::{RedisClient, Slot};
use crate::store::StoreErrorCause;
use crate::store::redis::RedisStore;

fn waiting(client: &Arc<RedisClient>, wait_max: Duration) -> Arc<RedisStore> {
    let options = RedisStoreOptions {
        wait_max,
        ..options(wide())
    };
    store_with(client, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_half_of_a_group_has_moved_commits_wait_and_none_is_done_by_half() {
    if !is_installed() {
        return;
    }
    let cluster = TestCluster::start(0);
    let client = cluster.client().await;
    let patient = waiting(&client, Duration::from_secs(20));
    let hasty = waiting(&client, Duration::from_millis(500));
    done(commit(&*patient, GROUP, set("n", "0", "")))
        .await
        .expect("a change");
    let before = patient.position_now(GROUP).await.expect("a position");
    let slot = Slot::of(b"t:g:{s:g}");
    let to = (cluster.owner(slot) + 1) % 3;
    let refused = async |why| {
        let error = done(commit(&*hasty, GROUP, count())).await.expect_err(why);
        // What it says depends on where the time ends: while Redis refuses it, or before it is sent once more.
        assert_eq!(error.cause, StoreErrorCause::Unavailable, "{error}");
    };
    cluster.begin_move(slot, to);
    refused("keys that it has not yet are looked for at the other server").await;
    cluster.move_keys(slot, to, &["t:g:{s:g}", "t:h:{s:g}"]);
    let answers: Vec<_> = (0..20).map(|_| commit(&*patient, GROUP, count())).collect();
    refused("half of it has moved").await;
    // What needs one key finds it; nothing is done of those who wait, or were refused.
    assert_eq!(value_of(&*hasty, "n").await, "0");
    cluster.end_move(slot, to);
    for answer in answers {
        done(answer).await.expect("it goes on");
    }
    assert_eq!(value_of(&*hasty, "n").await, "20");
    done(commit(&*hasty, GROUP, count()))
        .await
        .expect("it goes on");
    let kept = patient.changes_kept_since_ms(GROUP, 0).await;
    let changes = kept.expect("an answer").changes;
    let seqs: Vec<_> = changes.iter().map(|change| change.seq).collect();
    assert_eq!(seqs, (1..=22).collect::<Vec<_>>(), "each once");
    let after = patient.position_now(GROUP).await.expect("a position");
    assert_ne!(
        after.epoch, before.epoch,
        "it is the history of another server"
    );
    assert_eq!((cluster.owner(slot), after.seq), (to, 22));
    client.close().await;
}
