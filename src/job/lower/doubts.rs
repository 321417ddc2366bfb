//! What is allowed and hardly meant: rules that prove nothing or cannot hold, files that two sheets share, a prompt that
//! does not say where to write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use super::Lowering;
use crate::job::files::PathKind;
use crate::job::paths;
use crate::job::pattern::Pattern;
use crate::job::placeholder::has_expression;
use crate::job::plan::{Backend, BackendKind, Check, Dependency, Parallel, Prompt, Rule, Sheet};
use crate::job::waves::levels;
use crate::job::yaml::{Mark, Node};
use crate::model::SheetNo;
use crate::prompt::template::with_template;
use crate::prompt::variables_of;

/// Sheets whose order is looked at for one file.
const LOOKED_AT: usize = 64;
/// Directories above a path that are looked at.
const DEPTH: usize = 64;
/// Steps that finding out who waits for whom may take for a whole job.
const STEPS: usize = 2_000_000;
/// Texts that no useful pattern finds all of.
const ANY_TEXT: &[&str] = &["", "x", "\n", "two words\nand another line\n"];
/// Commands that succeed whatever was done.
const ALWAYS_TRUE: &[&str] = &["true", "/bin/true", "/usr/bin/true", ":", "exit 0", "exit"];

/// A rule as it is for one sheet.
pub(super) struct Filled {
    /// Index of the sheet.
    pub(super) sheet: usize,
    /// Index of the rule.
    pub(super) rule: usize,
    pub(super) check: Check,
}

/// What a job is made of, as far as it is lowered.
pub(super) struct Whole<'w> {
    pub(super) workspace: &'w str,
    pub(super) sheets: &'w [Sheet],
    pub(super) rules: &'w [Rule],
    pub(super) prompt: &'w Prompt,
    pub(super) dependencies: &'w [Dependency],
    pub(super) parallel: Option<&'w Parallel>,
}

