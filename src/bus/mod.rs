//! D-Bus: the conductor's interfaces, one file each, served and called through the same definitions.
//!
//! [`manager`] and [`job`] translate calls into requests of the [`Conductor`](crate::api::handle::Conductor) and
//! nothing more. [`server`] puts them on a connection (the session bus, or a client of the private socket) and tells
//! what changes. [`caller`] finds out who calls, because no session of Mozart's own may change anything.
//! [`client`] is the other end, for the front ends.
//!
//! zbus has one object server per connection, so every client of the private socket is served objects of its own.

pub mod caller;
pub mod client;
pub mod convert;
pub mod error;
pub mod job;
pub mod manager;
mod mirror;
pub mod names;
mod publish;
pub mod server;

pub use error::Error;
