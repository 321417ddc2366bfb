//! What is sent: template, variables, includes.

use std::collections::BTreeMap;
use std::path::Path;

use super::Lowering;
use crate::job::files::PathKind;
use crate::job::paths;
use crate::job::plan::{Append, CrossSheet, Prompt, Sheet, TemplateEngine};
use crate::job::rules::path_of;
use crate::job::value::Value;
use crate::job::yaml::{self, Mark, Node};
use crate::prompt::template::names_of_includes;
use crate::prompt::{BUILT_IN, variables_of};

/// Files that the templates of one job may take in.
const MAX_INCLUDES: usize = 64;
/// Bytes that a path may have.
const MAX_PATH: usize = 4096;
/// What a session is told where the job says nothing.
const DEFAULT_TEMPLATE: &str =
    "Process sheet {{ sheet_num }} of {{ total_sheets }}: items {{ start_item }} to {{ end_item }}.\n";

impl Lowering<'_> {
    /// The prompt, and the engine if the job names one.
    pub(super) fn prompt(&mut self) -> (Prompt, Option<TemplateEngine>) {
        let engine = match self.text("prompt.engine") {
            Some("tera") => Some(TemplateEngine::Tera),
            Some("jinja") => Some(TemplateEngine::Jinja),
            _ => None,
        };
        let (template, template_name, directory) = self.template();
        let includes = self.includes(&template, &directory);
        let thinking_method = self
            .text("prompt.thinking_method")
            .or(self.input.default_thinking_method)
            .unwrap_or_default()
            .to_owned();
        let prompt = Prompt {
            template,
            template_name,
            engine: engine.unwrap_or(TemplateEngine::Jinja),
            includes,
            variables: self.variables(),
            stakes: self.text("prompt.stakes").unwrap_or_default().to_owned(),
            thinking_method,
            append: Append {
                requirements: self.boolean("prompt.append.requirements", true),
                lessons: self.boolean("prompt.append.lessons", true),
                advice: self.boolean("prompt.append.advice", true),
            },
            extensions: self.extensions("prompt.prompt_extensions", self.node("prompt.prompt_extensions")),
        };
        (prompt, engine)
    }

    /// The template's text, its name in errors, and the directory that its includes are relative to.
    fn template(&mut self) -> (String, String, std::path::PathBuf) {
        let base = self.input.base_directory.to_owned();
        let inline = self.node("prompt.template");
        if inline.is_some() && self.node("prompt.template_file").is_some() {
            let at = self.at("prompt.template_file");
            self.problems
                .error(
                    "E301",
                    at,
                    "prompt.template_file",
                    "`template` and `template_file` exclude each other",
                )
                .suggest("keep one of the two");
        }
        if inline.is_some() {
            let text = self.text("prompt.template").unwrap_or_default().to_owned();
            return (text, "prompt.template".to_owned(), base);
        }
        if self.node("prompt.template_file").is_some() {
            let name = self.text("prompt.template_file").unwrap_or_default().to_owned();
            return match self.read_text("prompt.template_file", "template file", "V003") {
                Some((path, text)) => (text, name, path.parent().unwrap_or(Path::new("/")).to_owned()),
                // Already reported; an empty template has no problems of its own.
                None => (String::new(), name, base),
            };
        }
        let at = self.at("prompt").unwrap_or(Mark::START);
        self.problems
            .warning(
                "V192",
                Some(at),
                "prompt.template",
                "there is no template: every session gets one line with its item numbers",
            )
            .suggest("say what is to be done in `prompt.template`");
        (DEFAULT_TEMPLATE.to_owned(), "prompt.template".to_owned(), base)
    }

    /// The texts of all files that the template takes in by name, and those that they take in.
    fn includes(&mut self, template: &str, directory: &Path) -> BTreeMap<String, String> {
        let field = if self.node("prompt.template").is_some() {
            "prompt.template"
        } else {
            "prompt.template_file"
        };
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        let mut wanted = names_of_includes(template);
        while let Some(name) = wanted.pop() {
            if texts.contains_key(&name) {
                continue;
            }
            if texts.len() >= MAX_INCLUDES {
                let message = format!("the templates take in more than {MAX_INCLUDES} files");
                self.problems.error("E301", self.at(field), field, message);
                break;
            }
            // Beside the template first, then beside the job file.
            let base = self.input.base_directory;
            let text = self.included(directory, &name).or_else(|error| {
                if base == directory {
                    return Err(error);
                }
                self.included(base, &name).map_err(|_| error)
            });
            match text {
                Ok(text) => {
                    wanted.extend(names_of_includes(&text));
                    texts.insert(name, text);
                }
                Err(error) => {
                    let message = format!("the template takes in {name:?}, and {error}");
                    self.problems.error("V003", self.at(field), field, message);
                }
            }
        }
        texts
    }

    /// The text of a file at or below that directory, also where links lead. The error begins with its path.
    fn included(&mut self, directory: &Path, name: &str) -> Result<String, String> {
        let path = paths::resolve(directory, name);
        let shown = path.display();
        let below = match (self.files.real(&path), self.files.real(directory)) {
            (Some(path), Some(directory)) => path.starts_with(directory),
            // Reading says what is wrong.
            _ => true,
        };
        if !path.starts_with(directory) || !below {
            return Err(format!("{shown} is not below {}", directory.display()));
        }
        self.read_file(&path).map_err(|error| format!("{shown} {error}"))
    }

    /// The texts that a list of extensions stands for: an existing file's content, else the item itself.
    pub(super) fn extensions(&mut self, field: &str, list: Option<&Node>) -> Vec<String> {
        let mut texts = Vec::new();
        for (index, item) in list.and_then(Node::list).unwrap_or_default().iter().enumerate() {
            let Some(scalar) = item.scalar() else { continue };
            let (field, raw) = (format!("{field}[{index}]"), &scalar.raw);
            match self.extension(raw) {
                Ok(text) => texts.push(text),
                Err((id, message)) => {
                    self.problems.error(id, Some(item.at), &field, message);
                }
            }
        }
        texts
    }

    fn extension(&mut self, raw: &str) -> Result<String, (&'static str, String)> {
        let meant = is_path(raw);
        // A text of several lines, or longer than a path can be, names nothing.
        if !meant && (raw.contains('\n') || raw.len() > MAX_PATH) {
            return Ok(raw.to_owned());
        }
        let path = match paths::expand_environment(raw, self.input.environment) {
            Ok(path) => paths::resolve(self.input.base_directory, &path),
            Err(error) if meant => return Err(("E303", format!("the extension's path: {error}"))),
            Err(_) => return Ok(raw.to_owned()),
        };
        match self.files.kind(&path) {
            PathKind::File => self
                .read_file(&path)
                .map_err(|error| ("E303", format!("the extension file {} {error}", path.display()))),
            PathKind::Missing if meant => Err((
                "V108",
                format!(
                    "the extension file {} does not exist; a text has a space in it",
                    path.display()
                ),
            )),
            PathKind::Directory | PathKind::Other if meant => Err((
                "E303",
                format!("the extension {} is not a regular file", path.display()),
            )),
            PathKind::Missing | PathKind::Directory | PathKind::Other => Ok(raw.to_owned()),
        }
    }

    /// What templates are told of the sheets before theirs.
    pub(super) fn cross_sheet(&mut self) -> Option<CrossSheet> {
        let outputs = self.boolean("cross_sheet.auto_capture_stdout", false);
        let files = self.texts("cross_sheet.capture_files");
        (outputs || !files.is_empty()).then(|| CrossSheet {
            outputs,
            max_chars: self.count("cross_sheet.max_output_chars", 2000),
            files,
            lookback: self.count("cross_sheet.lookback_sheets", 3),
        })
    }

    /// Each pattern of `capture_files` must name something within the workspace for every sheet.
    pub(super) fn capture_patterns(&mut self, workspace: &str, sheets: &[Sheet], prompt: &Prompt) {
        const FIELD: &str = "cross_sheet.capture_files";
        let items = self.node(FIELD).and_then(Node::list).unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let Some(scalar) = item.scalar() else { continue };
            let wrong = sheets.iter().find_map(|sheet| {
                let variables = variables_of(workspace, sheets, prompt, sheet);
                let error = path_of(&scalar.raw, workspace, &variables).err()?;
                Some((sheet.number, error))
            });
            if let Some((sheet, error)) = wrong {
                self.problems
                    .error("E303", Some(item.at), &format!("{FIELD}[{index}]"), error)
                    .with("sheet", sheet);
            }
        }
    }

    fn variables(&mut self) -> BTreeMap<String, Value> {
        let entries = self
            .root
            .get_path("prompt.variables")
            .and_then(Node::map)
            .unwrap_or_default();
        let mut variables = BTreeMap::new();
        for (key, value) in entries {
            let Some(name) = key.text() else {
                let message = format!("a variable needs a name, and this is {}", key.describe());
                self.problems.error("E301", Some(key.at), "prompt.variables", message);
                continue;
            };
            let field = format!("prompt.variables.{name}");
            if BUILT_IN.contains(&name) {
                let message = format!("`{name}` is a variable of Mozart's own; here it is replaced by yours");
                self.problems.warning("V208", Some(key.at), &field, message);
            }
            self.ambiguous(value, &field);
            variables.insert(name.to_owned(), value.to_value());
        }
        for (name, text) in self.input.set {
            variables.insert(name.clone(), yaml::plain(text));
        }
        variables
    }

    /// Warns of plain scalars that the two versions of YAML read differently.
    fn ambiguous(&mut self, node: &Node, field: &str) {
        match &node.kind {
            yaml::Kind::Scalar(scalar) => {
                if let Some(otherwise) = scalar.ambiguous {
                    let message = format!(
                        "`{}` without quotes is read as {} (YAML 1.1); newer YAML reads {otherwise}",
                        scalar.raw,
                        scalar.value.python_repr()
                    );
                    self.problems
                        .warning("V191", Some(node.at), field, message)
                        .suggest(format!("write \"{}\" if you mean the text", scalar.raw));
                }
            }
            yaml::Kind::List(items) => items.iter().for_each(|item| self.ambiguous(item, field)),
            yaml::Kind::Map(entries) => {
                for (key, value) in entries {
                    self.ambiguous(key, field);
                    self.ambiguous(value, field);
                }
            }
        }
    }
}

/// Whether an extension looks like the path of a file: one word with a slash or a file's ending.
fn is_path(text: &str) -> bool {
    let word = !text.is_empty() && text.len() <= MAX_PATH && !text.contains(char::is_whitespace);
    let ending = text.rsplit_once('.').map(|(_, ending)| ending);
    let ends = |ending: &str| (1..=8).contains(&ending.len()) && ending.chars().all(|c| c.is_ascii_alphanumeric());
    word && (text.contains('/') || text.starts_with('~') || ending.is_some_and(ends))
}
