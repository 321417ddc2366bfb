//! Collecting problems, and showing them to a person.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::yaml::Mark;
use crate::model::{Problem, Severity};

/// Problems that one file may have before the rest is only counted.
const MAX_PROBLEMS: usize = 200;

/// Everything that was found so far.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    left_out: usize,
    /// What only a run refuses is a warning.
    lenient: bool,
}

/// One problem under construction; kept when dropped from the chain.
pub(crate) struct Finding<'p>(Option<&'p mut Problem>);

impl Finding<'_> {
    /// What to do about it.
    pub(crate) fn suggest(self, suggestion: impl Into<String>) -> Self {
        let suggestion = suggestion.into();
        self.edit(|problem| problem.suggestion = Some(suggestion))
    }

    /// Another fact.
    pub(crate) fn with(self, key: &str, value: impl ToString) -> Self {
        let value = value.to_string();
        self.edit(|problem| {
            problem.metadata.insert(key.to_owned(), value);
        })
    }

    /// `validate --fix` could mend it.
    pub(crate) fn fixable(self) -> Self {
        self.edit(|problem| problem.auto_fixable = true)
    }

    /// Whether there are so many problems that this one is not shown.
    pub(crate) fn is_left_out(&self) -> bool {
        self.0.is_none()
    }

    fn edit(mut self, edit: impl FnOnce(&mut Problem)) -> Self {
        if let Some(problem) = self.0.as_deref_mut() {
            edit(problem);
        }
        self
    }
}

impl Problems {
    /// None yet; what is known and not supported yet will only be a warning.
    pub(crate) fn lenient() -> Self {
        Self {
            lenient: true,
            ..Self::default()
        }
    }

    /// Something that is known, and that this version cannot run.
    pub(crate) fn unsupported(&mut self, at: Option<Mark>, field: &str, message: impl Into<String>) -> Finding<'_> {
        let severity = if self.lenient {
            Severity::Warning
        } else {
            Severity::Error
        };
        self.add("E301", severity, at, field, message.into())
    }

    /// An error at a field.
    pub(crate) fn error(&mut self, id: &str, at: Option<Mark>, field: &str, message: impl Into<String>) -> Finding<'_> {
        self.add(id, Severity::Error, at, field, message.into())
    }

    /// A warning at a field.
    pub(crate) fn warning(
        &mut self,
        id: &str,
        at: Option<Mark>,
        field: &str,
        message: impl Into<String>,
    ) -> Finding<'_> {
        self.add(id, Severity::Warning, at, field, message.into())
    }

    /// Something worth knowing.
    pub(crate) fn info(&mut self, id: &str, at: Option<Mark>, field: &str, message: impl Into<String>) -> Finding<'_> {
        self.add(id, Severity::Info, at, field, message.into())
    }

    fn add(&mut self, id: &str, severity: Severity, at: Option<Mark>, field: &str, message: String) -> Finding<'_> {
        if self.list.len() >= MAX_PROBLEMS {
            self.left_out += 1;
            return Finding(None);
        }
        let mut metadata = BTreeMap::new();
        if !field.is_empty() {
            metadata.insert("field".to_owned(), field.to_owned());
        }
        self.list.push(Problem {
            check_id: id.to_owned(),
            severity,
            message,
            line: at.map(|at| at.line),
            column: at.map(|at| at.column),
            context: (!field.is_empty()).then(|| field.to_owned()),
            suggestion: None,
            auto_fixable: false,
            metadata,
        });
        Finding(self.list.last_mut())
    }

    /// Whether there is an error of another code than these.
    pub(crate) fn any_beyond(&self, codes: &[&str]) -> bool {
        let is_beyond =
            |problem: &Problem| problem.severity == Severity::Error && !codes.contains(&problem.check_id.as_str());
        self.left_out > 0 || self.list.iter().any(is_beyond)
    }

    /// Whether there is an error at a field whose path begins so.
    pub(crate) fn any_error_at(&self, start: &str) -> bool {
        self.list.iter().any(|problem| {
            problem.severity == Severity::Error
                && problem.context.as_ref().is_some_and(|field| field.starts_with(start))
        })
    }

    /// All of them in the file's order, those without a place last.
    pub(crate) fn finish(mut self) -> Vec<Problem> {
        self.list
            .sort_by_key(|problem| (problem.line.is_none(), problem.line, problem.column, problem.severity));
        if self.left_out > 0 {
            let left_out = self.left_out;
            self.left_out = 0;
            self.list.push(Problem {
                check_id: "E301".to_owned(),
                severity: Severity::Error,
                message: match left_out {
                    1 => "1 more problem is not shown".to_owned(),
                    more => format!("{more} more problems are not shown"),
                },
                line: None,
                column: None,
                context: None,
                suggestion: None,
                auto_fixable: false,
                metadata: BTreeMap::new(),
            });
        }
        self.list
    }
}

