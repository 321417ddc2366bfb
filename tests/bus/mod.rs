//! The bus, over real sockets and a real bus daemon, with a conductor that answers from a table.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod changes;
mod introspection;
mod private_socket;
mod refusal;
mod script;
mod session_bus;
