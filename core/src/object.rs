//! The item while operations run on it. Knows no operations: only the root, its fields, and their order.
//!
//! Taking a field out of an insertion-ordered map moves every later field. That is the fastest way for a few
//! removals, but thousands of them on a large object would cost thousands of moves of the whole. So after a few
//! removals the object is spread out into slots, where a removal leaves a hole, and put together once at the end.

use alloc::string::String;
use alloc::vec::Vec;
use core::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde_json::{Map, Value};

use crate::op::type_name;

/// Removals from one object that move its fields; the next one spreads it out.
const MOVING_REMOVALS_MAX: usize = 8;

/// Objects with fewer fields are never spread out.
const SPREAD_KEYS_MIN: usize = 64;

/// The root value of an item. See the module.
pub(crate) struct Root {
    value: Value,
    /// When set, the root is this object and `value` is unused.
    spread: Option<Slots>,
    moving_removals: usize,
}

/// The fields of the root, when it is an object.
pub(crate) enum ObjectMut<'r> {
    Map(&'r mut Map<String, Value>),
    Slots(&'r mut Slots),
}

impl Root {
    pub(crate) fn new(value: Value) -> Self {
        Self {
            value,
            spread: None,
            moving_removals: 0,
        }
    }

    /// Puts the value together again.
    pub(crate) fn into_value(self) -> Value {
        match self.spread {
            Some(slots) => Value::Object(slots.into_map()),
            None => self.value,
        }
    }

    pub(crate) fn replace(&mut self, value: Value) {
        self.spread = None;
        self.value = value;
    }

    pub(crate) fn type_name(&self) -> &'static str {
        if self.spread.is_some() {
            "object"
        } else {
            type_name(&self.value)
        }
    }

    /// The fields, or the type that the root has instead.
    pub(crate) fn object(&mut self) -> Result<ObjectMut<'_>, &'static str> {
        if let Some(slots) = &mut self.spread {
            return Ok(ObjectMut::Slots(slots));
        }
        match &mut self.value {
            Value::Object(map) => Ok(ObjectMut::Map(map)),
            other => Err(type_name(other)),
        }
    }

    /// The root itself, when it is no object.
    pub(crate) fn not_object(&mut self) -> Option<&mut Value> {
        if self.spread.is_some() || self.value.is_object() {
            None
        } else {
            Some(&mut self.value)
        }
    }

    /// Takes a field away; the others keep their order. Does nothing if it is not there.
    ///
    /// Errors: the type that the root has instead of being an object.
    pub(crate) fn remove(&mut self, key: &str) -> Result<(), &'static str> {
        if let Value::Object(map) = &mut self.value
            && self.spread.is_none()
            && SPREAD_KEYS_MIN <= map.len()
            && map.contains_key(key)
        {
            if self.moving_removals == MOVING_REMOVALS_MAX {
                self.spread = Some(Slots::from_map(core::mem::take(map)));
            }
            self.moving_removals += 1;
        }
        match self.object()? {
            ObjectMut::Map(map) => drop(map.shift_remove(key)),
            ObjectMut::Slots(slots) => slots.remove(key),
        }
        Ok(())
    }
}

impl<'r> ObjectMut<'r> {
    pub(crate) fn insert(&mut self, key: &str, value: Value) {
        match self {
            Self::Map(map) => match map.get_mut(key) {
                Some(field) => *field = value,
                None => drop(map.insert(key.into(), value)),
            },
            Self::Slots(slots) => slots.insert(key, value),
        }
    }

    pub(crate) fn field(&mut self, key: &str) -> Option<&mut Value> {
        match self {
            Self::Map(map) => map.get_mut(key),
            Self::Slots(slots) => slots.field(key),
        }
    }

    /// The field, which is made first if it is missing.
    pub(crate) fn field_or_insert(self, key: &str, make: impl FnOnce() -> Value) -> &'r mut Value {
        match self {
            Self::Map(map) => map.entry(key).or_insert_with(make),
            Self::Slots(slots) => slots.field_or_insert(key, make),
        }
    }
}

/// An object in which a removed field leaves a hole.
pub(crate) struct Slots {
    fields: Vec<Option<(String, Value)>>,
    /// Places in `fields`, by the key that stands there.
    places: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl Slots {
    fn from_map(map: Map<String, Value>) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut places = HashTable::with_capacity(map.len());
        let fields: Vec<_> = map.into_iter().map(Some).collect();
        for place in 0..fields.len() {
            places.insert_unique(hash_at(&hasher, &fields, place), place, |&other| {
                hash_at(&hasher, &fields, other)
            });
        }
        Self {
            fields,
            places,
            hasher,
        }
    }

    fn into_map(self) -> Map<String, Value> {
        self.fields.into_iter().flatten().collect()
    }

    fn place(&self, key: &str) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        self.places
            .find(hash, |&place| stands_at(&self.fields, place, key))
            .copied()
    }

    fn field(&mut self, key: &str) -> Option<&mut Value> {
        let place = self.place(key)?;
        self.fields[place].as_mut().map(|(_, value)| value)
    }

    fn insert(&mut self, key: &str, value: Value) {
        match self
            .place(key)
            .and_then(|place| self.fields[place].as_mut())
        {
            Some((_, field)) => *field = value,
            None => drop(self.push(key, value)),
        }
    }

    fn field_or_insert(&mut self, key: &str, make: impl FnOnce() -> Value) -> &mut Value {
        let place = self.place(key).unwrap_or_else(|| self.push(key, make()));
        // The value in `get_or_insert_with` is never used: a place in the table is a field that is there.
        &mut self.fields[place]
            .get_or_insert_with(|| (key.into(), Value::Null))
            .1
    }

    /// Adds a field at the end and gives its place.
    fn push(&mut self, key: &str, value: Value) -> usize {
        let place = self.fields.len();
        self.fields.push(Some((key.into(), value)));
        let (fields, hasher) = (&self.fields, &self.hasher);
        self.places
            .insert_unique(hasher.hash_one(key), place, |&other| {
                hash_at(hasher, fields, other)
            });
        place
    }

    fn remove(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key);
        let fields = &mut self.fields;
        if let Ok(entry) = self
            .places
            .find_entry(hash, |&place| stands_at(fields, place, key))
        {
            let (place, _) = entry.remove();
            fields[place] = None;
        }
    }
}

fn stands_at(fields: &[Option<(String, Value)>], place: usize, key: &str) -> bool {
    fields[place]
        .as_ref()
        .is_some_and(|(standing, _)| standing == key)
}

fn hash_at(hasher: &DefaultHashBuilder, fields: &[Option<(String, Value)>], place: usize) -> u64 {
    hasher.hash_one(fields[place].as_ref().map_or("", |(key, _)| key.as_str()))
}
