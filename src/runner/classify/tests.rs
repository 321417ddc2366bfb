//! The classifier, case by case.

use serde_json::{Value, json};

use super::fixtures::*;
use super::*;
use crate::model::Cost;

use Cause::{Fatal, Interrupted, RateLimit, Transient, Validation};

#[test]
fn a_session_that_ends_well_is_completed() {
    let outcome = Attempt::exits(0)
        .prints(&[init(), calls("Write"), done("Written.")])
        .is_done();
    assert_eq!(outcome.flags, Vec::<String>::new());
    assert_eq!(outcome.cost, Some(Cost(250_000)));
    assert_eq!(outcome.session_id.as_deref(), Some("5f0c"));
    assert!(outcome.worked);
}

#[test]
fn api_errors_by_their_fields() {
    let none = || json!({});
    for (class, status, text, more, cause, code) in [
        (
            "rate_limit",
            Some(429),
            "API Error: Request rejected (429) · busy",
            none(),
            RateLimit,
            Code::E101,
        ),
        (
            "server_error",
            Some(529),
            "API Error: 529 Overloaded.",
            none(),
            Transient,
            Code::E103,
        ),
        (
            "unknown",
            Some(529),
            "API Error: Overloaded",
            none(),
            Transient,
            Code::E103,
        ),
        (
            "server_error",
            Some(500),
            "API Error: 500 Internal server error.",
            none(),
            Transient,
            Code::E503,
        ),
        (
            "server_error",
            Some(502),
            "API Error: 502 Bad Gateway.",
            none(),
            Transient,
            Code::E503,
        ),
        (
            "server_error",
            Some(504),
            "API Error: 504 Request timed out.",
            none(),
            Transient,
            Code::E504,
        ),
        (
            "authentication_failed",
            Some(401),
            "Invalid API key · Fix external API key",
            none(),
            Fatal,
            Code::E502,
        ),
        (
            "authentication_failed",
            Some(403),
            "Failed to authenticate. API Error: 403 no",
            none(),
            Fatal,
            Code::E502,
        ),
        (
            "authentication_failed",
            None,
            "Not logged in · Please run /login",
            none(),
            Fatal,
            Code::E502,
        ),
        ("account_on_hold", None, "On hold", none(), Fatal, Code::E502),
        (
            "invalid_request",
            Some(400),
            "Your key belongs to …",
            json!({"api_error": "org_disabled_credential"}),
            Fatal,
            Code::E502,
        ),
        (
            "billing_error",
            Some(400),
            "Credit balance is too low",
            none(),
            Fatal,
            Code::E506,
        ),
        (
            "unknown",
            Some(402),
            "API Error: 402 There's an issue with your billing",
            none(),
            Fatal,
            Code::E506,
        ),
        (
            "model_not_found",
            Some(404),
            "There's an issue with the selected model (x).",
            none(),
            Fatal,
            Code::E507,
        ),
        (
            "invalid_request",
            None,
            "API Error: flagged",
            json!({"stop_reason": "refusal"}),
            Fatal,
            Code::E508,
        ),
        (
            "invalid_request",
            Some(400),
            "Prompt is too long · …",
            json!({"terminal_reason": "prompt_too_long"}),
            Fatal,
            Code::E509,
        ),
        (
            "invalid_request",
            None,
            "Prompt is too long",
            json!({"terminal_reason": "blocking_limit"}),
            Fatal,
            Code::E509,
        ),
        (
            "invalid_request",
            Some(413),
            "Request too large (max 32MB).",
            json!({"terminal_reason": "image_error"}),
            Fatal,
            Code::E509,
        ),
        (
            "max_output_tokens",
            None,
            "API Error: The model has reached its context window limit.",
            none(),
            Fatal,
            Code::E509,
        ),
        (
            "unknown",
            Some(400),
            "API Error: 400 messages.0.content: Input should be a valid list",
            none(),
            Fatal,
            Code::E503,
        ),
        (
            "unknown",
            None,
            "API Error: API returned an empty or malformed response (HTTP 200) — …",
            none(),
            Transient,
            Code::E503,
        ),
        (
            "server_error",
            None,
            "API Error: Connection refused — … (ECONNREFUSED)",
            json!({"api_error": "connection_failed"}),
            Transient,
            Code::E501,
        ),
        (
            "server_error",
            None,
            "API Error: … (ENOTFOUND)",
            json!({"api_error": "connection_failed"}),
            Transient,
            Code::E902,
        ),
        (
            "server_error",
            None,
            "API Error: self-signed certificate",
            json!({"api_error": "connection_failed"}),
            Transient,
            Code::E903,
        ),
        (
            "server_error",
            None,
            "Request timed out. No data arrived for more than 5 minutes.",
            none(),
            Transient,
            Code::E504,
        ),
        (
            "server_error",
            None,
            "API Error: something else",
            none(),
            Transient,
            Code::E503,
        ),
        (
            "a class of tomorrow",
            None,
            "What is this",
            none(),
            Transient,
            Code::E999,
        ),
    ] {
        let attempt = Attempt::exits(1).prints(&api_error(class, status, text, more));
        let outcome = attempt.is(cause, code);
        assert!(!outcome.worked, "{text}");
        // Rules that hold do not make a failed session a good one.
        attempt.rules(&[(true, None, None)]).is(cause, code);
    }
}

