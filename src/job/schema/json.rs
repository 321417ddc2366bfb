//! The table of fields as a JSON Schema, for editors.
//!
//! It accepts what the parser accepts, also in the words of YAML 1.1 and in quotes. What needs more than one field, the
//! disk or a template to be judged is left to `validate`.

use serde_json::{Map, Value, json};

use crate::job::lower::backends;

use super::{Bounds, Effect, Field, JOB, NEEDS, Type};

/// The number of a sheet or stage, as the key of a map.
const SHEET_NUMBER: &str = "^[1-9][0-9]*$";
/// A whole number in quotes.
const WHOLE: &str = r"^\s*[+-]?[0-9]+\s*$";
/// A number in quotes.
const NUMBER: &str = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$";
/// What stands for true or false, in any case.
const BOOLEAN: &[&str] = &["true", "yes", "on", "t", "y", "1", "false", "no", "off", "f", "n", "0"];

/// Fields that must be there and say something, by the path of their section.
const REQUIRED: &[(&str, &[&str])] = &[
    ("", &["name"]),
    ("sheet", &["size", "total_items"]),
    ("sheet.skip_when_command.N", &["command"]),
    ("validations[]", &["type"]),
];

/// The JSON Schema (2020-12) of job files.
pub fn json_schema() -> Value {
    let mut root = section(JOB, "");
    for (name, value) in [
        ("$schema", json!("https://json-schema.org/draft/2020-12/schema")),
        ("title", json!("Mozart job file")),
        (
            "description",
            json!("A job for Mozart: sheets of work, each a session with a prompt and rules."),
        ),
        // Both words for the same section; one of them, and it is no empty one.
        (
            "oneOf",
            json!([
                {"required": ["sheet"], "properties": {"sheet": {"type": "object"}}},
                {"required": ["batch"], "properties": {"batch": {"type": "object"}}},
            ]),
        ),
    ] {
        root.insert(name.to_owned(), value);
    }
    Value::Object(root)
}

