//! From a job file as written to the plan as meant, collecting everything that is wrong on the way.
//!
//! Lowering never stops at the first fault: a field that is wrong has been reported by the schema, and its
//! default is used to look at the rest. Only where there is no error at all is there a plan.

mod backend;
mod doubts;
mod order;
mod prompt;
mod render;
mod retry;
mod sheets;
mod validations;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub(crate) use backend::backends;

use doubts::Whole;

use super::files::{Files, PathKind};
use super::paths;
use super::plan::{OnLimit, PLAN_VERSION, Plan};
use super::problem::Problems;
use super::schema::{self, Effect};
use super::value::Value;
use super::yaml::{self, Mark, Node};
use crate::model::{JobName, Problem, Span};

/// What a job is made from.
#[derive(Debug, Clone, Copy)]
pub struct JobInput<'a> {
    /// The job file's bytes.
    pub text: &'a [u8],
    /// Its path, where it came from a file.
    pub path: Option<&'a Path>,
    /// Absolute directory that its relative paths are relative to.
    pub base_directory: &'a Path,
    /// Where it was submitted from.
    pub submit_directory: Option<&'a Path>,
    /// Overrides `workspace`; relative to the directory it was submitted from.
    pub workspace: Option<&'a Path>,
    /// Overrides `prompt.variables`, by name; values are read as plain YAML.
    pub set: &'a BTreeMap<String, String>,
    /// For `~` and `${NAME}` in paths.
    pub environment: &'a BTreeMap<String, String>,
    /// Overrides `priority`.
    pub priority: Option<u8>,
    /// Fills an absent `prompt.thinking_method`.
    pub default_thinking_method: Option<&'a str>,
}

static NOTHING: BTreeMap<String, String> = BTreeMap::new();

impl<'a> JobInput<'a> {
    /// That text in that directory, and nothing else said.
    pub fn of(text: &'a [u8], base_directory: &'a Path) -> Self {
        Self {
            text,
            path: None,
            base_directory,
            submit_directory: None,
            workspace: None,
            set: &NOTHING,
            environment: &NOTHING,
            priority: None,
            default_thinking_method: None,
        }
    }
}

/// The plan of a job without errors, where there is nothing but two directories.
#[cfg(test)]
pub(crate) fn plan_of(text: &str) -> Plan {
    let files = super::files::Fake::new(&[("/", ""), ("/w/", ""), ("/elsewhere/", "")]);
    let loaded = load(&JobInput::of(text.as_bytes(), Path::new("/w")), &files);
    loaded.plan.unwrap_or_else(|| panic!("{:#?}", loaded.problems))
}

/// What became of a job file.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The plan, where there is no error.
    pub plan: Option<Plan>,
    /// Everything that was found, in the file's order.
    pub problems: Vec<Problem>,
    /// It could not be read as YAML at all.
    pub not_yaml: bool,
}

/// Errors that concern what lies around a job file, or whether it is wise to run it: they leave it a plan.
const SURROUNDINGS: &[&str] = &["V002", "V004", "V005", "V009", "E602"];

/// Reads a job file and makes its plan; every problem is reported at once.
pub fn load(input: &JobInput<'_>, files: &dyn Files) -> Loaded {
    lower(input, files, Problems::default(), &[])
}

/// The same for a look at the plan: there is one also where a directory or file is missing, and what this version
/// cannot run yet is a warning.
pub fn preview(input: &JobInput<'_>, files: &dyn Files) -> Loaded {
    lower(input, files, Problems::lenient(), SURROUNDINGS)
}

