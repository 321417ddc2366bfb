//! Questions: what only a person can decide, and what follows on the answer.

use super::Draft;
use crate::engine::budget::usd;
use crate::engine::event::Refusal;
use crate::engine::fact::{About, Choice, FactKind, Question, QuestionId, Verdict};
use crate::engine::run::Run;
use crate::engine::schedule::{Hold, Next};
use crate::engine::sheet::{SheetState, next_attempt};
use crate::model::{AccountId, AttemptRef, Code, Cost, RunId, SheetNo};

impl Draft {
    /// Asks a person, where nobody was asked the same yet. It is named after the attempt that gave rise to it, with a number
    /// behind it where another question of that attempt is open.
    pub(super) fn ask(&mut self, attempt: AttemptRef, about: About, text: String, choices: &[Choice]) {
        let same = |other: &Question| match (&other.about, &about) {
            (About::Account { account, .. }, About::Account { account: this, .. }) => account == this,
            (About::Limit { run, .. }, About::Limit { run: this, .. }) => run == this,
            (About::Budget { run, .. }, About::Budget { run: this, .. }) => run == this,
            (About::Day { account }, About::Day { account: this }) => account == this,
            (About::Account { .. } | About::Limit { .. } | About::Budget { .. } | About::Day { .. }, _) => false,
        };
        if !self.engine.questions.values().any(same) {
            let mut id = QuestionId(format!("q{attempt}"));
            let mut number = 1;
            while self.engine.questions.contains_key(&id) {
                number += 1;
                id = QuestionId(format!("q{attempt}-{number}"));
            }
            let question = Question {
                id,
                about,
                text,
                choices: choices.to_vec(),
            };
            self.fact(FactKind::QuestionAsked { question });
        }
    }

    pub(super) fn answered(&mut self, id: &QuestionId, choice: Choice) -> Result<(), Refusal> {
        let question = self.engine.questions.get(id).cloned();
        let question = question.ok_or_else(|| Refusal::NoSuchQuestion(id.clone()))?;
        if !question.choices.contains(&choice) {
            return Err(Refusal::WrongChoice {
                question: question.id,
                choices: question.choices,
            });
        }
        let waiting: Vec<_> = self.engine.waiting_for(&question.about).map(|run| run.id).collect();
        self.fact(FactKind::QuestionClosed {
            id: question.id,
            choice: Some(choice),
        });
        if let About::Day { account } = &question.about {
            self.decide_day(account, choice);
        }
        for run in waiting {
            match (choice, &question.about) {
                (Choice::Stop, _) => self.cancel(run)?,
                (Choice::Retry, _) => self.reopen(run, |live, code| live.rules.is_accounts(code)),
                (Choice::Wait, About::Limit { kind, .. }) => self.fact(FactKind::WaitsRenewed { run, kind: *kind }),
                (Choice::Continue, About::Budget { sheet, .. }) => self.raise_budget(run, *sheet),
                (Choice::Wait | Choice::Continue, _) => {}
            }
        }
        Ok(())
    }

    /// As much again as the job file gives, from what it has cost so far.
    fn raise_budget(&mut self, run: RunId, sheet: Option<SheetNo>) {
        let Some(live) = self.engine.run(run) else { return };
        let limits = live.rules.cost_limits;
        let (limit, spent) = match sheet {
            None => (limits.and_then(|limits| limits.per_job), Some(live.spent)),
            Some(sheet) => (
                limits.and_then(|limits| limits.per_sheet),
                live.sheets.get(sheet).map(|sheet| sheet.spent),
            ),
        };
        if let (Some(limit), Some(spent)) = (limit, spent) {
            let limit = Cost(spent.0.saturating_add(limit.0));
            self.fact(FactKind::BudgetRaised { run, sheet, limit });
        }
    }

    /// The account may spend as much again today, or waits for tomorrow.
    fn decide_day(&mut self, account: &AccountId, choice: Choice) {
        let now = self.now.wall;
        let given = self.engine.overlay.settings.daily_budget;
        let (Some(given), Some(used)) = (given, self.engine.used_today(account, now)) else {
            return;
        };
        let limit = match choice {
            Choice::Continue => Some(Cost(used.spent.0.saturating_add(given.0))),
            Choice::Wait => None,
            Choice::Stop | Choice::Retry => return,
        };
        if let Some(ends) = self.engine.midnight(now) {
            let account = account.clone();
            self.fact(FactKind::DayDecided { account, ends, limit });
        }
    }

