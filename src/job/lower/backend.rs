//! What a session is.

use super::Lowering;
use crate::job::files::PathKind;
use crate::job::paths;
use crate::job::plan::{Backend, BackendKind, ClaudeCli};
use crate::job::secret::looks_secret;
use crate::job::suggest::nearest;
use crate::job::yaml::{Mark, Node};

/// Types that existing job files use and that a later version will have.
const LATER: &[&str] = &["anthropic_api", "ollama"];
/// Types that work.
const WORKING: &[&str] = &["claude_cli", "command"];
/// Known, and never to be had.
const REFUSED: &str = "recursive_light";
/// Fields that only the Claude CLI has a use for.
const CLI_ONLY: &[&str] = &[
    "cli_model",
    "allowed_tools",
    "system_prompt_file",
    "cli_path",
    "cli_extra_args",
];

/// Every word that `backend.type` may be, the ones that only a later version has and the refused one included.
pub(crate) fn backends() -> impl Iterator<Item = &'static str> {
    WORKING.iter().chain(LATER).copied().chain([REFUSED])
}

impl Lowering<'_> {
    pub(super) fn backend(&mut self) -> Backend {
        let kind = match self.backend_type() {
            "command" => self.command_backend(),
            _ => self.claude_backend(),
        };
        let capture = self
            .node("backend.max_output_capture_bytes")
            .and_then(crate::job::schema::integer);
        self.fallbacks();
        Backend {
            kind,
            working_directory: self.working_directory(),
            pass_env: self.pass_env(),
            env: self.env(),
            max_output_capture_bytes: capture.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(10_240),
        }
    }

    fn fallbacks(&mut self) {
        let items = self
            .root
            .get_path("backend.fallbacks")
            .and_then(Node::list)
            .unwrap_or_default();
        for (index, item) in items.iter().enumerate() {
            let Some(name) = item.text().filter(|name| !backends().any(|known| known == *name)) else {
                continue;
            };
            let field = format!("backend.fallbacks[{index}]");
            let finding = self.problems.error(
                "V211",
                Some(item.at),
                &field,
                format!("there is no backend `{name}` to fall back on"),
            );
            if let Some(near) = nearest(name, backends()) {
                finding.suggest(format!("did you mean `{near}`?"));
            }
        }
    }

    fn backend_type(&mut self) -> &'static str {
        let Some(written) = self.text("backend.type") else {
            if self.node("backend.command").is_some() {
                let at = self.at("backend.command");
                self.problems.error(
                    "E302",
                    at,
                    "backend.type",
                    "`backend.command` needs `type: command` beside it",
                );
            }
            return "claude_cli";
        };
        let at = self.at("backend.type");
        if let Some(known) = WORKING.iter().find(|known| **known == written) {
            return known;
        }
        if LATER.contains(&written) {
            let message = format!("the backend `{written}` is known, but not supported yet");
            self.problems
                .unsupported(at, "backend.type", message)
                .with("backend", written)
                .suggest("use `claude_cli` or `command`");
        } else if written == REFUSED {
            let message = "the backend `recursive_light` needs a private service that Mozart does not speak to";
            self.problems
                .error("E301", at, "backend.type", message)
                .suggest("use `claude_cli`");
        } else {
            let finding = self
                .problems
                .error("V210", at, "backend.type", format!("there is no backend `{written}`"));
            match nearest(written, WORKING.iter().chain(LATER).copied()) {
                Some(near) => finding.suggest(format!("did you mean `{near}`?")),
                None => finding.suggest("use `claude_cli` or `command`"),
            };
        }
        "claude_cli"
    }

    fn claude_backend(&mut self) -> BackendKind {
        if self.node("backend.command").is_some() && self.text("backend.type") == Some("claude_cli") {
            let at = self.at("backend.command");
            self.problems.warning(
                "V190",
                at,
                "backend.command",
                "`backend.command` has no effect with `type: claude_cli`",
            );
        }
        let skip_permissions = self.boolean("backend.skip_permissions", true);
        if !skip_permissions {
            let message = "without `skip_permissions` a session stops at the first tool that needs a permission, and nobody is there to give it";
            let at = self.at("backend.skip_permissions");
            self.problems
                .warning("V204", at, "backend.skip_permissions", message)
                .suggest("set `skip_permissions: true`, or list what is allowed in `allowed_tools`");
        }
        let disable_mcp = self.boolean("backend.disable_mcp", true);
        if !disable_mcp {
            let at = self.at("backend.disable_mcp");
            let message = "sessions will start the MCP servers of your own configuration, each one anew";
            self.problems.info("V209", at, "backend.disable_mcp", message);
        }
        let system_prompt = self
            .read_text("backend.system_prompt_file", "system prompt file", "V004")
            .map(|(_, text)| text);
        let cli_path = self.program("backend.cli_path", self.text("backend.cli_path").unwrap_or("claude"));
        BackendKind::ClaudeCli(ClaudeCli {
            cli_path,
            skip_permissions,
            disable_mcp,
            output_format: self.text("backend.output_format").unwrap_or("text").to_owned(),
            model: self.text("backend.cli_model").map(str::to_owned),
            allowed_tools: self.texts("backend.allowed_tools"),
            system_prompt,
            extra_args: self.texts("backend.cli_extra_args"),
        })
    }

    fn command_backend(&mut self) -> BackendKind {
        for name in CLI_ONLY {
            let field = format!("backend.{name}");
            if self.node(&field).is_some() {
                let message = format!("`{field}` has no effect with `type: command`");
                self.problems.warning("V190", self.at(&field), &field, message);
            }
        }
        let mut command = self.texts("backend.command");
        let at = self.at("backend.command").unwrap_or(Mark::START);
        match command
            .first()
            .map(|program| self.program("backend.command[0]", program))
        {
            Some(program) if !program.is_empty() => {
                if let Some(first) = command.first_mut() {
                    *first = program;
                }
            }
            _ => self.missing(
                "backend.command",
                "`type: command` needs `command: [program, arguments…]`",
                at,
            ),
        }
        BackendKind::Command { command }
    }

    /// A program as it will be looked up: a name on the PATH, or an absolute path.
    fn program(&mut self, field: &str, written: &str) -> String {
        if !(written.contains('/') || written.starts_with('~')) {
            return written.to_owned();
        }
        match paths::expand_environment(written, self.input.environment) {
            Ok(path) => paths::resolve(self.input.base_directory, &path)
                .to_string_lossy()
                .into_owned(),
            Err(error) => {
                let at = self.at(field.split('[').next().unwrap_or(field));
                self.problems.error("E303", at, field, format!("`{field}`: {error}"));
                written.to_owned()
            }
        }
    }

    fn working_directory(&mut self) -> String {
        const FIELD: &str = "backend.working_directory";
        let written = self.path(FIELD);
        let given = written.is_some();
        let path = paths::resolve(self.input.base_directory, written.as_deref().unwrap_or("."));
        let shown = path.display();
        match self.files.kind(&path) {
            PathKind::Directory => {}
            // A text that was submitted without a file has a base directory that somebody vouched for.
            _ if !given => {}
            PathKind::Missing => {
                self.problems
                    .error(
                        "V005",
                        self.at(FIELD),
                        FIELD,
                        format!("the working directory {shown} does not exist"),
                    )
                    .suggest(format!("mkdir -p {shown}"))
                    .with("directory", &shown)
                    .fixable();
            }
            PathKind::File | PathKind::Other => {
                self.problems.error(
                    "V005",
                    self.at(FIELD),
                    FIELD,
                    format!("the working directory {shown} is not a directory"),
                );
            }
        }
        path.to_string_lossy().into_owned()
    }

    fn pass_env(&mut self) -> Vec<String> {
        let items = self
            .root
            .get_path("backend.pass_env")
            .and_then(Node::list)
            .unwrap_or_default();
        let mut names = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let Some(name) = item.text() else { continue };
            if is_variable_name(name) {
                names.push(name.to_owned());
            } else {
                let message = format!("{name:?} is no name of a variable; only its name stands here, never its value");
                self.problems
                    .error("E301", Some(item.at), &format!("backend.pass_env[{index}]"), message);
            }
        }
        names
    }

    fn env(&mut self) -> std::collections::BTreeMap<String, String> {
        let entries = self
            .root
            .get_path("backend.env")
            .and_then(Node::map)
            .unwrap_or_default();
        let mut env = std::collections::BTreeMap::new();
        for (key, value) in entries {
            let (Some(key_scalar), Some(value_scalar)) = (key.scalar(), value.scalar()) else {
                continue;
            };
            let (name, text) = (&key_scalar.raw, &value_scalar.raw);
            let field = format!("backend.env.{name}");
            if !is_variable_name(name) {
                self.problems.error(
                    "E301",
                    Some(key.at),
                    &field,
                    format!("{name:?} is no name of a variable"),
                );
            } else if looks_secret(name) && may_be_secret(text) {
                let message = format!("`{field}` looks like a secret, and a job file is stored with every run of it");
                self.problems
                    .error("E301", Some(key.at), &field, message)
                    .suggest(format!(
                        "set {name} where Mozart runs, and list its name in `backend.pass_env`"
                    ));
            } else {
                env.insert(name.clone(), text.clone());
            }
        }
        env
    }
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0', '\n', ' ']) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Numbers, switches and short words are settings, whatever the variable is called.
fn may_be_secret(text: &str) -> bool {
    text.len() >= 8 && text.parse::<f64>().is_err()
}
