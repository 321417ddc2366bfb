//! Places in the conductor's path where tests end it. Each has a name, for it is killed there in two ways: the simulation
//! (`src/daemon/tests/simulation.rs`) drops a conductor amid a step, and `tests/host/crashes.rs` has the real one kill
//! itself.
//!
//! The second way exists only in builds with debug assertions, and there only where [`CRASH_AT`] is set.

#[cfg(test)]
#[cfg_attr(
    not(feature = "daemon"),
    expect(dead_code, reason = "only the conductor is ended and watched")
)]
mod simulated;
#[cfg(test)]
pub(crate) use simulated::*;

/// Environment variable with a directory. A conductor that comes to a point for which there is a file, named like it,
/// counts the number in that file down, and with the last one removes the file and kills itself; a call to the user manager
/// fails then, where the file is named like a [`Fault`].
pub const CRASH_AT: &str = "MOZART_CRASH_AT";

/// Where a conductor may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// The ledger is open, nothing is read from it yet.
    Opened,
    /// A step: before the commit.
    Decided,
    /// Amid the commit: written, not ended.
    Committing,
    /// After the commit, before anything of it is applied.
    Committed,
    /// After that, before the first command is carried out.
    Applied,
    /// Before each command.
    Acting,
    /// After the last, before anybody is told.
    Acted,
    /// A run is stored; before the reply to whoever submitted it.
    Submitted,
    /// The launch order is written; before the start command.
    Ordered,
    /// The start command was given; before it is known what came of it.
    Launched,
    /// The session runs; before that is reported.
    Started,
    /// A session that an earlier conductor started was found; before that is reported.
    Adopting,
    /// It was noted that a session is to end; before it is asked to.
    Stopping,
    /// The session is over; before its output is read.
    Over,
    /// Before each rule is looked at.
    Validating,
    /// What became of the attempt is known; before that is reported.
    Judged,
    /// The verdict is committed; before the system may forget the attempt.
    Releasing,
    /// A checkpoint is written, and not yet under its name.
    Checkpoint,
    /// The ledger has forgotten old runs; before what their sessions left is deleted.
    Trimming,
}

impl Point {
    /// Every one.
    pub const ALL: [Self; 19] = [
        Self::Opened,
        Self::Decided,
        Self::Committing,
        Self::Committed,
        Self::Applied,
        Self::Acting,
        Self::Acted,
        Self::Submitted,
        Self::Ordered,
        Self::Launched,
        Self::Started,
        Self::Adopting,
        Self::Stopping,
        Self::Over,
        Self::Validating,
        Self::Judged,
        Self::Releasing,
        Self::Checkpoint,
        Self::Trimming,
    ];

    /// Its name, and that of its file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Decided => "decided",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Applied => "applied",
            Self::Acting => "acting",
            Self::Acted => "acted",
            Self::Submitted => "submitted",
            Self::Ordered => "ordered",
            Self::Launched => "launched",
            Self::Started => "started",
            Self::Adopting => "adopting",
            Self::Stopping => "stopping",
            Self::Over => "over",
            Self::Validating => "validating",
            Self::Judged => "judged",
            Self::Releasing => "releasing",
            Self::Checkpoint => "checkpoint",
            Self::Trimming => "trimming",
        }
    }
}

/// How a call to the user manager fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It was never made.
    Call,
    /// It was made, and the answer is lost.
    Answer,
}

impl Fault {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Call, Self::Answer];

    /// The name of its file, like that of a point.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "bus-call",
            Self::Answer => "bus-answer",
        }
    }
}

/// Whether a call fails so.
#[cfg(feature = "daemon")]
pub(crate) fn fails(fault: Fault) -> bool {
    #[cfg(debug_assertions)]
    if let Some(directory) = std::env::var_os(CRASH_AT) {
        return is_the_last(&std::path::Path::new(&directory).join(fault.as_str()));
    }
    #[cfg(not(debug_assertions))]
    let _: Fault = fault;
    false
}

/// The conductor is at that point.
#[cfg(feature = "daemon")]
pub(crate) fn pass(point: Point) {
    #[cfg(debug_assertions)]
    if let Some(directory) = std::env::var_os(CRASH_AT) {
        kill_where_asked(&std::path::Path::new(&directory).join(point.as_str()));
    }
    #[cfg(not(debug_assertions))]
    let _: Point = point;
}

/// The conductor is at that point of a step, which a simulated one does not go on with where it ends.
///
/// # Errors
/// It ends here.
#[cfg(feature = "daemon")]
pub(crate) fn reach(point: Point) -> Result<(), String> {
    pass(point);
    #[cfg(test)]
    end_where_asked(point)?;
    Ok(())
}

#[cfg(all(feature = "daemon", debug_assertions))]
fn kill_where_asked(file: &std::path::Path) {
    if is_the_last(file) {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::KILL).ok();
    }
}

/// Counts the number in that file down, where there is one; with the last one it goes.
#[cfg(all(feature = "daemon", debug_assertions))]
fn is_the_last(file: &std::path::Path) -> bool {
    let Ok(left) = std::fs::read_to_string(file) else {
        return false;
    };
    match left.trim().parse::<u32>() {
        Ok(left) if left > 1 => {
            std::fs::write(file, (left - 1).to_string()).ok();
            false
        }
        _ => std::fs::remove_file(file).is_ok(),
    }
}
