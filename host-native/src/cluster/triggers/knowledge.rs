//! What this instance knows of streams with triggers before anybody asks Redis: which streams have one, here or elsewhere, and
//! what it has committed itself a moment ago, so that a new trigger begins exactly after that.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::GroupKey;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use super::course::Place;
use crate::cluster::Places;
use crate::store::redis::Triggered;

/// For how long own commits are remembered. Longer than clocks are apart, and than a trigger looks back when it begins.
const REMEMBERED: Duration = Duration::from_secs(2);

/// Most commits that are remembered. Beyond, the oldest are forgotten: a trigger that begins just then may be told of them.
const REMEMBERED_MAX: usize = 50_000;

/// See the module.
pub struct TriggerKnowledge {
    places: Arc<Places>,
    /// How many bindings this instance has on a stream.
    own: RwLock<HashMap<Arc<str>, usize>>,
    commits: Mutex<VecDeque<(Instant, GroupKey, Place)>>,
}

impl TriggerKnowledge {
    /// Knows nothing of this instance yet; `places` knows the others.
    pub fn new(places: Arc<Places>) -> Self {
        Self {
            places,
            own: RwLock::default(),
            commits: Mutex::default(),
        }
    }

    pub(super) fn add(&self, stream: &Arc<str>) {
        *self.own.write().entry(stream.clone()).or_default() += 1;
    }

    pub(super) fn remove(&self, stream: &str) {
        let mut own = self.own.write();
        if let Some(count) = own.get_mut(stream) {
            *count -= 1;
            if *count == 0 {
                own.remove(stream);
            }
        }
    }

    /// The places of a stream's groups after the last commits of this instance.
    pub(super) fn committed_lately(&self, stream: &str) -> Vec<(Arc<str>, Place)> {
        let commits = self.commits.lock();
        let of_stream = commits
            .iter()
            .filter(|(_, group, _)| *group.stream == *stream);
        let places: HashMap<_, _> = of_stream
            .map(|(_, group, place)| (group.group.clone(), place.clone()))
            .collect();
        places.into_iter().collect()
    }
}

impl Triggered for TriggerKnowledge {
    fn is_triggered(&self, stream: &str) -> bool {
        self.own.read().contains_key(stream) || self.places.is_triggered(stream)
    }

    fn committed(&self, group: &GroupKey, epoch: &Arc<str>, seq: u64) {
        let now = Instant::now();
        let place = Place {
            epoch: epoch.clone(),
            seq,
        };
        let mut commits = self.commits.lock();
        while commits
            .front()
            .is_some_and(|(at, ..)| REMEMBERED < now - *at)
            || REMEMBERED_MAX <= commits.len()
        {
            commits.pop_front();
        }
        commits.push_back((now, group.clone(), place));
    }
}
