//! What must be true of each sheet's output.

use super::Lowering;
use crate::job::condition::Condition;
use crate::job::files::PathKind;
use crate::job::paths;
use crate::job::pattern::Pattern;
use crate::job::placeholder::{has_expression, has_placeholders};
use crate::job::plan::{Check, Rule};
use crate::job::schema;
use crate::job::yaml::Node;
use crate::model::Span;

impl Lowering<'_> {
    pub(super) fn validations(&mut self, workspace: &str) -> Vec<Rule> {
        let items = self.root.get("validations").and_then(Node::list).unwrap_or_default();
        let rules: Vec<Option<Rule>> = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.rule(item, index, workspace))
            .collect();
        let none = self
            .node("validations")
            .is_none_or(|node| node.list().is_some_and(<[Node]>::is_empty));
        if none {
            let at = self.at("validations");
            self.problems
                .warning(
                    "V203",
                    at,
                    "validations",
                    "there are no validations: a sheet counts as done when its session says so",
                )
                .suggest("add at least one rule that only good work can pass");
        } else if !rules.is_empty()
            && rules.iter().all(|rule| {
                matches!(
                    rule,
                    Some(Rule {
                        check: Check::FileExists { .. },
                        ..
                    })
                )
            })
        {
            let at = self.at("validations");
            let message = "all validations only ask whether a file exists: an empty one passes";
            self.problems.info("V205", at, "validations", message);
        }
        // A rule that could not be read was reported; one in its place keeps the indices of the others.
        rules.into_iter().map(|rule| rule.unwrap_or_else(nothing)).collect()
    }

    fn rule(&mut self, item: &Node, index: usize, workspace: &str) -> Option<Rule> {
        item.map()?;
        let field = |name: &str| format!("validations[{index}].{name}");
        let text = |name: &str| {
            let node = item.get(name).filter(|node| !node.is_null());
            node.and_then(Node::scalar).map(|scalar| scalar.raw.clone())
        };
        let Some(kind) = text("type") else {
            let message = "this rule needs a `type`";
            self.problems.error("V008", Some(item.at), &field("type"), message);
            return None;
        };
        let mut required = |name: &str| {
            // An empty pattern is one (V106); an empty path or command is none.
            let value = text(name).filter(|value| name == "pattern" || !value.trim().is_empty());
            let written = item.get(name).filter(|node| !node.is_null());
            if value.is_none() && written.is_none_or(|node| node.scalar().is_some()) {
                let message = format!("a rule of type `{kind}` needs `{name}`");
                let at = written.map_or(item.at, |node| node.at);
                self.problems.error("V008", Some(at), &field(name), message);
            }
            value
        };
        let check = match kind.as_str() {
            "file_exists" => Check::FileExists {
                path: required("path")?,
            },
            "file_modified" => Check::FileModified {
                path: required("path")?,
            },
            "content_contains" | "content_regex" => {
                let (path, pattern) = (required("path"), required("pattern"));
                let (path, pattern) = (path?, pattern?);
                if kind == "content_regex" {
                    Check::ContentRegex { path, pattern }
                } else {
                    Check::ContentContains { path, pattern }
                }
            }
            "command_succeeds" => {
                let seconds = item
                    .get("timeout_seconds")
                    .and_then(schema::number)
                    .filter(|seconds| *seconds > 0.0);
                Check::CommandSucceeds {
                    command: required("command")?,
                    working_directory: text("working_directory"),
                    timeout: Span::from_secs_f64(seconds.unwrap_or(300.0)),
                }
            }
            _ => return None,
        };
        let check = self.checked(check, item, index, workspace);
        for name in of_no_use(&check) {
            if let Some(node) = item.get(name).filter(|node| !node.is_null()) {
                let message = format!("`{name}` has no effect with `type: {kind}`");
                self.problems.warning("V190", Some(node.at), &field(name), message);
            }
        }
        let condition = text("condition");
        if let (Some(Err(error)), Some(node)) = (condition.as_deref().map(Condition::parse), item.get("condition")) {
            let message = format!("the condition cannot be read: {error}");
            self.problems
                .error("E301", Some(node.at), &field("condition"), message)
                .suggest("write comparisons such as `sheet_num >= 2 and stage in [1, 3]`");
        }
        let count = |name: &str, default: u32| {
            item.get(name)
                .and_then(schema::integer)
                .and_then(|value| u32::try_from(value).ok())
                .unwrap_or(default)
        };
        // A command is run once unless the job says otherwise: running it again may do something again.
        let tries = if matches!(check, Check::CommandSucceeds { .. }) {
            0
        } else {
            3
        };
        Some(Rule {
            check,
            description: text("description"),
            stage: u8::try_from(count("stage", 1)).unwrap_or(1).clamp(1, 10),
            condition,
            retry_count: count("retry_count", tries),
            retry_delay: Span::from_secs_f64(f64::from(count("retry_delay_ms", 200)) / 1000.0),
        })
    }

    /// Paths with `~` and `${NAME}` filled in, and what can be said of a rule without knowing the sheet.
    fn checked(&mut self, check: Check, item: &Node, index: usize, workspace: &str) -> Check {
        let at = |name: &str| item.get(name).map(|node| node.at);
        let field = |name: &str| format!("validations[{index}].{name}");
        let mut path = |name: &'static str, path: String| match paths::expand_environment(&path, self.input.environment)
        {
            Ok(path) => path,
            Err(error) => {
                self.problems
                    .error("E303", at(name), &field(name), format!("`{}`: {error}", field(name)));
                path
            }
        };
        let check = match check {
            Check::FileExists { path: file } => Check::FileExists {
                path: path("path", file),
            },
            Check::FileModified { path: file } => Check::FileModified {
                path: path("path", file),
            },
            Check::ContentContains { path: file, pattern } => Check::ContentContains {
                path: path("path", file),
                pattern,
            },
            Check::ContentRegex { path: file, pattern } => Check::ContentRegex {
                path: path("path", file),
                pattern,
            },
            Check::CommandSucceeds {
                command,
                working_directory,
                timeout,
            } => Check::CommandSucceeds {
                command,
                working_directory: working_directory.map(|directory| path("working_directory", directory)),
                timeout,
            },
        };
        if let Check::ContentContains { pattern, .. } | Check::ContentRegex { pattern, .. } = &check {
            if pattern.is_empty() {
                let message = "an empty pattern is in every file, so this rule always passes";
                self.problems.warning("V106", at("pattern"), &field("pattern"), message);
            }
            if let Check::ContentRegex { .. } = &check
                && !has_placeholders(pattern)
                && let Err(error) = Pattern::new(pattern, false)
            {
                let message = format!("this is no regular expression: {error}");
                self.problems.error("V007", at("pattern"), &field("pattern"), message);
            }
        }
        if let Some(path) = check.path() {
            if has_expression(path) {
                self.problems.info(
                    "V201",
                    at("path"),
                    &field("path"),
                    "`{{ … }}` works in paths; `{name}` is shorter",
                );
            }
            let content = matches!(check, Check::ContentContains { .. } | Check::ContentRegex { .. });
            let full = paths::resolve(workspace.as_ref(), path);
            if content && !has_placeholders(path) && self.files.kind(&full) == PathKind::Missing {
                let message = format!("{} does not exist now; the job has to make it", full.display());
                self.problems.warning("V107", at("path"), &field("path"), message);
            }
        }
        check
    }
}

/// What other types of rules ask for, and this one passes over.
fn of_no_use(check: &Check) -> &'static [&'static str] {
    match check {
        Check::FileExists { .. } | Check::FileModified { .. } => &["pattern", "command"],
        Check::ContentContains { .. } | Check::ContentRegex { .. } => &["command"],
        Check::CommandSucceeds { .. } => &["path", "pattern"],
    }
}

/// Stands for a rule that could not be read; no plan with one is ever made.
fn nothing() -> Rule {
    Rule {
        check: Check::FileExists { path: ".".to_owned() },
        description: None,
        stage: 1,
        condition: None,
        retry_count: 0,
        retry_delay: Span(0),
    }
}
