//! mozart.yaml(5): the manual page of job files, from the same tables as the checks.

use std::fmt::Write;

use super::pages::pages;
use super::schema::{Bounds, Effect, Field, JOB, Type};

/// The page in roff.
pub fn manual() -> String {
    let mut out = String::from(concat!(
        ".TH MOZART.YAML 5 \"\" \"Mozart ",
        env!("CARGO_PKG_VERSION"),
        "\" \"Mozart\"\n.SH NAME\nmozart.yaml \\- job files of Mozart\n"
    ));
    for (heading, text) in [
        (
            "DESCRIPTION",
            "A job file says which work there is, how it divides into sheets, what the session of each sheet is told, and what \
             must be true of its output. It is YAML, read as YAML 1.1: yes, no, on and off are booleans. In every key \
             and section, batch is another word for sheet.",
        ),
        (
            "PATHS",
            "The workspace, template_file, system_prompt_file and working_directory are relative to the job file; paths in \
             validations are relative to the workspace, and do not leave it. ~ and ${NAME} are filled in, once.",
        ),
        (
            "PLACEHOLDERS",
            "Paths, patterns and commands of validations take {name} and {name:02d}, where name is a variable of the \
             template, and {{ expression }}. In commands each value is quoted for the place where it stands.",
        ),
        (
            "VARIABLES",
            "Templates know sheet_num, total_sheets, batch_num, total_batches, start_item, end_item, workspace, stage, \
             instance, fan_count, total_stages, previous_outputs, previous_files, what stands in prompt.variables, stakes \
             and thinking_method.",
        ),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, ".SH {heading}\n{}", escaped(text));
    }
    out.push_str(".SH FIELDS\n");
    fields(&mut out, JOB);
    for field in JOB {
        if let Some(fields_of) = section_of(&field.kind) {
            let _ = writeln!(out, ".SH {}", escaped(&field.name.to_uppercase()));
            let _ = writeln!(out, "{}", escaped(&about(field)));
            fields(&mut out, fields_of);
            nested(&mut out, fields_of, field.name);
        }
    }
    out.push_str(".SH CODES\nmozartctl explain CODE says more.\n");
    for page in pages() {
        let _ = writeln!(out, ".TP\n.B {}\n{}", page.code, escaped(page.title));
    }
    out.push_str(".SH SEE ALSO\nmozartctl new, mozartctl validate, mozartctl schema\n");
    out
}

/// Sections within a section, under their whole path.
fn nested(out: &mut String, fields_of: &[Field], path: &str) {
    for field in fields_of {
        if let Some(inner) = section_of(&field.kind) {
            let path = format!("{path}.{}", field.name);
            let _ = writeln!(out, ".SS {}", escaped(&path));
            fields(out, inner);
            nested(out, inner, &path);
        }
    }
}

fn fields(out: &mut String, fields: &[Field]) {
    for field in fields {
        let kind = kind(&field.kind);
        let default = match field.default {
            "" => String::new(),
            default => format!(" = {default}"),
        };
        let _ = writeln!(
            out,
            ".TP\n\\fB{}\\fR ({}{})",
            escaped(field.name),
            escaped(&kind),
            escaped(&default)
        );
        let _ = writeln!(out, "{}", escaped(&about(field)));
        if !field.example.is_empty() {
            let _ = writeln!(out, "Example: \\fI{}\\fR", escaped(field.example));
        }
    }
}

fn about(field: &Field) -> String {
    let effect = match field.effect {
        Effect::Works | Effect::Elsewhere(_) => "",
        Effect::Dormant => " It has no effect yet.",
        Effect::Refused(_) => " What asks for it is refused: it is not supported yet.",
    };
    format!("{}{effect}", field.about)
}

/// The fields of a section, also of a list or map of sections.
fn section_of(kind: &Type) -> Option<&'static [Field]> {
    match kind {
        Type::Section(fields) => Some(fields),
        Type::List(item) | Type::BySheet(item) | Type::ByName(item) => section_of(item),
        Type::Either(kinds, _) => kinds.iter().find_map(section_of),
        _ => None,
    }
}

fn kind(kind: &Type) -> String {
    match kind {
        Type::Bool => "boolean".to_owned(),
        Type::Int(min, max) if *max >= i64::from(u32::MAX) => format!("whole number from {min}"),
        Type::Int(min, max) => format!("whole number, {min} to {max}"),
        Type::Number(bounds) => number(bounds),
        Type::Text | Type::Written => "text".to_owned(),
        Type::Shaped(_, wanted) => (*wanted).to_owned(),
        Type::Word(words) => words.join(" | "),
        Type::List(item) => format!("list of {}", self::kind(item)),
        Type::BySheet(item) => format!("map from numbers of sheets to {}", self::kind(item)),
        Type::ByName(item) => format!("map from names to {}", self::kind(item)),
        Type::Section(_) => "section".to_owned(),
        Type::Either(_, wanted) => (*wanted).to_owned(),
        Type::Any => "any value".to_owned(),
    }
}

fn number(bounds: &Bounds) -> String {
    let lower = match (bounds.min > f64::MIN, bounds.above) {
        (false, _) => String::new(),
        (true, true) => format!(" above {}", bounds.min),
        (true, false) => format!(" from {}", bounds.min),
    };
    let upper = if bounds.max < f64::MAX {
        format!(" to {}", bounds.max)
    } else {
        String::new()
    };
    format!("number{lower}{upper}")
}

/// Text as roff prints it unchanged.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('`', "");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_names_every_field_and_code_and_has_no_stray_request() {
        let manual = manual();
        fn walk(fields: &'static [Field], manual: &str) {
            for field in fields {
                let name = format!("\\fB{}\\fR (", escaped(field.name));
                assert!(manual.contains(&name), "{}", field.name);
                assert!(manual.contains(&escaped(field.about)), "{}", field.about);
                if let Some(fields) = section_of(&field.kind) {
                    walk(fields, manual);
                }
            }
        }
        walk(JOB, &manual);
        for page in pages() {
            assert!(manual.contains(&format!(".B {}\n", page.code)), "{}", page.code);
        }
        for line in manual.lines().filter(|line| line.starts_with(['.', '\''])) {
            let known = [".TH ", ".SH ", ".SS ", ".TP", ".B ", ".BR "];
            assert!(known.iter().any(|request| line.starts_with(request)), "{line}");
        }
    }
}