/// Problems for people: severity, code, what is wrong, `file:line:column` and the line itself.
///
/// `file` is what to call the file, `text` its content; `color` uses ANSI colours.
pub fn report(problems: &[Problem], file: &str, text: &str, color: bool) -> String {
    let paint = |text: &str, code: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    // Only those that are shown are looked for and kept: a file may have millions.
    let told: BTreeSet<u32> = problems.iter().filter_map(|problem| problem.line).collect();
    let lines: BTreeMap<u32, &str> = (1..=told.last().copied().unwrap_or_default())
        .zip(text.lines())
        .filter(|(line, _)| told.contains(line))
        .collect();
    let mut out = String::new();
    for problem in problems {
        let (word, style) = match problem.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
            Severity::Info => ("info", "1;36"),
        };
        let head = paint(&format!("{word}[{}]", printable(&problem.check_id)), style);
        let message = paint(&format!(": {}", printable(&problem.message)), "1");
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{head}{message}");
        let number = problem.line.map_or(String::new(), |line| line.to_string());
        let margin = " ".repeat(number.len());
        let arrow = paint("-->", "1;34");
        let bar = paint("|", "1;34");
        let field = problem
            .metadata
            .get("field")
            .map_or(String::new(), |field| format!(" ({})", printable(field)));
        match (problem.line, problem.column) {
            (Some(line), column) => {
                let column_text = column.map_or(String::new(), |column| format!(":{column}"));
                let _ = writeln!(out, "{margin}{arrow} {}:{line}{column_text}{field}", printable(file));
                if let Some(source) = lines.get(&line) {
                    let (shown, caret) = excerpt(source, column.unwrap_or(1));
                    let (caret, width) = underline(&shown, caret);
                    let _ = writeln!(out, "{margin} {bar}");
                    let _ = writeln!(out, "{} {bar} {shown}", paint(&number, "1;34"));
                    let _ = writeln!(
                        out,
                        "{margin} {bar} {}{}",
                        " ".repeat(caret),
                        paint(&"^".repeat(width), style)
                    );
                }
            }
            (None, _) => {
                let _ = writeln!(out, "{arrow} {}{field}", printable(file));
            }
        }
        if let Some(suggestion) = &problem.suggestion {
            let _ = writeln!(out, "{margin} {} {}", paint("= help:", "1;34"), printable(suggestion));
        }
        out.push('\n');
    }
    out
}

/// Up to 120 characters of a line around a column, and how many of them stand before the column.
fn excerpt(line: &str, column: u32) -> (String, usize) {
    let column = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
    let skip = if column > 100 { column - 60 } else { 0 };
    let mut shown: String = if skip > 0 { "…".to_owned() } else { String::new() };
    shown.extend(
        line.chars()
            .skip(skip)
            .take(120)
            .map(|c| if c.is_control() { ' ' } else { c }),
    );
    if line.chars().count() > skip + 120 {
        shown.push('…');
    }
    let caret = (column - skip + usize::from(skip > 0)).min(shown.chars().count());
    (shown, caret)
}