#[test]
fn old_versions_are_told_by_their_words() {
    for (text, cause, code) in [
        ("Claude AI usage limit reached|1795229399", RateLimit, Code::E104),
        ("Session limit reached ∙ resets 2:52am", RateLimit, Code::E104),
        ("Spending cap reached resets 2:52am", RateLimit, Code::E105),
        ("API Error: Rate limit reached", RateLimit, Code::E101),
        (
            r#"API Error: 429 {"type":"error","error":{"type":"rate_limit_error"}}"#,
            RateLimit,
            Code::E101,
        ),
        (
            r#"API Error: 529 {"type":"error","error":{"type":"overloaded_error"}}"#,
            Transient,
            Code::E103,
        ),
        (
            r#"API Error: 500 {"type":"error","error":{"type":"api_error"}}"#,
            Transient,
            Code::E503,
        ),
        (
            r#"API Error: 403 {"type":"error","error":{"type":"permission_error"}}"#,
            Fatal,
            Code::E502,
        ),
        ("Invalid API key · Fix external API key", Fatal, Code::E502),
        ("Credit balance is too low", Fatal, Code::E506),
        ("API Error: Connection error.", Transient, Code::E501),
        (
            "API Error: Unable to connect to API (ECONNREFUSED)",
            Transient,
            Code::E501,
        ),
        ("Prompt is too long", Fatal, Code::E509),
        (
            "API Error: Claude's response exceeded the 32000 output token maximum.",
            Fatal,
            Code::E509,
        ),
        (
            "API Error: Claude Code is unable to respond to this request, which appears to violate our Usage Policy",
            Fatal,
            Code::E508,
        ),
        ("No response requested.", Transient, Code::E999),
    ] {
        Attempt::exits(1).prints(&old_error(text)).is(cause, code);
    }
}

#[test]
fn a_usage_limit_brings_its_reset() {
    let text = "You've hit your 5-hour limit · resets 2:37am (UTC)";
    let mut events = api_error(
        "rate_limit",
        Some(429),
        text,
        json!({"api_error": "usage_limit_reached"}),
    );
    events.insert(
        1,
        rejected(json!({"resetsAt": 1_795_228_661, "rateLimitType": "five_hour"})),
    );
    let failure = Attempt::exits(1).prints(&events).failure();
    assert_eq!((failure.cause, failure.code), (RateLimit, Code::E104));
    let limit = failure.limit.unwrap();
    assert_eq!(limit.resets_at, Some(at("2026-11-21T02:37:41Z")));
    assert_eq!(
        (limit.kind, limit.window.as_deref(), limit.from_text),
        (LimitKind::Usage, Some("five_hour"), false)
    );
    assert!(failure.message.contains("2026-11-21T02:37:41Z"), "{}", failure.message);

    // The fields name the limit, the words its end.
    let events = api_error(
        "rate_limit",
        Some(429),
        text,
        json!({"api_error": "usage_limit_reached"}),
    );
    let limit = Attempt::exits(1).prints(&events).failure().limit.unwrap();
    assert_eq!(
        (limit.resets_at, limit.from_text),
        (Some(at("2026-11-21T02:37:00Z")), true)
    );

    // Neither says when.
    let mut events = api_error(
        "rate_limit",
        Some(429),
        "You've hit your 5-hour limit",
        json!({"api_error": "usage_limit_reached"}),
    );
    events.insert(1, rejected(json!({"rateLimitType": "five_hour"})));
    let limit = Attempt::exits(1).prints(&events).failure().limit.unwrap();
    assert_eq!((limit.kind, limit.resets_at), (LimitKind::Usage, None));
}

