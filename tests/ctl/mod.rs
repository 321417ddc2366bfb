//! `mozartctl` as a person or a script meets it: the real program, in directories of its own.

mod answers;
mod authoring;
mod fake;
mod files;
mod hostile;
mod together;

use crate::support::Alone;

/// The runtime directory of that user.
fn runtime(alone: &Alone) -> std::path::PathBuf {
    alone.state().ancestors().nth(2).expect("a home").join("run")
}
