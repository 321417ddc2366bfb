//! What the journal is told: one line for each thing that happened, with fields to filter by and a MESSAGE_ID
//! whose catalog entry explains it (`journalctl -x`).

use super::message_id as id;
use crate::engine::event::{PauseWhy, StartHold};
use crate::engine::fact::{Fact, FactKind, Verdict};
use crate::engine::{RunStatus, Use, Whose};
use crate::ledger::SetAside;
use crate::model::{AttemptRef, JobName, RunId, RunNo, RunState, count};

/// One line at the given level, with the fields that every line of a run has.
macro_rules! line {
    ($level:ident, $kind:expr, $job:expr, $no:expr, $($rest:tt)*) => {
        tracing::$level!(MESSAGE_ID = $kind.id, MOZART_JOB = $job, MOZART_RUN = $no.0, $($rest)*)
    };
}

/// Tells a fact. `job` names a run's job and number; a run that is not known is told by its id.
pub(super) fn tell<'a>(fact: &Fact, job: impl Fn(RunId) -> Option<(&'a str, RunNo)>) {
    let name = |run: RunId| job(run).unwrap_or(("?", RunNo(0)));
    match &fact.kind {
        FactKind::RunSubmitted {
            run, rules, completed, ..
        } => {
            let (job, no) = name(*run);
            let done = match completed.len() {
                0 => String::new(),
                count => format!(", {count} taken over as done"),
            };
            line!(
                info,
                id::RUN_SUBMITTED,
                job,
                no,
                "{job}#{no} submitted: {}{done}",
                count(rules.sheets, "sheet")
            );
        }
        FactKind::AttemptIntended { attempt, kind, .. } => {
            let (job, no) = name(attempt.run);
            let (sheet, number) = (attempt.sheet, attempt.attempt);
            line!(
                debug,
                id::ATTEMPT_STARTED,
                job,
                no,
                MOZART_SHEET = sheet.0,
                MOZART_ATTEMPT = number.0,
                "{job}#{no} sheet {sheet}: attempt {number} ({}) is about to start",
                kind.as_str()
            );
        }
        FactKind::AttemptStarted { attempt, .. } => {
            let (job, no) = name(attempt.run);
            let (sheet, number) = (attempt.sheet, attempt.attempt);
            line!(
                debug,
                id::ATTEMPT_STARTED,
                job,
                no,
                MOZART_SHEET = sheet.0,
                MOZART_ATTEMPT = number.0,
                "{job}#{no} sheet {sheet}: attempt {number} runs"
            );
        }
        FactKind::StopAsked { attempt } => {
            let (job, no) = name(attempt.run);
            let (sheet, number) = (attempt.sheet, attempt.attempt);
            line!(
                info,
                id::ATTEMPT_ENDED,
                job,
                no,
                MOZART_SHEET = sheet.0,
                MOZART_ATTEMPT = number.0,
                "{job}#{no} sheet {sheet}: attempt {number} is asked to stop"
            );
        }
        FactKind::AttemptEnded { attempt, outcome } => attempt_ended(*attempt, outcome, name(attempt.run)),
        FactKind::SheetWaits {
            run,
            sheet,
            until,
            cause,
            code,
            kind,
            ..
        } => {
            let (job, no) = name(*run);
            line!(
                info,
                id::SHEET_RETRYING,
                job,
                no,
                MOZART_SHEET = sheet.0,
                MOZART_CODE = code.as_str(),
                "{job}#{no} sheet {sheet}: {} after {cause} ({code}, {}) not before {}",
                kind.as_str(),
                code.meaning(),
                until.to_rfc3339()
            );
        }
        FactKind::SheetEnded { run, sheet, verdict } => {
            let (job, no) = name(*run);
            match verdict {
                Verdict::Completed => {
                    line!(
                        info,
                        id::SHEET_COMPLETED,
                        job,
                        no,
                        MOZART_SHEET = sheet.0,
                        "{job}#{no} sheet {sheet} completed"
                    );
                }
                Verdict::Failed { code, message, .. } => line!(
                    error,
                    id::SHEET_FAILED,
                    job,
                    no,
                    MOZART_SHEET = sheet.0,
                    MOZART_CODE = code.as_str(),
                    "{job}#{no} sheet {sheet} failed: {code} {message}"
                ),
                Verdict::Skipped { reason } => line!(
                    debug,
                    id::SHEET_SKIPPED,
                    job,
                    no,
                    MOZART_SHEET = sheet.0,
                    "{job}#{no} sheet {sheet} skipped: {reason}"
                ),
                Verdict::Blocked { by } => line!(
                    warn,
                    id::SHEET_SKIPPED,
                    job,
                    no,
                    MOZART_SHEET = sheet.0,
                    MOZART_CODE = crate::model::Code::E802.as_str(),
                    "{job}#{no} sheet {sheet} skipped: blocked by sheet {by}, which failed"
                ),
                Verdict::Cancelled => {
                    line!(
                        debug,
                        id::SHEET_SKIPPED,
                        job,
                        no,
                        MOZART_SHEET = sheet.0,
                        "{job}#{no} sheet {sheet} cancelled"
                    );
                }
            }
        }
        FactKind::GenerationOpened { run, sheet, generation } => {
            let (job, no) = name(*run);
            line!(
                debug,
                id::RUN_RESUMED,
                job,
                no,
                MOZART_SHEET = sheet.0,
                "{job}#{no} sheet {sheet} is open again (generation {generation})"
            );
        }
        FactKind::SheetRecovered { run, sheet, .. } => {
            let (job, no) = name(*run);
            line!(
                info,
                id::SHEET_COMPLETED,
                job,
                no,
                MOZART_SHEET = sheet.0,
                "{job}#{no} sheet {sheet} completed: a person had its rules asked, and they hold"
            );
        }
        FactKind::RunModified {
            run, revision, rules, ..
        } => {
            let (job, no) = name(*run);
            let sheets = count(rules.sheets, "sheet");
            line!(
                info,
                id::RUN_MODIFIED,
                job,
                no,
                "{job}#{no} has another plan from now on (change {revision}): {sheets}"
            );
        }
        FactKind::WaitsMoved { run, by } => {
            let (job, no) = name(*run);
            let (seconds, way) = (by.as_secs_f64().abs(), if by.0 < 0 { "back" } else { "forward" });
            tracing::info!(
                MOZART_JOB = job,
                MOZART_RUN = no.0,
                "{job}#{no}: the clock was set {way} by {seconds:.0} s; what is left of its waits stays the same"
            );
        }
        FactKind::AttemptAnswered { .. } => {}
        FactKind::LimitsLifted { run } => {
            let (job, no) = name(*run);
            line!(
                info,
                id::GATE_OPENED,
                job,
                no,
                "{job}#{no} waits for no limit any more: a person says they are over, or its account is another"
            );
        }
        FactKind::WaitsRenewed { run, .. } => {
            let (job, no) = name(*run);
            tracing::info!(
                MOZART_JOB = job,
                MOZART_RUN = no.0,
                "{job}#{no} may wait for limits as often again"
            );
        }
        FactKind::BudgetRaised { run, sheet, limit } => {
            let (job, no) = name(*run);
            let what = sheet.map_or_else(|| "the job".to_owned(), |sheet| format!("sheet {sheet}"));
            line!(
                info,
                id::BUDGET_REACHED,
                job,
                no,
                "{job}#{no}: {what} may cost ${:.2} in all now",
                limit.as_usd()
            );
        }
        FactKind::DayDecided { account, ends, limit } => {
            let (account, ends) = (&account.0, ends.to_rfc3339());
            match limit {
                Some(limit) => tracing::info!(
                    MESSAGE_ID = id::BUDGET_REACHED.id,
                    "the account {account} may cost ${:.2} in all before {ends}",
                    limit.as_usd()
                ),
                None => tracing::info!(
                    MESSAGE_ID = id::BUDGET_REACHED.id,
                    "the account {account} starts nothing before {ends}: its budget of the day is used up"
                ),
            }
        }
        FactKind::QuestionAsked { question } => {
            let words: Vec<&str> = question.choices.iter().map(|choice| choice.as_str()).collect();
            let (id, text, words) = (&question.id.0, &question.text, words.join(" or "));
            tracing::warn!(
                MESSAGE_ID = id::QUESTION_ASKED.id,
                "question {id}: {text} (`mozartctl answer {id}` with {words})"
            );
        }
        FactKind::QuestionClosed { id, choice } => {
            let how = choice.map_or("needs no answer any more", |choice| choice.as_str());
            tracing::info!(MESSAGE_ID = id::QUESTION_ANSWERED.id, "question {}: {how}", id.0);
        }
        FactKind::GateClosed { gate, places, .. } if *places > 1 => tracing::info!(
            MESSAGE_ID = id::GATE_OPENED.id,
            "a session got through: up to {places} at once start for {} ({})",
            gate.account.0,
            gate.words(),
        ),
        FactKind::GateClosed { gate, until, .. } => tracing::warn!(
            MESSAGE_ID = id::GATE_CLOSED.id,
            "no new starts for {} before {} ({})",
            gate.account.0,
            until.to_rfc3339(),
            gate.words(),
        ),
        FactKind::GateOpened { gate } => tracing::info!(
            MESSAGE_ID = id::GATE_OPENED.id,
            "starts go on for {} ({})",
            gate.account.0,
            gate.words()
        ),
        FactKind::RunPaused { run, why } => {
            let (job, no) = name(*run);
            let why = match why {
                PauseWhy::Person => "a person asked",
                PauseWhy::Interrupted => "the conductor was interrupted",
            };
            line!(info, id::RUN_PAUSED, job, no, "{job}#{no} paused: {why}");
        }
        FactKind::RunResumed { run } => {
            let (job, no) = name(*run);
            line!(info, id::RUN_RESUMED, job, no, "{job}#{no} goes on");
        }
        FactKind::RunOutOfTime { run } => {
            let (job, no) = name(*run);
            tracing::warn!(
                MOZART_JOB = job,
                MOZART_RUN = no.0,
                MOZART_CODE = "E803",
                "{job}#{no}: its time is over (`job_timeout_seconds`), its sessions are stopped"
            );
        }
        FactKind::RunCancelling { run } => {
            let (job, no) = name(*run);
            line!(info, id::RUN_CANCELLED, job, no, "{job}#{no} is being cancelled");
        }
        FactKind::RunEnded { run, state } => {
            let (job, no) = name(*run);
            match state {
                RunState::Failed => line!(error, id::RUN_FAILED, job, no, "{job}#{no} failed"),
                RunState::Cancelled => line!(warn, id::RUN_CANCELLED, job, no, "{job}#{no} cancelled"),
                state => line!(info, id::RUN_COMPLETED, job, no, "{job}#{no} {state}"),
            }
        }
    }
}

