//! Budgets of money: what a session may cost, and when a person has to be asked for more.
//!
//! Each start reserves what its session may cost at most, and the session itself ends when it has cost that
//! (`--max-budget-usd`, looked at after each turn). So sessions that run at once exceed a budget by one turn each at most.
//! The budgets of sheet and job are the run's, over all its life; that of the day is its account's, over all runs. What a
//! session has cost belongs to the day on which it ended.

use std::collections::BTreeMap;

use serde::Serialize;

use super::event::Today;
use super::run::Run;
use super::{Engine, Overlay};
use crate::model::{AccountId, AttemptRef, Code, Cost, Outcome, RunId, SheetNo, Timestamp};

/// No session is started for less than a cent.
const LEAST: Cost = Cost(10_000);

/// The day's budget is told of when so much of it is used.
const WARN_AT_PERCENT: u8 = 80;

/// What there is for the next session of a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Budget {
    /// No budget is set.
    None,
    /// So much at most.
    Most(Cost),
    /// Nothing, until a session at work has ended and left some of what it reserved of the job's (E702) or the day's (E703).
    Reserved(Code),
    /// Nothing: the sheet's (E701), the job's (E702) or the day's (E703) is used up.
    UsedUp(Code),
}

/// What a session that has ended is booked with: what it has cost or, where nobody knows, what was reserved for it, if it
/// did anything.
pub fn charge(outcome: &Outcome, reserved: Option<Cost>) -> Cost {
    let capped = is_capped(outcome);
    let unknown = || reserved.filter(|_| capped || outcome.worked);
    outcome.cost.or_else(unknown).unwrap_or_default()
}

/// Whether the session ended because it had cost what was reserved for it.
pub(super) fn is_capped(outcome: &Outcome) -> bool {
    outcome
        .failure
        .as_ref()
        .is_some_and(|failure| failure.code == Code::E701)
}

/// Sessions of an account that are at work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct AtWork {
    sessions: u32,
    reserved: Cost,
}

/// What a person said about the budget of a day that was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct DayChoice {
    /// The end of that day: on another it means nothing.
    pub(super) ends: Timestamp,
    /// So much may be spent on it; `None`: what is left waits for the next day.
    pub(super) limit: Option<Cost>,
}

/// How much of a budget is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Use {
    /// Whose it is.
    pub whose: Whose,
    /// What was spent.
    pub spent: Cost,
    /// Of what.
    pub limit: Cost,
    /// From which share on that is told.
    pub warn_at_percent: u8,
}

/// Whose a budget is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub enum Whose {
    /// A sheet's, over all its attempts.
    Sheet(RunId, SheetNo),
    /// A job's.
    Job(RunId),
    /// An account's, for the day.
    Day(AccountId),
}

impl Use {
    /// Whether so much of it is used that it is told.
    pub fn is_near(&self) -> bool {
        let share = i128::from(self.limit.0) * i128::from(self.warn_at_percent) / 100;
        self.warn_at_percent > 0 && i128::from(self.spent.0) >= share
    }

    /// A sentence without its end.
    pub fn words(&self) -> String {
        let whose = match &self.whose {
            Whose::Sheet(_, sheet) => format!("sheet {sheet}'s budget"),
            Whose::Job(_) => "the job's budget".to_owned(),
            Whose::Day(_) => "the account's budget of the day".to_owned(),
        };
        let (spent, limit) = (usd(self.spent), usd(self.limit));
        format!("{spent} of {whose} of {limit} used")
    }
}

impl Engine {
    /// What there is for the next session of `sheet`.
    pub(super) fn budget_of(&self, run: &Run, sheet: SheetNo, now: Timestamp) -> Budget {
        let own = of(run, sheet);
        let Some((account, left)) = self.left_today(run.rules.account.as_ref(), now) else {
            return own;
        };
        let at_work = self.at_work.get(account).copied().unwrap_or_default();
        let left = less(left, at_work.reserved);
        let wanted = match own {
            Budget::Most(cost) => cost,
            Budget::None => {
                let capped = run.sheets.get(sheet).and_then(|sheet| sheet.capped);
                let of_day = || self.overlay.mean_today(account);
                estimate(mean(run).or_else(of_day), left, self.free_places(at_work), capped)
            }
            Budget::Reserved(_) | Budget::UsedUp(_) => return own,
        };
        if left >= wanted {
            Budget::Most(wanted)
        } else if at_work.sessions > 0 {
            Budget::Reserved(Code::E703)
        } else if left >= LEAST {
            Budget::Most(left)
        } else {
            Budget::UsedUp(Code::E703)
        }
    }

