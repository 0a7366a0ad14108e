//! One WebSocket connection behind a small interface: messages in, frames out, heartbeats, close handshakes. Knows
//! nothing of what the messages say.

mod connection;
mod cork;
mod frame;
mod impatient;
mod outbox;
mod reader;
mod upgrade;

pub use connection::{Connection, End, Incoming, Limits};
pub use cork::{at_end_of_turn, corked, in_one_turn};
pub use frame::{Frame, push_text};
pub use outbox::{CloseCode, Full, Outbox};
pub use upgrade::{HttpEnd, Line, Patience, Refused, refuse, select_protocol, serve_http, upgrade};
