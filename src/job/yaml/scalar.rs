//! What a scalar means: its style found in the text, its value by YAML 1.1 as PyYAML resolves it.

use super::{Mark, Scalar, Typed};
use crate::job::value::Value;

/// A scalar in the text.
pub(super) struct Source<'t> {
    pub(super) style: Style<'t>,
    /// A tag before it that is none of YAML's own for scalars.
    pub(super) foreign_tag: Option<&'t str>,
}

/// How a scalar is written.
pub(super) enum Style<'t> {
    /// Without quotes; the text from there on.
    Plain(&'t str),
    /// In quotes, or with a tag that makes it text.
    Quoted,
    /// `|`: its lines are the file's lines.
    Literal,
    /// `>`.
    Folded,
}

impl<'t> Source<'t> {
    /// The scalar with which this text begins.
    pub(super) fn at(mut text: &'t str) -> Self {
        // The place of a scalar with an anchor or a tag is that of the anchor or tag.
        let (mut text_tag, mut foreign_tag) = (false, None);
        let style = loop {
            match text.chars().next() {
                Some('&' | '!') => {
                    let end = text.find(char::is_whitespace).unwrap_or(text.len());
                    match &text[..end] {
                        "!!str" | "!" => text_tag = true,
                        "!!int" | "!!float" | "!!bool" | "!!null" => {}
                        tag if tag.starts_with('!') => foreign_tag = Some(tag),
                        _ => {}
                    }
                    text = text[end..].trim_start();
                }
                Some('"' | '\'') => break Style::Quoted,
                Some('|') => break Style::Literal,
                Some('>') => break Style::Folded,
                _ if text_tag => break Style::Quoted,
                _ => break Style::Plain(text),
            }
        };
        Self { style, foreign_tag }
    }
}

impl<'t> Style<'t> {
    /// The characters of a number or word that `serde_yaml` did not give as text.
    fn word(&self) -> &'t str {
        match self {
            Self::Plain(text) => {
                let end = text
                    .find(|c: char| !(c.is_ascii_alphanumeric() || "+-._~".contains(c)))
                    .unwrap_or(text.len());
                &text[..end]
            }
            _ => "",
        }
    }
}

/// A scalar as typed by YAML 1.2, read again by YAML 1.1 where it has no quotes.
pub(super) fn resolve(typed: Typed, source: &Style<'_>, at: Mark) -> Scalar {
    let block_line = matches!(source, Style::Literal).then(|| at.line.saturating_add(1));
    let new_style = match typed {
        Typed::Null => Value::Null,
        Typed::Bool(value) => Value::Bool(value),
        Typed::Int(value) => Value::Int(value),
        Typed::Float(value) => Value::Float(value),
        Typed::Text(text) => {
            let (value, ambiguous) = match source {
                Style::Plain(_) => match yaml_1_1(&text) {
                    Some(value) => {
                        let differs = !matches!(value, Value::Null | Value::Text(_));
                        (value, differs.then_some("a text"))
                    }
                    None => (Value::Text(text.clone()), None),
                },
                _ => (Value::Text(text.clone()), None),
            };
            return Scalar {
                value,
                raw: text,
                ambiguous,
                block_line,
            };
        }
    };
    let word = source.word();
    let raw = if word.is_empty() {
        plain_text(&new_style)
    } else {
        word.to_owned()
    };
    if !matches!(source, Style::Plain(_)) || word.is_empty() {
        return Scalar {
            value: new_style,
            raw,
            ambiguous: None,
            block_line: None,
        };
    }
    let old_style = yaml_1_1(word).unwrap_or_else(|| Value::Text(word.to_owned()));
    let ambiguous = match (&old_style, &new_style) {
        (old, new) if old == new => None,
        (Value::Float(old), Value::Float(new)) if old.is_nan() && new.is_nan() => None,
        (_, Value::Int(_) | Value::Float(_)) => Some("a number"),
        (_, Value::Bool(_)) => Some("a boolean"),
        _ => Some("nothing"),
    };
    Scalar {
        value: old_style,
        raw,
        ambiguous,
        block_line: None,
    }
}

/// The value of a text as if it stood in YAML without quotes.
pub fn plain(text: &str) -> Value {
    yaml_1_1(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        _ => String::new(),
    }
}

/// A plain scalar that is not text by YAML 1.1 as PyYAML resolves it; `None`: it is text.
fn yaml_1_1(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Value::Null),
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Some(Value::Bool(true)),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => return Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if matches!(digits, ".inf" | ".Inf" | ".INF") {
        return Some(Value::Float(if negative { f64::NEG_INFINITY } else { f64::INFINITY }));
    }
    let first = digits.as_bytes().first()?;
    if !(first.is_ascii_digit() || *first == b'.') {
        return None;
    }
    integer(digits, negative).or_else(|| float(digits, negative))
}

fn integer(digits: &str, negative: bool) -> Option<Value> {
    let radix = |digits: &str, radix| {
        let bare: String = digits.chars().filter(|c| *c != '_').collect();
        i128::from_str_radix(&bare, radix).ok()
    };
    let only = |digits: &str, allowed: fn(u8) -> bool| {
        !digits.is_empty() && digits.bytes().all(|byte| byte == b'_' || allowed(byte))
    };
    let number = if let Some(digits) = digits.strip_prefix("0b") {
        only(digits, |byte| matches!(byte, b'0' | b'1')).then(|| radix(digits, 2))?
    } else if let Some(digits) = digits.strip_prefix("0x") {
        only(digits, |byte| byte.is_ascii_hexdigit()).then(|| radix(digits, 16))?
    } else if digits == "0" {
        Some(0)
    } else if let Some(digits) = digits.strip_prefix('0') {
        only(digits, |byte| matches!(byte, b'0'..=b'7')).then(|| radix(digits, 8))?
    } else if digits.contains(':') {
        sexagesimal(digits)
    } else {
        only(digits, |byte| byte.is_ascii_digit()).then(|| radix(digits, 10))?
    }?;
    let number = if negative { -number } else { number };
    Some(i64::try_from(number).map_or(Value::Float(number as f64), Value::Int))
}

/// `1:30` is 90, as in `190:20:30`.
fn sexagesimal(digits: &str) -> Option<i128> {
    let mut parts = digits.split(':');
    let first = parts.next()?;
    if !first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') || first.len() > 12 {
        return None;
    }
    let mut number: i128 = first.replace('_', "").parse().ok()?;
    for part in parts {
        let valid = matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
        number = valid
            .then(|| part.parse::<i128>().ok())??
            .checked_add(number.checked_mul(60)?)?;
    }
    Some(number)
}

/// Floats of YAML 1.1 have a point, and a sign in their exponent.
fn float(digits: &str, negative: bool) -> Option<Value> {
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], Some(&digits[at + 1..])),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.')?;
    let valid = whole.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        && fraction.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        && (!whole.is_empty() || fraction.bytes().next().is_some_and(|byte| byte.is_ascii_digit()))
        && !whole.starts_with('_');
    if !valid {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-'])?;
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
    }
    let text: String = format!("{whole}.{fraction}").replace('_', "");
    let text = if text.starts_with('.') {
        format!("0{text}")
    } else {
        text
    };
    let text = match exponent {
        Some(exponent) => format!("{text}e{exponent}"),
        None => text,
    };
    let number: f64 = text.trim_end_matches('.').parse().ok()?;
    Some(Value::Float(if negative { -number } else { number }))
}
