//! The report of an attempt as it is kept: beside the fact that ended it, without what that fact says already.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::codec;
use super::error::StoreError;
use crate::model::{AttemptReport, Certificate, Outcome, SessionReport, Timestamp, ValidationReport};

/// Characters of output that are kept of an attempt that succeeded; the rest is not worth its place.
pub(super) const SHORT_TAIL: usize = 500;

/// How much of the output is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tails {
    /// `max_output_capture_bytes`.
    pub(super) capture_bytes: usize,
    /// All that was captured, also of attempts that succeeded.
    pub(super) whole: bool,
}

#[derive(Serialize, Deserialize)]
struct Evidence<'a> {
    started_at: Option<Timestamp>,
    ended_at: Timestamp,
    certificate: Cow<'a, Certificate>,
    session: Cow<'a, SessionReport>,
    validation: Cow<'a, ValidationReport>,
    /// Only where it is not the fact's.
    outcome: Option<Cow<'a, Outcome>>,
}

/// The report as JSON; `decided`: the outcome that the fact beside it carries, where there is one.
pub(super) fn encode(report: &AttemptReport, decided: Option<&Outcome>, tails: Tails) -> Result<String, StoreError> {
    codec::encode(&Evidence {
        started_at: report.started_at,
        ended_at: report.ended_at,
        certificate: Cow::Borrowed(&report.certificate),
        session: bounded(&report.session, report.outcome.failure.is_some(), tails),
        validation: Cow::Borrowed(&report.validation),
        outcome: (decided != Some(&report.outcome)).then_some(Cow::Borrowed(&report.outcome)),
    })
}

/// What the rules of a sheet gave that were asked without a session.
pub(super) fn checked(validation: &ValidationReport) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Checked<'a> {
        validation: &'a ValidationReport,
    }
    codec::encode(&Checked { validation })
}

/// Reads it again; `decided` as it was given to [`encode`].
pub(super) fn decode(
    json: &str,
    decided: &Outcome,
    what: impl FnOnce() -> String,
) -> Result<AttemptReport, StoreError> {
    let evidence: Evidence<'static> = codec::decode(json, what)?;
    Ok(AttemptReport {
        started_at: evidence.started_at,
        ended_at: evidence.ended_at,
        certificate: evidence.certificate.into_owned(),
        session: evidence.session.into_owned(),
        validation: evidence.validation.into_owned(),
        outcome: evidence.outcome.map_or_else(|| decided.clone(), Cow::into_owned),
    })
}

fn bounded(session: &SessionReport, failed: bool, tails: Tails) -> Cow<'_, SessionReport> {
    let cut = |text: &str| -> Option<String> {
        let kept = if failed || tails.whole {
            last_bytes(text, tails.capture_bytes)
        } else {
            last_bytes(last_chars(text, SHORT_TAIL), tails.capture_bytes)
        };
        (kept.len() < text.len()).then(|| kept.to_owned())
    };
    let result = last_bytes(&session.result_text, RESULT_BYTES);
    let result = (result.len() < session.result_text.len()).then(|| result.to_owned());
    let (stdout, stderr) = (cut(&session.stdout_tail), cut(&session.stderr_tail));
    if result.is_none() && stdout.is_none() && stderr.is_none() {
        return Cow::Borrowed(session);
    }
    let mut session = session.clone();
    if let Some(text) = result {
        session.result_text = text;
    }
    if let Some(text) = stdout {
        session.stdout_tail = text;
    }
    if let Some(text) = stderr {
        session.stderr_tail = text;
    }
    Cow::Owned(session)
}

/// What is kept of a result's text at most.
const RESULT_BYTES: usize = 64 * 1024;

/// The end of `text`, at most `max` bytes, beginning at a character.
pub(super) fn last_bytes(text: &str, max: usize) -> &str {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The end of `text`, at most `max` characters.
pub(super) fn last_chars(text: &str, max: usize) -> &str {
    match text.char_indices().rev().nth(max.saturating_sub(1)) {
        Some((start, _)) if max > 0 => &text[start..],
        Some(_) => "",
        None => text,
    }
}
