//! Job file text to [`plan::Plan`].

pub mod files;
pub mod plan;
pub mod problem;
pub mod secret;
pub mod suggest;
pub mod value;
pub mod yaml;

pub use problem::report;
