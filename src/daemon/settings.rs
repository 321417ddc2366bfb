//! The conductor's settings: `$XDG_CONFIG_HOME/mozart/mozartd.yaml`, every field optional.

use std::path::{Path, PathBuf};

use crate::engine::event::EngineSettings;
use crate::job::value::Value;
use crate::job::yaml::{self, Node};

/// What runs the sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LauncherChoice {
    /// systemd where a user manager answers, else supervised.
    Auto,
    /// Transient units only.
    Systemd,
    /// Supervised processes only.
    Supervised,
}

/// How the conductor is to behave.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the engine decides by.
    pub engine: EngineSettings,
    /// Runs that are not over; one more is refused.
    pub queue_limit: u32,
    /// What runs the sessions.
    pub launcher: LauncherChoice,
    /// Variables of the conductor's environment that every session gets.
    pub pass_env: Vec<String>,
    /// A file of variables, read at start into the conductor's environment.
    pub environment_file: Option<PathBuf>,
    /// Seconds without a live run or a client after which the service exits; 0: never.
    pub idle_exit_seconds: u32,
    /// `stop` and `systemctl --user stop` stop the sessions too.
    pub stop_sessions_on_stop: bool,
    /// Fills an absent `thinking_method`.
    pub default_thinking_method: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: EngineSettings::default(),
            queue_limit: 1000,
            launcher: LauncherChoice::Auto,
            pass_env: Vec::new(),
            environment_file: None,
            idle_exit_seconds: 300,
            stop_sessions_on_stop: false,
            default_thinking_method: None,
        }
    }
}

/// Settings that are known and have no effect yet.
const DORMANT: &[&str] = &[
    "quiet_hours",
    "daily_budget_usd",
    "pressure",
    "prices",
    "resource_limits",
    "job_timeout_seconds",
    "shutdown_timeout_seconds",
    "monitor_interval_seconds",
    "max_job_history",
    "observer",
    "log_level",
];

/// Settings of the Python version that systemd has taken over.
const SYSTEMDS: &[&str] = &["socket", "socket_path", "pid_file", "log_file"];

const KNOWN: &[&str] = &[
    "max_concurrent_jobs",
    "max_concurrent_sheets",
    "max_sessions_per_account",
    "queue_limit",
    "launcher",
    "pass_env",
    "environment_file",
    "idle_exit_seconds",
    "stop_sessions_on_stop",
    "default_thinking_method",
];

impl Settings {
    /// Reads the file; one that does not exist gives the defaults. With the settings come warnings for a person.
    ///
    /// # Errors
    /// One sentence a fault, joined, each with file, line, column and field.
    pub fn load(path: &Path) -> Result<(Self, Vec<String>), String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Self::default(), Vec::new())),
            Err(error) => return Err(format!("the settings {} cannot be read: {error}", path.display())),
        };
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads the text of a settings file; `file` is what it is called in messages.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(bytes: &[u8], file: &str) -> Result<(Self, Vec<String>), String> {
        if bytes.iter().all(|byte| byte.is_ascii_whitespace()) {
            return Ok((Self::default(), Vec::new()));
        }
        let document = yaml::read(bytes).map_err(|fault| match fault.at {
            Some(at) => format!("{file}:{}:{}: {}", at.line, at.column, fault.message),
            None => format!("{file}: {}", fault.message),
        })?;
        let mut reader = Reader {
            file,
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        for fault in &document.faults {
            reader.errors.push(format!(
                "{file}:{}:{}: {}",
                fault.at.line, fault.at.column, fault.message
            ));
        }
        let mut settings = Self::default();
        match document.root.map() {
            Some(entries) => {
                for (key, value) in entries {
                    reader.entry(&mut settings, key, value);
                }
            }
            None => reader.error(&document.root, "settings are a map of names and values"),
        }
        match reader.errors.is_empty() {
            true => Ok((settings, reader.warnings)),
            false => Err(reader.errors.join("\n")),
        }
    }
}