/// Reads a job file; errors of the codes `but` leave it a plan.
fn lower(input: &JobInput<'_>, files: &dyn Files, mut problems: Problems, but: &[&str]) -> Loaded {
    let document = match yaml::read(input.text) {
        Ok(document) => document,
        Err(error) => {
            problems.error("E304", error.at, "", error.message);
            return Loaded {
                plan: None,
                problems: problems.finish(),
                not_yaml: true,
            };
        }
    };
    for fault in &document.faults {
        problems.error("E304", Some(fault.at), "", fault.message.clone());
    }
    let mut root = document.root;
    schema::check(&mut root, &mut problems);
    let mut lowering = Lowering {
        input,
        files,
        root: &root,
        problems,
        read: Vec::new(),
    };
    let plan = if root.map().is_some() { lowering.plan() } else { None };
    let plan = plan.filter(|_| !lowering.problems.any_beyond(but));
    Loaded {
        plan,
        problems: lowering.problems.finish(),
        not_yaml: false,
    }
}

/// A job file being lowered.
struct Lowering<'a> {
    input: &'a JobInput<'a>,
    files: &'a dyn Files,
    root: &'a Node,
    problems: Problems,
    /// Files that were read, with their bytes: part of the plan's hash.
    read: Vec<(String, Vec<u8>)>,
}

impl<'a> Lowering<'a> {
    fn plan(&mut self) -> Option<Plan> {
        let name = self.name();
        let workspace = self.workspace();
        let (sheets, stages) = self.sheets();
        let dependencies = self.dependencies(&stages);
        let parallel = self.parallel(sheets.len());
        let backend = self.backend();
        let validations = self.validations(&workspace);
        let (mut prompt, engine) = self.prompt();
        self.versions();
        self.scores();
        let cross_sheet = self.cross_sheet();
        let (engine, filled) = self.render(&workspace, &sheets, &backend, &validations, &prompt, engine);
        prompt.engine = engine;
        self.capture_patterns(&workspace, &sheets, &prompt);
        self.surroundings(&backend);
        self.doubts(
            &Whole {
                workspace: &workspace,
                sheets: &sheets,
                rules: &validations,
                prompt: &prompt,
                dependencies: &dependencies,
                parallel: parallel.as_ref(),
            },
            &filled,
        );
        let cost_limits = self.cost_limits(&sheets, &backend);
        let retry = self.retry();
        let rate_limit = self.rate_limit();
        let idle_timeout = self.idle_timeout(&backend);
        let first_event_timeout = self.first_event_timeout(&backend).filter(|_| idle_timeout.is_some());
        let name = name?;
        let checkpoint_path = match self.path("state_path") {
            Some(path) => paths::resolve(Path::new(&workspace), &path)
                .to_string_lossy()
                .into_owned(),
            None => format!("{workspace}/{}.json", name.as_str().replace('/', "_")),
        };
        let priority = self
            .input
            .priority
            .or_else(|| u8::try_from(schema::integer(self.node("priority")?)?).ok())
            .unwrap_or(5)
            .clamp(1, 10);
        Some(Plan {
            version: PLAN_VERSION,
            description: self.text("description").map(str::to_owned),
            base_directory: self.input.base_directory.to_string_lossy().into_owned(),
            source: String::from_utf8_lossy(self.input.text).into_owned(),
            hash: self.hash(&workspace),
            on_limit: match self.text("on_limit") {
                Some("stop") => OnLimit::Stop,
                Some("ask") => OnLimit::Ask,
                _ => OnLimit::Wait,
            },
            pause_between_sheets: Span::from_secs_f64(self.number("pause_between_sheets_seconds", 10.0)),
            checkpoint_every_sheet: self.text("state_backend") == Some("json"),
            dormant: self.dormant(),
            dependencies,
            parallel,
            circuit_breaker: self.circuit_breaker(),
            cross_sheet,
            cost_limits,
            name,
            workspace,
            backend,
            sheets,
            prompt,
            retry,
            rate_limit,
            idle_timeout,
            first_event_timeout,
            validations,
            priority,
            checkpoint_path,
        })
    }

