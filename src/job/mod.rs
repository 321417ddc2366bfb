//! Job file text to [`plan::Plan`].
//!
//! [`yaml`] gives nodes with positions; `schema` knows every field and checks names, types and bounds; `lower`
//! makes the plan and collects everything that is wrong with it. Nothing here touches a disk: files are asked
//! for through [`files::Files`].

pub mod artifacts;
pub mod changes;
pub mod condition;
pub mod estimate;
pub mod expression;
pub mod files;
pub mod fix;
pub mod graph;
mod lower;
mod manual;
mod pages;
mod paths;
pub mod pattern;
pub mod placeholder;
pub mod plan;
pub mod prices;
pub mod problem;
pub mod rules;
mod schema;
pub mod secret;
pub mod suggest;
pub mod value;
pub mod waves;
pub mod yaml;

#[cfg(test)]
mod examples;

#[cfg(test)]
pub(crate) use lower::plan_of;
pub use lower::{JobInput, Loaded, load, preview};
pub use manual::manual;
pub use pages::{page, pages};
pub use problem::report;
pub use schema::json_schema;