struct Reader<'a> {
    file: &'a str,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Reader<'_> {
    fn entry(&mut self, settings: &mut Settings, key: &Node, value: &Node) {
        let Some(name) = key.text() else {
            return self.error(key, "a setting's name is a text");
        };
        match name {
            "max_concurrent_jobs" => {
                if let Some(number) = self.number(name, value, 1, 1000) {
                    settings.engine.max_concurrent_jobs = number;
                }
            }
            "max_concurrent_sheets" => {
                if let Some(number) = self.number(name, value, 1, 1000) {
                    settings.engine.max_concurrent_sheets = number;
                }
            }
            "max_sessions_per_account" => {
                if let Some(number) = self.number(name, value, 1, 1000) {
                    settings.engine.max_sessions_per_account = Some(number);
                }
            }
            "queue_limit" => {
                if let Some(number) = self.number(name, value, 1, 100_000) {
                    settings.queue_limit = number;
                }
            }
            "idle_exit_seconds" => {
                if let Some(number) = self.number(name, value, 0, u32::MAX) {
                    settings.idle_exit_seconds = number;
                }
            }
            "launcher" => match value.text() {
                Some("auto") => settings.launcher = LauncherChoice::Auto,
                Some("systemd") => settings.launcher = LauncherChoice::Systemd,
                Some("supervised") => settings.launcher = LauncherChoice::Supervised,
                _ => self.error(
                    value,
                    &format!("`launcher` is auto, systemd or supervised, not {}", value.describe()),
                ),
            },
            "stop_sessions_on_stop" => match value.to_value() {
                Value::Bool(word) => settings.stop_sessions_on_stop = word,
                _ => self.error(
                    value,
                    &format!("`stop_sessions_on_stop` is true or false, not {}", value.describe()),
                ),
            },
            "pass_env" => match value
                .list()
                .map(|items| items.iter().map(Node::text).collect::<Option<Vec<_>>>())
            {
                Some(Some(names)) => settings.pass_env = names.into_iter().map(str::to_owned).collect(),
                _ => self.error(
                    value,
                    &format!("`pass_env` is a list of names, not {}", value.describe()),
                ),
            },
            "environment_file" => match value.text() {
                Some(path) if path.starts_with('/') => settings.environment_file = Some(PathBuf::from(path)),
                _ => self.error(value, "`environment_file` is an absolute path"),
            },
            "default_thinking_method" => match value.text() {
                Some(text) => settings.default_thinking_method = Some(text.to_owned()),
                None => self.error(
                    value,
                    &format!("`default_thinking_method` is a text, not {}", value.describe()),
                ),
            },
            name if DORMANT.contains(&name) => {
                self.warnings
                    .push(format!("{}: `{name}` has no effect yet", self.place(key)));
            }
            name if SYSTEMDS.contains(&name) => {
                self.error(
                    key,
                    &format!("`{name}` is no setting here: systemd has the socket, the process and the log"),
                );
            }
            name => {
                let near = KNOWN
                    .iter()
                    .chain(DORMANT)
                    .map(|known| (strsim::jaro_winkler(known, name), known))
                    .filter(|(score, _)| *score > 0.8)
                    .max_by(|a, b| a.0.total_cmp(&b.0));
                let hint = near
                    .map(|(_, known)| format!("; did you mean `{known}`?"))
                    .unwrap_or_default();
                self.error(key, &format!("`{name}` is no setting{hint}"));
            }
        }
    }

    fn number(&mut self, name: &str, value: &Node, least: u32, most: u32) -> Option<u32> {
        let number = match value.to_value() {
            Value::Int(number) => u32::try_from(number)
                .ok()
                .filter(|number| (least..=most).contains(number)),
            _ => None,
        };
        if number.is_none() {
            self.error(
                value,
                &format!(
                    "`{name}` is a whole number from {least} to {most}, not {}",
                    value.describe()
                ),
            );
        }
        number
    }

    fn place(&self, node: &Node) -> String {
        format!("{}:{}:{}", self.file, node.at.line, node.at.column)
    }

    fn error(&mut self, node: &Node, message: &str) {
        self.errors.push(format!("{}: {message}", self.place(node)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Settings, Vec<String>), String> {
        Settings::parse(text.as_bytes(), "mozartd.yaml")
    }

    #[test]
    fn every_setting_is_read() {
        let text = "max_concurrent_jobs: 2\nmax_concurrent_sheets: 30\nmax_sessions_per_account: 4\nqueue_limit: 7\nlauncher: supervised\npass_env: [EDITOR]\nenvironment_file: /e\n\
                    idle_exit_seconds: 0\nstop_sessions_on_stop: yes\ndefault_thinking_method: slowly\n";
        let (settings, warnings) = parse(text).unwrap();
        assert_eq!(
            settings,
            Settings {
                engine: EngineSettings {
                    max_concurrent_jobs: 2,
                    max_concurrent_sheets: 30,
                    max_sessions_per_account: Some(4),
                    max_starts_per_minute: None,
                },
                queue_limit: 7,
                launcher: LauncherChoice::Supervised,
                pass_env: vec!["EDITOR".to_owned()],
                environment_file: Some(PathBuf::from("/e")),
                idle_exit_seconds: 0,
                stop_sessions_on_stop: true,
                default_thinking_method: Some("slowly".to_owned()),
            }
        );
        assert!(warnings.is_empty());
        assert_eq!(parse("\n").unwrap().0, Settings::default());
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let error =
            parse("max_concurrent_jobs: 0\nlauncher: docker\nmax_concurent_jobs: 3\npid_file: /x\n").unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(
            lines[0],
            "mozartd.yaml:1:22: `max_concurrent_jobs` is a whole number from 1 to 1000, not the number 0"
        );
        assert!(
            lines[1].starts_with("mozartd.yaml:2:11: `launcher` is auto, systemd or supervised"),
            "{error}"
        );
        assert_eq!(
            lines[2],
            "mozartd.yaml:3:1: `max_concurent_jobs` is no setting; did you mean `max_concurrent_jobs`?"
        );
        assert!(lines[3].contains("systemd has the socket"), "{error}");
    }

    #[test]
    fn a_setting_without_effect_yet_is_a_warning() {
        let (_, warnings) = parse("quiet_hours: [\"22:00-06:00\"]\n").unwrap();
        assert_eq!(warnings, ["mozartd.yaml:1:1: `quiet_hours` has no effect yet"]);
    }
}
