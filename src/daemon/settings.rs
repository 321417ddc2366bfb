//! The conductor's settings: `$XDG_CONFIG_HOME/mozart/mozartd.yaml`, every field optional.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::pressure;
use super::quiet::{self, Window};
use crate::engine::event::EngineSettings;
use crate::job::prices::Prices;
use crate::job::value::Value;
use crate::job::yaml::{self, Node};
use crate::model::{Cost, Span};

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
    /// What the sessions may take of the machine, all together.
    pub resource_limits: ResourceLimits,
    /// Windows of the local day in which nothing new starts.
    pub quiet_hours: Vec<Window>,
    /// From which pressure on the machine is spared; `None`: it is not looked at.
    pub pressure: Option<pressure::Limits>,
    /// For sessions that are stopped with the conductor; what is left then is left running.
    pub shutdown_timeout_seconds: u32,
    /// Ended runs that are kept.
    pub max_job_history: u32,
    /// What tokens cost, for sessions that do not say what they have cost.
    pub prices: Arc<Prices>,
}

/// What the sessions may take of the machine, all together; unset is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceLimits {
    /// Above it the kernel takes memory back from the sessions (`MemoryHigh=` of their slice); nothing is killed.
    pub max_memory_mb: Option<u32>,
    /// No new starts while the sessions have that many processes and threads.
    pub max_processes: Option<u32>,
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
            resource_limits: ResourceLimits::default(),
            quiet_hours: Vec::new(),
            pressure: Some(pressure::Limits::default()),
            shutdown_timeout_seconds: 300,
            max_job_history: 1000,
            prices: Arc::new(Prices::packaged()),
        }
    }
}

/// Settings that are known and have no effect yet.
const DORMANT: &[&str] = &["observer", "log_level"];

/// Settings of the Python version that systemd has taken over.
const SYSTEMDS: &[&str] = &["socket", "socket_path", "pid_file", "log_file"];

