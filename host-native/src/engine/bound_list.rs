//! What is bound, in the order in which it was bound, found again by the binding's id. Taking one out costs the same however
//! many there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// See the module.
pub(crate) struct BoundList<T> {
    next: u64,
    entries: BTreeMap<u64, T>,
    places: HashMap<Arc<str>, u64>,
}

impl<T> Default for BoundList<T> {
    fn default() -> Self {
        Self {
            next: 0,
            entries: BTreeMap::new(),
            places: HashMap::new(),
        }
    }
}

impl<T> BoundList<T> {
    /// Adds what a binding stands for; one with the same id is replaced.
    pub(crate) fn insert(&mut self, id: &Arc<str>, entry: T) {
        self.remove(id);
        self.places.insert(id.clone(), self.next);
        self.entries.insert(self.next, entry);
        self.next += 1;
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<T> {
        let place = self.places.remove(id)?;
        self.entries.remove(&place)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.entries.values()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_binding() {
        let mut list = BoundList::default();
        for (id, entry) in [("a", 1), ("b", 2), ("c", 3), ("a", 4)] {
            list.insert(&id.into(), entry);
        }
        assert_eq!(list.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!((list.remove("c"), list.remove("c")), (Some(3), None));
        assert!(!list.is_empty());
    }
}
