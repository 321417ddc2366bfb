//! Values of YAML as job files use them: types are kept, integer keys of maps stay integers,
//! also in JSON (where a map is written as a list of pairs if any key is not text).

use serde::{Deserialize, Serialize};

/// A typed value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "t", content = "v")]
pub enum Value {
    /// `null`, `~`, nothing.
    Null,
    /// `true`, `yes`, `on`, …
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float; JSON has no word for those that are not finite, so they are written as text.
    Float(#[serde(with = "any_float")] f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A map in the file's order.
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Floats in JSON: numbers, or `inf`, `-inf`, `NaN`.
mod any_float {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(float: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        let written = if float.is_finite() {
            Written::Number(*float)
        } else {
            Written::Text(float.to_string())
        };
        written.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(float) => Ok(float),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_survives_json() {
        for float in [
            0.1,
            1.0,
            0.1 + 0.2,
            1e300,
            f64::MIN_POSITIVE,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ] {
            let json = serde_json::to_string(&Value::Float(float)).unwrap();
            let Value::Float(read) = serde_json::from_str(&json).unwrap() else {
                panic!("{json}")
            };
            assert_eq!(read.to_bits(), float.to_bits(), "{json}");
        }
    }
}
