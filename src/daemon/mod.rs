//! Owns every task.

pub mod message_id;
