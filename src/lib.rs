//! Mozart runs long batches of Claude sessions, unattended, as systemd units of the user's own.

#![forbid(unsafe_code)]

pub mod api;
pub mod engine;
pub mod job;
pub mod model;
#[cfg(any(test, feature = "daemon"))]
pub mod probe;
pub mod prompt;
pub mod runner;
pub mod summary;

#[cfg(feature = "daemon")]
pub mod bus;
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod ledger;
#[cfg(feature = "daemon")]
pub mod user_manager;
