//! Which bindings there are between trigger types and functions, whose they are, and who provides the types. Knows a
//! type only by what it does with a binding.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::registry::{Details, OwnerId};
use super::stand_ins::StandIns;

/// What a worker bound: when something of this type happens, call this function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Chosen by whoever bound it.
    pub id: Arc<str>,
    /// What must happen.
    pub trigger_type: Arc<str>,
    /// What is called then. It need not exist yet.
    pub function_id: Arc<str>,
    /// Which of what happens is meant, as JSON text.
    pub config: String,
    /// Handed to the function with each call, as JSON text.
    pub metadata: Option<String>,
    /// Whose binding it is.
    pub owner: OwnerId,
}

/// Why a binding was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BindError {
    /// What is wrong, in words.
    pub message: String,
}

/// Something that can happen. Called with the table of bindings held: it must not block, and must not call the table.
pub trait TriggerType: Send + Sync {
    /// Makes a binding fire from now on.
    ///
    /// Errors: [`BindError`] when its config is no use.
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError>;

    /// Makes a binding stop firing at once.
    fn unbind(&self, binding: &Arc<Binding>);

    /// The same where an equal binding may come again: its owner went away, or another binding takes its place.
    fn unbind_for_now(&self, binding: &Arc<Binding>) {
        self.unbind(binding);
    }
}

/// Why a binding goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Going {
    /// It was taken away.
    ForGood,
    /// Its owner went, or another one takes its place.
    ForNow,
}

/// A trigger type as it is shown to whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeInfo {
    /// Its name.
    pub id: Arc<str>,
    /// Who provides it.
    pub owner: OwnerId,
    /// What the provider told of it.
    pub details: Details,
    /// How many bindings of it there are.
    pub bindings: usize,
}

/// Most bindings at one time. One more is refused.
const BINDINGS_MAX: usize = 100_000;

/// Most trigger types at one time. One more is refused.
const TYPES_MAX: usize = 10_000;

