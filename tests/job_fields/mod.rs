//! What each field of a job file does, seen from outside: the job is run by `mozartctl` alone, and the test looks at
//! what its sessions were given, what they left behind and what is told of them. Each test fails where its field is
//! read and then forgotten.

mod control;
mod quick_start;
mod rules;
mod session;

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::{Alone, Desk, json, output, said};

/// A session that keeps its whole prompt in the desk, by its sheet's number, which is the prompt's first line.
const KEEP_PROMPT: &str = "p=$(cat; echo x); n=$(printf '%s' \"$p\" | head -n 1); printf '%s' \"${p%x}\" > prompt-$n";

/// A person with a job file that is called `job`.
struct Person {
    alone: Alone,
    desk: Desk,
}

impl Person {
    fn new() -> Self {
        let alone = Alone::new();
        alone.settings("launcher: supervised\n");
        Self {
            alone,
            desk: Desk::new(),
        }
    }

    /// A job of `sheets` sheets as [`Desk::job`] makes it, each change of the text made once.
    fn job(&self, sheets: u32, script: &str, more: &str, changes: &[(&str, &str)]) -> PathBuf {
        let file = self.desk.job("job", sheets, script, more);
        let mut text = std::fs::read_to_string(&file).expect("the job");
        for (from, to) in changes {
            assert_eq!(text.matches(from).count(), 1, "{from:?} in {text}");
            text = text.replace(from, to);
        }
        self.desk.write("job.yaml", &text)
    }

    /// A job of one `command` session of the given script and prompt section.
    fn prompted(&self, prompt: &str, more: &str) -> PathBuf {
        let script = serde_json::to_string(KEEP_PROMPT).expect("a text");
        self.desk.write(
            "job.yaml",
            &format!(
                "name: job\nbackend: {{type: command, command: [sh, -c, {script}]}}\n\
                 sheet: {{size: 1, total_items: 1}}\nprompt: {prompt}\n{more}\n"
            ),
        )
    }

    fn run(&self, file: &Path) -> Output {
        output(self.alone.ctl(["run"]).arg(file))
    }

    /// Runs the job to its good end.
    fn completes(&self, file: &Path) -> Output {
        let done = self.run(file);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        done
    }

    /// Runs the job to its failure; the first failed sheet as `status --json` tells it.
    fn fails(&self, file: &Path) -> Value {
        let done = self.run(file);
        assert_eq!(done.status.code(), Some(1), "{}", said(&done));
        let status = self.alone.status("job");
        let sheets = status["sheets"].as_array().expect("sheets");
        let failed = sheets.iter().find(|sheet| sheet["state"] == "failed");
        failed.unwrap_or_else(|| panic!("no sheet failed: {status}")).clone()
    }

    /// What `run --dry-run --json` says.
    fn plan(&self, file: &Path) -> Value {
        let shown = output(self.alone.ctl(["run", "--dry-run", "--json"]).arg(file));
        assert!(shown.status.success(), "{}", said(&shown));
        json(&shown)
    }

    /// A file of the desk.
    fn read(&self, name: &str) -> String {
        let path = self.desk.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The checkpoint of the job, by its path in the desk.
    fn checkpoint(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).expect("a checkpoint is JSON")
    }
}
