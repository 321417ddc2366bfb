//! What outsiders may ask and see. Plain types always; the [`handle::Conductor`] with feature `daemon`.

pub mod request;
pub mod view;

#[cfg(feature = "daemon")]
pub mod handle;