    fn free_places(&self, at_work: AtWork) -> i64 {
        let settings = &self.overlay.settings;
        let places = settings.max_concurrent_sheets;
        let places = settings
            .max_sessions_per_account
            .map_or(places, |most| most.min(places));
        i64::from(places.saturating_sub(at_work.sessions).max(1))
    }

    /// The account, and what is left of its budget for the day; `None` where it has none.
    fn left_today<'a>(&self, account: Option<&'a AccountId>, now: Timestamp) -> Option<(&'a AccountId, Cost)> {
        let account = account?;
        let used = self.used_today(account, now)?;
        Some((account, less(used.limit, used.spent)))
    }

    /// How much of the account's budget for the day is used; `None` where there is none.
    pub(super) fn used_today(&self, account: &AccountId, now: Timestamp) -> Option<Use> {
        let limit = self.overlay.settings.daily_budget?;
        let today = self.overlay.today_at(now);
        let raised = today.and_then(|today| self.choice_of(account, today)?.limit);
        let spent = today.and_then(|today| today.spent.get(account));
        Some(Use {
            whose: Whose::Day(account.clone()),
            spent: spent.map_or(Cost::default(), |spent| spent.cost),
            limit: raised.map_or(limit, |raised| raised.max(limit)),
            warn_at_percent: WARN_AT_PERCENT,
        })
    }

    /// Whether nothing may be spent on the account any more today.
    pub(super) fn is_used_up_today(&self, account: &AccountId, now: Timestamp) -> bool {
        self.left_today(Some(account), now)
            .is_some_and(|(_, left)| left < LEAST)
    }

    fn choice_of(&self, account: &AccountId, today: &Today) -> Option<DayChoice> {
        let choice = self.days.get(account).copied();
        choice.filter(|choice| choice.ends == today.ends)
    }

    /// The end of the day, where a person said that the account waits for it.
    pub(super) fn waits_for_tomorrow(&self, account: Option<&AccountId>, now: Timestamp) -> Option<Timestamp> {
        let today = self.overlay.today_at(now)?;
        let choice = self.choice_of(account?, today)?;
        choice.limit.is_none().then_some(choice.ends)
    }

    /// The end of the day, if the engine was told of it.
    pub(super) fn midnight(&self, now: Timestamp) -> Option<Timestamp> {
        self.overlay.today_at(now).map(|today| today.ends)
    }

    /// The budgets that an attempt is booked on, and how much of each is used.
    pub(super) fn uses(&self, attempt: AttemptRef, now: Timestamp) -> Vec<Use> {
        let Some(run) = self.run(attempt.run) else {
            return Vec::new();
        };
        let of_day = run.rules.account.as_ref();
        let of_day = of_day.and_then(|account| self.used_today(account, now));
        uses(run, [attempt.sheet]).into_iter().chain(of_day).collect()
    }

    /// The budgets of a run, and of its account, that are nearly used up.
    pub fn nearly_used_up(&self, run: RunId, now: Timestamp) -> Vec<Use> {
        let Some(run) = self.run(run).filter(|run| !run.has_ended()) else {
            return Vec::new();
        };
        let of_day = run.rules.account.as_ref();
        let of_day = of_day.and_then(|account| self.used_today(account, now));
        let all = uses(run, run.active.iter().copied()).into_iter().chain(of_day);
        all.filter(Use::is_near).collect()
    }

    /// A session of the account begins.
    pub(super) fn reserve(&mut self, account: &AccountId, budget: Option<Cost>) {
        let at_work = self.at_work.entry(account.clone()).or_default();
        at_work.sessions = at_work.sessions.saturating_add(1);
        at_work.reserved.0 = at_work.reserved.0.saturating_add(budget.unwrap_or_default().0);
    }

    /// A session of the account has ended; what was reserved for it is spent, or free again.
    pub(super) fn book(&mut self, account: &AccountId, reserved: Option<Cost>, outcome: &Outcome, at: Timestamp) {
        if let Some(at_work) = self.at_work.get_mut(account) {
            at_work.sessions = at_work.sessions.saturating_sub(1);
            at_work.reserved = less(at_work.reserved, reserved.unwrap_or_default());
            if at_work.sessions == 0 {
                self.at_work.remove(account);
            }
        }
        if let Some(today) = self.overlay.today.as_mut().filter(|today| today.holds(at)) {
            let spent = today.spent.entry(account.clone()).or_default();
            let cost = charge(outcome, reserved);
            spent.cost.0 = spent.cost.0.saturating_add(cost.0);
            spent.sessions = spent.sessions.saturating_add(u32::from(cost.0 > 0));
        }
    }
}