fn attempt_ended(attempt: AttemptRef, outcome: &crate::model::Outcome, (job, no): (&str, RunNo)) {
    let (sheet, number) = (attempt.sheet, attempt.attempt);
    // Rules are asked only of a session that ended well.
    let rules = match outcome.rules_total {
        0 => String::new(),
        total => format!(", {} of {}", outcome.rules_passed, count(total, "rule")),
    };
    let flags = match outcome.flags.is_empty() {
        true => String::new(),
        false => format!(" [{}]", outcome.flags.join("; ")),
    };
    match &outcome.failure {
        // The verdict says it.
        None if outcome.skipped.is_some() => {}
        None => line!(
            debug,
            id::ATTEMPT_ENDED,
            job,
            no,
            MOZART_SHEET = sheet.0,
            MOZART_ATTEMPT = number.0,
            "{job}#{no} sheet {sheet}: attempt {number} succeeded{rules}{flags}"
        ),
        Some(failure) => {
            let kind = match failure.cause {
                crate::model::Cause::Validation => id::VALIDATION_FAILED,
                _ => id::ATTEMPT_ENDED,
            };
            line!(
                warn,
                kind,
                job,
                no,
                MOZART_SHEET = sheet.0,
                MOZART_ATTEMPT = number.0,
                MOZART_CODE = failure.code.as_str(),
                "{job}#{no} sheet {sheet}: attempt {number} failed, {}{rules}{flags}: {} {}",
                failure.cause,
                failure.code,
                failure.message
            );
        }
    }
}