const KNOWN: &[&str] = &[
    "max_concurrent_jobs",
    "max_concurrent_sheets",
    "max_sessions_per_account",
    "daily_budget_usd",
    "queue_limit",
    "launcher",
    "pass_env",
    "environment_file",
    "idle_exit_seconds",
    "stop_sessions_on_stop",
    "default_thinking_method",
    "resource_limits",
    "quiet_hours",
    "pressure",
    "job_timeout_seconds",
    "shutdown_timeout_seconds",
    "monitor_interval_seconds",
    "max_job_history",
    "prices",
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
            "daily_budget_usd" => match value.to_value() {
                Value::Int(dollars) if dollars > 0 => {
                    settings.engine.daily_budget = Some(Cost::from_usd(dollars as f64));
                }
                Value::Float(dollars) if dollars >= 0.01 && dollars.is_finite() => {
                    settings.engine.daily_budget = Some(Cost::from_usd(dollars));
                }
                _ => self.error(
                    value,
                    &format!(
                        "`daily_budget_usd` is an amount of dollars, at least 0.01, not {}",
                        value.describe()
                    ),
                ),
            },
            "idle_exit_seconds" => {
                if let Some(number) = self.number(name, value, 0, u32::MAX) {
                    settings.idle_exit_seconds = number;
                }
            }
            "job_timeout_seconds" => {
                if let Some(seconds) = self.number(name, value, 60, u32::MAX) {
                    settings.engine.job_timeout = Span::from_secs(i64::from(seconds));
                }
            }
            "shutdown_timeout_seconds" => {
                if let Some(seconds) = self.number(name, value, 10, u32::MAX) {
                    settings.shutdown_timeout_seconds = seconds;
                }
            }
            "max_job_history" => {
                if let Some(number) = self.number(name, value, 10, u32::MAX) {
                    settings.max_job_history = number;
                }
            }
            "monitor_interval_seconds" => {
                if self.number(name, value, 5, u32::MAX).is_some() {
                    let why = "nothing is looked at at intervals here: systemd and the kernel tell";
                    self.warnings
                        .push(format!("{}: `{name}` has no effect; {why}", self.place(key)));
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
            "prices" => self.prices(settings, value),
            "quiet_hours" => self.quiet_hours(settings, value),
            "pressure" => self.pressure(settings, value),
            "resource_limits" => self.fields(name, value, |reader, field, key, value| {
                let (limits, whole) = (&mut settings.resource_limits, format!("{name}.{field}"));
                match field {
                    "max_memory_mb" => limits.max_memory_mb = reader.number(&whole, value, 512, u32::MAX),
                    "max_processes" => limits.max_processes = reader.number(&whole, value, 5, u32::MAX),
                    "max_api_calls_per_minute" => {
                        settings.engine.max_starts_per_minute = reader.number(&whole, value, 1, 100_000);
                    }
                    _ => reader.unknown(
                        key,
                        &whole,
                        &[
                            "resource_limits.max_memory_mb",
                            "resource_limits.max_processes",
                            "resource_limits.max_api_calls_per_minute",
                        ],
                    ),
                }
            }),
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
            name => self.unknown(key, name, &[KNOWN, DORMANT].concat()),
        }
    }

    fn prices(&mut self, settings: &mut Settings, value: &Node) {
        let Some(path) = value.text().filter(|path| path.starts_with('/')) else {
            return self.error(value, "`prices` is the absolute path of a table of prices");
        };
        let read = std::fs::read(path).map_err(|error| format!("{path} cannot be read: {error}"));
        match read.and_then(|bytes| Prices::with(&bytes, path)) {
            Ok(prices) => settings.prices = Arc::new(prices),
            Err(why) => self.error(value, &format!("`prices` cannot be used: {why}")),
        }
    }

    fn pressure(&mut self, settings: &mut Settings, value: &Node) {
        if value.to_value() == Value::Bool(false) {
            settings.pressure = None;
            return;
        }
        let mut limits = pressure::Limits::default();
        self.fields("pressure", value, |reader, field, key, value| {
            let whole = format!("pressure.{field}");
            let limit = match field {
                "hold_percent" => &mut limits.hold_percent,
                "refuse_percent" => &mut limits.refuse_percent,
                _ => return reader.unknown(key, &whole, &["pressure.hold_percent", "pressure.refuse_percent"]),
            };
            if let Some(percent) = reader.number(&whole, value, 1, 100) {
                *limit = percent;
            }
        });
        if limits.refuse_percent < limits.hold_percent {
            self.error(value, "`pressure.refuse_percent` is not below `pressure.hold_percent`");
        }
        settings.pressure = Some(limits);
    }

    fn quiet_hours(&mut self, settings: &mut Settings, value: &Node) {
        let Some(items) = value.list() else {
            return self.error(
                value,
                &format!(
                    "`quiet_hours` is a list of windows such as [\"22:00-06:00\"], not {}",
                    value.describe()
                ),
            );
        };
        settings.quiet_hours.clear();
        for item in items {
            match item.text().and_then(Window::parse) {
                Some(window) => settings.quiet_hours.push(window),
                None => self.error(
                    item,
                    &format!(
                        "a window of `quiet_hours` is two times of the day such as \"22:00-06:00\", not {}",
                        item.describe()
                    ),
                ),
            }
        }
        if quiet::is_always(&settings.quiet_hours) {
            self.error(
                value,
                "`quiet_hours` leaves no time of the day in which anything could start",
            );
        }
    }

    /// Reads the entries of a map within the settings, each with its name.
    fn fields(&mut self, name: &str, value: &Node, mut read: impl FnMut(&mut Self, &str, &Node, &Node)) {
        let Some(entries) = value.map() else {
            return self.error(
                value,
                &format!("`{name}` is a map of names and values, not {}", value.describe()),
            );
        };
        for (key, value) in entries {
            match key.text() {
                Some(field) => read(self, field, key, value),
                None => self.error(key, "a setting's name is a text"),
            }
        }
    }

    fn unknown(&mut self, key: &Node, name: &str, known: &[&str]) {
        let near = known
            .iter()
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .filter(|(score, _)| *score > 0.8)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = near
            .map(|(_, known)| format!("; did you mean `{known}`?"))
            .unwrap_or_default();
        self.error(key, &format!("`{name}` is no setting{hint}"));
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
        let text = "max_concurrent_jobs: 2\nmax_concurrent_sheets: 30\nmax_sessions_per_account: 4\ndaily_budget_usd: 12.5\nqueue_limit: 7\nlauncher: supervised\npass_env: [EDITOR]\nenvironment_file: /e\n\
                    idle_exit_seconds: 0\nstop_sessions_on_stop: yes\ndefault_thinking_method: slowly\n\
                    resource_limits: {max_memory_mb: 8192, max_processes: 500, max_api_calls_per_minute: 60}\n\
                    quiet_hours: [\"22:00-06:00\", \"12:00-13:00\"]\npressure: {hold_percent: 20}\n\
                    job_timeout_seconds: 60\nshutdown_timeout_seconds: 10\nmax_job_history: 10\n";
        let (settings, warnings) = parse(text).unwrap();
        assert_eq!(
            settings,
            Settings {
                engine: EngineSettings {
                    max_concurrent_jobs: 2,
                    max_concurrent_sheets: 30,
                    max_sessions_per_account: Some(4),
                    max_starts_per_minute: Some(60),
                    daily_budget: Some(Cost::from_usd(12.5)),
                    job_timeout: Span::from_secs(60),
                },
                queue_limit: 7,
                launcher: LauncherChoice::Supervised,
                pass_env: vec!["EDITOR".to_owned()],
                environment_file: Some(PathBuf::from("/e")),
                idle_exit_seconds: 0,
                stop_sessions_on_stop: true,
                default_thinking_method: Some("slowly".to_owned()),
                resource_limits: ResourceLimits {
                    max_memory_mb: Some(8192),
                    max_processes: Some(500),
                },
                quiet_hours: ["22:00-06:00", "12:00-13:00"]
                    .map(|text| Window::parse(text).unwrap())
                    .to_vec(),
                pressure: Some(pressure::Limits {
                    hold_percent: 20,
                    refuse_percent: 80,
                }),
                shutdown_timeout_seconds: 10,
                max_job_history: 10,
                prices: Arc::new(Prices::packaged()),
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

        let error = parse("resource_limits: {max_memory_mb: 64, max_proceses: 9}\n").unwrap_err();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].starts_with("mozartd.yaml:1:34: `resource_limits.max_memory_mb` is a whole number from 512 "));
        assert!(
            lines[1].ends_with("did you mean `resource_limits.max_processes`?"),
            "{error}"
        );
        assert!(parse("resource_limits: 5\n").unwrap_err().contains("is a map"));
        let error = parse("pressure: {hold_percent: 50, refuse_percent: 40}\n").unwrap_err();
        assert!(error.contains("is not below"), "{error}");
        assert_eq!(parse("pressure: off\n").unwrap().0.pressure, None);
        let error = parse("quiet_hours: [\"22-6\"]\n").unwrap_err();
        assert!(
            error.starts_with("mozartd.yaml:1:15: a window of `quiet_hours` is"),
            "{error}"
        );
        let error = parse("quiet_hours: [\"08:00-20:00\", \"20:00-08:00\"]\n").unwrap_err();
        assert!(error.contains("leaves no time of the day"), "{error}");
    }

    #[test]
    fn prices_are_read_from_a_file_of_ones_own() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prices.yaml");
        std::fs::write(&file, "as_of: 2026-11-01\nmodels: {mine: {input: 1, output: 2}}\n").unwrap();
        let (settings, _) = parse(&format!("prices: {}\n", file.display())).unwrap();
        assert!(settings.prices.knows("mine") && settings.prices.knows("claude-opus-4-5"));
        std::fs::write(&file, "models: {}\n").unwrap();
        let error = parse(&format!("prices: {}\n", file.display())).unwrap_err();
        assert!(error.contains("`as_of` is missing"), "{error}");
        assert!(parse("prices: mine.yaml\n").unwrap_err().contains("absolute path"));
        assert!(
            parse("prices: /nowhere/at/all\n")
                .unwrap_err()
                .contains("cannot be read")
        );
    }

    #[test]
    fn a_setting_without_effect_yet_is_a_warning() {
        let (_, warnings) = parse("observer: {}\n").unwrap();
        assert_eq!(warnings, ["mozartd.yaml:1:1: `observer` has no effect yet"]);
        let (_, warnings) = parse("monitor_interval_seconds: 15\n").unwrap();
        assert!(warnings[0].contains("systemd and the kernel tell"), "{warnings:?}");
        for text in [
            "daily_budget_usd: 0",
            "daily_budget_usd: 0.001",
            "daily_budget_usd: much",
        ] {
            assert!(parse(text).unwrap_err().contains("at least 0.01"), "{text}");
        }
        for text in [
            "monitor_interval_seconds: 4",
            "job_timeout_seconds: 59",
            "shutdown_timeout_seconds: 9",
            "max_job_history: 9",
        ] {
            assert!(parse(text).unwrap_err().contains("is a whole number from"), "{text}");
        }
    }
}