    fn name(&mut self) -> Option<JobName> {
        let Some(node) = self.node("name") else {
            self.missing("name", "a job needs a `name`", Mark::START);
            return None;
        };
        let raw = node.scalar().map(|scalar| scalar.raw.clone())?;
        match JobName::new(raw) {
            Ok(name) => Some(name),
            Err(reason) => {
                self.problems
                    .error("E301", Some(node.at), "name", format!("`name` {reason}"));
                None
            }
        }
    }

    /// The absolute workspace, of which at least the parent must exist.
    fn workspace(&mut self) -> String {
        let at = self.node("workspace").map(|node| node.at);
        let path = match self.input.workspace {
            Some(path) => {
                let base = self.input.submit_directory.unwrap_or(self.input.base_directory);
                paths::resolve(base, &path.to_string_lossy())
            }
            None => {
                let written = self.path("workspace").unwrap_or_else(|| "./workspace".to_owned());
                paths::resolve(self.input.base_directory, &written)
            }
        };
        let shown = path.display();
        match self.files.kind(&path) {
            PathKind::Directory => {}
            PathKind::File | PathKind::Other => {
                self.problems.error(
                    "E303",
                    at,
                    "workspace",
                    format!("the workspace {shown} is not a directory"),
                );
            }
            PathKind::Missing => {
                let parent = path.parent().unwrap_or(Path::new("/"));
                match self.files.kind(parent) {
                    PathKind::Directory => {}
                    PathKind::Missing => {
                        let message = format!(
                            "the workspace {shown} cannot be made: {} does not exist",
                            parent.display()
                        );
                        self.problems
                            .error("V002", at, "workspace", message)
                            .suggest(format!("mkdir -p {}", parent.display()))
                            .with("directory", parent.display())
                            .fixable();
                    }
                    PathKind::File | PathKind::Other => {
                        let message = format!(
                            "the workspace {shown} cannot be made: {} is not a directory",
                            parent.display()
                        );
                        self.problems.error("E303", at, "workspace", message);
                    }
                }
            }
        }
        path.to_string_lossy().into_owned()
    }

    /// Known sections without effect, as written.
    fn dormant(&self) -> BTreeMap<String, Value> {
        let mut dormant = BTreeMap::new();
        for field in schema::JOB
            .iter()
            .filter(|field| !matches!(field.effect, Effect::Works))
        {
            if let Some(node) = self.root.get(field.name) {
                dormant.insert(field.name.to_owned(), node.to_value());
            }
        }
        dormant
    }

    /// The two scores of a review, of which one must not lie below the other.
    fn scores(&mut self) {
        const FIELD: &str = "ai_review.target_score";
        let (min, target) = (self.number("ai_review.min_score", 60.0), self.number(FIELD, 80.0));
        if target < min {
            let field = if self.node(FIELD).is_some() {
                FIELD
            } else {
                "ai_review.min_score"
            };
            let message = format!("`target_score` ({target}) must not be less than `min_score` ({min})");
            self.problems.error("E301", self.at(field), field, message);
        }
    }