#[test]
fn a_rejection_without_a_time_is_throttling() {
    let text = "API Error: Server is temporarily limiting requests (not your usage limit) · …";
    let mut events = api_error("rate_limit", Some(429), text, json!({}));
    events.insert(1, rejected(json!({"isUsingOverage": false})));
    events.insert(
        1,
        json!({"type": "system", "subtype": "api_retry", "attempt": 1, "retry_delay_ms": 30_100, "error_status": 429}),
    );
    let failure = Attempt::exits(1).prints(&events).failure();
    assert_eq!((failure.cause, failure.code), (RateLimit, Code::E101));
    let limit = failure.limit.unwrap();
    assert_eq!((limit.kind, limit.resets_at), (LimitKind::Throttle, None));
    assert_eq!(limit.retry_after, Some(Span(30_100_000)));

    // Its own backoff says nothing of what the API asked for.
    events[1]["retry_delay_ms"] = json!(583);
    assert_eq!(
        Attempt::exits(1).prints(&events).failure().limit.unwrap().retry_after,
        None
    );
}

#[test]
fn a_warning_or_a_limit_that_was_got_over_is_no_failure() {
    let warning = json!({"type": "rate_limit_event", "rate_limit_info": {"status": "allowed_warning", "resetsAt": 1_795_228_661}});
    let attempt = Attempt::exits(0).prints(&[
        init(),
        rejected(json!({"resetsAt": 1_795_228_661})),
        warning,
        calls("Bash"),
        done("ok"),
    ]);
    attempt.is_done();
    assert_eq!(attempt.report().limit, None);
}

#[test]
fn a_spending_limit_names_its_date() {
    let text = "API Error: 400 You have reached your specified API usage limits. You will regain access on 2026-11-25 at 00:00 UTC.";
    let failure = Attempt::exits(1)
        .prints(&api_error("unknown", Some(400), text, json!({})))
        .failure();
    assert_eq!((failure.cause, failure.code), (RateLimit, Code::E105));
    assert_eq!(failure.limit.unwrap().resets_at, Some(at("2026-11-25T00:00:00Z")));
}

#[test]
fn turns_and_budget() {
    let end = |subtype: &str, is_error: bool| json!({"type": "result", "subtype": subtype, "is_error": is_error, "errors": ["Reached it"], "num_turns": 3});
    // Old versions exit 0 and call it no error.
    for (code, is_error) in [(1, true), (0, false)] {
        let outcome = Attempt::exits(code)
            .prints(&[init(), says("a"), end("error_max_turns", is_error)])
            .is(Validation, Code::E510);
        assert!(outcome.worked);
    }
    Attempt::exits(1)
        .prints(&[init(), says("a"), end("error_max_budget_usd", true)])
        .is(Fatal, Code::E701);
}

