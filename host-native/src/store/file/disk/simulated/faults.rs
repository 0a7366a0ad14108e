//! What is to go wrong, and when.

/// What can be asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Open,
    List,
    Read,
    Write,
    Sync,
    SetLen,
    Create,
    Rename,
    Remove,
    SyncNames,
}

impl Operation {
    pub(super) const COUNT: usize = Self::SyncNames as usize + 1;

    /// The operations that a power cut is counted by: all but those that only look.
    pub(crate) const CHANGING: [Self; 7] = [
        Self::Write,
        Self::Sync,
        Self::SetLen,
        Self::Create,
        Self::Rename,
        Self::Remove,
        Self::SyncNames,
    ];
}

/// What goes wrong. Counts begin when the fault is planned: 1 is the next operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The power is cut at that one of [`Operation::CHANGING`].
    PowerCut { at: u64, moment: Moment },
    /// An I/O error at that operation on files whose name begins so. [`Operation::List`] and
    /// [`Operation::SyncNames`] have no name: the prefix has to be empty.
    ///
    /// A failed write may have written a part, a failed sync loses what was not synced; others did nothing.
    Error {
        operation: Operation,
        name_prefix: &'static str,
        at: u64,
        lasting: Lasting,
    },
    /// Of a hundred writes, so many take only a part.
    ShortWrites { percent: u8 },
    /// Of a hundred reads, so many give only a part.
    ShortReads { percent: u8 },
}

/// When the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The operation does nothing.
    Before,
    /// A write is taken in part; other operations happen or not.
    Midway,
    /// The operation is done, but nobody learns of it.
    After,
}

/// How often an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lasting {
    Once,
    FromThenOn,
}

/// The faults that are planned.
#[derive(Default)]
pub(super) struct Faults {
    power_cut: Option<(u64, Moment)>,
    errors: Vec<PlannedError>,
    pub(super) short_writes_percent: u8,
    pub(super) short_reads_percent: u8,
}

struct PlannedError {
    operation: Operation,
    name_prefix: &'static str,
    at: u64,
    lasting: Lasting,
}

impl Faults {
    pub(super) fn plan(&mut self, fault: Fault) {
        match fault {
            Fault::PowerCut { at, moment } => self.power_cut = Some((at, moment)),
            Fault::Error {
                operation,
                name_prefix,
                at,
                lasting,
            } => self.errors.push(PlannedError {
                operation,
                name_prefix,
                at,
                lasting,
            }),
            Fault::ShortWrites { percent } => self.short_writes_percent = percent,
            Fault::ShortReads { percent } => self.short_reads_percent = percent,
        }
    }

    /// Counts an operation, and says whether the power is cut at it.
    pub(super) fn power_cut(&mut self, operation: Operation) -> Option<Moment> {
        let (at, moment) = self.power_cut.as_mut()?;
        if !Operation::CHANGING.contains(&operation) {
            return None;
        }
        *at = at.saturating_sub(1);
        (*at == 0).then_some(*moment)
    }

    /// Counts an operation, and says whether it fails.
    pub(super) fn fails(&mut self, operation: Operation, name: &str) -> bool {
        let mut fails = false;
        self.errors.retain_mut(|error| {
            if error.operation != operation || !name.starts_with(error.name_prefix) {
                return true;
            }
            error.at = error.at.saturating_sub(1);
            fails |= error.at == 0;
            error.at > 0 || error.lasting == Lasting::FromThenOn
        });
        fails
    }
}
