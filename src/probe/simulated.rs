//! What the simulation of the conductor (`src/daemon/tests/simulation.rs`) does to the code that it tests: ends a
//! conductor at a point of a step, breaks one rule, and sees what was decided. Each belongs to its thread.

use std::cell::{Cell, RefCell};

use super::Point;

use crate::engine::{Command, Fact};
use crate::model::Now;

/// A rule that is broken on purpose: the simulation has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Commands are carried out before their facts are committed.
    CommitAfterStart,
    /// A commit that failed is taken for done.
    CommitUnheeded,
    /// A new conductor starts what it should look for.
    StartForAdopt,
    /// A retry after a failed rule is booked on the budget of transient faults.
    BudgetsMixed,
    /// A closed gate forgets until when.
    GateForgets,
    /// A sheet that waits for others may start at once.
    DependencyIgnored,
    /// A resume does again what was completed.
    VerdictOverwritten,
    /// A new conductor does not know what was spent today.
    DayForgets,
    /// A sheet at work is from then on taken for one of the new plan.
    PlanReplacedAtWork,
    /// A run that had ended is left open by a recover.
    RecoverLeavesOpen,
}

impl Mutant {
    /// Every one.
    pub(crate) const ALL: [Self; 10] = [
        Self::CommitAfterStart,
        Self::CommitUnheeded,
        Self::StartForAdopt,
        Self::BudgetsMixed,
        Self::GateForgets,
        Self::DependencyIgnored,
        Self::VerdictOverwritten,
        Self::DayForgets,
        Self::PlanReplacedAtWork,
        Self::RecoverLeavesOpen,
    ];

    /// Whether that rule is broken now.
    pub(crate) fn is_on(self) -> bool {
        MUTANT.get() == Some(self)
    }
}

/// What a step came to.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It was committed.
    Fact(Now, Box<Fact>),
    /// It is being carried out.
    Command(Command),
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
    /// How often a conductor passes a point before it ends there.
    static ENDS: Cell<Option<(Point, u32)>> = const { Cell::new(None) };
    static ENDED: Cell<bool> = const { Cell::new(false) };
    static WATCHES: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Vec<Seen>> = const { RefCell::new(Vec::new()) };
}

/// From now on that rule is broken, or none.
pub(crate) fn mutate(mutant: Option<Mutant>) {
    MUTANT.set(mutant);
}

/// Watches a new conductor, which ends when it is at that point for that many more times.
pub(crate) fn watch(ends: Option<(Point, u32)>) {
    ENDS.set(ends);
    ENDED.set(false);
    WATCHES.set(true);
}

/// Whether the conductor has ended: whatever it does now, it does not exist any more.
pub(crate) fn has_ended() -> bool {
    ENDED.get()
}

/// What was seen since this was asked last.
pub(crate) fn seen() -> Vec<Seen> {
    SEEN.take()
}

/// A conductor is at that point.
///
/// # Errors
/// It ends here.
pub(super) fn end_where_asked(point: Point) -> Result<(), String> {
    if let Some((at, left)) = ENDS.get()
        && at == point
    {
        match left.checked_sub(1) {
            Some(left) => ENDS.set(Some((at, left))),
            None => ENDED.set(true),
        }
    }
    match ENDED.get() {
        true => Err("the conductor was ended".to_owned()),
        false => Ok(()),
    }
}

/// Those facts are committed.
pub(crate) fn committed(now: Now, facts: &[Fact]) {
    if WATCHES.get() {
        let facts = facts.iter().cloned().map(Box::new);
        SEEN.with_borrow_mut(|seen| seen.extend(facts.map(|fact| Seen::Fact(now, fact))));
    }
}

/// That command is carried out next.
pub(crate) fn acts(command: &Command) {
    if WATCHES.get() {
        SEEN.with_borrow_mut(|seen| seen.push(Seen::Command(command.clone())));
    }
}
