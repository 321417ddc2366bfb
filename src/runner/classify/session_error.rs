//! A session of the CLI that calls itself failed: from its fields, and only then from its words, to cause and code.

use std::sync::LazyLock;

use regex::Regex;

use super::{
    ClassifyInput, Hint as _, by_patterns, fail, first_lines, from_text, limited, quote, throttled, usage_error,
    usage_limit, with,
};
use crate::model::{Cause, Code, Failure};
use crate::runner::{fixed_regex, limits};

/// `API Error: 529 …`: up to about 2.1.76 the status stands in the text alone.
static STATUS: LazyLock<Regex> =
    LazyLock::new(|| fixed_regex(r"^(?:Failed to authenticate\. )?API Error: (?:Request rejected \()?(\d{3})\b"));
static AUTHENTICATION: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?i)invalid api key|not logged in|please run /login|failed to authenticate|oauth token (?:has expired|revoked)|disabled organization|organization has been disabled",
    )
});
static BILLING: LazyLock<Regex> =
    LazyLock::new(|| fixed_regex(r"(?i)credit balance is too low|issue with your billing"));
static TOO_LONG: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(r"(?i)^prompt is too long|output token maximum|context window limit|^request too large")
});
static REFUSED: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(r"(?i)safeguards flagged|unable to respond to this request, which appears to violate")
});
static MODEL: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"(?i)issue with the selected model|\bmodel:"));
static NAME: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"ENOTFOUND|EAI_AGAIN|(?i:getaddrinfo)"));
static TLS: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"(?i)certificate|CERT_|\bTLS\b|\bSSL\b"));
static CONNECTION: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?i)connection (?:error|refused|dropped|reset|closed)|connection to the api was lost|unable to connect|ECONN[A-Z]+|socket hang up|fetch failed",
    )
});
static TIMED_OUT: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"(?i)^(?:api error: )?request timed out|ETIMEDOUT"));
static MALFORMED: LazyLock<Regex> = LazyLock::new(|| fixed_regex(r"(?i)empty or malformed response"));
static UNFINISHED: LazyLock<Regex> = LazyLock::new(|| {
    fixed_regex(
        r"(?xi)
        \b(?: I\ (?:was|am)\ (?:unable|not\ able)\ to\ (?:complete|finish)
            | (?:I|we)\ (?:could|did)(?:\ not|n['’]t)\ (?:complete|finish)
            | (?:is|are|was|were|work\ is)\ (?:not\ (?:yet\ )?(?:complete|completed|finished|done) | incomplete | unfinished)
            | ran\ out\ of\ (?:time|turns|context|budget) )\b",
    )
});

/// Whether an answer says of itself that the work is not done. A guess from words: it only ever flags.
pub(super) fn says_unfinished(answer: &str) -> bool {
    UNFINISHED.is_match(answer)
}

/// Why the session failed. Of the fields the most telling come first; a class or status alone does not tell throttling
/// from a usage limit, so a 429 is asked for its words too.
pub(super) fn classify(input: &ClassifyInput<'_>) -> Box<Failure> {
    let session = input.session;
    let text = [std::slice::from_ref(&session.result_text), session.errors.as_slice()]
        .concat()
        .join("\n");
    let text = text.trim();

    if let Some(limit) = usage_limit(session) {
        let mut limit = limit.clone();
        if limit.resets_at.is_none()
            && let Some(found) = limits::find(text, input.now, input.timezone)
        {
            (limit.resets_at, limit.from_text) = (found.resets_at, found.resets_at.is_some());
        }
        return limited(Code::E104, limit, &quote(text));
    }
    by_subtype(input, text)
        .or_else(|| by_class(input, text))
        .or_else(|| by_status(input, text))
        .or_else(|| by_words(input, text))
        .or_else(|| aborted(input, text))
        .or_else(|| by_patterns(input))
        .unwrap_or_else(|| {
            fail(
                Cause::Transient,
                Code::E999,
                &format!("the session failed for an unknown reason{}", with(quote(text))),
            )
        })
}

fn by_subtype(input: &ClassifyInput<'_>, text: &str) -> Option<Box<Failure>> {
    let session = input.session;
    match session.subtype.as_deref().unwrap_or_default() {
        "error_max_turns" => {
            let message = format!("the session used up its turns{}", with(quote(text)));
            return Some(
                fail(Cause::Validation, Code::E510, &message)
                    .hint("Raise --max-turns in backend.cli_extra_args, or give each sheet less to do."),
            );
        }
        "error_max_budget_usd" => {
            let message = format!("the session used up its budget{}", with(quote(text)));
            return Some(
                fail(Cause::Fatal, Code::E701, &message)
                    .hint("Raise --max-budget-usd in backend.cli_extra_args, or give each sheet less to do."),
            );
        }
        "error_max_structured_output_retries" => {
            let message = "the session never gave an answer of the shape that was asked for";
            return Some(fail(Cause::Validation, Code::E209, message));
        }
        _ => {}
    }
    match session.terminal_reason.as_deref().unwrap_or_default() {
        "prompt_too_long" | "blocking_limit" | "image_error" => return Some(too_long(text)),
        _ => {}
    }
    (session.stop_reason.as_deref() == Some("refusal")).then(|| refused(text))
}

fn by_class(input: &ClassifyInput<'_>, text: &str) -> Option<Box<Failure>> {
    let session = input.session;
    match session.api_error.as_deref().unwrap_or_default() {
        "org_disabled_credential" => return Some(authentication(text)),
        "connection_failed" => return Some(connection(text)),
        _ => {}
    }
    match session.error_class.as_deref().unwrap_or_default() {
        "authentication_failed"
        | "oauth_org_not_allowed"
        | "account_on_hold"
        | "verification_required"
        | "cloud_credential_error" => Some(authentication(text)),
        "billing_error" => Some(billing(text)),
        "rate_limit" => Some(too_many(input, text)),
        "overloaded" => Some(overloaded(text)),
        "model_not_found" => Some(unknown_model(text)),
        "max_output_tokens" => Some(too_long(text)),
        _ => None,
    }
}

fn by_status(input: &ClassifyInput<'_>, text: &str) -> Option<Box<Failure>> {
    let in_text = || STATUS.captures(text)?.get(1)?.as_str().parse().ok();
    let status: u16 = input.session.api_status.or_else(in_text)?;
    let server = |code, what: &str| {
        fail(
            Cause::Transient,
            code,
            &format!("{what} ({status}){}", with(quote(text))),
        )
    };
    Some(match status {
        401 | 403 => authentication(text),
        402 => billing(text),
        404 if MODEL.is_match(text) => unknown_model(text),
        408 | 504 => server(Code::E504, "the API did not answer in time"),
        409 => server(Code::E503, "the API reports a conflict"),
        413 => too_long(text),
        429 => too_many(input, text),
        529 => overloaded(text),
        500..=599 => server(Code::E503, "the API failed"),
        // A 400 stands for a spending limit, a lack of credit and a prompt too long as well: the words tell.
        400..=499 => by_words(input, text).unwrap_or_else(|| {
            fail(
                Cause::Fatal,
                Code::E503,
                &format!("the API refused the request ({status}){}", with(quote(text))),
            )
        }),
        _ => return None,
    })
}

fn by_words(input: &ClassifyInput<'_>, text: &str) -> Option<Box<Failure>> {
    if let Some(found) = limits::find(text, input.now, input.timezone) {
        return Some(from_text(found, &quote(text)));
    }
    let server = |code, what: &str| fail(Cause::Transient, code, &format!("{what}{}", with(quote(text))));
    if BILLING.is_match(text) {
        Some(billing(text))
    } else if AUTHENTICATION.is_match(text) {
        Some(authentication(text))
    } else if TOO_LONG.is_match(text) {
        Some(too_long(text))
    } else if REFUSED.is_match(text) {
        Some(refused(text))
    } else if text.contains("issue with the selected model") {
        Some(unknown_model(text))
    } else if text.contains("Rate limit reached") || text.contains("temporarily limiting requests") {
        Some(too_many(input, text))
    } else if text.starts_with("API Error") && text.contains("Overloaded") {
        Some(overloaded(text))
    } else if TIMED_OUT.is_match(text) {
        Some(server(Code::E504, "the API did not answer in time"))
    } else if MALFORMED.is_match(text) {
        Some(server(Code::E503, "the API's answer cannot be read"))
    } else if text.starts_with("API Error") && CONNECTION.is_match(text) {
        Some(connection(text))
    } else if input.session.error_class.as_deref() == Some("server_error") {
        Some(server(Code::E503, "the API failed"))
    } else {
        None
    }
}

/// Interrupted from outside, or never begun.
fn aborted(input: &ClassifyInput<'_>, text: &str) -> Option<Box<Failure>> {
    let session = input.session;
    let reason = session.terminal_reason.as_deref().unwrap_or_default();
    if session.subtype.as_deref() != Some("error_during_execution") && !reason.starts_with("aborted") {
        return None;
    }
    let said = first_lines(&session.stderr_tail);
    if session.turns.unwrap_or(0) == 0 && !session.worked && session.model.is_none() && !said.is_empty() {
        return Some(usage_error(input, &said));
    }
    let why = if reason.is_empty() {
        quote(text)
    } else {
        reason.to_owned()
    };
    Some(fail(
        Cause::Transient,
        Code::E003,
        &format!("the session was cut off while it worked{}", with(why)),
    ))
}

/// A 429 is either: the words tell a usage limit where no field does.
fn too_many(input: &ClassifyInput<'_>, text: &str) -> Box<Failure> {
    match limits::find(text, input.now, input.timezone) {
        Some(found) => from_text(found, &quote(text)),
        None => {
            let retry_after = input.session.limit.as_ref().and_then(|limit| limit.retry_after);
            throttled(Code::E101, retry_after, &quote(text))
        }
    }
}

fn authentication(text: &str) -> Box<Failure> {
    fail(
        Cause::Fatal,
        Code::E502,
        &format!("the login was not accepted{}", with(quote(text))),
    )
    .hint("Log in with `claude` and `/login`, or give the conductor a valid ANTHROPIC_API_KEY; then resume the run.")
}

fn billing(text: &str) -> Box<Failure> {
    fail(
        Cause::Fatal,
        Code::E506,
        &format!("the account cannot be billed{}", with(quote(text))),
    )
    .hint("Look at the plan and the credit of the account; then resume the run.")
}

fn overloaded(text: &str) -> Box<Failure> {
    fail(
        Cause::Transient,
        Code::E103,
        &format!("the API is overloaded{}", with(quote(text))),
    )
}

fn unknown_model(text: &str) -> Box<Failure> {
    fail(
        Cause::Fatal,
        Code::E507,
        &format!("the model is not known to this account{}", with(quote(text))),
    )
    .hint("Correct backend.cli_model, or that of this sheet in backend.sheet_overrides.")
}

fn too_long(text: &str) -> Box<Failure> {
    fail(
        Cause::Fatal,
        Code::E509,
        &format!("the prompt, the answer or the context is too long{}", with(quote(text))),
    )
    .hint("Give each sheet less to do (sheet.size), or shorten the prompt.")
}

fn refused(text: &str) -> Box<Failure> {
    fail(
        Cause::Fatal,
        Code::E508,
        &format!("the model refused the request{}", with(quote(text))),
    )
    .hint("Change the prompt.")
}

fn connection(text: &str) -> Box<Failure> {
    let (code, what) = if NAME.is_match(text) {
        (Code::E902, "the API's name cannot be resolved")
    } else if TLS.is_match(text) {
        (Code::E903, "no secure connection to the API")
    } else {
        (Code::E501, "no connection to the API")
    };
    fail(Cause::Transient, code, &format!("{what}{}", with(quote(text))))
}
