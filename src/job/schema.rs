//! Every field that a job file may have: its name, type, bounds, and whether it has an effect yet.
//!
//! One table for all sections, so that misspelt names, wrong types and values out of bounds are found in the
//! same way everywhere, also in sections that only a later version acts upon.

mod check;
mod fields;
mod json;

pub(crate) use check::{boolean, check, integer, number};
pub(crate) use fields::{JOB, NEEDS};
pub use json::json_schema;
#[cfg(test)]
pub(crate) use json::literal;

use super::yaml::Node;

/// A field of a section.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its key.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) kind: Type,
    /// What it does today.
    pub(crate) effect: Effect,
    /// What it is for, a sentence.
    pub(crate) about: &'static str,
    /// What holds where it is not written: JSON, or the bare text of a field that takes text; "" if there is nothing.
    pub(crate) default: &'static str,
    /// A value of it, in the same way.
    pub(crate) example: &'static str,
}

/// What a field takes.
#[derive(Debug)]
pub(crate) enum Type {
    /// `true`, `yes`, `on`, `"true"`, 1, …
    Bool,
    /// A whole number from … to.
    Int(i64, i64),
    /// A number within bounds.
    Number(Bounds),
    /// A text.
    Text,
    /// A text, or a number or boolean that is taken as it is written.
    Written,
    /// A text that this regular expression finds; the words say what it must be.
    Shaped(&'static str, &'static str),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list, every item of that type.
    List(&'static Self),
    /// A map from sheet (or stage) numbers.
    BySheet(&'static Self),
    /// A map with keys of the writer's own.
    ByName(&'static Self),
    /// A map with known keys.
    Section(&'static [Field]),
    /// The first type that fits; the text says what is wanted.
    Either(&'static [Self], &'static str),
    /// Anything.
    Any,
}

/// Bounds of a number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) min: f64,
    /// `min` itself is not allowed.
    pub(crate) above: bool,
    pub(crate) max: f64,
}

/// What a field does today.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Effect {
    /// It works.
    Works,
    /// It has no effect yet, and its absence cannot change a result.
    Dormant,
    /// It belongs elsewhere; existing files have it here, where it never had an effect.
    Elsewhere(&'static str),
    /// It has no effect yet, and a job that uses it would not do what its writer means.
    Refused(Use),
}

/// Whether a value of a refused field asks for anything.
pub(crate) type Use = fn(&Node) -> bool;

/// Fields of a section of which one must say something.
#[derive(Debug)]
pub(crate) struct Need {
    /// Path of the section, `[]` for each item of a list.
    pub(crate) section: &'static str,
    /// Only where this field is one of these words.
    pub(crate) when: Option<(&'static str, &'static [&'static str])>,
    /// Their names; in a map of the section with the map's name.
    pub(crate) one_of: &'static [&'static str],
}

/// Any number.
pub(crate) const ANY: Bounds = Bounds {
    min: f64::MIN,
    above: false,
    max: f64::MAX,
};

/// A number of at least `min`.
pub(crate) const fn at_least(min: f64) -> Bounds {
    Bounds {
        min,
        above: false,
        max: f64::MAX,
    }
}

/// A number above `min`.
pub(crate) const fn above(min: f64) -> Bounds {
    Bounds {
        min,
        above: true,
        max: f64::MAX,
    }
}

/// A number from `min` to `max`.
pub(crate) const fn within(min: f64, max: f64) -> Bounds {
    Bounds { min, above: false, max }
}

/// A number above 0, up to `max`.
pub(crate) const fn up_to(max: f64) -> Bounds {
    Bounds {
        min: 0.0,
        above: true,
        max,
    }
}

#[cfg(test)]
pub(crate) mod tests;
