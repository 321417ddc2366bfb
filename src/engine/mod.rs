//! Decides: state and event in, facts and commands out. No clock, no randomness, no I/O.

pub mod event;
pub mod fact;
pub mod rules;
