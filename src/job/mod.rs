//! Job file text to [`plan::Plan`].

pub mod plan;
pub mod value;
