//! Before a run's first start: is the program there, which version is it, and is there a login?
//!
//! Only a missing program refuses a job. What is merely suspected is told as a warning: whether a login works
//! only the program itself can say.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::job::plan::{BackendKind, Plan};
use crate::model::{Problem, Severity};
use crate::runner::backend;
use crate::runner::spec::Secrets;

/// The CLI answers `--version` in half a second; one that needs longer than this is not asked further.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// Absolute path of `program`: as it is if it has a slash (relative to `directory`), else looked up on `path`.
///
/// # Errors
/// One sentence that says what was looked for and where.
pub(super) fn find(program: &str, path: Option<&String>, directory: &Path) -> Result<PathBuf, String> {
    if program.contains('/') {
        let absolute = directory.join(program);
        return if is_executable(&absolute) {
            Ok(absolute)
        } else if absolute.exists() {
            Err(format!("the program {} is not an executable file", absolute.display()))
        } else {
            Err(format!("the program {} does not exist", absolute.display()))
        };
    }
    let path = path.map_or("/usr/local/bin:/usr/bin:/bin", String::as_str);
    path.split(':')
        .filter(|entry| entry.starts_with('/'))
        .map(|entry| Path::new(entry).join(program))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| format!("the program `{program}` is not on the submitter's PATH ({path})"))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What a person should know before the first start. `told`: names of secrets that the submitter's shell has.
pub(super) async fn warnings(
    plan: &Plan,
    program: &Path,
    environment: &BTreeMap<String, String>,
    secrets: &Secrets,
    told: &str,
) -> Vec<Problem> {
    let mut problems: Vec<_> = missing_secrets(plan, secrets, told)
        .into_iter()
        .map(|message| problem(Severity::Warning, message))
        .collect();
    if !matches!(plan.backend.kind, BackendKind::ClaudeCli(_)) {
        return problems;
    }
    match version(program, environment).await {
        Ok(version) => problems.push(problem(Severity::Info, format!("{} is {version}", program.display()))),
        Err(error) => problems.push(problem(
            Severity::Warning,
            format!(
                "{} does not tell its version ({error}); its sessions may fail",
                program.display()
            ),
        )),
    }
    if secrets.0.is_empty() && !logged_in(plan, environment) {
        problems.push(problem(
            Severity::Warning,
            "no login was found: neither a key in the conductor's environment nor stored credentials of the CLI; run the \
             CLI once and log in, or give the conductor a key (the README says how)"
                .to_owned(),
        ));
    }
    problems
}

/// Secrets that the submitter has and the conductor lacks, one sentence each with the command that mends it.
fn missing_secrets(plan: &Plan, secrets: &Secrets, told: &str) -> Vec<String> {
    let matters = |name: &str| match plan.backend.kind {
        BackendKind::ClaudeCli(_) => {
            backend::SECRETS.contains(&name) || plan.backend.pass_env.iter().any(|passed| passed == name)
        }
        BackendKind::Command { .. } => plan.backend.pass_env.iter().any(|passed| passed == name),
    };
    told.split(',')
        .filter(|name| matters(name) && !secrets.0.contains_key(*name))
        .map(|name| {
            format!(
                "your shell has {name}, the service has not; `systemctl --user import-environment {name} && systemctl --user \
                 restart mozart` gives it to the service until you log out (`environment_file` in the settings does so for good)"
            )
        })
        .collect()
}

/// Whether the CLI's own credential file is where this session will look for it.
fn logged_in(plan: &Plan, environment: &BTreeMap<String, String>) -> bool {
    let variable = |name: &str| plan.backend.env.get(name).or_else(|| environment.get(name));
    let directory = match (variable("CLAUDE_CONFIG_DIR"), variable("HOME")) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => Path::new(home).join(".claude"),
        (None, None) => return false,
    };
    directory.join(".credentials.json").is_file()
}

/// First line of `program --version`, at most 80 characters.
async fn version(program: &Path, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command.envs(
        environment
            .iter()
            .filter(|(name, _)| matches!(name.as_str(), "PATH" | "HOME" | "LANG")),
    );
    let output = tokio::time::timeout(VERSION_LIMIT, command.output())
        .await
        .map_err(|_| format!("no answer within {} s", VERSION_LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() && !line.trim().is_empty() => Ok(line.trim().chars().take(80).collect()),
        _ => Err(format!("`--version` ended with {}", output.status)),
    }
}

fn problem(severity: Severity, message: String) -> Problem {
    Problem {
        check_id: if severity == Severity::Info { "V197" } else { "V198" }.to_owned(),
        severity,
        message,
        line: None,
        column: None,
        context: Some("backend".to_owned()),
        suggestion: None,
        auto_fixable: false,
        metadata: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::files::Disk;
    use crate::job::{JobInput, load, report};

    #[test]
    fn programs_are_found_on_the_submitters_path_or_as_a_path() {
        let path = "relative:/nowhere:/usr/bin:/bin".to_owned();
        assert!(find("sh", Some(&path), Path::new("/")).is_ok_and(|found| found.is_absolute()));
        assert_eq!(find("bin/sh", None, Path::new("/")).unwrap(), PathBuf::from("/bin/sh"));
        assert!(
            find("no-such-program", Some(&path), Path::new("/"))
                .unwrap_err()
                .contains("PATH")
        );
        assert!(
            find("./etc/passwd", None, Path::new("/"))
                .unwrap_err()
                .contains("not an executable")
        );
    }

    #[tokio::test]
    async fn what_only_a_submission_is_told_is_reported_with_its_code() {
        let none = BTreeMap::new();
        let text = "name: j\nsheet: {size: 1, total_items: 1}\nprompt: {template: x}\n";
        let input = JobInput::of(text.as_bytes(), Path::new("/"));
        let plan = load(&input, &Disk).plan.unwrap();
        let told = async |program: &str| {
            let found = warnings(
                &plan,
                Path::new(program),
                &none,
                &Secrets::default(),
                "ANTHROPIC_API_KEY",
            )
            .await;
            report(&found, "job.yaml", text, false)
        };
        let version = version(Path::new("/usr/bin/env"), &none).await.unwrap();
        let key = "warning[V198]: your shell has ANTHROPIC_API_KEY, the service has not; `systemctl --user import-environment \
                   ANTHROPIC_API_KEY && systemctl --user restart mozart` gives it to the service until you log out \
                   (`environment_file` in the settings does so for good)\n--> job.yaml\n\n";
        let login = "warning[V198]: no login was found: neither a key in the conductor's environment nor stored credentials \
                     of the CLI; run the CLI once and log in, or give the conductor a key (the README says how)\n\
                     --> job.yaml\n\n";
        assert_eq!(
            told("/usr/bin/env").await,
            format!("{key}info[V197]: /usr/bin/env is {version}\n--> job.yaml\n\n{login}")
        );
        assert_eq!(
            told("/bin/false").await,
            format!(
                "{key}warning[V198]: /bin/false does not tell its version (`--version` ended with exit status: 1); its \
                 sessions may fail\n--> job.yaml\n\n{login}"
            )
        );
    }

    #[tokio::test]
    async fn a_program_that_says_no_version_is_told() {
        let none = BTreeMap::new();
        assert!(version(Path::new("/bin/false"), &none).await.is_err());
        assert!(version(Path::new("/bin/sh"), &none).await.is_err());
        assert!(
            version(Path::new("/usr/bin/env"), &none)
                .await
                .is_ok_and(|text| text.contains("env"))
        );
    }
}
