//! The bus, over real sockets and a real bus daemon, with a conductor that answers from a table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod changes;
mod introspection;
mod private_socket;
pub(crate) mod refusal;
pub(crate) mod script;
pub(crate) mod session_bus;
