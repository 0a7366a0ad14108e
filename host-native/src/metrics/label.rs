//! Metrics that are counted apart: by a label with a fixed set of values, or by a code.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use iii_stream_core::Kind;
use parking_lot::Mutex;

use super::page::{Metric, Samples, with_label};

/// A label with a fixed set of values.
pub trait Label: Copy + 'static {
    /// What it is called.
    const NAME: &'static str;
    /// Its values, as they are shown.
    const VALUES: &'static [&'static str];

    /// Which of the values this one is.
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $label:literal { $($(#[$variant_meta:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const VALUES: &'static [&'static str] = &[$($value,)*];

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Which listener.
    Port, "port" {
        /// Where workers connect.
        Workers = "workers",
        /// Where subscribers connect.
        Subscribers = "subscribers",
        /// Where monitoring connects.
        Admin = "admin",
    }
}

label! {
    /// What a change did.
    ChangeKind, "kind" {
        /// An item is there that was not.
        Create = "create",
        /// An item has another value.
        Update = "update",
        /// An item is gone.
        Delete = "delete",
        /// A custom event.
        Event = "event",
    }
}

impl From<&Kind> for ChangeKind {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Create => Self::Create,
            Kind::Update => Self::Update,
            Kind::Delete => Self::Delete,
            Kind::Event { .. } => Self::Event,
        }
    }
}

label! {
    /// Why a slow subscriber was closed, where a fresh `sync` was no help.
    SlowConsumerEnd, "reason" {
        /// It missed a custom event, which no `sync` tells of.
        MissedEvent = "missed_event",
        /// It took nothing for too long.
        Blocked = "blocked",
    }
}

label! {
    /// How a call to Redis ended.
    RedisOutcome, "outcome" {
        /// Answered.
        Ok = "ok",
        /// Answered with an error.
        Refused = "refused",
        /// Not carried out, because Redis was not there in time.
        Unavailable = "unavailable",
        /// Sent, but not answered.
        Unknown = "unknown",
    }
}

/// One number for each value of a label.
#[derive(Debug)]
pub struct By<L, T> {
    values: Vec<T>,
    label: PhantomData<L>,
}

impl<L: Label, T: Default> Default for By<L, T> {
    fn default() -> Self {
        Self {
            values: L::VALUES.iter().map(|_| T::default()).collect(),
            label: PhantomData,
        }
    }
}

impl<L: Label, T> By<L, T> {
    /// The number of one value.
    pub fn of(&self, label: L) -> &T {
        &self.values[label.index()]
    }

    /// The number of one value, to be changed.
    pub fn of_mut(&mut self, label: L) -> &mut T {
        &mut self.values[label.index()]
    }
}

impl<L: Label, T: Metric> Metric for By<L, T> {
    const TYPE: &'static str = T::TYPE;

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        for (value, metric) in L::VALUES.iter().zip(&self.values) {
            metric.write(samples, &with_label(labels, L::NAME, value));
        }
    }
}

/// Most codes that are counted apart; further ones are counted as 0.
const CODES_MAX: usize = 64;

/// How often each code came, for what is not on a hot way.
#[derive(Debug, Default)]
pub struct ByCode(Mutex<BTreeMap<u16, u64>>);

impl ByCode {
    /// One more.
    pub fn inc(&self, code: u16) {
        let mut counts = self.0.lock();
        let is_counted_apart = counts.len() < CODES_MAX || counts.contains_key(&code);
        *counts
            .entry(if is_counted_apart { code } else { 0 })
            .or_default() += 1;
    }
}

impl Metric for ByCode {
    const TYPE: &'static str = "counter";

    fn write(&self, samples: &mut Samples<'_>, labels: &str) {
        for (code, count) in &*self.0.lock() {
            samples.add("", &with_label(labels, "code", &code.to_string()), *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Counter, Page};

    #[test]
    fn labels_are_shown_with_every_value() {
        let changes = By::<ChangeKind, Counter>::default();
        changes.of(ChangeKind::Delete).inc();
        let refused = By::<Port, ByCode>::default();
        refused.of(Port::Workers).inc(401);
        let mut page = Page::default();
        page.metric("c", "help", &changes);
        page.metric("r", "help", &refused);
        let expected = "# HELP c help\n# TYPE c counter\nc{kind=\"create\"} 0\nc{kind=\"update\"} 0\nc{kind=\"delete\"} 1\nc{kind=\"event\"} 0\n# HELP r help\n# TYPE r counter\nr{port=\"workers\",code=\"401\"} 1\n";
        assert_eq!(page.into_text(), expected);
    }
}