impl Lowering<'_> {
    /// Looks at the job as a whole; of one with errors in its rules only what does not hang on them.
    pub(super) fn doubts(&mut self, whole: &Whole<'_>, filled: &[Filled]) {
        self.backslashes();
        if self.problems.any_error_at("validations") || self.problems.any_error_at("sheet") {
            return;
        }
        self.cannot_fail(filled);
        self.cannot_pass(whole, filled);
        self.same_for_all(whole, filled);
        self.shared_files(whole, filled);
        self.unnamed_files(whole, filled);
    }

    /// What a backend needs around it.
    pub(super) fn surroundings(&mut self, backend: &Backend) {
        let directory = Path::new(&backend.working_directory);
        let isolated = self.boolean("isolation.enabled", false) && self.text("isolation.mode") == Some("worktree");
        if isolated
            && !directory
                .ancestors()
                .any(|directory| self.is_there(&directory.join(".git")))
        {
            let message = format!(
                "{} is in no git repository, so it can have no worktree",
                directory.display()
            );
            self.problems
                .warning("V218", self.at("isolation.mode"), "isolation.mode", message)
                .suggest("run `git init` there, or set `backend.working_directory`");
        }
        let program = backend.kind.program();
        let missing = if program.contains('/') {
            Path::new(program).is_absolute() && !self.is_there(Path::new(program))
        } else {
            // Where no PATH is known nothing can be said.
            self.input.environment.get("PATH").is_some_and(|path| {
                !program.is_empty()
                    && !path
                        .split(':')
                        .any(|directory| self.is_there(&Path::new(directory).join(program)))
            })
        };
        if missing {
            let field = match backend.kind {
                BackendKind::ClaudeCli(_) => "backend.cli_path",
                BackendKind::Command { .. } => "backend.command",
            };
            let message = format!("the program `{program}` is not there now; without it no session can start");
            self.problems
                .info("V210", self.at(field), field, message)
                .suggest("install it, or correct its name or the PATH");
        }
    }

    fn is_there(&self, path: &Path) -> bool {
        self.files.kind(path) != PathKind::Missing
    }

    /// Paths as another system writes them.
    fn backslashes(&mut self) {
        let mut paths: Vec<(String, &Node)> = [
            "workspace",
            "prompt.template_file",
            "backend.system_prompt_file",
            "backend.working_directory",
        ]
        .into_iter()
        .filter_map(|field| Some((field.to_owned(), self.node(field)?)))
        .collect();
        let rules = self.root.get("validations").and_then(Node::list).unwrap_or_default();
        for (index, rule) in rules.iter().enumerate() {
            for name in ["path", "working_directory"] {
                paths.extend(
                    rule.get(name)
                        .map(|node| (format!("validations[{index}].{name}"), node)),
                );
            }
        }
        for (field, node) in paths {
            let Some(raw) = node.scalar().map(|scalar| &scalar.raw) else {
                continue;
            };
            if raw.contains('\\') && !has_expression(raw) {
                let message = format!("`{raw}` is one name with backslashes in it, not a path through directories");
                self.problems
                    .warning("V194", Some(node.at), &field, message)
                    .suggest(format!("write `{}`", raw.replace('\\', "/")))
                    .with("written", raw)
                    .fixable();
            }
        }
    }

    fn cannot_fail(&mut self, filled: &[Filled]) {
        let inputs: BTreeSet<PathBuf> = self
            .read
            .iter()
            .map(|(path, _)| PathBuf::from(path))
            .chain(self.input.path.map(Path::to_owned))
            .collect();
        let mut told = BTreeSet::new();
        let mut patterns = BTreeSet::new();
        for Filled { rule, check, .. } in filled {
            let doubt = match check {
                Check::CommandSucceeds { command, .. }
                    if ALWAYS_TRUE.contains(&command.trim().trim_end_matches(';')) =>
                {
                    (
                        "command",
                        format!("`{}` succeeds whatever the session did", command.trim()),
                    )
                }
                Check::FileExists { path } if inputs.contains(Path::new(path)) => {
                    ("path", format!("{path} is read to begin with, so it always exists"))
                }
                Check::ContentRegex { pattern, .. }
                    if !pattern.is_empty() && patterns.insert(*rule) && is_in_all(pattern) =>
                {
                    ("pattern", "this pattern is found in any text".to_owned())
                }
                _ => continue,
            };
            if told.insert(*rule) {
                self.doubt("V214", *rule, doubt, "ask for something that only good work has");
            }
        }
    }

    fn cannot_pass(&mut self, whole: &Whole<'_>, filled: &[Filled]) {
        let mut told = BTreeSet::new();
        for (index, rule) in whole.rules.iter().enumerate() {
            if let Check::ContentRegex { pattern, .. } = &rule.check
                && goes_on_behind_the_end(pattern)
            {
                let message = "`$` means the end of the file here, and more must follow it".to_owned();
                self.doubt(
                    "V215",
                    index,
                    ("pattern", message),
                    "write `(?m)` first, so that `$` means the end of a line",
                );
                told.insert(index);
            }
        }
        let mut kinds: HashMap<&Path, PathKind> = HashMap::new();
        let mut kind = |path| *kinds.entry(path).or_insert_with(|| self.files.kind(path));
        for rules in filled.chunk_by(|one, other| one.sheet == other.sheet) {
            let files: BTreeSet<&Path> = rules
                .iter()
                .filter_map(|rule| rule.check.path())
                .map(Path::new)
                .collect();
            let forbidden: Vec<(usize, PathBuf)> = rules
                .iter()
                .filter_map(|rule| Some((rule.rule, forbids(&rule.check)?)))
                .collect();
            for Filled { rule, check, .. } in rules {
                let Some(path) = check.path().map(Path::new) else {
                    continue;
                };
                if told.contains(rule) {
                    continue;
                }
                let mut above = path
                    .ancestors()
                    .skip(1)
                    .take(DEPTH)
                    .take_while(|above| above.starts_with(whole.workspace));
                let file = above.find(|above| files.contains(above) || kind(above) == PathKind::File);
                let nowhere = path.parent().is_some_and(|parent| kind(parent) == PathKind::Missing);
                if !nowhere && kind(path) == PathKind::Directory {
                    let message = format!("{} is a directory, and a rule asks for a regular file", path.display());
                    self.doubt(
                        "V215",
                        *rule,
                        ("path", message),
                        "name a file in it, or use `command_succeeds`",
                    );
                    told.insert(*rule);
                } else if let Some(file) = file {
                    let message = format!("{} is a file, so nothing can be below it", file.display());
                    self.doubt("V215", *rule, ("path", message), "give one of the two another name");
                    told.insert(*rule);
                } else if let Some((other, _)) = forbidden.iter().find(|(_, forbidden)| forbidden == path) {
                    let message = format!(
                        "validations[{other}] passes only where {} does not exist",
                        path.display()
                    );
                    self.doubt(
                        "V215",
                        *rule,
                        ("path", message),
                        "take one of the two rules out, or give it a `condition`",
                    );
                    told.insert(*rule);
                }
            }
        }
    }

    /// Rules of files only, and the same ones for every sheet.
    fn same_for_all(&mut self, whole: &Whole<'_>, filled: &[Filled]) {
        let of_files = whole.rules.iter().all(|rule| {
            rule.condition.is_none()
                && !matches!(rule.check, Check::CommandSucceeds { .. } | Check::FileModified { .. })
        });
        if whole.sheets.len() < 2 || whole.rules.is_empty() || !of_files {
            return;
        }
        let first = filled
            .chunk_by(|one, other| one.sheet == other.sheet)
            .next()
            .unwrap_or_default();
        let same = filled
            .iter()
            .all(|rule| first.get(rule.rule).is_some_and(|first| first.check == rule.check));
        if same {
            let message = "no rule depends on the sheet: what the first one writes makes all others pass";
            self.problems
                .warning("V216", self.at("validations"), "validations", message)
                .suggest("use `{sheet_num}` or another variable of the sheet in a path or pattern");
        }
    }

    /// One file that two sheets write which may run at once.
    fn shared_files(&mut self, whole: &Whole<'_>, filled: &[Filled]) {
        if whole.sheets.len() < 2 || whole.parallel.is_none_or(|parallel| parallel.max_concurrent < 2) {
            return;
        }
        let mut sharers: BTreeMap<&str, Vec<&Filled>> = BTreeMap::new();
        for rule in filled {
            if let Some(path) = rule.check.path() {
                sharers.entry(path).or_default().push(rule);
            }
        }
        sharers.retain(|_, rules| rules.iter().any(|rule| rule.sheet != rules[0].sheet));
        if sharers.is_empty() {
            return;
        }
        let order = InOrder::new(whole.sheets.len(), whole.dependencies);
        let mut steps = STEPS;
        let mut told = BTreeSet::new();
        for (path, rules) in sharers {
            let maker = rules
                .iter()
                .map(|rule| rule.sheet)
                .min_by_key(|sheet| order.level(*sheet));
            // What one sheet makes before the others begin, these only read.
            let made_before = maker.filter(|maker| {
                rules
                    .iter()
                    .take(LOOKED_AT)
                    .all(|rule| rule.sheet == *maker || order.waits(rule.sheet, *maker, &mut steps))
            });
            let writers: Vec<&Filled> = rules
                .iter()
                .take(LOOKED_AT)
                .filter(|rule| made_before.is_none() || matches!(rule.check, Check::FileModified { .. }))
                .copied()
                .collect();
            let pair = writers.iter().enumerate().find_map(|(index, one)| {
                let other = writers[index + 1..].iter().find(|other| {
                    one.sheet != other.sheet
                        && !order.waits(one.sheet, other.sheet, &mut steps)
                        && !order.waits(other.sheet, one.sheet, &mut steps)
                })?;
                Some((*one, *other))
            });
            if let Some((one, other)) = pair
                && told.insert(other.rule)
            {
                let message = format!(
                    "sheets {} and {} may run at once, and rules of both ask for {path}",
                    one.sheet + 1,
                    other.sheet + 1
                );
                self.doubt(
                    "V213",
                    other.rule,
                    ("path", message),
                    "give each a file of its own, or let one wait for the other",
                );
            }
        }
    }

    /// Where what will be checked is not appended, the prompt itself has to say where to write.
    fn unnamed_files(&mut self, whole: &Whole<'_>, filled: &[Filled]) {
        // What a `command` writes is its own affair.
        let is_told = self.text("backend.type").is_none_or(|kind| kind == "claude_cli");
        if !is_told || whole.prompt.append.requirements || self.problems.any_error_at("prompt") {
            return;
        }
        let mut missing: BTreeMap<usize, (u32, String)> = BTreeMap::new();
        let rendered = with_template(whole.prompt, whole.prompt.engine, |template| {
            for rules in filled.chunk_by(|one, other| one.sheet == other.sheet) {
                let Some(sheet) = rules.first().and_then(|rule| whole.sheets.get(rule.sheet)) else {
                    continue;
                };
                let variables = variables_of(whole.workspace, whole.sheets, whole.prompt, sheet);
                let Ok(text) = template.render(&variables) else {
                    continue;
                };
                for rule in rules {
                    let name = rule.check.path().and_then(|path| Path::new(path).file_name()?.to_str());
                    if let Some(name) = name.filter(|name| !text.contains(*name)) {
                        missing
                            .entry(rule.rule)
                            .or_insert_with(|| (sheet.number, name.to_owned()));
                    }
                }
            }
        });
        if rendered.is_err() {
            return;
        }
        for (rule, (sheet, name)) in missing {
            let message =
                format!("the prompt of sheet {sheet} does not name {name}, and the requirements are not appended");
            self.doubt("V217", rule, ("path", message), "name the file in the template");
        }
    }

    fn doubt(&mut self, code: &str, rule: usize, (name, message): (&str, String), help: &str) {
        let at: Option<Mark> = self.rule_mark(rule, name);
        self.problems
            .warning(code, at, &format!("validations[{rule}].{name}"), message)
            .suggest(help);
    }
}