#[test]
fn ends_from_outside() {
    Attempt::ends(Exit::Signal(9), "signal")
        .prints(&[init(), says("a")])
        .is(Transient, Code::E002);
    Attempt::ends(Exit::Signal(15), "success")
        .prints(&[init()])
        .is(Transient, Code::E002);
    // The CLI makes an exit status of the signal, and SIGINT a success without a word.
    Attempt::exits(143).prints(&[init()]).is(Transient, Code::E002);
    Attempt::exits(129).is(Transient, Code::E002);
    Attempt::exits(0).is(Transient, Code::E003);
    Attempt::exits(0).prints(&[init()]).is(Transient, Code::E003);
    Attempt::ends(Exit::Unknown, "exit-code").is(Transient, Code::E003);
    let aborted = json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "terminal_reason": "aborted_tools",
                         "errors": ["[ede_diagnostic] result_type=user"], "num_turns": 2});
    Attempt::exits(0)
        .prints(&[init(), says("a"), aborted])
        .is(Transient, Code::E003);
    // A timeout and a want of memory are told by the system; a good result before does not matter.
    Attempt::ends(Exit::Code(143), TIMEOUT)
        .prints(&[init(), done("ok")])
        .is(Transient, Code::E001);
    Attempt::ends(Exit::Signal(9), OOM_KILL).is(Transient, Code::E005);
}

#[test]
fn a_signal_is_told_by_its_name() {
    let names = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (4, "SIGILL"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (31, "a signal"),
    ];
    for (signal, name) in names {
        let message = format!("The session was ended from outside by {name} ({signal}).");
        let by_kernel = Attempt::ends(Exit::Signal(signal), "signal").of(command());
        assert_eq!(by_kernel.failure().message, message);
        assert_eq!(Attempt::exits(128 + signal).failure().message, message);
    }
}

#[test]
fn a_hang_is_transient_unless_the_result_was_told() {
    let why = "some output\n\nmozart: the session hung: it printed nothing more for 900s\n";
    let outcome = Attempt::ends(Exit::Code(143), HUNG)
        .prints(&[init(), says("a")])
        .stderr(why)
        .is(Transient, Code::E006);
    assert_eq!(
        outcome.failure.map(|failure| failure.message).as_deref(),
        Some("The session hung: it printed nothing more for 900s.")
    );
    Attempt::ends(Exit::Unknown, HUNG).is(Transient, Code::E006);
    // Only its end was missing.
    let told = || Attempt::ends(Exit::Signal(9), HUNG).prints(&[init(), says("a"), done("ok")]);
    told().rules(&[(true, None, None)]).is_done();
    told()
        .rules(&[(false, Some(Code::E201), None)])
        .is(Validation, Code::E201);
    // Any command can be ended so that it exits with 0.
    for exit in [Exit::Code(0), Exit::Signal(15)] {
        Attempt::ends(exit, HUNG).of(command()).is(Transient, Code::E006);
    }
    Attempt::ends(Exit::Code(143), HUNG)
        .prints(&[
            init(),
            rejected(json!({"resetsAt": 1_795_228_661, "rateLimitType": "seven_day"})),
        ])
        .is(RateLimit, Code::E104);
    Attempt::ends(Exit::Code(143), HUNG)
        .prints(&[init()])
        .stopped_by_us()
        .is(Interrupted, Code::E004);
}

#[test]
fn a_signal_after_a_usage_limit_waits_for_the_limit() {
    let events = [
        init(),
        rejected(json!({"resetsAt": 1_795_228_661, "rateLimitType": "seven_day"})),
    ];
    Attempt::ends(Exit::Signal(9), "signal")
        .prints(&events)
        .is(RateLimit, Code::E104);
    Attempt::exits(143).prints(&events).is(RateLimit, Code::E104);
    // One that told its result had got through.
    let [begin, refusal] = events;
    Attempt::ends(Exit::Signal(9), "signal")
        .prints(&[begin, refusal, done("ok")])
        .is(Transient, Code::E002);
}

