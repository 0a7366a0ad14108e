//! Which bindings there are between trigger types and functions, and whose they are. Knows the types only by what
//! they do with a binding.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::registry::OwnerId;

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

/// Something that can happen.
pub trait TriggerType: Send + Sync {
    /// Makes a binding fire from now on.
    ///
    /// Errors: [`BindError`] when its config is no use.
    fn bind(&self, binding: &Arc<Binding>) -> Result<(), BindError>;

    /// Makes a binding stop firing at once.
    fn unbind(&self, binding: &Arc<Binding>);
}

/// Most bindings at one time. One more is refused.
const BINDINGS_MAX: usize = 100_000;

/// Bindings by id. A binding of a type that nobody provides is kept, and fires once somebody does.
pub struct Triggers {
    types: HashMap<&'static str, Arc<dyn TriggerType>>,
    bindings: Mutex<HashMap<Arc<str>, Arc<Binding>>>,
}

impl Triggers {
    /// No bindings yet, and these types.
    pub fn new(types: impl IntoIterator<Item = (&'static str, Arc<dyn TriggerType>)>) -> Self {
        Self {
            types: types.into_iter().collect(),
            bindings: Mutex::default(),
        }
    }

    /// Makes a binding; one with the same id is replaced, whoever made it.
    ///
    /// Errors: [`BindError`]; a binding that was there before is then gone.
    pub fn bind(&self, binding: Binding) -> Result<(), BindError> {
        let binding = Arc::new(binding);
        let mut bindings = self.bindings.lock();
        if let Some(old) = bindings.remove(&binding.id) {
            self.unbind_from_type(&old);
        }
        if BINDINGS_MAX <= bindings.len() {
            return Err(BindError {
                message: format!("there are {BINDINGS_MAX} bindings, which is the limit"),
            });
        }
        if let Some(trigger_type) = self.types.get(&*binding.trigger_type) {
            trigger_type.bind(&binding)?;
        }
        bindings.insert(binding.id.clone(), binding);
        Ok(())
    }

    /// Takes a binding away; does nothing unless `owner` made it.
    pub fn unbind(&self, id: &str, owner: &OwnerId) {
        let mut bindings = self.bindings.lock();
        if bindings
            .get(id)
            .is_some_and(|binding| binding.owner == *owner)
            && let Some(binding) = bindings.remove(id)
        {
            self.unbind_from_type(&binding);
        }
    }

    /// Takes all bindings of an owner away.
    pub fn remove_owner(&self, owner: &OwnerId) {
        let mut bindings = self.bindings.lock();
        bindings.retain(|_, binding| {
            let stays = binding.owner != *owner;
            if !stays {
                self.unbind_from_type(binding);
            }
            stays
        });
    }

    fn unbind_from_type(&self, binding: &Arc<Binding>) {
        if let Some(trigger_type) = self.types.get(&*binding.trigger_type) {
            trigger_type.unbind(binding);
        }
    }
}
