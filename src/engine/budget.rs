//! Budgets of money: what a session may cost, and when a person has to be asked for more.
//!
//! Each start reserves what its session may cost at most, and the session itself ends when it has cost that
//! (`--max-budget-usd`, looked at after each turn). So sessions that run at once exceed a budget by one turn each at most.

use super::run::Run;
use crate::model::{Code, Cost, SheetNo};

/// No session is started for less than a cent.
const LEAST: Cost = Cost(10_000);

/// What there is for the next session of a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    /// No budget is set.
    None,
    /// So much at most.
    Most(Cost),
    /// Nothing, until a session at work has ended and left some of what it reserved.
    Reserved,
    /// Nothing: the sheet's (E701) or the job's (E702) is used up.
    UsedUp(Code),
}

/// What there is for the next session of `sheet`.
pub(super) fn of(run: &Run, no: SheetNo) -> Budget {
    let (Some(limits), Some(sheet)) = (&run.rules.cost_limits, run.sheets.get(no)) else {
        return Budget::None;
    };
    let own = limits
        .per_sheet
        .map(|limit| less(sheet.budget.unwrap_or(limit), sheet.spent));
    if own.is_some_and(|own| own < LEAST) {
        return Budget::UsedUp(Code::E701);
    }
    let Some(limit) = limits.per_job else {
        return own.map_or(Budget::None, Budget::Most);
    };
    let reserved = run.running().filter_map(|(_, attempt)| attempt.budget);
    let reserved = Cost(reserved.fold(0, |sum, cost| cost.0.saturating_add(sum)));
    let left = less(less(run.budget.unwrap_or(limit), run.spent), reserved);
    let wanted = own.unwrap_or_else(|| estimate(run, left, sheet.capped));
    if left >= wanted {
        Budget::Most(wanted)
    } else if run.is_running() {
        Budget::Reserved
    } else if left >= LEAST {
        Budget::Most(left)
    } else {
        Budget::UsedUp(Code::E702)
    }
}

/// What a session will cost at most: half as much again as those before it, twice what was too little for it; where
/// none has ended yet an even share.
fn estimate(run: &Run, left: Cost, capped: Option<Cost>) -> Cost {
    let mean = (run.costed > 0).then(|| Cost(run.spent.0 / i64::from(run.costed)));
    let places = i64::from(run.rules.max_concurrent().saturating_sub(run.counts.running).max(1));
    let estimate = mean.map_or(left.0 / places, |mean| mean.0 / 2 * 3);
    let twice = capped.map_or(0, |capped| capped.0.saturating_mul(2));
    Cost(estimate.max(twice).max(LEAST.0))
}

fn less(from: Cost, cost: Cost) -> Cost {
    Cost(from.0.saturating_sub(cost.0))
}
