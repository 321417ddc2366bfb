//! Where Mozart keeps things: computed by itself, equal for the service and an embedded conductor.

use std::path::PathBuf;

/// The directories and files of one user's Mozart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// `${XDG_STATE_HOME:-~/.local/state}/mozart`.
    pub state: PathBuf,
    /// `$XDG_RUNTIME_DIR/mozart`; without that variable `run` in the state directory.
    pub runtime: PathBuf,
    /// `${XDG_CONFIG_HOME:-~/.config}/mozart/mozartd.yaml`.
    pub settings: PathBuf,
}

impl Paths {
    /// From the environment as `variable` tells it. An XDG variable that is empty or not absolute counts as
    /// unset, as the XDG Base Directory Specification 0.8 says.
    ///
    /// # Errors
    /// Where no home directory is known.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let under_home = |name: &str, rest: &str| match absolute(name) {
            Some(path) => Ok(path),
            None => absolute("HOME")
                .map(|home| home.join(rest))
                .ok_or_else(|| format!("neither {name} nor HOME names an absolute directory; set HOME")),
        };
        let state = under_home("XDG_STATE_HOME", ".local/state")?.join("mozart");
        let settings = under_home("XDG_CONFIG_HOME", ".config")?.join("mozart/mozartd.yaml");
        let runtime = match absolute("XDG_RUNTIME_DIR") {
            Some(path) => path.join("mozart"),
            None => state.join("run"),
        };
        Ok(Self {
            state,
            runtime,
            settings,
        })
    }

    /// The ledger's file.
    pub fn ledger(&self) -> PathBuf {
        self.state.join("ledger.db")
    }

    /// Attempts' directories of the ledger with that tag. Each ledger has its own, so that a new ledger never
    /// takes an old one's files for evidence of its own attempts.
    pub fn spool(&self, tag: &str) -> PathBuf {
        self.state.join("spool").join(tag)
    }

    /// The private socket.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("bus")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variables: &[(&str, &str)]) -> Result<Paths, String> {
        Paths::from_environment(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn xdg_variables_win_and_must_be_absolute() {
        let found = paths(&[
            ("HOME", "/home/a"),
            ("XDG_STATE_HOME", "/s"),
            ("XDG_RUNTIME_DIR", "/run/user/1"),
        ])
        .unwrap();
        assert_eq!(found.ledger(), PathBuf::from("/s/mozart/ledger.db"));
        assert_eq!(found.socket(), PathBuf::from("/run/user/1/mozart/bus"));
        assert_eq!(found.settings, PathBuf::from("/home/a/.config/mozart/mozartd.yaml"));

        let found = paths(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "relative")]).unwrap();
        assert_eq!(found.state, PathBuf::from("/home/a/.local/state/mozart"));
        assert_eq!(found.runtime, PathBuf::from("/home/a/.local/state/mozart/run"));
    }

    #[test]
    fn no_home_is_an_error_that_says_what_to_do() {
        assert!(paths(&[]).unwrap_err().contains("set HOME"));
    }
}
