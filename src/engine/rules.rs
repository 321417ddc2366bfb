//! What the engine needs to know of a plan: small, and stored with the run's first fact.

use serde::{Deserialize, Serialize};

use super::fact::GateKey;
use crate::job::plan::{
    BackendKind, CircuitBreaker, CostLimits, Dependency, FailFast, OnLimit, Parallel, Plan, RateLimitPolicy,
    RetryPolicy, SubmitContext,
};
use crate::model::{AccountId, Code, SheetNo, Span};

/// Authentication and billing.
pub(super) fn is_accounts(code: Code) -> bool {
    matches!(code, Code::E502 | Code::E506)
}

/// Model families as the names of models and windows have them.
const FAMILIES: [&str; 3] = ["opus", "sonnet", "haiku"];

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
    /// When its account's sessions are given a rest after faults; `None`: never.
    #[serde(default)]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// What it may cost; `None`: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_limits: Option<CostLimits>,
    /// The model that its sessions ask for, where it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which sheets wait for which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<Dependency>,
    /// Several sheets at once; `None`: in order, one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<Parallel>,
    /// Between the end of one sheet and the start of the next; without meaning where several run at once.
    pub pause_between_sheets: Span,
    /// 1 to 10.
    pub priority: u8,
    /// Whose limits; `None`: no gate ever.
    pub account: Option<AccountId>,
    /// A session of this backend can be resumed by its id.
    pub resumable: bool,
    /// Sheets that are skipped where their expression is true then; by number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skip_when: Vec<(SheetNo, String)>,
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
            circuit_breaker: plan.circuit_breaker,
            cost_limits: plan.cost_limits,
            model: match &plan.backend.kind {
                BackendKind::ClaudeCli(cli) => cli.model.clone(),
                BackendKind::Command { .. } => None,
            },
            dependencies: plan.dependencies.clone(),
            parallel: plan.parallel.clone(),
            pause_between_sheets: plan.pause_between_sheets,
            priority: plan.priority,
            account: context.account.clone(),
            resumable: matches!(plan.backend.kind, BackendKind::ClaudeCli(_)),
            skip_when: plan
                .sheets
                .iter()
                .filter_map(|sheet| Some((SheetNo(sheet.number), sheet.skip_when.clone()?)))
                .collect(),
        }
    }

    /// When the sheet is skipped.
    pub(super) fn skip_when(&self, sheet: SheetNo) -> Option<&str> {
        by_sheet(&self.skip_when, sheet).map(String::as_str)
    }

    /// Whether a failure of that code is its account's and not the sheet's: authentication and billing, which a person
    /// mends for all sheets at once.
    pub(super) fn is_accounts(&self, code: Code) -> bool {
        self.account.is_some() && is_accounts(code)
    }

    /// Whether a gate is for its sessions. One of a model family (`seven_day_opus`) is for sessions of that family, and for
    /// those of which nobody knows the model.
    pub(super) fn is_kept_by(&self, gate: &GateKey) -> bool {
        if self.account.as_ref() != Some(&gate.account) {
            return false;
        }
        let named = |text: &str| FAMILIES.iter().find(|family| text.contains(*family));
        match (
            gate.window.as_deref().and_then(named),
            self.model.as_deref().and_then(named),
        ) {
            (Some(limited), Some(asked)) => limited == asked,
            (Some(_), None) | (None, _) => true,
        }
    }

    /// Sheets that may run at once.
    pub fn max_concurrent(&self) -> u32 {
        self.parallel.as_ref().map_or(1, |parallel| parallel.max_concurrent)
    }

    /// What the first failed sheet means for the others. In order it ends the run.
    pub fn fail_fast(&self) -> FailFast {
        self.parallel
            .as_ref()
            .map_or(FailFast::Hold, |parallel| parallel.fail_fast)
    }

    /// Places that a sheet takes of `max_concurrent_sheets`.
    pub fn weight(&self, sheet: SheetNo) -> u32 {
        let weights = self.parallel.as_ref().map_or(&[][..], |parallel| &parallel.weights);
        by_sheet(weights, sheet).copied().unwrap_or(1)
    }
}

/// What stands there for the sheet; the pairs are in order.
fn by_sheet<T>(pairs: &[(SheetNo, T)], sheet: SheetNo) -> Option<&T> {
    let found = pairs.binary_search_by_key(&sheet, |(sheet, _)| *sheet).ok()?;
    pairs.get(found).map(|(_, value)| value)
}
