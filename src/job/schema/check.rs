//! Walks a job file beside the table of fields.

use std::collections::BTreeMap;

use super::{Bounds, Effect, Field, JOB, NEEDS, Need, Type};
use crate::job::problem::Problems;
use crate::job::suggest::nearest;
use crate::job::value::Value;
use crate::job::yaml::{Kind, Mark, Node};

/// Checks a whole job file, and renames `batch` to `sheet` in its keys.
pub(crate) fn check(root: &mut Node, problems: &mut Problems) {
    let mut checker = Checker { problems, quiet: false };
    checker.section(root, JOB, "");
}

/// A boolean as pydantic reads one: `true`, `yes`, `on`, `"1"`, 0, …
pub(crate) fn boolean(node: &Node) -> Option<bool> {
    match &node.scalar()?.value {
        Value::Bool(value) => Some(*value),
        Value::Int(0) => Some(false),
        Value::Int(1) => Some(true),
        Value::Text(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "t" | "y" | "1" => Some(true),
            "false" | "no" | "off" | "f" | "n" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// A whole number, also one in quotes or with a fraction of zero.
pub(crate) fn integer(node: &Node) -> Option<i64> {
    match &node.scalar()?.value {
        Value::Int(value) => Some(*value),
        // Floats are whole and exact up to 2^53.
        Value::Float(value) if value.fract() == 0.0 && value.abs() < 9e15 => Some(*value as i64),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A finite number, also one in quotes.
pub(crate) fn number(node: &Node) -> Option<f64> {
    let number = match &node.scalar()?.value {
        Value::Int(value) => *value as f64,
        Value::Float(value) => *value,
        Value::Text(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

struct Checker<'p> {
    problems: &'p mut Problems,
    /// Inside a section that has no effect as a whole: said once, not for each field.
    quiet: bool,
}

impl Checker<'_> {
    fn section(&mut self, node: &mut Node, fields: &'static [Field], path: &str) {
        let at = node.at;
        let Kind::Map(entries) = &mut node.kind else {
            if node.is_null() && !path.is_empty() {
                return;
            }
            let what = if path.is_empty() {
                "a job file".to_owned()
            } else {
                format!("`{path}`")
            };
            let message = format!("{what} must be a map of fields, and this is {}", node.describe());
            self.problems.error("E301", Some(at), path, message);
            return;
        };
        let mut seen: Vec<&'static str> = Vec::new();
        for (key, value) in entries {
            let Some(scalar) = key.scalar() else { continue };
            let written = scalar.raw.clone();
            let Some(field) = fields
                .iter()
                .find(|field| field.name == written)
                .or_else(|| as_sheet(fields, &written))
            else {
                self.unknown(key, &written, fields, path);
                continue;
            };
            if seen.contains(&field.name) {
                let message = format!(
                    "`{written}` is another word for `{}`, which stands here too",
                    field.name
                );
                self.problems
                    .error("E301", Some(key.at), &join(path, &written), message)
                    .suggest("keep one of the two");
                continue;
            }
            seen.push(field.name);
            if let Kind::Scalar(scalar) = &mut key.kind {
                scalar.value = Value::Text(field.name.to_owned());
            }
            self.field(key.at, value, field, &join(path, &written));
        }
        self.needs(node, path);
    }

    /// Whether each of the fields is there that the section asks for.
    fn needs(&mut self, node: &Node, path: &str) {
        let section = any_item(path);
        for Need { when, one_of, .. } in NEEDS.iter().filter(|need| need.section == section) {
            let asked = when.is_none_or(|(field, words)| {
                node.get(field)
                    .and_then(Node::text)
                    .is_some_and(|word| words.contains(&word))
            });
            let said = |field: &&str| node.get_path(field).is_some_and(|node| !node.is_null());
            if !asked || one_of.iter().any(said) {
                continue;
            }
            let because = match when {
                Some((field, _)) => format!(
                    " of {field} `{}`",
                    node.get(field).and_then(Node::text).unwrap_or_default()
                ),
                None => String::new(),
            };
            let message = format!("`{path}`{because} needs {}", alternatives(one_of));
            self.problems.error("E302", Some(node.at), path, message);
        }
    }

    fn field(&mut self, key_at: Mark, value: &mut Node, field: &'static Field, path: &str) {
        let before = self.quiet;
        match field.effect {
            Effect::Works => {}
            Effect::Dormant => {
                if !self.quiet && !is_inert(value) && !has_refused_use(value, &field.kind) {
                    self.problems
                        .warning(
                            "V190",
                            Some(key_at),
                            path,
                            format!("`{path}` is known, but has no effect yet"),
                        )
                        .suggest("the job runs as if it were not there");
                }
                // What a section of that kind refuses is said by its own fields.
                self.quiet = true;
            }
            Effect::Elsewhere(place) => {
                self.problems
                    .warning("V193", Some(key_at), path, format!("`{path}` has no effect here"))
                    .suggest(format!("write it as `{place}`"));
            }
            Effect::Refused(is_used) => {
                if is_used(value) {
                    self.problems
                        .unsupported(Some(key_at), path, format!("`{path}` is known, but not supported yet"))
                        .suggest("take it out if the job is right without it");
                } else if !self.quiet && !matches!(field.kind, Type::Word(_)) && !is_inert(value) {
                    self.problems.warning(
                        "V190",
                        Some(key_at),
                        path,
                        format!("`{path}` is known, but has no effect yet"),
                    );
                }
                self.quiet = true;
            }
        }
        self.typed(value, &field.kind, path);
        self.quiet = before;
    }

    fn typed(&mut self, node: &mut Node, kind: &'static Type, path: &str) {
        // A key with nothing behind it means the default.
        if node.is_null() && !matches!(kind, Type::Any) {
            return;
        }
        match kind {
            Type::Any => {}
            Type::Bool => {
                if boolean(node).is_none() {
                    self.wrong(node, path, "true or false");
                }
            }
            Type::Int(min, max) => match integer(node) {
                None => self.wrong(node, path, "a whole number"),
                Some(value) if value < *min || value > *max => {
                    self.out_of_bounds(node, path, &whole_bounds(*min, *max));
                }
                Some(_) => {}
            },
            Type::Number(bounds) => match number(node) {
                None => self.wrong(node, path, "a number"),
                Some(value) if value < bounds.min || value > bounds.max || (bounds.above && value <= bounds.min) => {
                    self.out_of_bounds(node, path, &number_bounds(bounds));
                }
                Some(_) => {}
            },
            Type::Text => self.text(node, path),
            Type::Written => {
                if node.scalar().is_none() {
                    self.wrong(node, path, "text");
                }
            }
            Type::Shaped(shape, wanted) => {
                self.text(node, path);
                let fits = |text: &str| regex::Regex::new(shape).is_ok_and(|shape| shape.is_match(text));
                if node.text().is_some_and(|text| !fits(text)) {
                    self.wrong(node, path, wanted);
                }
            }
            Type::Word(words) => self.word(node, words, path),
            Type::List(item) => match &mut node.kind {
                Kind::List(items) => {
                    for (index, node) in items.iter_mut().enumerate() {
                        let path = format!("{path}[{index}]");
                        if node.is_null() {
                            self.wrong(node, &path, "no empty item");
                        }
                        self.typed(node, item, &path);
                    }
                }
                Kind::Scalar(_) | Kind::Map(_) => self.wrong(node, path, "a list"),
            },
            Type::BySheet(value) => self.keyed(node, value, path, true),
            Type::ByName(value) => self.keyed(node, value, path, false),
            Type::Section(fields) => self.section(node, fields, path),
            Type::Either(kinds, wanted) => {
                // The shape decides which of the types is meant; its own problems are told then.
                let meant = kinds.iter().find(|kind| match kind {
                    Type::Section(_) => node.map().is_some(),
                    Type::Bool => boolean(node).is_some(),
                    Type::Int(..) => integer(node).is_some(),
                    _ => node.scalar().is_some(),
                });
                match meant {
                    Some(kind) => self.typed(node, kind, path),
                    None => self.wrong(node, path, wanted),
                }
            }
        }
    }

    fn text(&mut self, node: &Node, path: &str) {
        match node.scalar() {
            Some(scalar) if matches!(scalar.value, Value::Text(_)) => {}
            Some(scalar) => {
                let message = format!("`{path}` must be text, and this is {}", node.describe());
                self.problems
                    .error("E301", Some(node.at), path, message)
                    .suggest(format!("put it in quotes: \"{}\"", scalar.raw));
            }
            None => self.wrong(node, path, "text"),
        }
    }

    fn word(&mut self, node: &Node, words: &'static [&'static str], path: &str) {
        match node.scalar() {
            Some(scalar) if words.contains(&scalar.raw.as_str()) => {}
            Some(scalar) => {
                let list = alternatives(words);
                let message = format!("`{path}` must be {list}, and this is {:?}", scalar.raw);
                let finding = self.problems.error("E301", Some(node.at), path, message);
                if let Some(word) = nearest(&scalar.raw, words.iter().copied()) {
                    finding.suggest(format!("did you mean `{word}`?"));
                }
            }
            None => self.wrong(node, path, &alternatives(words)),
        }
    }

    fn keyed(&mut self, node: &mut Node, value: &'static Type, path: &str, by_sheet: bool) {
        let Kind::Map(entries) = &mut node.kind else {
            self.wrong(node, path, if by_sheet { "a map from sheet numbers" } else { "a map" });
            return;
        };
        let mut seen: BTreeMap<i64, Mark> = BTreeMap::new();
        for (key, node) in entries {
            let written = key.scalar().map_or_else(String::new, |scalar| scalar.raw.clone());
            let path = join(path, &written);
            match integer(key).filter(|number| *number >= 1) {
                _ if !by_sheet => {}
                // `1` and `"1"` are two keys of YAML, and one sheet.
                Some(number) => {
                    if let Some(first) = seen.insert(number, key.at) {
                        let message = format!("{number} stands here twice; it stood on line {} already", first.line);
                        self.problems.error("E301", Some(key.at), &path, message);
                    }
                }
                None => {
                    let message = format!(
                        "a key here must be the number of a sheet, from 1, and this is {}",
                        key.describe()
                    );
                    self.problems.error("E301", Some(key.at), &path, message);
                }
            }
            self.typed(node, value, &path);
        }
    }

    fn wrong(&mut self, node: &Node, path: &str, wanted: &str) {
        let message = format!("`{path}` must be {wanted}, and this is {}", node.describe());
        self.problems.error("E301", Some(node.at), path, message);
    }

    fn out_of_bounds(&mut self, node: &Node, path: &str, bounds: &str) {
        let raw = node.scalar().map_or("", |scalar| scalar.raw.as_str());
        self.problems.error(
            "E301",
            Some(node.at),
            path,
            format!("`{path}` must be {bounds}, and this is {raw}"),
        );
    }

    fn unknown(&mut self, key: &Node, written: &str, fields: &'static [Field], path: &str) {
        let here = join(path, written);
        let place = if path.is_empty() {
            "a job file".to_owned()
        } else {
            format!("`{}`", without_index(path))
        };
        let finding = self
            .problems
            .error("E301", Some(key.at), &here, format!("{place} has no field `{written}`"));
        if finding.is_left_out() {
            return;
        }
        if let Some(name) = nearest(written, fields.iter().map(|field| field.name).chain(batch_words(path))) {
            finding.suggest(format!("did you mean `{name}`?"));
        } else if let Some(elsewhere) = find_elsewhere(written) {
            finding.suggest(format!("did you mean `{elsewhere}`?"));
        } else {
            let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
            finding.suggest(format!("the fields here are {}", names.join(", ")));
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The path with `[]` for the number of each item.
fn any_item(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut in_index = false;
    for c in path.chars() {
        in_index &= c != ']';
        if !in_index {
            out.push(c);
        }
        in_index |= c == '[';
    }
    out
}

fn without_index(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

/// `batch` stands for `sheet` in every key.
fn as_sheet(fields: &'static [Field], written: &str) -> Option<&'static Field> {
    let name = if written == "batch" {
        "sheet".to_owned()
    } else {
        written.replace("batches", "sheets").replace("batch", "sheet")
    };
    fields
        .iter()
        .find(|field| field.name == name && written.contains("batch"))
}

fn batch_words(path: &str) -> Option<&'static str> {
    path.is_empty().then_some("batch")
}

/// The one other section that has a field of exactly that name.
fn find_elsewhere(name: &str) -> Option<String> {
    let mut found = JOB.iter().filter_map(|section| {
        let Type::Section(fields) = section.kind else {
            return None;
        };
        fields
            .iter()
            .any(|field| field.name == name)
            .then(|| format!("{}.{name}", section.name))
    });
    let first = found.next()?;
    // Where several sections have it, those that work come first in the table.
    Some(first)
}

fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn whole_bounds(min: i64, max: i64) -> String {
    if max >= i64::from(u32::MAX) {
        format!("at least {min}")
    } else {
        format!("from {min} to {max}")
    }
}

fn number_bounds(bounds: &Bounds) -> String {
    let lower = if bounds.above {
        format!("above {}", bounds.min)
    } else {
        format!("at least {}", bounds.min)
    };
    if bounds.max < f64::MAX {
        format!("{lower} and at most {}", bounds.max)
    } else {
        lower
    }
}

/// It asks for nothing at all.
fn is_inert(node: &Node) -> bool {
    match &node.kind {
        Kind::List(items) => items.is_empty(),
        Kind::Map(entries) => entries.iter().all(|(_, value)| is_inert(value)),
        Kind::Scalar(scalar) => matches!(scalar.value, Value::Null | Value::Bool(false)),
    }
}

/// A field within it is refused: then that error says enough.
fn has_refused_use(node: &Node, kind: &Type) -> bool {
    let (Type::Section(fields), Some(entries)) = (kind, node.map()) else {
        return false;
    };
    entries.iter().any(|(key, value)| {
        fields.iter().any(|field| {
            key.text() == Some(field.name) && matches!(field.effect, Effect::Refused(is_used) if is_used(value))
        })
    })
}
