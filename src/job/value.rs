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
    List(Vec<Self>),
    /// A map in the file's order.
    Map(Vec<(Self, Self)>),
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

impl Value {
    /// The value as Python's `str()` writes it: how existing templates and placeholders show values.
    pub fn python_str(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            other => other.python_repr(),
        }
    }

    /// The value as plain JSON: keys become text, and numbers that JSON cannot write null.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Text(text) => text.as_str().into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.python_str(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// The value as Python's `repr()` writes it.
    pub fn python_repr(&self) -> String {
        match self {
            Self::Null => "None".to_owned(),
            Self::Bool(true) => "True".to_owned(),
            Self::Bool(false) => "False".to_owned(),
            Self::Int(value) => value.to_string(),
            Self::Float(value) => python_float(*value),
            Self::Text(text) => python_text(text),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::python_repr).collect();
                format!("[{}]", items.join(", "))
            }
            Self::Map(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!("{}: {}", key.python_repr(), value.python_repr()))
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// A float as Python writes it: the shortest digits, an exponent from 1e16 on and below 1e-4.
pub fn python_float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, exponent) = match exponent.strip_prefix('-') {
                    Some(exponent) => ('-', exponent),
                    None => ('+', exponent),
                };
                format!("{digits}e{sign}{exponent:0>2}")
            }
            None => text,
        };
    }
    let text = value.to_string();
    if text.contains('.') { text } else { format!("{text}.0") }
}

/// A text in quotes as Python writes it.
pub fn python_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
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

    /// The right column is what Python 3 prints.
    #[test]
    fn values_print_as_in_python() {
        let text = |text: &str| Value::Text(text.into());
        let table = [
            (Value::Null, "None"),
            (Value::Bool(true), "True"),
            (Value::Int(-3), "-3"),
            (Value::Float(2.0), "2.0"),
            (Value::Float(0.7), "0.7"),
            (Value::Float(1e20), "1e+20"),
            (Value::Float(1.5e-7), "1.5e-07"),
            (Value::Float(123456789012345.0), "123456789012345.0"),
            (text("it's"), "it's"),
            (
                Value::List(vec![text("it's"), text("a\"'"), text("a\n\\")]),
                r#"["it's", 'a"\'', 'a\n\\']"#,
            ),
            (
                Value::Map(vec![(Value::Int(1), text("x")), (text("k"), Value::Bool(false))]),
                "{1: 'x', 'k': False}",
            ),
        ];
        for (value, expected) in table {
            assert_eq!(value.python_str(), expected);
        }
    }

    #[test]
    fn integer_keys_survive_json() {
        let value = Value::Map(vec![
            (Value::Int(1), Value::Text("a".into())),
            (Value::Text("1".into()), Value::Null),
        ]);
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }

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
