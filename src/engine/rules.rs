//! What the engine needs to know of a plan: small, and stored with the run's first fact.

use serde::{Deserialize, Serialize};

use crate::job::plan::{BackendKind, OnLimit, Plan, RateLimitPolicy, RetryPolicy, SubmitContext};
use crate::model::{AccountId, SheetNo, Span};

/// The rules that decide a run's course.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRules {
    /// Number of sheets, from 1.
    pub sheets: u32,
    /// Sheets below are skipped, reason `before start sheet`.
    pub start_sheet: SheetNo,
    /// Of those, the ones up to this one because their files say that they are done: reason `found done`.
    pub found_done: Option<SheetNo>,
    /// Retry budgets and delays.
    pub retry: RetryPolicy,
    /// Limits.
    pub rate_limit: RateLimitPolicy,
    /// What a limit does to the run.
    pub on_limit: OnLimit,
    /// Between the end of one sheet and the start of the next.
    pub pause_between_sheets: Span,
    /// 1 to 10.
    pub priority: u8,
    /// Whose limits; `None`: no gate ever.
    pub account: Option<AccountId>,
    /// A session of this backend can be resumed by its id.
    pub resumable: bool,
}

impl RunRules {
    /// The rules of `plan`, submitted with `context`.
    pub fn of(plan: &Plan, context: &SubmitContext, start_sheet: SheetNo) -> Self {
        Self {
            sheets: u32::try_from(plan.sheets.len()).unwrap_or(u32::MAX),
            start_sheet,
            found_done: None,
            retry: plan.retry.clone(),
            rate_limit: plan.rate_limit.clone(),
            on_limit: plan.on_limit,
            pause_between_sheets: plan.pause_between_sheets,
            priority: plan.priority,
            account: context.account.clone(),
            resumable: matches!(plan.backend.kind, BackendKind::ClaudeCli(_)),
        }
    }
}
