//! What the other instances have: functions by id, bindings, workers. Knows no Redis and no calls.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use iii_stream_core::fields::Fields;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::card::{Card, WorkerCard};
use super::roster::InstanceId;
use crate::engine::{Binding, FunctionInfo, Identity, is_custom_storage};

/// The cards of all other instances, so that a function is found at once.
pub struct Places {
    tables: RwLock<Tables>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Tables {
    instances: BTreeMap<InstanceId, Instance>,
    functions: HashMap<Arc<str>, Holders>,
    /// How many functions of workers that keep streams there are.
    custom_storage: usize,
    /// How many bindings of the type `stream` each stream has.
    triggered: HashMap<Box<str>, usize>,
}

struct Instance {
    card: Card,
    is_leaving: bool,
}

/// Who has a function, sorted.
#[derive(Default)]
struct Holders {
    instances: Vec<InstanceId>,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            tables: RwLock::default(),
            changes: watch::Sender::new(()),
        }
    }
}

impl Places {
    /// Notes what an instance has now.
    pub(super) fn set(&self, id: &InstanceId, card: Card) {
        let mut tables = self.tables.write();
        let before = tables.take(id);
        for function in &card.functions {
            tables.add_function(&function.id, id);
        }
        for stream in card.bindings.iter().filter_map(|it| stream_of(it)) {
            *tables.triggered.entry(stream.into()).or_default() += 1;
        }
        let instance = Instance {
            card,
            is_leaving: before.is_some_and(|before| before.is_leaving),
        };
        tables.instances.insert(id.clone(), instance);
        drop(tables);
        self.changes.send_replace(());
    }

    /// Notes that an instance is about to stop: its functions are called only if no other instance has them.
    pub(super) fn set_leaving(&self, id: &str) {
        if let Some(instance) = self.tables.write().instances.get_mut(id) {
            instance.is_leaving = true;
        }
    }

    /// Forgets an instance. Whether it was known.
    pub(super) fn remove(&self, id: &str) -> bool {
        let was_known = self.tables.write().take(id).is_some();
        if was_known {
            self.changes.send_replace(());
        }
        was_known
    }

    /// An instance that has the function and is not among `tried`. Those who have it take turns; who is about to stop comes
    /// last.
    pub(super) fn pick(&self, function_id: &str, tried: &[InstanceId]) -> Option<InstanceId> {
        let tables = self.tables.read();
        let holders = tables.functions.get(function_id)?;
        let count = holders.instances.len();
        let turn = holders.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..count).map(|step| &holders.instances[(turn + step) % count]);
        let is_leaving = |id: &&InstanceId| {
            let instance = tables.instances.get(*id);
            instance.is_some_and(|instance| instance.is_leaving)
        };
        let mut untried = in_turn().filter(|id| !tried.contains(id));
        let mut staying = in_turn().filter(|id| !tried.contains(id) && !is_leaving(id));
        staying.next().or_else(|| untried.next()).cloned()
    }

    pub(super) fn has(&self, function_id: &str) -> bool {
        self.tables.read().functions.contains_key(function_id)
    }

    pub(super) fn has_custom_storage(&self) -> bool {
        0 < self.tables.read().custom_storage
    }

    /// What is known of a function; of one that several instances have, what the first one says.
    pub(super) fn info(&self, function_id: &str) -> Option<FunctionInfo> {
        let tables = self.tables.read();
        let first = tables.functions.get(function_id)?.instances.first()?;
        let functions = &tables.instances.get(first)?.card.functions;
        functions.iter().find(|it| *it.id == *function_id).cloned()
    }

    /// What is known of all functions, each id once.
    pub(super) fn functions(&self) -> Vec<FunctionInfo> {
        let tables = self.tables.read();
        let all = tables.instances.iter().flat_map(|(id, instance)| {
            let functions = instance.card.functions.iter();
            functions.map(move |function| (id, function))
        });
        let is_first = |(id, function): &(&InstanceId, &FunctionInfo)| {
            let holders = tables.functions.get(&function.id);
            holders.and_then(|holders| holders.instances.first()) == Some(*id)
        };
        all.filter(is_first)
            .map(|(_, function)| function.clone())
            .collect()
    }

    /// The workers of all other instances.
    pub fn workers(&self) -> Vec<WorkerCard> {
        let tables = self.tables.read();
        let cards = tables.instances.values();
        cards
            .flat_map(|it| it.card.workers.iter().cloned())
            .collect()
    }

    /// The bindings of all other instances.
    pub fn bindings(&self) -> Vec<Arc<Binding>> {
        let tables = self.tables.read();
        let cards = tables.instances.values();
        cards
            .flat_map(|it| it.card.bindings.iter().cloned())
            .collect()
    }

    /// Which other instances have a binding that is equal to this one but for its id and owner, sorted.
    pub fn homes(&self, binding: &Arc<Binding>) -> Vec<InstanceId> {
        let wanted = Identity(binding.clone());
        let tables = self.tables.read();
        let has = |instance: &Instance| {
            let mut bindings = instance.card.bindings.iter();
            bindings.any(|it| Identity(it.clone()) == wanted)
        };
        let homes = tables.instances.iter().filter(|(_, it)| has(it));
        homes.map(|(id, _)| id.clone()).collect()
    }

    /// Whether any other instance has a `stream` trigger on this stream.
    pub fn is_triggered(&self, stream: &str) -> bool {
        self.tables.read().triggered.contains_key(stream)
    }

    /// Ids of all other instances, sorted.
    pub fn instances(&self) -> Vec<InstanceId> {
        self.tables.read().instances.keys().cloned().collect()
    }

    pub(super) fn knows(&self, id: &str) -> bool {
        self.tables.read().instances.contains_key(id)
    }

    /// How many other instances there are.
    pub(super) fn len(&self) -> usize {
        self.tables.read().instances.len()
    }

    /// Tells of each change of what other instances have; several in quick succession may be told as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

