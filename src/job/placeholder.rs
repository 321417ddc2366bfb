//! Placeholders in paths, patterns and commands: `{name}`, `{name:02d}` and `{{ expression }}`.
//!
//! `{name}` is a placeholder where name is a variable and the brace follows neither `$` nor `{`. Every other
//! brace stays, so that shell, awk, JSON and regular expressions can be written as they are; only in a path an
//! unknown name is an error. What is filled into a command is quoted for the place where it stands.

mod format;
mod shell;

use std::collections::BTreeMap;

use super::suggest::nearest;
use super::value::Value;
use crate::prompt::expression;
use crate::prompt::template::RenderFault;

/// Bytes that a text may have once its placeholders are filled in.
const MAX_EXPANDED: usize = 1024 * 1024;

/// Where the placeholders stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a path: an unknown name is an error.
    Path,
    /// In a pattern or a description: values as they are, unknown names stay.
    Pattern,
    /// In a shell command: each value is quoted for its place.
    Command,
}

/// A part of a text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece<'t> {
    Literal(&'t str),
    /// `{name}` or `{name:spec}`.
    Name {
        name: &'t str,
        spec: &'t str,
        source: &'t str,
    },
    /// `{{ expression }}`.
    Expression {
        text: &'t str,
        source: &'t str,
    },
}

/// `text` with its placeholders filled in. The error is a sentence for a person, without a full stop.
pub fn expand(text: &str, variables: &BTreeMap<String, Value>, place: Place) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 32);
    let mut quoter = shell::Quoter::default();
    for piece in pieces(text) {
        let value = match piece {
            Piece::Literal(literal) => {
                out.push_str(literal);
                quoter.pass(literal);
                continue;
            }
            Piece::Name { name, spec, source } => match variables.get(name) {
                Some(value) => match format::format(value, spec) {
                    Ok(value) => Ok(value),
                    // `{total: 5}` in a JSON text is no placeholder.
                    Err(_) if place != Place::Path => Err(source),
                    Err(error) => return Err(format!("`{source}` cannot be filled in: {error}")),
                },
                None if place == Place::Path => return Err(unknown(name, source, variables)),
                None => Err(source),
            },
            Piece::Expression { text, source } => match expression(text, variables) {
                Ok(value) => Ok(value),
                // `{{.State}}` is the syntax of other programs.
                Err(error) if error.kind == RenderFault::Syntax && place != Place::Path => Err(source),
                Err(error) => return Err(format!("`{source}` cannot be filled in: {}", error.message)),
            },
        };
        match value {
            Ok(value) if place == Place::Command => {
                let quoted = quoter
                    .quote(&value)
                    .map_err(|error| format!("a value cannot be filled in: {error}"))?;
                out.push_str(&quoted);
            }
            Ok(value) => out.push_str(&value),
            Err(source) => {
                out.push_str(source);
                quoter.pass(source);
            }
        }
        if out.len() > MAX_EXPANDED {
            return Err(format!(
                "it has more than {MAX_EXPANDED} bytes once its placeholders are filled in"
            ));
        }
    }
    Ok(out)
}

/// Whether there is anything in it that could be filled in.
pub(crate) fn has_placeholders(text: &str) -> bool {
    pieces(text).iter().any(|piece| !matches!(piece, Piece::Literal(_)))
}

/// Whether there is a `{{ expression }}` in it.
pub(crate) fn has_expression(text: &str) -> bool {
    pieces(text)
        .iter()
        .any(|piece| matches!(piece, Piece::Expression { .. }))
}

fn unknown(name: &str, source: &str, variables: &BTreeMap<String, Value>) -> String {
    match nearest(name, variables.keys().map(String::as_str)) {
        Some(near) => format!("`{source}` names no variable; did you mean `{{{near}}}`?"),
        None => format!("`{source}` names no variable"),
    }
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut literal_from = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('{') {
        let start = at + found;
        let before = text[..start].chars().next_back();
        let piece = if matches!(before, Some('$' | '{')) {
            None
        } else {
            piece_at(&text[start..])
        };
        match piece {
            Some((piece, length)) => {
                if start > literal_from {
                    pieces.push(Piece::Literal(&text[literal_from..start]));
                }
                pieces.push(piece);
                at = start + length;
                literal_from = at;
            }
            None => at = start + 1,
        }
    }
    if literal_from < text.len() {
        pieces.push(Piece::Literal(&text[literal_from..]));
    }
    pieces
}

/// The placeholder that begins with the brace at the start of `text`, and its length.
fn piece_at(text: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(inner) = text.strip_prefix("{{") {
        let end = inner.find("}}")?;
        let length = end + 4;
        return Some((
            Piece::Expression {
                text: &inner[..end],
                source: &text[..length],
            },
            length,
        ));
    }
    let inner = &text[1..text.find('}')?];
    let source = &text[..inner.len() + 2];
    let (name, spec) = inner.split_once(':').unwrap_or((inner, ""));
    let mut chars = name.chars();
    let is_name =
        chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.all(|c| c.is_alphanumeric() || c == '_');
    is_name.then_some((Piece::Name { name, spec, source }, source.len()))
}

#[cfg(test)]
mod tests;
