//! One WebSocket connection behind a small interface: messages in, frames out, heartbeats, close handshakes. Knows
//! nothing of what the messages say.

mod connection;
mod cork;
mod outbox;
mod upgrade;

pub use connection::{Connection, End, Incoming, Limits};
pub use cork::corked;
pub use outbox::{CloseCode, Frame, Outbox};
pub use upgrade::{Refused, refuse, select_protocol, serve_http, upgrade};
