//! Owns every task: the conductor as a service ([`service::run`]) and embedded in a front end ([`embedded()`]).
//!
//! ```text
//! bus, front ends ──Request──▶ conductor ──facts──▶ ledger        (commit, then apply, then act)
//!                                 │ ▲
//!                        Command  │ │  Progress
//!                                 ▼ │
//!                               runner (one task an attempt)
//! ```

mod checkpoints;
pub mod clock;
mod conductor;
mod day;
mod embedded;
pub mod environment;
mod holds;
mod journal;
pub mod logging;
pub mod message_id;
mod modify;
pub mod paths;
pub mod pressure;
mod program;
mod project;
pub mod quiet;
mod recover;
mod requests;
pub mod service;
pub mod settings;
mod start;
pub mod submit;
mod suspend;
#[cfg(test)]
mod tests;

pub use embedded::{Embedded, EmbeddedOptions, embedded};
pub use start::StartError;