/// A large part of a budget is used.
pub(super) fn budget_nearly_used<'a>(used: &Use, job: impl Fn(RunId) -> Option<(&'a str, RunNo)>) {
    let words = used.words();
    match &used.whose {
        Whose::Sheet(run, _) | Whose::Job(run) => {
            let (job, no) = job(*run).unwrap_or(("?", RunNo(0)));
            line!(warn, id::BUDGET_NEARLY_REACHED, job, no, "{job}#{no}: {words}");
        }
        Whose::Day(account) => {
            tracing::warn!(
                MESSAGE_ID = id::BUDGET_NEARLY_REACHED.id,
                "account {}: {words}",
                account.0
            );
        }
    }
}

/// A run came into another state by itself: it started, or something outside holds it.
pub(super) fn state(job: &JobName, no: RunNo, status: &RunStatus, first: bool) {
    match status.state {
        RunState::Running if first => {
            line!(info, id::RUN_STARTED, job.as_str(), no, "{job}#{no} started");
        }
        RunState::Waiting => {
            let until = status
                .until
                .map(|until| format!(" until {}", until.to_rfc3339()))
                .unwrap_or_default();
            line!(
                debug,
                id::RUN_WAITING,
                job.as_str(),
                no,
                "{job}#{no} waits: {}{until}",
                status.reason
            );
        }
        _ => {}
    }
}