/// Where the piece of YAML that begins there really begins, and its length: a text in quotes, a key, a plain value; of a
/// list or a map only the bracket. Behind leading spaces (a line of a block): all of the line.
fn underline(line: &str, at: usize) -> (usize, usize) {
    let rest: Vec<char> = line.chars().skip(at).collect();
    let spaces = rest.iter().take_while(|c| c.is_whitespace()).count();
    let length = |piece: &[char]| piece.iter().collect::<String>().trim_end().chars().count().max(1);
    if spaces > 0 && spaces < rest.len() {
        return (at + spaces, length(&rest[spaces..]));
    }
    let end = match rest.first() {
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            let close = rest.iter().skip(1).position(|c| {
                let closes = c == quote && !escaped;
                escaped = *c == '\\' && *quote == '"' && !escaped;
                closes
            });
            close.map_or(rest.len(), |close| close + 2)
        }
        None | Some('[' | '{' | '|' | '>' | '-') => 1,
        Some(_) => rest
            .iter()
            .enumerate()
            .position(|(index, c)| match c {
                ',' | ']' | '}' => true,
                ':' => rest.get(index + 1).is_none_or(|next| next.is_whitespace()),
                '#' => index > 0 && rest.get(index - 1).is_some_and(|before| before.is_whitespace()),
                _ => false,
            })
            .unwrap_or(rest.len()),
    };
    (at, rest.get(..end).map_or(1, length))
}

/// Text of a job file may hold escape sequences; a terminal must not see them.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_shows_place_line_and_help() {
        let mut problems = Problems::default();
        let at = |line, column| Some(Mark { line, column });
        problems.warning("V103", None, "", "no place");
        problems
            .error(
                "V007",
                at(12, 5),
                "validations[2].pattern",
                "this is no regular expression",
            )
            .suggest("close it");
        problems.error("E301", at(2, 200), "retry", "far right");
        let long = format!("name: x\n{}\n{}    pattern: \"[\"\n", "y".repeat(300), "\n".repeat(9));
        let text = report(&problems.finish(), "job.yaml", &long, false);
        let expected = format!(
            "error[E301]: far right\n --> job.yaml:2:200 (retry)\n  |\n2 | …{}…\n  | {}{}\n\n\
             error[V007]: this is no regular expression\n  --> job.yaml:12:5 (validations[2].pattern)\n   |\n\
             12 |     pattern: \"[\"\n   |     ^^^^^^^\n   = help: close it\n\n\
             warning[V103]: no place\n--> job.yaml\n\n",
            "y".repeat(120),
            " ".repeat(61),
            "^".repeat(61),
        );
        assert_eq!(text, expected);
        let coloured = report(
            &[Problem {
                message: "a\x1b[2Jb".into(),
                ..sample()
            }],
            "job.yaml",
            "",
            true,
        );
        assert!(coloured.starts_with("\x1b[1;31merror[E301]\x1b[0m"), "{coloured:?}");
        assert!(!coloured.contains("\x1b[2J"));
    }

    #[test]
    fn the_piece_at_the_place_is_underlined() {
        for (line, at, expected) in [
            ("retry: {max_retries: many, x: 1}", 21, "many"),
            ("retry: {max_retries: many}", 0, "retry"),
            (r#"path: "a \" b, c" # note"#, 6, r#""a \" b, c""#),
            ("path: 'a, b', x", 6, "'a, b'"),
            ("path: out # note", 6, "out"),
            ("url: http://x y", 5, "http://x y"),
            ("    {{ name }}  ", 0, "{{ name }}"),
            ("list: [a, b]", 6, "["),
            ("open: 'a", 6, "'a"),
            ("", 0, ""),
        ] {
            let (at, width) = underline(line, at);
            let piece: String = line.chars().skip(at).take(width).collect();
            assert_eq!(piece, expected, "{line}");
        }
    }

    fn sample() -> Problem {
        let mut problems = Problems::default();
        problems.error("E301", None, "", "x");
        problems.finish().remove(0)
    }

    #[test]
    fn a_flood_of_problems_is_cut() {
        let mut problems = Problems::default();
        for _ in 0..500 {
            problems.warning("V190", None, "", "again");
        }
        assert!(problems.any_beyond(&[]));
        let list = problems.finish();
        assert_eq!(list.len(), 201);
        assert_eq!(list[200].message, "300 more problems are not shown");
    }
}