/// Who waits for whom.
struct InOrder<'d> {
    levels: Vec<usize>,
    dependencies: &'d [Dependency],
}

impl<'d> InOrder<'d> {
    fn new(sheets: usize, dependencies: &'d [Dependency]) -> Self {
        Self {
            levels: levels(sheets, dependencies),
            dependencies,
        }
    }

    fn level(&self, sheet: usize) -> usize {
        self.levels.get(sheet).copied().unwrap_or(0)
    }

    /// Whether the one waits for the other, also through others. Where that takes too long: yes, so that nobody is
    /// warned for nothing.
    fn waits(&self, one: usize, other: usize, steps: &mut usize) -> bool {
        if self.level(one) <= self.level(other) {
            return false;
        }
        let number = |index: usize| SheetNo(u32::try_from(index + 1).unwrap_or(u32::MAX));
        let (target, lowest) = (number(other), self.level(other));
        let mut seen = BTreeSet::new();
        let mut open = vec![number(one)];
        while let Some(sheet) = open.pop() {
            for needs in self
                .dependencies
                .iter()
                .filter_map(|dependency| dependency.needs(sheet))
            {
                if needs.contains(target) {
                    return true;
                }
                for sheet in needs.sheets() {
                    if *steps == 0 {
                        return true;
                    }
                    let index = usize::try_from(sheet.0).unwrap_or(0).saturating_sub(1);
                    if self.level(index) > lowest && seen.insert(sheet) {
                        open.push(sheet);
                    }
                    *steps = steps.saturating_sub(1);
                }
            }
            *steps = steps.saturating_sub(self.dependencies.len());
            if *steps == 0 {
                return true;
            }
        }
        false
    }
}

