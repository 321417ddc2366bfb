//! Job file text to [`plan::Plan`].

pub mod condition;
pub mod files;
mod paths;
pub mod pattern;
pub mod placeholder;
pub mod plan;
pub mod problem;
pub mod rules;
mod schema;
pub mod secret;
pub mod suggest;
pub mod value;
pub mod yaml;

pub use problem::report;