/// Trigger types and bindings by id. A binding of a type that nobody provides is parked, and fires once somebody does.
/// Bindings of other instances that have to be known here are bound by `StandIns`.
pub struct Triggers {
    server: OwnerId,
    tables: Mutex<Tables>,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Tables {
    types: HashMap<Arc<str>, Provided>,
    bindings: HashMap<Arc<str>, Bound>,
    stand_ins: StandIns,
}

struct Provided {
    owner: OwnerId,
    details: Details,
    provider: Arc<dyn TriggerType>,
}

struct Bound {
    binding: Arc<Binding>,
    /// The type's provider does not know of it.
    is_parked: bool,
}

impl Triggers {
    /// No types and no bindings yet; `server` owns what the server provides itself.
    pub fn new(server: OwnerId) -> Self {
        Self {
            server,
            tables: Mutex::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// Adds a type of the server. Workers cannot replace it.
    pub fn register_builtin_type(
        &self,
        id: &str,
        description: &str,
        provider: Arc<dyn TriggerType>,
    ) {
        let details = Details {
            description: Some(description.to_owned()),
            ..Details::default()
        };
        let provided = Provided {
            owner: self.server.clone(),
            details,
            provider,
        };
        self.tables.lock().types.insert(id.into(), provided);
    }

    /// Makes a worker the provider of a type; all its bindings are handed to it. Whether it is: types of the server stay
    /// the server's, and there may be too many.
    pub fn register_type(
        &self,
        id: &str,
        owner: &OwnerId,
        details: Details,
        provider: Arc<dyn TriggerType>,
    ) -> bool {
        let mut tables = self.tables.lock();
        let Tables {
            types, bindings, ..
        } = &mut *tables;
        let is_of_server = types
            .get(id)
            .is_some_and(|provided| provided.owner == self.server);
        if is_of_server || (!types.contains_key(id) && TYPES_MAX <= types.len()) {
            return false;
        }
        for bound in bindings
            .values_mut()
            .filter(|bound| *bound.binding.trigger_type == *id)
        {
            bound.is_parked = provider.bind(&bound.binding).is_err();
        }
        types.insert(
            id.into(),
            Provided {
                owner: owner.clone(),
                details,
                provider,
            },
        );
        true
    }

    /// Takes a type away and parks its bindings; does nothing unless `owner` provides it.
    pub fn unregister_type(&self, id: &str, owner: &OwnerId) {
        let mut tables = self.tables.lock();
        if tables
            .types
            .get(id)
            .is_some_and(|provided| provided.owner == *owner)
        {
            tables.types.remove(id);
            tables.park(id);
        }
    }

    /// Makes a binding; one with the same id is replaced, whoever made it.
    ///
    /// Errors: [`BindError`]; a binding that was there before is then gone.
    pub fn bind(&self, binding: Binding) -> Result<(), BindError> {
        let binding = Arc::new(binding);
        let mut tables = self.tables.lock();
        if tables.unbind(&binding.id, Going::ForNow) {
            self.changes.send_replace(());
        }
        if BINDINGS_MAX <= tables.bindings.len() {
            return Err(BindError {
                message: format!("there are {BINDINGS_MAX} bindings, which is the limit"),
            });
        }
        let is_parked = match tables.types.get(&binding.trigger_type) {
            Some(provided) => {
                provided.provider.bind(&binding)?;
                false
            }
            None => true,
        };
        if let Some(stand_in) = tables.stand_ins.own_came(&binding) {
            tables.provider_unbinds(&stand_in);
        }
        tables
            .bindings
            .insert(binding.id.clone(), Bound { binding, is_parked });
        self.changes.send_replace(());
        Ok(())
    }

    /// Binds what another instance has bound, and what it had and has no more is unbound; none at all takes the instance away.
    /// Equal bindings are bound once, and one that this instance has itself is not bound again.
    pub fn stand_in_for(&self, instance: &OwnerId, bindings: Vec<Arc<Binding>>) {
        let mut tables = self.tables.lock();
        let changed = tables.stand_ins.set(instance, bindings);
        for stand_in in &changed.bind {
            tables.provider_binds(stand_in);
        }
        for stand_in in &changed.unbind {
            tables.provider_unbinds(stand_in);
        }
    }

    /// Tells of each change of this instance's own bindings; several in quick succession may be told as one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes a binding away; does nothing unless `owner` made it.
    pub fn unbind(&self, id: &str, owner: &OwnerId) {
        let mut tables = self.tables.lock();
        if tables
            .bindings
            .get(id)
            .is_some_and(|bound| bound.binding.owner == *owner)
        {
            tables.unbind(id, Going::ForGood);
            self.changes.send_replace(());
        }
    }

    /// Takes a binding away, whoever made it. Whether there was one.
    pub fn unbind_any(&self, id: &str) -> bool {
        let was_bound = self.tables.lock().unbind(id, Going::ForGood);
        self.changes.send_replace(());
        was_bound
    }

    /// Parks a binding that the provider of its type does not want, and gives it. `None` when `provider` does not provide
    /// the type.
    pub fn refused_by(&self, id: &str, provider: &OwnerId) -> Option<Arc<Binding>> {
        let mut tables = self.tables.lock();
        let Tables {
            types, bindings, ..
        } = &mut *tables;
        let bound = bindings.get_mut(id)?;
        let provided = types.get(&bound.binding.trigger_type)?;
        if provided.owner != *provider {
            return None;
        }
        bound.is_parked = true;
        Some(bound.binding.clone())
    }

    /// Takes all bindings of an owner away, and all types; bindings of those types are parked.
    pub fn remove_owner(&self, owner: &OwnerId) {
        let mut tables = self.tables.lock();
        let bindings: Vec<_> = tables
            .bindings
            .values()
            .map(|bound| &bound.binding)
            .filter(|binding| binding.owner == *owner)
            .cloned()
            .collect();
        if !bindings.is_empty() {
            self.changes.send_replace(());
        }
        for binding in bindings {
            tables.unbind(&binding.id, Going::ForNow);
        }
        let types: Vec<_> = tables
            .types
            .iter()
            .filter(|(_, provided)| provided.owner == *owner)
            .map(|(id, _)| id.clone())
            .collect();
        for id in types {
            tables.types.remove(&id);
            tables.park(&id);
        }
    }

    /// All types, sorted by id.
    pub fn types(&self) -> Vec<TypeInfo> {
        let tables = self.tables.lock();
        let mut types: Vec<_> = tables
            .types
            .iter()
            .map(|(id, provided)| TypeInfo {
                id: id.clone(),
                owner: provided.owner.clone(),
                details: provided.details.clone(),
                bindings: tables
                    .bindings
                    .values()
                    .filter(|bound| bound.binding.trigger_type == *id)
                    .count(),
            })
            .collect();
        types.sort_by(|a, b| a.id.cmp(&b.id));
        types
    }

    /// All bindings of this instance, sorted by id.
    pub fn bindings(&self) -> Vec<Arc<Binding>> {
        let mut bindings: Vec<_> = self
            .tables
            .lock()
            .bindings
            .values()
            .map(|bound| bound.binding.clone())
            .collect();
        bindings.sort_by(|a, b| a.id.cmp(&b.id));
        bindings
    }
}

impl Tables {
    fn unbind(&mut self, id: &str, going: Going) -> bool {
        let Some(Bound { binding, is_parked }) = self.bindings.remove(id) else {
            return false;
        };
        // Before the binding goes: a guard must not be away for a moment.
        if let Some(stand_in) = self.stand_ins.own_goes(&binding) {
            self.provider_binds(&stand_in);
        }
        if let Some(provided) = self.types.get(&binding.trigger_type).filter(|_| !is_parked) {
            match going {
                Going::ForGood => provided.provider.unbind(&binding),
                Going::ForNow => provided.provider.unbind_for_now(&binding),
            }
        }
        true
    }

    /// Binds what stands in for a binding of another instance, which has checked its config.
    fn provider_binds(&self, stand_in: &Arc<Binding>) {
        let Some(provided) = self.types.get(&stand_in.trigger_type) else {
            return;
        };
        if let Err(error) = provided.provider.bind(stand_in) {
            tracing::warn!(trigger = %stand_in.id, %error, "a trigger of another instance cannot be bound here");
        }
    }

    fn provider_unbinds(&self, binding: &Arc<Binding>) {
        if let Some(provided) = self.types.get(&binding.trigger_type) {
            provided.provider.unbind(binding);
        }
    }

    fn park(&mut self, trigger_type: &str) {
        for bound in self
            .bindings
            .values_mut()
            .filter(|bound| *bound.binding.trigger_type == *trigger_type)
        {
            bound.is_parked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes what it is told.
    #[derive(Default)]
    struct Noting(Mutex<Vec<String>>);

    impl TriggerType for Noting {
        fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError> {
            self.0.lock().push(format!("bind {}", binding.id));
            Ok(())
        }

        fn unbind(&self, binding: &Arc<Binding>) {
            self.0.lock().push(format!("unbind {}", binding.id));
        }
    }

    fn binding(id: &str, owner: &str) -> Binding {
        Binding {
            id: id.into(),
            trigger_type: "t".into(),
            function_id: "f".into(),
            config: "null".to_owned(),
            metadata: None,
            owner: owner.into(),
        }
    }

    #[test]
    fn bindings_wait_for_a_provider_and_are_replayed_to_the_next() {
        let triggers = Triggers::new("server".into());
        let (first, second) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
        let said = |noting: &Noting| noting.0.lock().drain(..).collect::<Vec<_>>();
        assert_eq!(triggers.bind(binding("a", "w")), Ok(()));
        assert!(triggers.register_type("t", &"p1".into(), Details::default(), first.clone()));
        assert_eq!(triggers.bind(binding("b", "w")), Ok(()));
        assert_eq!(said(&first), ["bind a", "bind b"]);
        triggers.remove_owner(&"p1".into());
        triggers.unbind("a", &"w".into());
        assert_eq!(said(&first), Vec::<String>::new());
        assert!(triggers.register_type("t", &"p2".into(), Details::default(), second.clone()));
        assert_eq!(said(&second), ["bind b"]);
        assert_eq!(triggers.refused_by("b", &"p1".into()), None);
        assert!(triggers.refused_by("b", &"p2".into()).is_some());
        triggers.remove_owner(&"w".into());
        assert_eq!(
            said(&second),
            Vec::<String>::new(),
            "a binding that was refused is not taken back"
        );
    }

    #[test]
    fn a_binding_of_another_instance_is_bound_while_this_one_has_no_equal_one() {
        let triggers = Triggers::new("server".into());
        let noting = Arc::new(Noting::default());
        triggers.register_builtin_type("t", "", noting.clone());
        let said = || noting.0.lock().drain(..).collect::<Vec<_>>();
        triggers.stand_in_for(&"other".into(), vec![Arc::new(binding("a", "v"))]);
        assert_eq!(said(), ["bind other/a"]);
        assert!(triggers.bindings().is_empty(), "it is the other instance's");
        assert_eq!(triggers.bind(binding("a", "w")), Ok(()));
        assert_eq!(said(), ["bind a", "unbind other/a"]);
        triggers.remove_owner(&"w".into());
        assert_eq!(said(), ["bind other/a", "unbind a"]);
        triggers.stand_in_for(&"other".into(), Vec::new());
        assert_eq!(said(), ["unbind other/a"]);
    }

    #[test]
    fn a_type_of_the_server_stays_the_servers() {
        let triggers = Triggers::new("server".into());
        let (own, other) = (Arc::new(Noting::default()), Arc::new(Noting::default()));
        triggers.register_builtin_type("t", "", own.clone());
        assert!(!triggers.register_type("t", &"p".into(), Details::default(), other));
        assert_eq!(triggers.bind(binding("a", "w")), Ok(()));
        assert_eq!(triggers.bind(binding("a", "v")), Ok(()));
        triggers.unbind("a", &"w".into());
        assert_eq!(
            *own.0.lock(),
            ["bind a", "unbind a", "bind a"],
            "the same id is one binding, its last owner's"
        );
    }
}