impl Overlay {
    /// The day that the engine was told of, if that moment is in it.
    fn today_at(&self, now: Timestamp) -> Option<&Today> {
        self.today.as_ref().filter(|today| today.holds(now))
    }

    /// What a session of the account has cost today on the average.
    fn mean_today(&self, account: &AccountId) -> Option<Cost> {
        let spent = self.today.as_ref()?.spent.get(account)?;
        (spent.sessions > 0).then(|| Cost(spent.cost.0 / i64::from(spent.sessions)))
    }
}

/// Which accounts have sessions at work, and what is reserved for them.
pub(super) type AllAtWork = BTreeMap<AccountId, AtWork>;

fn uses(run: &Run, sheets: impl IntoIterator<Item = SheetNo>) -> Vec<Use> {
    let Some(limits) = run.rules.cost_limits.filter(|_| run.rules.account.is_some()) else {
        return Vec::new();
    };
    let warn_at_percent = limits.warn_at_percent;
    let of_job = limits.per_job.map(|limit| Use {
        whose: Whose::Job(run.id),
        spent: run.spent,
        limit: run.budget.unwrap_or(limit),
        warn_at_percent,
    });
    let of_sheet = |no: SheetNo| {
        let sheet = run.sheets.get(no)?;
        Some(Use {
            whose: Whose::Sheet(run.id, no),
            spent: sheet.spent,
            limit: sheet.budget.or(limits.per_sheet)?,
            warn_at_percent,
        })
    };
    of_job
        .into_iter()
        .chain(sheets.into_iter().filter_map(of_sheet))
        .collect()
}

/// What the run's own budgets have for the next session of a sheet. Without an account (a `command`) there is nothing
/// that could be counted.
fn of(run: &Run, no: SheetNo) -> Budget {
    let limits = run.rules.cost_limits.filter(|_| run.rules.account.is_some());
    let (Some(limits), Some(sheet)) = (limits, run.sheets.get(no)) else {
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
    let places = i64::from(run.rules.max_concurrent().saturating_sub(run.counts.running).max(1));
    let wanted = own.unwrap_or_else(|| estimate(mean(run), left, places, sheet.capped));
    if left >= wanted {
        Budget::Most(wanted)
    } else if run.is_running() {
        Budget::Reserved(Code::E702)
    } else if left >= LEAST {
        Budget::Most(left)
    } else {
        Budget::UsedUp(Code::E702)
    }
}

/// What a session of the run has cost on the average.
fn mean(run: &Run) -> Option<Cost> {
    (run.costed > 0).then(|| Cost(run.spent.0 / i64::from(run.costed)))
}

/// What a session will cost at most: half as much again as those before it, twice what was too little for it; where
/// none has ended yet an even share of what is left.
fn estimate(mean: Option<Cost>, left: Cost, places: i64, capped: Option<Cost>) -> Cost {
    let estimate = mean.map_or(left.0 / places, |mean| mean.0 / 2 * 3);
    let twice = capped.map_or(0, |capped| capped.0.saturating_mul(2));
    Cost(estimate.max(twice).max(LEAST.0))
}

fn less(from: Cost, cost: Cost) -> Cost {
    Cost(from.0.saturating_sub(cost.0))
}

pub(super) fn usd(cost: Cost) -> String {
    format!("${:.2}", cost.as_usd())
}