/// A value of a field as JSON: what is no JSON is a text, and so is all that a field of text takes.
pub(crate) fn literal(kind: &Type, text: &str) -> Value {
    match kind {
        Type::Text | Type::Written | Type::Shaped(..) | Type::Word(_) => json!(text),
        _ => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

fn section(fields: &[Field], path: &str) -> Map<String, Value> {
    let required = REQUIRED
        .iter()
        .find(|(section, _)| *section == path)
        .map_or(&[][..], |(_, names)| *names);
    let mut properties = Map::new();
    for field in fields {
        let here = if path.is_empty() {
            field.name.to_owned()
        } else {
            format!("{path}.{}", field.name)
        };
        let schema = described(field, &here, required.contains(&field.name));
        if let Some(word) = also(field.name) {
            let mut other = schema.clone();
            other.insert(
                "description".to_owned(),
                json!(format!("Another word for `{}`.", field.name)),
            );
            properties.insert(word, Value::Object(other));
        }
        properties.insert(field.name.to_owned(), Value::Object(schema));
    }
    let mut section = Map::new();
    section.insert("type".to_owned(), json!("object"));
    section.insert("properties".to_owned(), Value::Object(properties));
    section.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        section.insert("required".to_owned(), json!(required));
    }
    if let Some(together) = together(path) {
        section.insert("allOf".to_owned(), together);
    }
    section
}

/// What fields of a section ask of each other.
fn together(path: &str) -> Option<Value> {
    let needs = |kinds: &[&str], names: &[&str]| {
        let then: Vec<Value> = names.iter().map(|name| said(name)).collect();
        json!({"if": {"required": ["type"], "properties": {"type": {"enum": kinds}}}, "then": {"allOf": then}})
    };
    let asked: Vec<Value> = NEEDS
        .iter()
        .filter(|need| need.section == path)
        .map(|need| {
            let words = need
                .one_of
                .iter()
                .flat_map(|name| [Some((*name).to_owned()), also(name)]);
            let one: Vec<Value> = words.flatten().map(|name| said(&name)).collect();
            match need.when {
                None => json!({"anyOf": one}),
                Some((field, words)) => {
                    json!({"if": {"required": [field], "properties": {field: {"enum": words}}}, "then": {"anyOf": one}})
                }
            }
        })
        .collect();
    match path {
        _ if !asked.is_empty() => Some(json!(asked)),
        "prompt" => Some(json!([{"not": {"allOf": [said("template"), said("template_file")]}}])),
        "backend" => Some(json!([
            needs(&["command"], &["command"]),
            {"if": said("command"), "then": said("type")},
        ])),
        "validations[]" => Some(json!([
            needs(&["file_exists", "file_modified"], &["path"]),
            needs(&["content_contains", "content_regex"], &["path", "pattern"]),
            needs(&["command_succeeds"], &["command"]),
        ])),
        _ => None,
    }
}

/// A field that is there and says something; of a map within the section as `map.field`.
fn said(path: &str) -> Value {
    let (name, value) = match path.split_once('.') {
        Some((map, field)) => (map, said(field)),
        None => (path, json!({"not": {"type": "null"}})),
    };
    json!({"type": "object", "required": [name], "properties": {name: value}})
}

fn described(field: &Field, path: &str, required: bool) -> Map<String, Value> {
    let mut schema = typed(&field.kind, path);
    match path {
        "name" => {
            schema.insert("minLength".to_owned(), json!(1));
            schema.insert("maxLength".to_owned(), json!(128));
        }
        "backend.type" => {
            let known: Vec<&str> = backends().collect();
            schema.insert("enum".to_owned(), json!(known));
        }
        "validations[].path" | "validations[].command" => {
            schema.insert("pattern".to_owned(), json!(r"\S"));
        }
        "backend.command" => {
            schema.insert("minItems".to_owned(), json!(1));
        }
        _ => {}
    }
    if !required {
        schema = or_null(schema);
    }
    let no_effect = match field.effect {
        Effect::Works | Effect::Elsewhere(_) => "",
        Effect::Dormant => " It has no effect yet.",
        Effect::Refused(_) => " It is not supported yet: what asks for it is refused.",
    };
    schema.insert("description".to_owned(), json!(format!("{}{no_effect}", field.about)));
    if !matches!(field.effect, Effect::Works) {
        schema.insert("deprecated".to_owned(), json!(true));
    }
    for (name, text) in [("default", field.default), ("examples", field.example)] {
        if !text.is_empty() {
            let value = literal(&field.kind, text);
            let value = if name == "examples" { json!([value]) } else { value };
            schema.insert(name.to_owned(), value);
        }
    }
    schema
}

/// A key with nothing behind it means the default.
fn or_null(mut schema: Map<String, Value>) -> Map<String, Value> {
    match schema.get_mut("type") {
        Some(Value::Array(types)) => types.push(json!("null")),
        Some(kind @ Value::String(_)) => *kind = json!([kind.clone(), "null"]),
        _ => {
            if let Some(Value::Array(kinds)) = schema.get_mut("anyOf") {
                kinds.push(json!({"type": "null"}));
            }
        }
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    }
    schema
}

fn typed(kind: &Type, path: &str) -> Map<String, Value> {
    let schema = match kind {
        Type::Any => json!({}),
        Type::Bool => json!({"anyOf": [
            {"type": "boolean"},
            {"enum": [0, 1]},
            {"type": "string", "pattern": format!("^({})$", in_any_case(BOOLEAN))},
        ]}),
        Type::Int(min, max) => {
            let mut number = json!({"type": "integer", "minimum": min});
            if *max < i64::from(u32::MAX) {
                number["maximum"] = json!(max);
            }
            json!({"anyOf": [number, {"type": "string", "pattern": WHOLE}]})
        }
        Type::Number(bounds) => json!({"anyOf": [number(bounds), {"type": "string", "pattern": NUMBER}]}),
        Type::Text => json!({"type": "string"}),
        Type::Shaped(shape, _) => json!({"type": "string", "pattern": shape}),
        Type::Written => json!({"type": ["string", "number", "boolean"]}),
        Type::Word(words) => {
            let mut words: Vec<Value> = words.iter().map(|word| json!(word)).collect();
            // What YAML 1.1 makes of these words.
            if words.contains(&json!("off")) {
                words.push(json!(false));
            }
            json!({"enum": words})
        }
        Type::List(item) => {
            json!({"type": "array", "items": typed(item, &format!("{path}[]"))})
        }
        Type::BySheet(value) => json!({
            "type": "object",
            "propertyNames": {"pattern": SHEET_NUMBER},
            "additionalProperties": or_null(typed(value, &format!("{path}.N"))),
        }),
        Type::ByName(value) => json!({
            "type": "object",
            "additionalProperties": or_null(typed(value, &format!("{path}.NAME"))),
        }),
        Type::Section(fields) => return section(fields, path),
        Type::Either(kinds, _) => {
            let kinds: Vec<Value> = kinds.iter().map(|kind| Value::Object(typed(kind, path))).collect();
            json!({"anyOf": kinds})
        }
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

fn number(bounds: &Bounds) -> Value {
    let mut number = json!({"type": "number"});
    if bounds.min > f64::MIN {
        let word = if bounds.above { "exclusiveMinimum" } else { "minimum" };
        number[word] = json!(bounds.min);
    }
    if bounds.max < f64::MAX {
        number["maximum"] = json!(bounds.max);
    }
    number
}

/// A pattern for any of the words, because JSON Schema knows no flag for it.
fn in_any_case(words: &[&str]) -> String {
    let one = |word: &&str| -> String {
        word.chars()
            .map(|c| {
                if c.is_alphabetic() {
                    format!("[{}{c}]", c.to_ascii_uppercase())
                } else {
                    c.to_string()
                }
            })
            .collect()
    };
    words.iter().map(one).collect::<Vec<_>>().join("|")
}

/// The same key with `batch` for `sheet`.
fn also(name: &str) -> Option<String> {
    let other = name.replace("sheets", "batches").replace("sheet", "batch");
    (other != name).then_some(other)
}