#[test]
fn lost_and_stopped_are_interruptions_unless_the_work_is_done() {
    let good = [init(), calls("Write"), done("ok")];
    Attempt::ends(Exit::Unknown, LOST)
        .prints(&[init(), says("a")])
        .is(Interrupted, Code::E004);
    Attempt::ends(Exit::Unknown, LOST)
        .of(command())
        .is(Interrupted, Code::E004);
    // What it did is not known, but its session is.
    let outcome = Attempt::ends(Exit::Unknown, LOST).is(Interrupted, Code::E004);
    assert_eq!((outcome.worked, outcome.session_id.as_deref()), (true, Some("ours")));
    let outcome = Attempt::ends(Exit::Unknown, LOST)
        .of(command())
        .is(Interrupted, Code::E004);
    assert_eq!((outcome.worked, outcome.session_id), (false, None));
    let outcome = Attempt::ends(Exit::Unknown, LOST)
        .prints(&good)
        .rules(&[(true, None, None)])
        .is_done();
    assert_eq!(outcome.flags, ["exit unknown"]);

    Attempt::exits(143)
        .prints(&[init(), says("a")])
        .stopped_by_us()
        .is(Interrupted, Code::E004);
    Attempt::ends(Exit::Signal(9), TIMEOUT)
        .stopped_by_us()
        .is(Interrupted, Code::E004);
    Attempt::ends(Exit::Signal(15), "success")
        .prints(&good)
        .stopped_by_us()
        .rules(&[(true, None, None)])
        .is_done();
    Attempt::ends(Exit::Signal(15), "success")
        .prints(&good)
        .stopped_by_us()
        .rules(&[(false, Some(Code::E201), None)])
        .is(Interrupted, Code::E004);
}

#[test]
fn starts_that_fail() {
    let failure = Attempt::ends(Exit::Unknown, PROGRAM_MISSING).failure();
    assert_eq!((failure.cause, failure.code), (Fatal, Code::E505));
    assert!(
        failure.message.contains("Claude") || failure.message.contains("claude"),
        "{}",
        failure.message
    );
    Attempt::ends(Exit::Unknown, DIRECTORY_MISSING)
        .of(command())
        .is(Fatal, Code::E603);
    Attempt::ends(Exit::Unknown, START_FAILED).is(Transient, Code::E003);
    Attempt::ends(Exit::Unknown, START_FAILED)
        .stderr("exec: Argument list too long")
        .is(Fatal, Code::E602);
}

#[test]
fn a_refused_start_keeps_the_helpers_word() {
    let refused = |result: &str, said: &str| Attempt::ends(Exit::Code(200), result).stderr(said);
    let directory = refused(
        DIRECTORY_MISSING,
        "mozart: cannot change to the working directory /x: No such file\n",
    );
    directory.is(Fatal, Code::E603);
    assert_eq!(
        directory.failure().message,
        "Cannot change to the working directory /x: No such file."
    );
    refused(START_FAILED, "mozart: the credential TOKEN did not arrive\n").is(Fatal, Code::E502);
    refused(START_FAILED, "mozart: cannot start /x: Argument list too long\n").is(Fatal, Code::E602);
    refused(START_FAILED, "mozart: out of processes\n").is(Transient, Code::E003);
}

#[test]
fn the_cli_refuses_to_begin() {
    for (stderr, code) in [
        ("error: unknown option '--no-such-flag'\n", Code::E306),
        (
            "Error: When using --print, --output-format=stream-json requires --verbose\n",
            Code::E306,
        ),
        (
            "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons\n",
            Code::E306,
        ),
        (
            "Error: Input must be provided either through stdin or as a prompt argument when using --print\n",
            Code::E306,
        ),
        (
            "Error: Invalid MCP configuration:\nMCP config file not found: /nonexistent.json\n",
            Code::E305,
        ),
        ("Error: piped stdin input exceeds 10MB.\n", Code::E602),
        (
            "ENOENT: no such file or directory, mkdir '/proc/claude-1000'\n",
            Code::E601,
        ),
    ] {
        let outcome = Attempt::exits(1).stderr(stderr).is(Fatal, code);
        assert!(outcome.failure.unwrap().hint.is_some(), "{stderr}");
    }
    // The same in a result, as CLAUDE_CODE_STARTUP_FAILURE_RESULTS makes the CLI print it.
    let refused = json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 0,
                         "errors": ["--dangerously-skip-permissions cannot be used with root/sudo privileges"]});
    let stderr = "--dangerously-skip-permissions cannot be used with root/sudo privileges\n";
    Attempt::exits(1)
        .prints(&[refused])
        .stderr(stderr)
        .is(Fatal, Code::E306);
    // Warnings are no reason; nor is what a session says on its standard error before it dies at work.
    Attempt::exits(1)
        .stderr("[claude-code:unrecognized_model] {}\n")
        .is(Transient, Code::E003);
    Attempt::exits(1)
        .prints(&[init(), says("a")])
        .stderr("panic!")
        .is(Transient, Code::E003);
    // Any one sign that it had begun is enough.
    let begins = |more: Value| {
        let mut event = json!({"type": "system", "subtype": "init", "session_id": "5f0c"});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    for sign in [
        begins(json!({"model": "claude-opus-5-5"})),
        begins(json!({"claude_code_version": "2.1.329"})),
        calls("Bash"),
    ] {
        Attempt::exits(1)
            .prints(&[sign])
            .stderr("panic!")
            .is(Transient, Code::E003);
    }
    let told = "[claude-code:unrecognized_model] {}\nWarning: no stdin\n\nerror: unknown option '--x'\n";
    assert_eq!(
        Attempt::exits(1).stderr(told).failure().message,
        "The CLI did not start: error: unknown option '--x'."
    );
}

