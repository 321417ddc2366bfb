//! Does one attempt and reports; knows nothing of jobs, retries or limits.

pub mod backend;
pub mod classify;
#[cfg(feature = "daemon")]
pub mod launch;
pub mod limits;
pub mod spec;

/// Compiles a pattern that stands in the code.
#[expect(clippy::expect_used, reason = "every such pattern is compiled by a test")]
pub(crate) fn fixed_regex(pattern: &str) -> regex::Regex {
    regex::Regex::new(pattern).expect("the pattern is part of the code")
}