fn is_in_all(pattern: &str) -> bool {
    Pattern::new(pattern, false).is_ok_and(|pattern| ANY_TEXT.iter().all(|text| pattern.is_in(text) == Ok(true)))
}

/// A `$` that means the end of the text, with something behind it that must be found too.
fn goes_on_behind_the_end(pattern: &str) -> bool {
    let multi_line = pattern.split("(?").skip(1).any(|rest| {
        rest.chars()
            .take_while(char::is_ascii_alphabetic)
            .any(|flag| flag == 'm')
    });
    if multi_line {
        return false;
    }
    let mut chars = pattern.char_indices();
    let mut in_class = false;
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => in_class = true,
            ']' => in_class = false,
            '$' if !in_class => {
                let rest = &pattern[at + 1..];
                // A bracket or a bar ends this branch or begins one that may be empty; `\n?` and the like may be, too.
                let Some(next) = rest.chars().next() else { continue };
                let behind = rest.chars().nth(if next == '\\' { 2 } else { 1 });
                if !matches!(next, '(' | ')' | '[' | '|' | '$' | '*' | '?' | '{')
                    && !rest.starts_with("\\Z")
                    && !matches!(behind, Some('?' | '*' | '{'))
                {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// The path whose absence a command asks for, where it does no more than that.
fn forbids(check: &Check) -> Option<PathBuf> {
    let Check::CommandSucceeds {
        command,
        working_directory,
        ..
    } = check
    else {
        return None;
    };
    let words: Vec<&str> = command.split_whitespace().collect();
    let path = match words.as_slice() {
        ["test", "!", "-e" | "-f" | "-s", path] | ["!", "test", "-e" | "-f" | "-s", path] => path,
        ["[", "!", "-e" | "-f" | "-s", path, "]"] | ["!", "[", "-e" | "-f" | "-s", path, "]"] => path,
        _ => return None,
    };
    let path = path.trim_matches(['"', '\'']);
    Some(paths::resolve(Path::new(working_directory.as_deref()?), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dollar_before_more_text_is_told_from_others() {
        for never in ["a$\\nb", "^x$ y", "a$b"] {
            assert!(goes_on_behind_the_end(never), "{never}");
        }
        for fine in [
            "a$",
            "(?m)^a$\\nb",
            "(?sm)a$.b",
            "(a$|b)",
            "cost: \\$5",
            "[$]5",
            "a$\\n?",
            "a$\\Z",
            "(?i)a$",
        ] {
            assert!(!goes_on_behind_the_end(fine), "{fine}");
        }
    }

    #[test]
    fn a_pattern_that_is_in_every_text_is_told_from_others() {
        for any in [".*", "x*", "(?s).*", "", "\\s*"] {
            assert!(is_in_all(any), "{any}");
        }
        for some in ["^$", ".", "x", "\\S", "(?m)^## "] {
            assert!(!is_in_all(some), "{some}");
        }
    }
}