/// Whether a sheet is needed could not be found out.
pub(super) fn skip_check_failed(job: &JobName, no: RunNo, attempt: AttemptRef, why: &str) {
    let (sheet, number) = (attempt.sheet, attempt.attempt);
    line!(
        warn,
        id::SKIP_CHECK_FAILED,
        job.as_str(),
        no,
        MOZART_SHEET = sheet.0,
        MOZART_ATTEMPT = number.0,
        "{job}#{no} sheet {sheet} runs, because its `skip_when_command` did not say whether it is needed: {why}"
    );
}

/// A session that ran without a conductor was found again.
pub(super) fn adopted(job: &JobName, no: RunNo, attempt: AttemptRef) {
    let (sheet, number) = (attempt.sheet, attempt.attempt);
    line!(
        info,
        id::ATTEMPT_ADOPTED,
        job.as_str(),
        no,
        MOZART_SHEET = sheet.0,
        MOZART_ATTEMPT = number.0,
        "{job}#{no} sheet {sheet}: attempt {number} was found again"
    );
}

/// The conductor is there.
pub(super) fn started(live: usize) {
    tracing::info!(
        MESSAGE_ID = id::CONDUCTOR_STARTED.id,
        "mozart {} started, {}",
        env!("CARGO_PKG_VERSION"),
        count(live, "live run")
    );
}

/// The conductor goes away; sessions go on unless they were stopped.
pub(super) fn stopping(running: usize) {
    tracing::info!(
        MESSAGE_ID = id::CONDUCTOR_STOPPING.id,
        "stopping; the next start takes up {}",
        count(running, "live run")
    );
}

/// Sessions that were stopped have not ended in time; the next conductor takes them up.
pub(super) fn left_running(sessions: usize) {
    let sessions = count(sessions, "session");
    tracing::warn!("left behind, because not ended within `shutdown_timeout_seconds`: {sessions}");
}

/// The system is about to sleep, or has woken up.
pub(super) fn sleep(begins: bool, sessions: usize) {
    let sessions = count(sessions, "session");
    match begins {
        true => tracing::info!("the system is about to sleep; at work: {sessions}"),
        false => tracing::info!("the system has woken up; at work: {sessions}"),
    }
}

/// The settings were read anew.
pub(super) fn reloaded() {
    tracing::info!("the settings were read anew");
}

/// What keeps this conductor from starting anything.
pub(super) fn holds_changed(holds: &[StartHold]) {
    if holds.is_empty() {
        tracing::info!("starts go on");
    }
    for hold in holds {
        let until = hold.until.map(|until| format!(" until {}", until.to_rfc3339()));
        tracing::info!("nothing new starts{}: {}", until.unwrap_or_default(), hold.why);
    }
}

/// The ledger cannot be written.
pub(super) fn storage_blocked(text: &str) {
    tracing::error!(
        MESSAGE_ID = id::STORAGE_BLOCKED.id,
        MOZART_CODE = "E801",
        "storage is blocked, nothing new starts: {text}"
    );
}

/// It can be written again.
pub(super) fn storage_back() {
    tracing::info!(MESSAGE_ID = id::STORAGE_BACK.id, "storage works again");
}

/// A damaged ledger was put out of the way.
pub(super) fn ledger_set_aside(set_aside: &SetAside) {
    tracing::error!(
        MESSAGE_ID = id::LEDGER_SET_ASIDE.id,
        "the ledger could not be read and is kept as {}; a new one was begun, and `mozartctl resume FILE.yaml` takes a \
         job up from the checkpoint in its workspace ({})",
        set_aside.kept.display(),
        set_aside.why
    );
}

/// The ledger turned out to be damaged; nothing more is done with it.
pub(super) fn ledger_damaged(why: &str) {
    tracing::error!("going away, the next start sets the ledger aside: {why}");
}
