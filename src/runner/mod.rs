//! Does one attempt and reports; knows nothing of jobs, retries or limits.

#[cfg(feature = "daemon")]
pub mod launch;
pub mod spec;