    /// Asks for money where nothing else keeps a run from going on.
    pub(super) fn ask_for_money(&mut self) {
        let now = self.now.wall;
        // Without a budget there is nothing to look at.
        let of_day = self.engine.overlay.settings.daily_budget.is_some();
        let idle = self
            .engine
            .runs()
            .filter(|run| (of_day || run.rules.cost_limits.is_some()) && !run.is_running());
        let short = idle.filter_map(|run| match self.engine.next_of(run, now) {
            Next::Held {
                why: Hold::Money(sheet, code),
                ..
            } => Some((run, sheet, code)),
            Next::Held { .. } | Next::Ready(_) | Next::Nothing => None,
        });
        let short: Vec<_> = short
            .filter_map(|(run, sheet, code)| {
                let state = run.sheets.get(sheet)?;
                let attempt = next_attempt(run.id, sheet, state);
                let run_budget = |sheet| About::Budget { run: run.id, sheet };
                let (about, text) = if code == Code::E701 {
                    let cost = usd(state.spent);
                    let text = format!("sheet {sheet} has cost {cost}, and its budget is used up (E701)");
                    (run_budget(Some(sheet)), text)
                } else if code == Code::E703 {
                    let account = run.rules.account.clone()?;
                    let used = self.engine.used_today(&account, now)?;
                    let (cost, limit) = (usd(used.spent), usd(used.limit));
                    let text = format!(
                        "the account {} has cost {cost} today, and its budget of the day ({limit}) is used up (E703)",
                        account.0
                    );
                    (About::Day { account }, text)
                } else {
                    let cost = usd(run.spent);
                    let text = format!("the job has cost {cost}, and its budget is used up (E702)");
                    (run_budget(None), text)
                };
                Some((attempt, about, text))
            })
            .collect();
        for (attempt, about, text) in short {
            let choices: &[Choice] = match about {
                About::Day { .. } => &[Choice::Continue, Choice::Wait, Choice::Stop],
                About::Account { .. } | About::Limit { .. } | About::Budget { .. } => &[Choice::Continue, Choice::Stop],
            };
            self.ask(attempt, about, text, choices);
        }
    }

    /// Opens the next generation of sheets that failed with such a code.
    fn reopen(&mut self, run: RunId, which: impl Fn(&Run, Code) -> bool) {
        let Some(live) = self.engine.run(run) else { return };
        let failed = live.sheets().filter(|(_, sheet)| match &sheet.state {
            SheetState::Done(Verdict::Failed { code, .. }) => which(live, *code),
            SheetState::Pending
            | SheetState::Running(_)
            | SheetState::Over(_)
            | SheetState::Waiting(_)
            | SheetState::Done(_) => false,
        });
        let failed: Vec<_> = failed.map(|(no, sheet)| (no, sheet.generation.next())).collect();
        for (sheet, generation) in failed {
            self.fact(FactKind::GenerationOpened { run, sheet, generation });
        }
    }

    /// A question about which nobody waits any more needs no answer.
    pub(super) fn drop_questions(&mut self) {
        // Of a sheet that has its verdict, or was dropped, no session costs anything; a day ends.
        let is_over = |about: &About| match about {
            About::Budget { run, sheet: Some(no) } => {
                let state = self.engine.run(*run).and_then(|run| Some(&run.sheets.get(*no)?.state));
                state.is_none_or(|state| matches!(state, SheetState::Done(_)))
            }
            About::Day { account } => !self.engine.is_used_up_today(account, self.now.wall),
            About::Account { .. } | About::Limit { .. } | About::Budget { .. } => false,
        };
        let questions = self.engine.questions.values();
        let moot = questions
            .filter(|question| is_over(&question.about) || self.engine.waiting_for(&question.about).next().is_none());
        for id in moot.map(|question| question.id.clone()).collect::<Vec<_>>() {
            self.fact(FactKind::QuestionClosed { id, choice: None });
        }
    }
}
