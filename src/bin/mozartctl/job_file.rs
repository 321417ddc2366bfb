//! The job file as the person named it: read once, bounded, checked without any conductor.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use mozart::api::request::Submit;
use mozart::daemon::submit::PRESENT_SECRETS;
use mozart::job::files::{Disk, Files};
use mozart::job::plan::Plan;
use mozart::job::secret::looks_secret;
use mozart::job::{JobInput, Loaded};
use mozart::model::{Problem, Severity};
use mozart::runner::backend::{CLI_PASSES, SECRETS};

use crate::error::{CliError, Kind};
use crate::output::Out;
use crate::text::{clean, count};

const MAX_BYTES: u64 = mozart::job::yaml::MAX_BYTES as u64;
const TOO_LARGE: &str = "is larger than 8 MiB, the most that a job file may have";

/// What the command line says besides the file.
#[derive(Debug, Default, Clone)]
pub(crate) struct Overrides {
    /// `--workspace`.
    pub(crate) workspace: Option<PathBuf>,
    /// `--set`.
    pub(crate) set: BTreeMap<String, String>,
    /// `--priority`.
    pub(crate) priority: Option<u8>,
}

/// A job file's text and where it came from.
#[derive(Debug)]
pub(crate) struct JobFile {
    /// As read.
    pub(crate) text: Vec<u8>,
    /// Absolute path; none for standard input.
    pub(crate) path: Option<PathBuf>,
    /// What messages call it: the word of the command line.
    pub(crate) shown: String,
    /// Absolute directory that its relative paths are relative to.
    pub(crate) base_directory: PathBuf,
    /// Where `mozartctl` was called.
    pub(crate) current_directory: PathBuf,
}

impl JobFile {
    /// Reads it; `-` is standard input.
    ///
    /// # Errors
    /// [`Kind::Unreadable`] where it is missing, no file, too large or cannot be read.
    pub(crate) fn read(path: &Path) -> Result<Self, CliError> {
        let current_directory = std::env::current_dir().map_err(|error| {
            CliError::new(
                Kind::System,
                format!("the current directory is not accessible: {error}"),
            )
        })?;
        let stdin = path.as_os_str() == "-";
        let shown = if stdin {
            "standard input".to_owned()
        } else {
            clean(&path.to_string_lossy()).into_owned()
        };
        let unreadable = |why: &str| CliError::new(Kind::Unreadable, format!("{shown}: {why}"));
        let io = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => unreadable("there is no such file"),
            std::io::ErrorKind::PermissionDenied => unreadable("may not be read (permission denied)"),
            _ => unreadable(&format!("cannot be read: {error}")),
        };