#[test]
fn sessions_that_exist_and_sessions_that_do_not() {
    let id = "9eaf546a-314a-4077-90c1-d170ddaa7110";
    let outcome = Attempt::exits(1)
        .stderr(&format!("Error: Session ID {id} is already in use.\n"))
        .is(Transient, Code::E003);
    assert!(outcome.worked && !outcome.session_lost, "it is to be resumed");
    assert_eq!(outcome.session_id.as_deref(), Some(id));

    let lost = format!("No conversation found with session ID: {id}");
    let result = json!({"type": "result", "subtype": "error_during_execution", "is_error": true, "num_turns": 0, "errors": [lost], "session_id": id});
    for attempt in [Attempt::exits(1).prints(&[result]), Attempt::exits(1)] {
        let outcome = attempt.stderr(&format!("{lost}\n")).is(Transient, Code::E003);
        assert!(outcome.session_lost && !outcome.worked, "it is to be started anew");
        assert_eq!(outcome.session_id, None);
    }
}

#[test]
fn rules_have_the_last_word() {
    let good = [init(), calls("Write"), done("ok")];
    let outcome = Attempt::exits(0)
        .prints(&good)
        .rules(&[
            (true, None, None),
            (false, None, Some("skipped")),
            (false, Some(Code::E202), Some("incomplete")),
        ])
        .is(Validation, Code::E202);
    assert_eq!((outcome.rules_passed, outcome.rules_total), (1, 3));
    let message = outcome.failure.unwrap().message;
    assert_eq!(message, "2 rules of 3 failed, the first: rule 2: it is not there.");
    Attempt::exits(0)
        .prints(&good)
        .rules(&[(false, None, None)])
        .is(Validation, Code::E209);

    // A non-zero exit of a session that calls itself good, with every rule met.
    let outcome = Attempt::exits(1).prints(&good).rules(&[(true, None, None)]).is_done();
    assert_eq!(outcome.flags, ["exit 1"]);
}

#[test]
fn suspicious_marks_are_shown_and_fail_only_without_rules() {
    let denied = json!({"type": "result", "subtype": "success", "is_error": false, "result": "I did not finish.", "num_turns": 2,
                        "permission_denials": [{"tool_name": "Bash"}, {"tool_name": "Bash"}, {"tool_name": "Write"}]});
    let attempt = Attempt::exits(0).prints(&[init(), says("a"), denied]);
    let outcome = attempt.is(Validation, Code::E206);
    assert_eq!(
        outcome.flags,
        ["denied tools: Bash, Write", "no tool used", "says it did not finish"]
    );
    assert_eq!(attempt.rules(&[(true, None, None)]).is_done().flags, outcome.flags);

    let empty = Attempt::exits(0).prints(&[init(), calls("Bash"), done(" \n")]);
    assert_eq!(empty.is(Validation, Code::E205).flags, ["empty result"]);
    empty.rules(&[(true, None, None)]).is_done();

    // A command of the CLI's own: no request, exit 0.
    for text in ["", "/clear isn't available in this environment."] {
        let slash = json!({"type": "result", "subtype": "success", "is_error": false, "result": text, "num_turns": 0});
        let outcome = Attempt::exits(0).prints(&[init(), slash]).is(Validation, Code::E205);
        assert!(outcome.flags.contains(&"no turn".to_owned()) && !outcome.worked);
    }

    // An error says enough.
    let error = api_error(
        "server_error",
        Some(500),
        "API Error: 500 Internal server error.",
        json!({}),
    );
    let outcome = Attempt::exits(1).prints(&error).is(Transient, Code::E503);
    assert_eq!(outcome.flags, Vec::<String>::new());

    for text in [
        "All done.",
        "The tests that were not complete before pass now, nothing is left.",
    ] {
        let outcome = Attempt::exits(0).prints(&[init(), calls("Bash"), done(text)]).is_done();
        assert!(!text.starts_with("All") || outcome.flags.is_empty());
    }
}

