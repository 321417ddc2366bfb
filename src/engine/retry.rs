//! What follows on the end of an attempt: retry by cause, each cause with a budget of its own.

use super::chance::{Chance, Draw};
use super::event::SessionChoice;
use super::fact::Verdict;
use super::rules::RunRules;
use super::run::Limits;
use super::sheet::{Over, Used, Waiting};
use crate::job::plan::OnLimit;
use crate::model::{Ask, AttemptKind, AttemptRef, Cause, Code, Failure, Limit, LimitKind, Span, Timestamp, count};

/// Interruptions of one sheet in one generation that are answered by going on.
pub(super) const MAX_INTERRUPTIONS: u32 = 20;

/// Faults of the API that one sheet finds out about for its whole account, in one generation. At five minutes each, a night.
pub(super) const MAX_PROBES: u32 = 100;

/// A throttling that names no time, the first in a row; each further one waits twice as long.
const FIRST_THROTTLE: Span = Span(5_000_000);
/// No throttling without a time waits longer.
const LONGEST_THROTTLE: Span = Span(120_000_000);
/// The reset of a known limit is followed by a draw from this span, so that not all accounts start at once.
const RESET_JITTER: Span = Span(2_000_000);
/// Bounds of a reset that was read from text.
const TEXT_RESET: (Span, Span) = (Span(60_000_000), Span(8 * 24 * 3600 * 1_000_000));

/// What is known where it has to be decided.
#[derive(Debug)]
pub(super) struct Situation<'a> {
    pub(super) attempt: AttemptRef,
    pub(super) over: &'a Over,
    pub(super) rules: &'a RunRules,
    pub(super) used: Used,
    /// It was let through to find out whether the faults of its account are over.
    pub(super) probed: bool,
    /// With the refusal that is being decided on counted in.
    pub(super) limits: Limits,
    pub(super) now: Timestamp,
    pub(super) chance: Chance,
}

/// What follows.
#[derive(Debug, PartialEq)]
pub(super) enum After {
    /// The sheet has its verdict.
    Verdict(Verdict),
    /// It is tried again.
    Again(Waiting),
    /// A limit: its gate is closed until the wait is over.
    BehindGate {
        /// Of which kind.
        kind: LimitKind,
        /// Which window, where the limit named one.
        window: Option<String>,
        /// The wait.
        wait: Waiting,
        /// What becomes of the sheet.
        then: Limited,
    },
}

/// What becomes of a sheet that a limit refused.
#[derive(Debug, PartialEq)]
pub(super) enum Limited {
    /// It is tried again after the wait.
    Wait,
    /// The same, once a person has said so; why that is needed.
    Ask(String),
    /// Its verdict.
    Fail(Verdict),
}

/// Which kind of limit refused, where the report does not say so itself by its code.
pub(super) fn limit_kind(failure: &Failure) -> LimitKind {
    match &failure.limit {
        Some(limit) => limit.kind,
        None if matches!(failure.code, Code::E104 | Code::E105) => LimitKind::Usage,
        None => LimitKind::Throttle,
    }
}

/// Decides what follows on an attempt of a run that goes on.
pub(super) fn after(situation: &Situation<'_>) -> After {
    let outcome = &situation.over.outcome;
    let Some(failure) = &outcome.failure else {
        return After::Verdict(match &outcome.skipped {
            Some(reason) => Verdict::Skipped { reason: reason.clone() },
            None => Verdict::Completed,
        });
    };
    match failure.cause {
        Cause::Validation => validation(situation, failure),
        Cause::Transient => transient(situation, failure),
        Cause::RateLimit => rate_limit(situation, failure),
        Cause::Interrupted => interrupted(situation, failure.code),
        Cause::Fatal if failure.code == Code::E701 && situation.over.attempt.budget.is_some() => {
            out_of_money(situation)
        }
        Cause::Fatal => failed(failure, ""),
    }
}

/// The session ended because it had cost what was reserved for it. There may be more; where not, a person is asked before
/// it goes on.
fn out_of_money(situation: &Situation<'_>) -> After {
    let Situation { rules, over, now, .. } = situation;
    let (kind, ask, resume) = again(over, rules.resumable);
    After::Again(Waiting {
        until: *now,
        cause: Cause::Fatal,
        code: Code::E701,
        kind,
        ask,
        resume,
        by_calendar: false,
    })
}

