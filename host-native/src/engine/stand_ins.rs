//! Which bindings of other instances have to be bound here too, so that a function is called wherever something happens.
//! Equal ones are bound once, and not at all while this instance has an equal one itself. Knows no trigger types.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::registry::OwnerId;
use super::trigger::Binding;

/// A binding, compared by what it does: type, function, config and metadata, but not by its id and owner.
#[derive(Clone, Debug)]
pub struct Identity(pub Arc<Binding>);

impl Identity {
    fn parts(&self) -> (&str, &str, &str, Option<&str>) {
        let binding = &self.0;
        (
            &binding.trigger_type,
            &binding.function_id,
            &binding.config,
            binding.metadata.as_deref(),
        )
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// What has to be done about stand-ins, first the binding, then the unbinding.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) bind: Vec<Arc<Binding>>,
    pub(super) unbind: Vec<Arc<Binding>>,
}

/// Bindings of other instances, and what stands in for them here.
#[derive(Default)]
pub(super) struct StandIns {
    /// How many equal bindings this instance has itself.
    own: HashMap<Identity, usize>,
    by_instance: HashMap<OwnerId, HashSet<Identity>>,
    wanted: HashMap<Identity, Wanted>,
}

/// A binding that at least one other instance has.
struct Wanted {
    /// The same for as long as any instance has an equal one, so that what waits in its lane is not lost when one of them goes.
    stand_in: Arc<Binding>,
    instances: usize,
}

impl StandIns {
    /// Notes a binding of this instance. Gives what no longer has to stand in.
    pub(super) fn own_came(&mut self, binding: &Arc<Binding>) -> Option<Arc<Binding>> {
        let identity = Identity(binding.clone());
        let count = self.own.entry(identity.clone()).or_default();
        *count += 1;
        if 1 < *count {
            return None;
        }
        self.wanted
            .get(&identity)
            .map(|wanted| wanted.stand_in.clone())
    }

    /// Notes that a binding of this instance goes. Gives what has to stand in from now on.
    pub(super) fn own_goes(&mut self, binding: &Arc<Binding>) -> Option<Arc<Binding>> {
        let identity = Identity(binding.clone());
        let count = self.own.get_mut(&identity)?;
        *count -= 1;
        if 0 < *count {
            return None;
        }
        self.own.remove(&identity);
        self.wanted
            .get(&identity)
            .map(|wanted| wanted.stand_in.clone())
    }

    /// Notes which bindings another instance has now; none takes it away.
    pub(super) fn set(&mut self, instance: &OwnerId, bindings: Vec<Arc<Binding>>) -> Changed {
        let now: HashSet<Identity> = bindings.into_iter().map(Identity).collect();
        let before = self.by_instance.remove(instance).unwrap_or_default();
        let mut changed = Changed::default();
        for identity in now.difference(&before) {
            if let Some(wanted) = self.wanted.get_mut(identity) {
                wanted.instances += 1;
                continue;
            }
            let stand_in = Arc::new(Binding {
                // Its own, as a worker of this instance may have a binding with the same id.
                id: format!("{instance}/{}", identity.0.id).into(),
                owner: instance.clone(),
                ..Binding::clone(&identity.0)
            });
            if !self.own.contains_key(identity) {
                changed.bind.push(stand_in.clone());
            }
            let wanted = Wanted {
                stand_in,
                instances: 1,
            };
            self.wanted.insert(identity.clone(), wanted);
        }
        for identity in before.difference(&now) {
            let Some(wanted) = self.wanted.get_mut(identity) else {
                continue;
            };
            wanted.instances -= 1;
            if wanted.instances == 0 {
                if !self.own.contains_key(identity) {
                    changed.unbind.push(wanted.stand_in.clone());
                }
                self.wanted.remove(identity);
            }
        }
        if !now.is_empty() {
            self.by_instance.insert(instance.clone(), now);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(id: &str, function_id: &str) -> Arc<Binding> {
        Arc::new(Binding {
            id: id.into(),
            trigger_type: "state".into(),
            function_id: function_id.into(),
            config: "null".to_owned(),
            metadata: None,
            owner: "worker".into(),
        })
    }

    fn ids(bindings: &[Arc<Binding>]) -> Vec<&str> {
        bindings.iter().map(|binding| &*binding.id).collect()
    }

    #[test]
    fn equal_bindings_of_many_instances_are_bound_once_until_the_last_goes() {
        let mut stand_ins = StandIns::default();
        let (a, b): (OwnerId, OwnerId) = ("a".into(), "b".into());
        let changed = stand_ins.set(&a, vec![binding("1", "f"), binding("2", "f")]);
        assert_eq!(changed.bind.len(), 1, "equal ones of one instance too");
        let changed = stand_ins.set(&b, vec![binding("3", "f"), binding("4", "g")]);
        assert_eq!(ids(&changed.bind), ["b/4"]);
        let changed = stand_ins.set(&a, Vec::new());
        assert_eq!(changed, Changed::default(), "b has an equal one");
        let changed = stand_ins.set(&b, vec![binding("9", "g")]);
        assert_eq!(changed.unbind.len(), 1, "another id is no other binding");
        assert_eq!(&*changed.unbind[0].function_id, "f");
    }

    #[test]
    fn what_this_instance_has_itself_is_not_bound_again() {
        let mut stand_ins = StandIns::default();
        let (a, own) = (OwnerId::from("a"), binding("own", "f"));
        assert_eq!(stand_ins.own_came(&own), None);
        assert_eq!(
            stand_ins.set(&a, vec![binding("1", "f")]),
            Changed::default()
        );
        assert!(stand_ins.own_goes(&own).is_some_and(|it| &*it.id == "a/1"));
        assert!(stand_ins.own_came(&own).is_some_and(|it| &*it.id == "a/1"));
        assert_eq!(stand_ins.own_came(&binding("second", "f")), None);
        assert_eq!(stand_ins.own_goes(&own), None, "the second one is there");
        assert_eq!(stand_ins.set(&a, Vec::new()), Changed::default());
        assert_eq!(stand_ins.own_goes(&own), None, "nobody wants it any more");
    }
}