// field: rate_limit.detection_patterns
#[test]
fn the_jobs_patterns_are_asked_last_and_of_failed_attempts_only() {
    let strange = || Attempt::exits(1).prints(&old_error("Das Kontingent ist AUFGEBRAUCHT"));
    strange().is(Transient, Code::E999);
    let failure = strange().patterns(&["(", "kontingent.*aufgebraucht"]).failure();
    assert_eq!((failure.cause, failure.code), (RateLimit, Code::E102));
    assert_eq!(failure.limit.unwrap().kind, LimitKind::Throttle);
    // Look-around is part of the language.
    strange().patterns(&["kontingent(?! frei)"]).is(RateLimit, Code::E102);
    // A crash that tells it on the standard error alone.
    Attempt::exits(1)
        .stderr("quota exceeded")
        .patterns(&["quota"])
        .is(RateLimit, Code::E102);
    // What the fields say counts more, and an answer is no error.
    let overloaded = api_error(
        "server_error",
        Some(529),
        "API Error: 529 Overloaded, over capacity",
        json!({}),
    );
    Attempt::exits(1)
        .prints(&overloaded)
        .patterns(&["capacity"])
        .is(Transient, Code::E103);
    Attempt::exits(0)
        .prints(&[init(), calls("Bash"), done("the quota of 429 items")])
        .patterns(&["429", "quota"])
        .is_done();
    // A hostile pattern ends.
    strange()
        .patterns(&["(?=(a+)+$)x", "(.*)*\\1z"])
        .is(Transient, Code::E999);
}

#[test]
fn a_command_reports_nothing_but_its_exit() {
    let mut ok = Attempt::exits(0).of(command());
    assert!(ok.is_done().flags.is_empty(), "an empty output is no mark of a command");
    ok.stdout = b"the answer\n".to_vec();
    assert_eq!(ok.report().result_text, "the answer\n");

    let failed = Attempt::exits(3)
        .of(command())
        .stderr("first\nno such item\n")
        .patterns(&["limit"]);
    let outcome = failed.rules(&[(true, None, None)]).is(Validation, Code::E009);
    assert_eq!(
        outcome.failure.unwrap().message,
        "The command ended with exit status 3: no such item."
    );
    assert!(outcome.flags.is_empty() && outcome.session_id.is_none() && outcome.cost.is_none());
    let mut limited = Attempt::exits(3)
        .of(command())
        .stderr("slow down\n")
        .patterns(&["Slow.Down"]);
    limited.is(RateLimit, Code::E102);
    limited.stdout = std::mem::take(&mut limited.stderr).into_bytes();
    limited.is(Validation, Code::E009);
    Attempt::exits(137).of(command()).is(Validation, Code::E009);
    Attempt::ends(Exit::Signal(11), "core-dump")
        .of(command())
        .is(Transient, Code::E002);
    Attempt::exits(0)
        .of(command())
        .rules(&[(false, Some(Code::E201), None)])
        .is(Validation, Code::E201);
}

#[test]
fn messages_are_one_bounded_line() {
    let long = format!("API Error: 500 {}\n\n{}", "wörter ".repeat(400), "x".repeat(4000));
    let failure = Attempt::exits(1).prints(&old_error(&long)).failure();
    assert!(failure.message.chars().count() < 400 && failure.message.is_char_boundary(failure.message.len()));
    assert!(failure.message.starts_with("The API failed (500): API Error"));
}