impl Tables {
    fn add_function(&mut self, function_id: &Arc<str>, instance: &InstanceId) {
        let holders = self.functions.entry(function_id.clone()).or_default();
        let Err(place) = holders.instances.binary_search(instance) else {
            return;
        };
        holders.instances.insert(place, instance.clone());
        if is_custom_storage(function_id) {
            self.custom_storage += 1;
        }
    }

    /// Takes an instance out with all it has.
    fn take(&mut self, id: &str) -> Option<Instance> {
        let instance = self.instances.remove(id)?;
        for function in &instance.card.functions {
            let Some(holders) = self.functions.get_mut(&function.id) else {
                continue;
            };
            let count = holders.instances.len();
            holders.instances.retain(|holder| **holder != *id);
            if holders.instances.len() < count && is_custom_storage(&function.id) {
                self.custom_storage -= 1;
            }
            if holders.instances.is_empty() {
                self.functions.remove(&function.id);
            }
        }
        for stream in instance.card.bindings.iter().filter_map(|it| stream_of(it)) {
            if let Some(count) = self.triggered.get_mut(&*stream) {
                *count -= 1;
                if *count == 0 {
                    self.triggered.remove(&*stream);
                }
            }
        }
        Some(instance)
    }
}

/// The stream that a binding of the type `stream` is about.
fn stream_of(binding: &Binding) -> Option<std::borrow::Cow<'_, str>> {
    if *binding.trigger_type != *"stream" {
        return None;
    }
    let fields = Fields::read(&binding.config, &["stream_name"]).ok()?;
    fields.string(0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Details;

    fn card(functions: &[&str], streams: &[&str]) -> Card {
        let function = |id: &&str| FunctionInfo {
            id: (*id).into(),
            owner: "worker".into(),
            details: Details::default(),
        };
        let binding = |stream: &&str| {
            Arc::new(Binding {
                id: (*stream).into(),
                trigger_type: "stream".into(),
                function_id: "f".into(),
                config: format!(r#"{{"stream_name":"{stream}"}}"#),
                metadata: None,
                owner: "worker".into(),
            })
        };
        Card {
            functions: functions.iter().map(function).collect(),
            bindings: streams.iter().map(binding).collect(),
            ..Card::default()
        }
    }

    fn ids(places: &Places) -> Vec<Arc<str>> {
        places.functions().into_iter().map(|it| it.id).collect()
    }

    #[test]
    fn those_who_have_a_function_take_turns() {
        let places = Places::default();
        for id in ["c", "a", "b"] {
            places.set(&id.into(), card(&["f"], &[]));
        }
        let picked: Vec<_> = (0..6).filter_map(|_| places.pick("f", &[])).collect();
        assert_eq!(
            picked.iter().map(|id| &**id).collect::<Vec<_>>(),
            ["a", "b", "c", "a", "b", "c"]
        );
        places.set_leaving("a");
        let picked: Vec<_> = (0..6).filter_map(|_| places.pick("f", &[])).collect();
        assert!(!picked.contains(&"a".into()), "it is about to stop");
        assert_eq!(
            places.pick("f", &["b".into(), "c".into()]).as_deref(),
            Some("a"),
            "unless nobody else has it"
        );
        assert_eq!(
            places.pick("f", &["a".into(), "b".into(), "c".into()]),
            None
        );
        assert_eq!(places.pick("g", &[]), None);
    }

    #[test]
    fn what_an_instance_no_longer_has_is_forgotten() {
        let places = Places::default();
        let (a, b) = ("a".into(), "b".into());
        places.set(&a, card(&["f", "stream::get(s)"], &["s", "t"]));
        places.set(&b, card(&["f"], &["t"]));
        assert!(places.has_custom_storage() && places.is_triggered("s"));
        assert_eq!(ids(&places).len(), 2, "each id once");
        places.set(&a, card(&["g"], &["t"]));
        assert!(!places.has_custom_storage() && !places.is_triggered("s"));
        assert!(places.remove("a") && !places.remove("a"));
        assert_eq!(ids(&places), [InstanceId::from("f")]);
        assert!(places.is_triggered("t") && !places.has("g"));
        assert!(places.remove("b") && !places.has("f") && !places.is_triggered("t"));
    }

    #[test]
    fn homes_are_those_with_an_equal_binding() {
        let places = Places::default();
        places.set(&"a".into(), card(&[], &["s"]));
        places.set(&"b".into(), card(&[], &["s", "t"]));
        let binding = |stream: &str| {
            let binding = card(&[], &[stream]).bindings.remove(0);
            Arc::new(Binding {
                id: "another".into(),
                owner: "another".into(),
                ..Binding::clone(&binding)
            })
        };
        assert_eq!(places.homes(&binding("s")).len(), 2);
        assert_eq!(places.homes(&binding("t")), [InstanceId::from("b")]);
    }
}
