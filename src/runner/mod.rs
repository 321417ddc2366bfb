//! Does one attempt and reports; knows nothing of jobs, retries or limits.

#[cfg(feature = "daemon")]
pub mod attempt;
pub mod backend;
pub mod classify;
#[cfg(feature = "daemon")]
mod follow;
#[cfg(feature = "daemon")]
pub mod growth;
pub mod hang;
#[cfg(feature = "daemon")]
pub mod launch;
pub mod limits;
#[cfg(feature = "daemon")]
mod passwd;
#[cfg(feature = "daemon")]
mod previous;
#[cfg(feature = "daemon")]
pub(crate) mod room;
pub mod spec;
#[cfg(feature = "daemon")]
pub mod validate;

/// Compiles a pattern that stands in the code.
#[expect(clippy::expect_used, reason = "every such pattern is compiled by a test")]
pub(crate) fn fixed_regex(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).expect("the pattern is part of the code")
}
