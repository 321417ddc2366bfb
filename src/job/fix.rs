//! What `validate --fix` mends: only what cannot change what a job means.

use std::path::PathBuf;

use crate::model::Problem;

/// What would mend a job file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixes {
    /// Directories to make, with those above them.
    pub directories: Vec<PathBuf>,
    /// The job file's new text, where it changes.
    pub text: Option<String>,
    /// What changes in it, for a person: lines such as `line 7: out\a.md → out/a.md`.
    pub changes: Vec<String>,
}

/// The fixes of those problems that say that they can be fixed.
pub fn fixes(problems: &[Problem], text: &str) -> Fixes {
    let mut fixes = Fixes::default();
    let mut edits: Vec<(u32, u32, &str)> = Vec::new();
    for problem in problems.iter().filter(|problem| problem.auto_fixable) {
        if let Some(directory) = problem.metadata.get("directory") {
            fixes.directories.push(PathBuf::from(directory));
        }
        if let (Some(line), Some(column), Some(written)) =
            (problem.line, problem.column, problem.metadata.get("written"))
        {
            edits.push((line, column, written));
        }
    }
    // From the last on, so that no edit moves the place of another.
    edits.sort_unstable();
    edits.dedup();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for (number, column, written) in edits.into_iter().rev() {
        let line = usize::try_from(number)
            .ok()
            .and_then(|number| lines.get_mut(number.checked_sub(1)?));
        let Some(line) = line else { continue };
        let Some(edited) = with_slashes(line, column, written) else {
            continue;
        };
        *line = edited;
        fixes
            .changes
            .push(format!("line {number}: {written} → {}", slashes(written)));
    }
    fixes.changes.reverse();
    if !fixes.changes.is_empty() {
        fixes.text = Some(lines.concat());
    }
    fixes
}

fn slashes(path: &str) -> String {
    path.replace('\\', "/")
}

/// The line with the scalar at that column written with slashes; `None` where the scalar does not stand there as one
/// piece.
fn with_slashes(line: &str, column: u32, written: &str) -> Option<String> {
    let column = usize::try_from(column).ok()?.checked_sub(1)?;
    let at = line.char_indices().nth(column)?.0;
    let (before, rest) = line.split_at(at);
    let quote = rest.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let body = quote.map_or(rest, |_| &rest[1..]);
    let as_written = match quote {
        Some('"') => written.replace('\\', "\\\\"),
        _ => written.to_owned(),
    };
    let after = body.strip_prefix(as_written.as_str())?;
    // It must end there.
    match quote {
        Some(quote) => after.starts_with(quote).then_some(())?,
        None => after
            .chars()
            .next()
            .is_none_or(|c| c.is_whitespace() || matches!(c, ',' | '}' | ']'))
            .then_some(())?,
    }
    let quote = quote.map_or(String::new(), String::from);
    Some(format!("{before}{quote}{}{after}", slashes(written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_scalar_at_its_place_is_edited() {
        let table = [
            (r"path: out\a.md", 7, r"out\a.md", Some("path: out/a.md")),
            (
                r"- {path: 'out\a.md', x: 1}",
                10,
                r"out\a.md",
                Some("- {path: 'out/a.md', x: 1}"),
            ),
            (r#"path: "out\\a.md""#, 7, r"out\a.md", Some(r#"path: "out/a.md""#)),
            (
                r"path: out\a.md # ü out\a.md",
                7,
                r"out\a.md",
                Some(r"path: out/a.md # ü out\a.md"),
            ),
            // Another escape, a longer scalar, another place: left alone.
            (r#"path: "out\x5ca.md""#, 7, r"out\a.md", None),
            (r"path: out\a.md.bak", 7, r"out\a.md", None),
            (r"path: &p out\a.md", 7, r"out\a.md", None),
            (r"path: out\a.md", 70, r"out\a.md", None),
        ];
        for (line, column, written, expected) in table {
            assert_eq!(with_slashes(line, column, written).as_deref(), expected, "{line}");
        }
    }
}
