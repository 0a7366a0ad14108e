//! What `load` and `single` need to know of a protocol: write a call, find the replies.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::checker::Faults;

/// No reply takes this long unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A peer that connections can be opened to.
pub trait Wire {
    /// What one connection to it keeps.
    type Session: Session;

    /// Opens the connection with this number, ready for its first call.
    fn open(&self, connection: usize) -> io::Result<(TcpStream, Self::Session)>;
}

/// One connection's protocol state.
pub trait Session {
    /// Appends the next call to `out`; its reply will be reported under `slot`, which is free now.
    fn call(&mut self, slot: usize, out: &mut Vec<u8>);

    /// Reads whole replies from the start of `input`, verifies each, and pushes its slot to `done`.
    ///
    /// Answers the bytes read; appends to `out` whatever the protocol wants answered.
    /// Errors: a reply that is not the one expected.
    fn scan(&mut self, input: &[u8], done: &mut Vec<usize>, out: &mut Vec<u8>)
    -> io::Result<usize>;

    /// What was wrong with the replies so far, where that does not end the run.
    fn faults(&self) -> Faults {
        Faults::default()
    }
}

/// An error that says which address could not be reached, and what to do.
pub fn unreachable(address: SocketAddr, error: &io::Error, what_to_do: &str) -> io::Error {
    io::Error::other(format!("cannot reach {address}: {error}. {what_to_do}"))
}

/// A blocking connection without Nagle's delay, whose reads give up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// An error that quotes what arrived.
pub fn unexpected(what: &str, bytes: &[u8]) -> io::Error {
    const QUOTED_BYTES: usize = 400;
    let quoted = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES)]);
    io::Error::other(format!("{what}: {quoted}"))
}
