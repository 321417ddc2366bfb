//! What the engine knows of a job, from the text of its job file.

use std::collections::BTreeMap;
use std::path::Path;

use mozart::engine::rules::RunRules;
use mozart::job::files::{Files, PathKind};
use mozart::job::plan::{Given, SubmitContext};
use mozart::job::{self, JobInput};
use mozart::model::{AccountId, SheetNo};

/// The rules of a job with those sections, whose sessions all use one account.
pub(crate) fn rules(sections: &str) -> Result<RunRules, String> {
    let text = format!(
        "name: job\nworkspace: ./job\nprompt: {{template: hello}}\npause_between_sheets_seconds: 0\n{sections}"
    );
    let none = BTreeMap::new();
    let input = JobInput {
        text: text.as_bytes(),
        path: None,
        base_directory: Path::new("/"),
        submit_directory: None,
        workspace: None,
        set: &none,
        environment: &none,
        priority: None,
        default_thinking_method: None,
    };
    let loaded = job::load(&input, &Nothing);
    let plan = loaded.plan.ok_or_else(|| format!("{:?}", loaded.problems))?;
    let context = SubmitContext {
        environment: BTreeMap::new(),
        program: None,
        job_file: None,
        account: Some(AccountId("claude".to_owned())),
        given: Given::default(),
    };
    Ok(RunRules::of(&plan, &context, SheetNo(1)))
}

/// A disk on which every directory is, and nothing else.
struct Nothing;

impl Files for Nothing {
    fn read(&self, _path: &Path) -> Result<Vec<u8>, String> {
        Err("does not exist".to_owned())
    }

    fn kind(&self, _path: &Path) -> PathKind {
        PathKind::Directory
    }
}
