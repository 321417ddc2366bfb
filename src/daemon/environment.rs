//! The conductor's own environment: what every session gets of it, and which secrets it has.

use std::collections::BTreeMap;

use crate::job::secret::looks_secret;
use crate::runner::backend;
use crate::runner::spec::Secrets;

/// Variables as they were when the conductor started (and those of `environment_file`).
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// Of this process. Variables that are not UTF-8 are left out: nothing that Mozart passes on is one.
    pub fn of_this_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// One variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All of them.
    pub fn all(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// Adds the lines `NAME=value` of a file (blank lines and `#` comments are left out; a value may stand in one pair
    /// of quotes), as systemd's `EnvironmentFile=` reads them.
    ///
    /// # Errors
    /// The number of the first line that is none of these, with what is wrong. Its text is not shown: it may hold a secret.
    pub fn add_file(&mut self, text: &str) -> Result<(), String> {
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with(';') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                return Err(format!("line {} is not NAME=value", index + 1));
            };
            let value = value.trim();
            let quoted = ['"', '\'']
                .iter()
                .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
            self.0
                .insert(name.trim().to_owned(), quoted.unwrap_or(value).to_owned());
        }
        Ok(())
    }

    /// Secrets for a session: the backend's own, and names in `pass_env` that look secret.
    pub(super) fn secrets(&self, job: &[String], settings: &[String]) -> Secrets {
        let named = job
            .iter()
            .chain(settings)
            .map(String::as_str)
            .filter(|name| looks_secret(name));
        let names = backend::SECRETS.iter().copied().chain(named);
        Secrets(
            names
                .filter_map(|name| Some((name.to_owned(), self.get(name)?.to_owned())))
                .collect(),
        )
    }

    /// What the settings pass on to every session, secrets left out.
    pub(super) fn extra(&self, settings: &[String]) -> BTreeMap<String, String> {
        let plain = settings.iter().filter(|name| !looks_secret(name));
        plain
            .filter_map(|name| Some((name.clone(), self.get(name)?.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_adds_variables_and_its_errors_hide_the_text() {
        let mut environment = Environment::default();
        environment.add_file("# c\n\nA=1\nANTHROPIC_API_KEY=\"k y\"\n").unwrap();
        assert_eq!(environment.get("A"), Some("1"));
        assert_eq!(environment.secrets(&[], &[]).0["ANTHROPIC_API_KEY"], "k y");
        let error = environment.add_file("A=1\nhunter2").unwrap_err();
        assert_eq!(error, "line 2 is not NAME=value");
    }

    #[test]
    fn secrets_and_plain_variables_go_separate_ways() {
        let mut environment = Environment::default();
        environment.add_file("MY_TOKEN=t\nEDITOR=vi").unwrap();
        let names = ["MY_TOKEN".to_owned(), "EDITOR".to_owned()];
        assert_eq!(environment.extra(&names).keys().collect::<Vec<_>>(), ["EDITOR"]);
        assert!(environment.secrets(&[], &names).0.contains_key("MY_TOKEN"));
        assert_eq!(format!("{environment:?}"), r#"{"EDITOR", "MY_TOKEN"}"#);
    }
}