    /// A file `…-v3` that still names version 2: a copy whose name or workspace was forgotten.
    fn versions(&mut self) {
        let Some(stem) = self.input.path.and_then(Path::file_stem).and_then(|stem| stem.to_str()) else {
            return;
        };
        let Some((_, version)) = stem.rsplit_once("-v") else {
            return;
        };
        let Some(before) = version
            .parse::<u32>()
            .ok()
            .and_then(|version| version.checked_sub(1))
            .filter(|old| *old > 0)
        else {
            return;
        };
        let old = format!("-v{before}");
        let names_old = |text: &str| {
            text.match_indices(&old)
                .any(|(at, _)| !text[at + old.len()..].starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut found = false;
        for field in ["name", "workspace"] {
            let Some((at, raw)) = self.node(field).and_then(|node| Some((node.at, &node.scalar()?.raw))) else {
                continue;
            };
            if names_old(raw) {
                found = true;
                let message = format!("`{field}` still names {}, and the file is {stem}", &old[1..]);
                self.problems
                    .error("V009", Some(at), field, message)
                    .suggest("write the new version, or rename the file");
            }
        }
        if found {
            return;
        }
        let text = String::from_utf8_lossy(self.input.text);
        if let Some(index) = text
            .lines()
            .position(|line| names_old(line) && !line.trim_start().starts_with('#'))
        {
            let at = Mark {
                line: u32::try_from(index + 1).unwrap_or(u32::MAX),
                column: 1,
            };
            self.problems.warning(
                "V009",
                Some(at),
                "",
                format!("this still names {}, and the file is {stem}", &old[1..]),
            );
        }
    }

    fn hash(&self, workspace: &str) -> String {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(bytes);
        };
        add(self.input.text);
        add(workspace.as_bytes());
        add(self.input.base_directory.to_string_lossy().as_bytes());
        add(self.input.default_thinking_method.unwrap_or_default().as_bytes());
        for (path, bytes) in &self.read {
            add(path.as_bytes());
            add(bytes);
        }
        for (name, value) in self.input.set {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The node at a path such as `retry.max_retries`; `None` also where nothing stands behind the key.
    fn node(&self, path: &str) -> Option<&'a Node> {
        self.root.get_path(path).filter(|node| !node.is_null())
    }

    /// Where a field or else its section stands.
    fn at(&self, path: &str) -> Option<Mark> {
        let mut path = path;
        loop {
            if let Some(node) = self.node(path) {
                return Some(node.at);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// A text, also one that YAML reads as something else.
    fn text(&self, path: &str) -> Option<&'a str> {
        self.node(path)?.scalar().map(|scalar| scalar.raw.as_str())
    }

    fn boolean(&self, path: &str, default: bool) -> bool {
        self.node(path).and_then(schema::boolean).unwrap_or(default)
    }

    fn number(&self, path: &str, default: f64) -> f64 {
        self.node(path).and_then(schema::number).unwrap_or(default)
    }

    fn count(&self, path: &str, default: u32) -> u32 {
        self.node(path)
            .and_then(schema::integer)
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(default)
    }

    /// The items of a list as they are written.
    fn texts(&self, path: &str) -> Vec<String> {
        let items = self.node(path).and_then(Node::list).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| item.scalar().map(|scalar| scalar.raw.clone()))
            .collect()
    }

    /// A path with `~` and `${NAME}` filled in.
    fn path(&mut self, field: &str) -> Option<String> {
        let node = self.node(field)?;
        let raw = &node.scalar()?.raw;
        match paths::expand_environment(raw, self.input.environment) {
            Ok(path) => Some(path),
            Err(error) => {
                self.problems
                    .error("E303", Some(node.at), field, format!("`{field}`: {error}"));
                None
            }
        }
    }

    /// Reads a file that a field names, relative to the job file; its path and text.
    ///
    /// `missing` is the code of a file that does not exist.
    fn read_text(&mut self, field: &str, what: &str, missing: &str) -> Option<(PathBuf, String)> {
        let at = self.node(field)?.at;
        let path = paths::resolve(self.input.base_directory, &self.path(field)?);
        if self.files.kind(&path) == PathKind::Missing {
            let message = format!("the {what} {} does not exist", path.display());
            self.problems.error(missing, Some(at), field, message);
            return None;
        }
        let text = self.read_file(&path);
        match text {
            Ok(text) => Some((path, text)),
            Err(error) => {
                self.problems.error(
                    "E303",
                    Some(at),
                    field,
                    format!("the {what} {} {error}", path.display()),
                );
                None
            }
        }
    }

    /// A file's text with plain line feeds, noted for the plan's hash. The error is a sentence fragment.
    fn read_file(&mut self, path: &Path) -> Result<String, String> {
        let bytes = self.files.read(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
        self.read.push((path.to_string_lossy().into_owned(), bytes));
        Ok(text)
    }

    fn missing(&mut self, field: &str, message: &str, at: Mark) {
        self.problems.error("E302", Some(at), field, message);
    }
}

#[cfg(test)]
mod tests;
