//! What happened, told and counted.

use super::*;

/// What happened, for whoever has to understand a seed that failed.
#[derive(Debug)]
pub(super) enum Told {
    Fact(Box<FactKind>),
    Act(Act),
    Begins,
    Ends,
    LeftAlone,
    NoRoom,
    /// More than one thing was heard at once.
    Together,
}

thread_local! {
    pub(super) static TALE: RefCell<Vec<(i64, Told)>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn tell(time: i64, told: Told) {
    TALE.with_borrow_mut(|tale| tale.push((time, told)));
}

/// How often each of what may happen did, over all seeds.
#[derive(Debug, Default)]
pub(super) struct Tally(pub(super) BTreeMap<String, u64>);

impl Tally {
    pub(super) fn add(&mut self, tale: &[(i64, Told)]) {
        for (_, told) in tale {
            let name = match told {
                Told::Fact(kind) => match kind.as_ref() {
                    FactKind::SheetWaits { cause, .. } => format!("waits for {cause}"),
                    FactKind::RunEnded { state, .. } => format!("run {state}"),
                    kind => kind.name().to_owned(),
                },
                Told::Act(Act::End(point)) => format!("ends when {point:?}"),
                told => {
                    let debug = format!("{told:?}");
                    let word = debug.trim_start_matches("Act(").split(['(', ')']).next();
                    word.unwrap_or_default().to_owned()
                }
            };
            *self.0.entry(name).or_default() += 1;
        }
    }
}

/// What has to have happened where some hundred weeks are said to be survived.
pub(super) const HAPPENS: [&str; 41] = [
    "Modify",
    "Recover",
    "Retry",
    "run_modified",
    "sheet_recovered",
    "budget_raised",
    "day_decided",
    "NoRoom",
    "Together",
    "attempt_answered",
    "attempt_started",
    "gate_closed",
    "gate_opened",
    "generation_opened",
    "limits_lifted",
    "question_asked",
    "question_closed",
    "run cancelled",
    "run completed",
    "run failed",
    "run_paused",
    "stop_asked",
    "waits for interrupted",
    "waits for rate_limit",
    "waits for transient",
    "waits for validation",
    "waits_moved",
    "waits_renewed",
    "ends when Acting",
    "ends when Applied",
    "ends when Committed",
    "ends when Decided",
    "DiskFull",
    "Hold",
    "PowerCut",
    "Repeat",
    "Restart",
    "SetClock",
    "Settings",
    "Sleep",
    "Stop",
];
