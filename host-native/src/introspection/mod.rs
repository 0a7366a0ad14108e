//! What a worker can ask about the server: the `engine::` functions. Reads the tables of functions, triggers and workers;
//! knows no sockets. Source: worker protocol, sections 10 and 11.

mod directory;
mod functions;

pub use directory::Directory;
pub use functions::register;
