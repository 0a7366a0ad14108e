//! A process the bench started, ended with it.

use std::process::Child;

/// Killed and reaped when dropped, by its own handle.
pub(crate) struct OwnChild(Child);

impl OwnChild {
    pub(crate) fn new(child: Child) -> Self {
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The handle, to take its pipes or ask whether it has ended.
    pub(crate) fn handle(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        // Fails only when it has ended already; reaping is all that is left then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