        let mut text = Vec::new();
        if stdin {
            std::io::stdin()
                .lock()
                .take(MAX_BYTES + 1)
                .read_to_end(&mut text)
                .map_err(io)?;
        } else {
            let file = std::fs::File::open(path).map_err(io)?;
            let metadata = file.metadata().map_err(io)?;
            if metadata.is_dir() {
                return Err(unreadable("is a directory, not a job file"));
            }
            if metadata.len() > MAX_BYTES {
                return Err(unreadable(TOO_LARGE));
            }
            file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io)?;
        }
        if text.len() as u64 > MAX_BYTES {
            return Err(unreadable(TOO_LARGE));
        }

        let path = if stdin {
            None
        } else {
            Some(std::path::absolute(path).map_err(io)?)
        };
        let base_directory = path
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(&current_directory)
            .to_owned();
        Ok(Self {
            text,
            path,
            shown,
            base_directory,
            current_directory,
        })
    }

    /// Writes another text into the file, whole or not at all.
    ///
    /// # Errors
    /// [`Kind::Usage`] where it came from standard input, [`Kind::System`] where it cannot be written.
    pub(crate) fn replace(&mut self, text: String) -> Result<(), CliError> {
        let Some(path) = &self.path else {
            return Err(CliError::new(
                Kind::Usage,
                "standard input cannot be mended; name a file",
            ));
        };
        let failed =
            |error: std::io::Error| CliError::new(Kind::System, format!("{} cannot be written: {error}", self.shown));
        // Behind a symbolic link it is the file itself that changes.
        let path = path.canonicalize().map_err(failed)?;
        // An editor may have saved it meanwhile.
        if std::fs::read(&path).map_err(failed)? != self.text {
            return Err(CliError::new(
                Kind::System,
                format!("{} was changed meanwhile, and is left as it is", self.shown),
            ));
        }
        // A name that nobody else has; `create_new` writes over nothing and through no link.
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}", std::process::id()));
        let new = path.with_file_name(name);
        let mut file = std::fs::File::create_new(&new).map_err(failed)?;
        let written = file
            .write_all(text.as_bytes())
            .and_then(|()| file.set_permissions(std::fs::metadata(&path)?.permissions()))
            .and_then(|()| file.sync_all())
            .and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            let _left_behind = std::fs::remove_file(&new);
            return Err(failed(error));
        }
        self.text = text.into_bytes();
        Ok(())
    }

    /// Parses, checks and plans it, as the conductor will.
    pub(crate) fn load(&self, overrides: &Overrides) -> Loaded {
        self.lower(overrides, mozart::job::load)
    }

    /// The same for a look at the plan, which there is also where only a run would be refused.
    pub(crate) fn preview(&self, overrides: &Overrides) -> Loaded {
        self.lower(overrides, mozart::job::preview)
    }

    fn lower(&self, overrides: &Overrides, lower: fn(&JobInput<'_>, &dyn Files) -> Loaded) -> Loaded {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let workspace = self.workspace(overrides);
        lower(
            &JobInput {
                text: &self.text,
                path: self.path.as_deref(),
                base_directory: &self.base_directory,
                submit_directory: Some(&self.current_directory),
                workspace: workspace.as_deref(),
                set: &overrides.set,
                environment: &environment,
                priority: overrides.priority,
                default_thinking_method: None,
            },
            &Disk,
        )
    }

    /// What goes to the conductor: the text as it was checked here, and what its sessions need of this shell.
    pub(crate) fn submission(&self, plan: &Plan, overrides: &Overrides) -> Submit {
        self.submission_of(Some(plan), overrides)
    }

    /// The same for a run that knows more than this file: it keeps the variables that were set for it, without which the
    /// file may make no plan here.
    pub(crate) fn for_a_run(&self, overrides: &Overrides, out: &Out) -> Result<Submit, CliError> {
        let loaded = self.load(overrides);
        if loaded.not_yaml {
            let (plan, _) = self.plan(loaded, out)?;
            return Ok(self.submission_of(Some(&plan), overrides));
        }
        Ok(self.submission_of(loaded.plan.as_ref(), overrides))
    }

    fn submission_of(&self, plan: Option<&Plan>, overrides: &Overrides) -> Submit {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Submit {
            text: String::from_utf8_lossy(&self.text).into_owned(),
            base_directory: text(&self.base_directory),
            path: self.path.as_deref().map(text),
            workspace: self.workspace(overrides).as_deref().map(text),
            environment: Some(environment(
                plan,
                &String::from_utf8_lossy(&self.text),
                |name| std::env::var(name).ok(),
                std::env::vars_os().map(|(name, _)| name),
            )),
            set: overrides.set.clone(),
            priority: overrides.priority,
            ..Submit::default()
        }
    }

    /// `--workspace` as an absolute path; relative ones are relative to where `mozartctl` was called.
    pub(crate) fn workspace(&self, overrides: &Overrides) -> Option<PathBuf> {
        overrides
            .workspace
            .as_deref()
            .map(|path| self.current_directory.join(path))
    }

    /// The plan, once every problem was shown.
    ///
    /// # Errors
    /// [`Kind::InvalidJob`] with the problems; [`Kind::Unreadable`] where it is not YAML at all.
    pub(crate) fn plan(&self, loaded: Loaded, out: &Out) -> Result<(Plan, Vec<Problem>), CliError> {
        let Loaded {
            plan,
            problems,
            not_yaml,
        } = loaded;
        match plan {
            Some(plan) => {
                let shown: Vec<Problem> = problems
                    .iter()
                    .filter(|p| p.severity != Severity::Info || out.verbose > 0)
                    .cloned()
                    .collect();
                if !shown.is_empty() && !out.quiet {
                    out.report(&self.report(&shown, out.stderr_color()));
                }
                Ok((plan, problems))
            }
            None => {
                out.report(&self.report(&problems, out.stderr_color()));
                let severe = |problem: &&Problem| problem.severity == Severity::Error;
                let errors = problems.iter().filter(severe).count();
                let kind = if not_yaml { Kind::Unreadable } else { Kind::InvalidJob };
                let mut error = CliError::new(
                    kind,
                    format!("{} has {}; nothing was started", self.shown, count(errors, "error")),
                );
                error.problems = problems;
                Err(error)
            }
        }
    }

    /// The problems for a person, with their source lines.
    pub(crate) fn report(&self, problems: &[Problem], color: bool) -> String {
        mozart::job::report(problems, &self.shown, &String::from_utf8_lossy(&self.text), color)
    }
}

/// The variables that travel with a submission: PATH, locale and time zone, what the backend passes on by itself,
/// what the job names (in `pass_env`, or as `${NAME}`), and only the names of secrets.
fn environment(
    plan: Option<&Plan>,
    text: &str,
    value: impl Fn(&str) -> Option<String>,
    names: impl Iterator<Item = std::ffi::OsString>,
) -> BTreeMap<String, String> {
    let named = |name: &str| {
        plan.is_some_and(|plan| plan.backend.pass_env.iter().any(|passed| passed == name))
            || text.contains(&format!("${{{name}}}"))
    };
    let travels = |name: &str| {
        matches!(name, "PATH" | "LANG" | "LANGUAGE" | "TZ")
            || name.starts_with("LC_")
            || CLI_PASSES.contains(&name)
            || named(name)
    };
    let mut environment = BTreeMap::new();
    let mut secrets = Vec::new();
    for name in names.filter_map(|name| name.into_string().ok()) {
        if looks_secret(&name) {
            secrets.push(name);
        } else if travels(&name)
            && let Some(value) = value(&name)
        {
            environment.insert(name, value);
        }
    }
    secrets.retain(|name| SECRETS.contains(&name.as_str()) || named(name));
    if !secrets.is_empty() {
        secrets.sort_unstable();
        environment.insert(PRESENT_SECRETS.to_owned(), secrets.join(","));
    }
    environment
}
