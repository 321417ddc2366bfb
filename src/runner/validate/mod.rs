//! Looks whether a sheet's output is what the job's rules ask for: the third verdict, Mozart's own.
//!
//! Files are read here, bounded in size; commands run through the launcher, each in a unit of its own, so that a
//! check is ended as surely as a session is. Rules of a stage are looked at only when all earlier stages passed.

pub mod baseline;
mod command;
mod file;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::launch::{Launcher, now};
use super::spec::Secrets;
use crate::job::plan::Check;
use crate::job::rules::SheetRule;
use crate::model::{Code, RuleResult, Timestamp, ValidationReport};
use crate::probe::{self, Point};

use baseline::Baseline;
pub use command::end_leftovers;

/// What the checks of one attempt need.
#[derive(Debug)]
pub struct Checks<'a> {
    /// Runs the commands.
    pub launcher: &'a Launcher,
    /// The attempt's unit, without `.service`; its checks are `<unit>-v1`, `<unit>-v2`, ….
    pub unit: &'a str,
    /// The attempt's spool; each command has a directory in it.
    pub spool: &'a Path,
    /// The session's environment without its secrets.
    pub env: &'a BTreeMap<String, String>,
    /// Values that must not stand in a report.
    pub secrets: &'a Secrets,
    /// The files of `file_modified` rules as they were before the sheet's first attempt.
    pub baseline: Arc<Baseline>,
}

/// Whether the file of a rule is as it asks, as far as that shows without knowing what it was: `file_modified` is asked
/// for a file that is there. Blocks.
pub fn holds_now(rule: &SheetRule) -> bool {
    let check = match &rule.check {
        Check::FileModified { path } => Check::FileExists { path: path.clone() },
        other => other.clone(),
    };
    file::look(&check, "", &Baseline::take(&[])).failure.is_none()
}

/// What one look at a rule found.
#[derive(Debug, Clone, Default, PartialEq)]
struct Finding {
    /// None: it holds.
    failure: Option<Wrong>,
    actual: Option<String>,
    expected: Option<String>,
}

/// Why a rule does not hold.
#[derive(Debug, Clone, PartialEq)]
struct Wrong {
    code: Code,
    category: &'static str,
    reason: String,
    hint: Option<String>,
}

impl Finding {
    fn good(actual: impl Into<String>) -> Self {
        Self {
            actual: Some(actual.into()),
            ..Self::default()
        }
    }

    fn wrong(code: Code, category: &'static str, reason: impl Into<String>) -> Self {
        let wrong = Wrong {
            code,
            category,
            reason: reason.into(),
            hint: None,
        };
        Self {
            failure: Some(wrong),
            ..Self::default()
        }
    }

    fn actual(mut self, actual: impl Into<String>) -> Self {
        self.actual = Some(actual.into());
        self
    }

    fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        if let Some(wrong) = &mut self.failure {
            wrong.hint = Some(hint.into());
        }
        self
    }
}

impl Checks<'_> {
    /// Checks every rule, stage by stage; the results stand in the order of `rules`.
    pub async fn run(&self, rules: &[SheetRule]) -> ValidationReport {
        let mut results: Vec<Option<RuleResult>> = vec![None; rules.len()];
        let mut stages: Vec<u8> = rules.iter().map(|rule| rule.stage).collect();
        stages.sort_unstable();
        stages.dedup();
        let mut failed_stage = None;
        for stage in stages {
            let of_stage = || rules.iter().enumerate().filter(move |(_, rule)| rule.stage == stage);
            if let Some(failed) = failed_stage {
                for (index, rule) in of_stage() {
                    results[index] = Some(skipped(rule, failed));
                }
                continue;
            }
            for (index, rule) in of_stage() {
                let result = self.check(rule).await;
                if !result.passed {
                    failed_stage = Some(stage);
                }
                results[index] = Some(result);
            }
        }
        ValidationReport {
            rules: results.into_iter().flatten().collect(),
        }
    }

    async fn check(&self, rule: &SheetRule) -> RuleResult {
        let checked_at = now();
        let begun = Instant::now();
        probe::pass(Point::Validating);
        let mut finding = self.look(rule).await;
        for _ in 0..rule.retry_count {
            if finding.failure.is_none() {
                break;
            }
            tokio::time::sleep(rule.retry_delay.to_duration()).await;
            finding = self.look(rule).await;
        }
        result(rule, finding, checked_at, begun)
    }

    async fn look(&self, rule: &SheetRule) -> Finding {
        match &rule.check {
            Check::CommandSucceeds {
                command,
                working_directory,
                timeout,
            } => self.command(command, working_directory.as_deref(), *timeout).await,
            _ => {
                let (check, baseline) = (rule.check.clone(), Arc::clone(&self.baseline));
                let shown = rule.shown_path.clone().unwrap_or_default();
                let looked = tokio::task::spawn_blocking(move || file::look(&check, &shown, &baseline)).await;
                looked.unwrap_or_else(|_| Finding::wrong(Code::E209, "error", "the check itself broke off"))
            }
        }
    }
}

fn result(rule: &SheetRule, finding: Finding, checked_at: Timestamp, begun: Instant) -> RuleResult {
    let Finding {
        failure,
        actual,
        expected,
    } = finding;
    let passed = failure.is_none();
    let (code, category, reason, hint) = match failure {
        Some(wrong) => (
            Some(wrong.code),
            Some(wrong.category.to_owned()),
            Some(wrong.reason),
            wrong.hint,
        ),
        None => (None, None, None, None),
    };
    RuleResult {
        rule: rule.index,
        kind: rule.check.as_str().to_owned(),
        description: rule.description.clone(),
        path: rule.check.path().map(str::to_owned),
        pattern: match &rule.check {
            Check::ContentContains { pattern, .. } | Check::ContentRegex { pattern, .. } => Some(pattern.clone()),
            Check::CommandSucceeds { command, .. } => Some(command.clone()),
            Check::FileExists { .. } | Check::FileModified { .. } => None,
        },
        passed,
        actual,
        expected,
        reason,
        category,
        hint,
        checked_at,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        code,
    }
}

fn skipped(rule: &SheetRule, failed_stage: u8) -> RuleResult {
    let reason = format!("not checked, because a rule of stage {failed_stage} failed");
    result(
        rule,
        Finding::wrong(Code::E209, "skipped", reason),
        now(),
        Instant::now(),
    )
}