fn validation(situation: &Situation<'_>, failure: &Failure) -> After {
    let Situation {
        rules, used, over, now, ..
    } = situation;
    let retry = &rules.retry;
    if used.completions < retry.max_completion_attempts && is_nearly_done(situation) && rules.resumable {
        let resume = session_to_resume(over);
        if resume.is_some() {
            return After::Again(Waiting {
                until: now.plus(retry.completion_delay),
                cause: Cause::Validation,
                code: failure.code,
                kind: AttemptKind::Completion,
                ask: Ask::Completion,
                resume,
                by_calendar: false,
            });
        }
    }
    if used.retries < retry.max_retries {
        return After::Again(Waiting {
            until: backoff(situation, used.retries),
            cause: Cause::Validation,
            code: failure.code,
            kind: AttemptKind::Retry,
            ask: Ask::Task,
            resume: None,
            by_calendar: false,
        });
    }
    let tried = match (used.retries, used.completions) {
        (0, 0) => String::new(),
        (retries, 0) => format!("{} did not mend it", count(retries, "retry")),
        (0, completions) => format!("{} did not mend it", count(completions, "completion attempt")),
        (retries, completions) => format!(
            "{} and {} did not mend it",
            count(retries, "retry"),
            count(completions, "completion attempt")
        ),
    };
    failed(failure, &tried)
}

/// Whether enough rules passed for a completion attempt, and something is left to complete.
fn is_nearly_done(situation: &Situation<'_>) -> bool {
    let outcome = &situation.over.outcome;
    let (passed, total) = (f64::from(outcome.rules_passed), f64::from(outcome.rules_total));
    // Multiplied out, so that 1 of 2 rules is exactly 50 %.
    passed < total && passed * 100.0 >= situation.rules.retry.completion_threshold_percent * total
}

fn transient(situation: &Situation<'_>, failure: &Failure) -> After {
    let Situation { rules, used, .. } = situation;
    if used.transients >= rules.retry.transient_retries {
        let tried = match used.transients {
            0 => String::new(),
            n => format!("it stayed so through {}", count(n, "transient retry")),
        };
        return failed(failure, &tried);
    }
    let (kind, ask, resume) = again(situation.over, rules.resumable);
    // That the API answers nobody is no fault of the sheet that happens to ask.
    let for_all = situation.probed && is_the_apis(failure.code) && used.probes < MAX_PROBES;
    let kind = if for_all { AttemptKind::Probe } else { kind };
    let until = backoff(situation, used.transients);
    After::Again(Waiting {
        until,
        cause: Cause::Transient,
        code: failure.code,
        kind,
        ask,
        resume,
        by_calendar: false,
    })
}

/// A fault of the API or of the way to it, whoever asks; not one of this session.
fn is_the_apis(code: Code) -> bool {
    matches!(
        code,
        Code::E103 | Code::E501 | Code::E503 | Code::E504 | Code::E901 | Code::E902 | Code::E903 | Code::E904
    )
}

fn interrupted(situation: &Situation<'_>, code: Code) -> After {
    let Situation {
        rules, used, over, now, ..
    } = situation;
    if used.interruptions >= MAX_INTERRUPTIONS {
        let message = format!("it was interrupted more than {MAX_INTERRUPTIONS} times");
        return After::Verdict(Verdict::Failed {
            cause: Cause::Interrupted,
            code: Code::E004,
            message,
        });
    }
    let (kind, ask, resume) = again(over, rules.resumable);
    After::Again(Waiting {
        until: *now,
        cause: Cause::Interrupted,
        code,
        kind,
        ask,
        resume,
        by_calendar: false,
    })
}

fn rate_limit(situation: &Situation<'_>, failure: &Failure) -> After {
    let Situation {
        rules, limits, over, ..
    } = situation;
    let kind = limit_kind(failure);
    let (met, most, field) = match kind {
        LimitKind::Usage => (limits.quotas.met, rules.rate_limit.max_quota_waits, "max_quota_waits"),
        LimitKind::Throttle => (limits.throttles.met, rules.rate_limit.max_waits, "max_waits"),
    };
    let then = match rules.on_limit {
        OnLimit::Stop => Limited::Fail(verdict(failure, "")),
        OnLimit::Ask => Limited::Ask(failure.message.clone()),
        OnLimit::Wait if met > most => {
            let tried = format!(
                "the run has waited {} already, which is `rate_limit.{field}`",
                count(most, "time")
            );
            Limited::Ask(and(&failure.message, &tried))
        }
        OnLimit::Wait => Limited::Wait,
    };
    let (_, ask, resume) = again(over, rules.resumable);
    let (until, by_calendar) = gate_until(situation, failure, kind);
    let window = failure.limit.as_ref().and_then(|limit| limit.window.clone());
    let wait = Waiting {
        until,
        cause: Cause::RateLimit,
        code: failure.code,
        kind: AttemptKind::Probe,
        ask,
        resume,
        by_calendar,
    };
    After::BehindGate {
        kind,
        window,
        wait,
        then,
    }
}

