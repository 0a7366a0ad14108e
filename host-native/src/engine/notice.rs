//! Trigger types that tell of the server itself: everybody who binds them is told everything. Know nothing of what they
//! tell. Source: worker protocol, section 11.

use std::sync::Arc;

use parking_lot::RwLock;

use super::bound_list::BoundList;
use super::lane::{Lane, LaneContext};
use super::trigger::{BindError, Binding, TriggerType};

/// Bindings of one such type.
pub struct Notices {
    context: LaneContext,
    lanes: RwLock<BoundList<Lane>>,
}

impl Notices {
    /// No bindings yet.
    pub fn new(context: LaneContext) -> Self {
        Self {
            context,
            lanes: RwLock::default(),
        }
    }

    /// Tells everybody. `input` is written only if somebody listens.
    pub fn tell(&self, input: impl FnOnce() -> String) {
        let lanes = self.lanes.read();
        if !lanes.is_empty() {
            let input: Arc<str> = input().into();
            lanes.iter().for_each(|lane| lane.push(input.clone()));
        }
    }
}

impl TriggerType for Notices {
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
        let lane = Lane::open(&self.context, binding, None);
        self.lanes.write().insert(&binding.id, lane);
        Ok(())
    }

    fn unbind(&self, binding: &Arc<Binding>) {
        self.lanes.write().remove(&binding.id);
    }
}
