//! A process the bench started, ended with it.

use std::io;
use std::net::SocketAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use iii_stream::bench::wire::{PATIENCE, connect};

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

/// Waits until a process that was just started takes connections.
pub(crate) fn until_listening(
    child: &mut OwnChild,
    address: SocketAddr,
    name: &str,
) -> io::Result<()> {
    let started = Instant::now();
    while connect(address).is_err() {
        if let Some(status) = child.handle().try_wait()? {
            return Err(io::Error::other(format!("{name} ended: {status}")));
        }
        if PATIENCE < started.elapsed() {
            return Err(io::Error::other(format!("{name} takes no connections")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
