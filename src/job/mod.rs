//! Job file text to [`plan::Plan`].

pub mod condition;
pub mod files;
pub mod pattern;
pub mod plan;
pub mod problem;
mod schema;
pub mod secret;
pub mod suggest;
pub mod value;
pub mod yaml;

pub use problem::report;