/// Until when a refusal closes its gate, and whether that is a moment of the calendar.
fn gate_until(situation: &Situation<'_>, failure: &Failure, kind: LimitKind) -> (Timestamp, bool) {
    let Situation {
        attempt,
        rules,
        used,
        now,
        chance,
        ..
    } = situation;
    let limit = failure.limit.as_ref();
    // Doubled ten times it is far above its bound.
    let doubled = used.limits_in_a_row.saturating_sub(1).min(10);
    let short = Span(FIRST_THROTTLE.0 << doubled).min(LONGEST_THROTTLE);
    let span = match kind {
        LimitKind::Throttle => {
            let named = limit.and_then(|limit| limit.retry_after).filter(|span| span.0 > 0);
            named.unwrap_or(short)
        }
        LimitKind::Usage => match limit.and_then(|limit| Some((limit.resets_at?, limit.from_text))) {
            None => rules.rate_limit.wait,
            Some((reset, from_text)) => {
                let jitter = chance.span(*attempt, Draw::Reset, RESET_JITTER);
                let (soonest, latest) = TEXT_RESET;
                let reset = match from_text {
                    true => reset.clamp(now.plus(soonest), now.plus(latest)),
                    false => reset,
                };
                if reset > *now {
                    return (reset.plus(jitter), true);
                }
                // Refused although the reset is past: clocks differ. Asking again at once would be refused again.
                Span(short.0.saturating_add(jitter.0))
            }
        },
    };
    (now.plus(span), false)
}

/// Until when a limit keeps sessions away whose reset is known to the second, and still to come.
pub(super) fn known_reset(limit: &Limit, attempt: AttemptRef, now: Timestamp, chance: Chance) -> Option<Timestamp> {
    let reset = limit.resets_at.filter(|reset| !limit.from_text && *reset > now)?;
    Some(reset.plus(chance.span(attempt, Draw::Reset, RESET_JITTER)))
}

/// How an attempt that was cut off goes on: kind, ask, and the session to resume.
///
/// A session that did work is resumed with a short "go on". One that did none is told the same again: in
/// its own session where it already was a resumed one, because that holds the work of earlier attempts.
fn again(over: &Over, resumable: bool) -> (AttemptKind, Ask, Option<String>) {
    let resume = if resumable { session_to_resume(over) } else { None };
    match (&over.attempt.session, over.outcome.worked, resume) {
        (SessionChoice::New(_) | SessionChoice::Resume(_), true, Some(session)) => {
            (AttemptKind::Continuation, Ask::GoOn, Some(session))
        }
        (SessionChoice::Resume(_), false, Some(session)) => {
            let kind = match over.attempt.ask {
                Ask::Completion => AttemptKind::Completion,
                Ask::GoOn => AttemptKind::Continuation,
                Ask::Task | Ask::TaskAgain => AttemptKind::Retry,
            };
            (kind, over.attempt.ask, Some(session))
        }
        (SessionChoice::New(_), false, _) => (AttemptKind::Retry, over.attempt.ask, None),
        (SessionChoice::New(_), true, None) | (SessionChoice::Resume(_), _, None) => {
            (AttemptKind::Retry, Ask::TaskAgain, None)
        }
    }
}

/// The id under which the attempt's session can be resumed.
fn session_to_resume(over: &Over) -> Option<String> {
    if over.outcome.session_lost {
        return None;
    }
    over.outcome.session_id.clone().or_else(|| match &over.attempt.session {
        SessionChoice::Resume(session) => Some(session.clone()),
        // Its first output was never seen, so the CLI may not know it.
        SessionChoice::New(_) => None,
    })
}

/// When the next attempt is made after `used` delays of the same cause: exponential, bounded, with full jitter.
fn backoff(situation: &Situation<'_>, used: u32) -> Timestamp {
    let retry = &situation.rules.retry;
    let factor = retry.exponential_base.powi(i32::try_from(used).unwrap_or(i32::MAX));
    // An infinite product saturates, and is bounded like any other.
    let delay = Span::from_secs_f64(retry.base_delay.as_secs_f64() * factor).min(retry.max_delay);
    let delay = if retry.jitter {
        situation.chance.span(situation.attempt, Draw::Backoff, delay)
    } else {
        delay
    };
    situation.now.plus(delay)
}

/// The verdict of a failure; `tried` says what was tried, where anything was.
fn failed(failure: &Failure, tried: &str) -> After {
    After::Verdict(verdict(failure, tried))
}

fn verdict(failure: &Failure, tried: &str) -> Verdict {
    Verdict::Failed {
        cause: failure.cause,
        code: failure.code,
        message: and(&failure.message, tried),
    }
}

/// One sentence of two parts, of which the second may be empty.
fn and(message: &str, more: &str) -> String {
    match more {
        "" => message.to_owned(),
        more => format!("{}; {more}", message.trim_end_matches(['.', ' '])),
    }
}
