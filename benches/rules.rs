//! What the engine knows of a job, from the text of its job file.

#[path = "plan.rs"]
mod plan;

use std::collections::BTreeMap;

use mozart::engine::rules::RunRules;
use mozart::job::plan::{Given, SubmitContext};
use mozart::model::{AccountId, SheetNo};

/// The rules of a job with those sections, whose sessions all use one account.
pub(crate) fn rules(sections: &str) -> Result<RunRules, String> {
    let text = format!(
        "name: job\nworkspace: ./job\nprompt: {{template: hello}}\npause_between_sheets_seconds: 0\n{sections}"
    );
    let plan = plan::plan(&text)?;
    let context = SubmitContext {
        environment: BTreeMap::new(),
        program: None,
        job_file: None,
        account: Some(AccountId("claude".to_owned())),
        given: Given::default(),
    };
    Ok(RunRules::of(&plan, &context, SheetNo(1)))
}
