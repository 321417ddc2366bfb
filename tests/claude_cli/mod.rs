//! The real Claude CLI, run with the backend's own command line and environment against a scripted API on the loopback
//! (`tests/claude/api.py`), and read by the backend's own reader and classifier.
//!
//! `MOZART_TEST_CLAUDE` names the program (`tests/claude/fetch-cli` installs it); without it these tests say that they
//! are skipped. No key and no network are needed.

#[cfg(test)]
pub(crate) mod world;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use mozart::model::{Cause, Code, Cost, LimitKind, Span};
use mozart::runner::spec::{AttemptSpec, Secrets};
use rustix::process::Signal;
use serde_json::{Value, json};

use world::{Ended, World, backend, end_tools_of, map, now, wait_for};

/// Every request is answered with this move.
fn always(moves: &Value) -> Value {
    json!({"rules": [{"turns": moves}]})
}

#[test]
fn an_answer_is_reported() {
    let Some(world) = World::new(&always(&json!([{"say": "Forty-two."}]))) else {
        return;
    };
    let spec = world.spec();
    let ended = world.run(&spec, "What is it?");
    assert_eq!(ended.is_done().flags, ["no tool used"]);
    assert_eq!(ended.report.result_text, "Forty-two.");
    assert_eq!(
        (ended.report.turns, ended.report.session_id.as_deref()),
        (Some(1), Some(spec.session_id.as_str()))
    );
    assert!(ended.report.cost.is_some_and(|cost| cost.0 > 0) && ended.report.cost == ended.report.total_cost);
    assert_eq!(
        (ended.report.tokens_in, ended.report.tokens_out),
        (Some(3012), Some(34))
    );
    assert!(ended.report.program_version.is_some() && ended.report.worked);
    let requests = world.api.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0]["ask"].as_str(), requests[0]["session"].as_str()),
        (Some("What is it?"), Some(spec.session_id.as_str()))
    );
}

// field: backend.skip_permissions
// field: backend.allowed_tools
#[test]
fn tools_do_real_work_where_they_are_allowed() {
    let script = json!({"rules": [{"match": "into (\\S+)", "turns": [{"write": "{1}", "text": "real\n"}, {"say": "Written."}]}]});
    let Some(world) = World::new(&script) else { return };
    let write = |spec: &AttemptSpec, name: &str| {
        let ended = world.run(spec, &format!("Write it into {}", world.work(name)));
        (ended, fs::read_to_string(world.work(name)).ok())
    };
    let (ended, text) = write(&world.spec(), "skipped");
    assert_eq!((ended.is_done().flags.len(), text.as_deref()), (0, Some("real\n")));
    assert_eq!((ended.report.tool_calls, ended.report.turns), (1, Some(2)));

    let (ended, text) = write(&world.spec_with(|cli| cli.skip_permissions = false), "denied");
    assert_eq!(ended.is(Cause::Validation, Code::E206).flags, ["denied tools: Write"]);
    assert_eq!(text, None);

    let allowed = world.spec_with(|cli| {
        cli.skip_permissions = false;
        cli.allowed_tools = vec!["Bash(git log:*)".to_owned(), "Write".to_owned()];
    });
    let (ended, text) = write(&allowed, "allowed");
    ended.is_done();
    assert_eq!(text.as_deref(), Some("real\n"));
}

#[test]
fn prompts_that_look_like_commands_arrive_as_text() {
    let Some(world) = World::new(&always(&json!([{"say": "ok"}]))) else {
        return;
    };
    let prompts = [
        "/clear the table, then /compact it",
        "-p is not an option here",
        "--help",
    ];
    for prompt in prompts {
        let ended = world.run(&world.spec(), prompt);
        ended.is_done();
        assert_eq!(ended.report.result_text, "ok", "{prompt}");
    }
    let asked: Vec<String> = world
        .api
        .requests()
        .iter()
        .map(|request| request["ask"].as_str().unwrap().trim().to_owned())
        .collect();
    assert_eq!(asked, prompts);
}

// field: backend.cli_model
// field: backend.system_prompt_file
#[test]
fn model_and_system_prompt_arrive() {
    let script = json!({"watch": ["Speak like a pirate."], "rules": []});
    let Some(world) = World::new(&script) else { return };
    world.run(&world.spec(), "plain").is_done();
    let spec = world.spec_with(|cli| {
        cli.model = Some("claude-haiku-4-5-20251001".to_owned());
        cli.system_prompt = Some("Speak like a pirate.".to_owned());
    });
    let ended = world.run(&spec, "with both");
    ended.is_done();
    assert_eq!(ended.report.model.as_deref(), Some("claude-haiku-4-5-20251001"));
    let requests = world.api.requests();
    assert_eq!(
        requests
            .iter()
            .map(|request| request["seen"].as_array().unwrap().len())
            .collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(requests[1]["model"], "claude-haiku-4-5-20251001");
}

// field: backend.disable_mcp
#[test]
fn servers_of_the_user_start_only_where_they_are_wanted() {
    let Some(world) = World::new(&always(&json!([{"say": "ok"}]))) else {
        return;
    };
    let servers = json!({"mcpServers": {"mine": {"command": "/bin/false", "args": []}}});
    fs::write(world.path("home").join(".claude.json"), servers.to_string()).unwrap();
    let count = |ended: &Ended| ended.init()["mcp_servers"].as_array().unwrap().len();
    assert_eq!(count(&world.run(&world.spec(), "without")), 0);
    assert_eq!(
        count(&world.run(&world.spec_with(|cli| cli.disable_mcp = false), "with")),
        1
    );
}

// field: backend.env
// field: backend.pass_env
#[test]
fn tools_see_the_environment_that_was_built() {
    let script = always(&json!([{"bash": "env > seen"}, {"say": "ok"}]));
    let Some(world) = World::new(&script) else { return };
    let mut spec = world.spec();
    let submitted = &mut Arc::get_mut(&mut spec.context).unwrap().environment;
    submitted.extend(map(&[("NAMED", "passed"), ("UNNAMED", "left behind")]));
    backend(&mut spec).pass_env = vec!["NAMED".to_owned()];
    backend(&mut spec).env = map(&[("FIXED", "set")]);
    world.run(&spec, "Look.").is_done();
    let seen = fs::read_to_string(world.work("seen")).unwrap();
    let has = |line: &str| seen.lines().any(|seen| seen == line);
    assert!(has("NAMED=passed") && has("FIXED=set") && has("USER=tester"), "{seen}");
    assert!(!seen.contains("UNNAMED="), "{seen}");
}

#[test]
fn an_overloaded_api_is_transient() {
    let Some(world) = World::new(&always(&json!([{"status": 529, "message": "Overloaded"}]))) else {
        return;
    };
    let ended = world.run(&world.spec(), "Hi.");
    let outcome = ended.is(Cause::Transient, Code::E103);
    assert!(!outcome.worked);
    assert_eq!(world.api.requests().len(), 3, "the first and two more of the CLI's own");
}

#[test]
fn a_fault_that_passes_is_got_over_by_the_cli_itself() {
    let script = json!({"rules": [{"first": [{"status": 529}, {"status": 500}], "turns": [{"say": "at last"}]}]});
    let Some(world) = World::new(&script) else { return };
    let ended = world.run(&world.spec(), "Hi.");
    ended.is_done();
    assert_eq!(
        (ended.report.result_text.as_str(), world.api.requests().len()),
        ("at last", 3)
    );
}

#[test]
fn throttling_is_no_usage_limit() {
    let Some(world) = World::new(&always(&json!([{"status": 429, "retry_after": 3}]))) else {
        return;
    };
    let ended = world.run(&world.spec(), "Hi.");
    ended.is(Cause::RateLimit, Code::E101);
    let limit = ended
        .outcome
        .failure
        .as_ref()
        .and_then(|failure| failure.limit.clone())
        .unwrap();
    assert_eq!((limit.kind, limit.resets_at), (LimitKind::Throttle, None));
    let asked = limit.retry_after.map_or(0.0, Span::as_secs_f64);
    assert!((3.0..4.0).contains(&asked), "retry-after was 3 s, heard {asked}");
}

#[test]
fn a_usage_limit_brings_its_reset() {
    let Some(world) = World::new(&always(&json!([{"limit": 3600, "claim": "seven_day"}]))) else {
        return;
    };
    let mut spec = world.spec();
    spec.secrets = Secrets(map(&[("CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-of-nobody")]));
    let before = now();
    let ended = world.run(&spec, "Hi.");
    ended.is(Cause::RateLimit, Code::E104);
    let limit = ended
        .outcome
        .failure
        .as_ref()
        .and_then(|failure| failure.limit.clone())
        .unwrap();
    assert_eq!(
        (limit.kind, limit.window.as_deref(), limit.from_text),
        (LimitKind::Usage, Some("seven_day"), false)
    );
    let ahead = limit.resets_at.unwrap().since(before).as_secs_f64();
    assert!((3599.0..3690.0).contains(&ahead), "{ahead}");
    assert_eq!(
        world.api.requests().len(),
        1,
        "the CLI does not try a usage limit again"
    );
    assert_eq!(world.api.requests()[0]["credential"], "authorization");
}

#[test]
fn a_refused_login_is_fatal() {
    let Some(world) = World::new(&always(&json!([{"status": 401, "message": "invalid x-api-key"}]))) else {
        return;
    };
    world.run(&world.spec(), "Hi.").is(Cause::Fatal, Code::E502);
    // Without any credential the CLI asks nobody.
    let asked = world.api.requests().len();
    let mut spec = world.spec();
    spec.secrets = Secrets::default();
    world.run(&spec, "Hi.").is(Cause::Fatal, Code::E502);
    assert_eq!(world.api.requests().len(), asked);
}

#[test]
fn nobody_listens() {
    let Some(world) = World::new(&json!({})) else { return };
    let mut spec = world.spec();
    // A port that was just free, and is again.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    Arc::get_mut(&mut spec.context)
        .unwrap()
        .environment
        .insert("ANTHROPIC_BASE_URL".to_owned(), format!("http://127.0.0.1:{port}"));
    world.run(&spec, "Hi.").is(Cause::Transient, Code::E501);
}

// field: backend.cli_extra_args
#[test]
fn extra_arguments_reach_the_cli() {
    let Some(world) = World::new(&always(&json!([{"bash": "true"}]))) else {
        return;
    };
    let spec = world.spec_with(|cli| cli.extra_args = vec!["--max-turns".to_owned(), "2".to_owned()]);
    assert!(
        world
            .run(&spec, "Go on for ever.")
            .is(Cause::Validation, Code::E510)
            .worked
    );
    let spec = world.spec_with(|cli| cli.extra_args = vec!["--no-such-option".to_owned()]);
    let ended = world.run(&spec, "Hi.");
    let failure = ended.is(Cause::Fatal, Code::E306).failure.as_ref().unwrap();
    assert!(failure.message.contains("--no-such-option"), "{}", failure.message);
}

// field: cost_limits
#[test]
fn a_session_ends_when_it_has_cost_its_budget() {
    let Some(world) = World::new(&always(&json!([{"bash": "true"}]))) else {
        return;
    };
    let mut spec = world.spec();
    spec.budget = Some(Cost(10_000));
    let ended = world.run(&spec, "Go on for ever.");
    assert!(ended.is(Cause::Fatal, Code::E701).worked);
    assert!(
        ended.report.cost.is_some_and(|cost| cost >= Cost(10_000)),
        "{:?}",
        ended.report.cost
    );
}

#[test]
fn a_resumed_session_remembers_and_is_charged_for_its_part() {
    let script = json!({"rules": [{"match": "again", "turns": [{"say": "second"}]}, {"turns": [{"say": "first"}]}]});
    let Some(world) = World::new(&script) else { return };
    let mut spec = world.spec();
    let first = world.run(&spec, "Remember: blue.");
    first.is_done();
    spec.resume = true;
    spec.earlier_cost = first.report.total_cost;
    let second = world.run(&spec, "And again?");
    second.is_done();
    assert_eq!(second.report.result_text, "second");
    assert_eq!(second.report.session_id.as_deref(), Some(spec.session_id.as_str()));
    let twice = first.report.total_cost.map(|cost| Cost(cost.0 * 2));
    assert_eq!(
        (second.report.total_cost, second.report.cost),
        (twice, first.report.cost)
    );
    assert_eq!(
        (second.report.tokens_in, second.report.tokens_out),
        (first.report.tokens_in, first.report.tokens_out)
    );
    let history = world.api.requests()[1]["messages"].to_string();
    assert!(
        history.contains("Remember: blue.") && history.contains("And again?"),
        "{history}"
    );
}

#[test]
fn a_killed_session_is_transient_and_can_be_resumed() {
    let script = json!({"rules": [
        {"match": "Go on", "turns": [{"say": "finished"}]},
        {"turns": [{"bash": "touch begun; tail -f /dev/null"}]},
    ]});
    let Some(world) = World::new(&script) else { return };
    for (signal, name) in [(Signal::KILL, "killed"), (Signal::TERM, "ended")] {
        let mut spec = world.spec_with(|cli| cli.model = Some("claude-sonnet-4-5-20250929".to_owned()));
        let running = world.start(&spec, &format!("Work until you are {name}."));
        wait_for("the tool runs", || Path::new(&world.work("begun")).exists());
        running.signal(signal);
        let ended = running.end(&spec);
        let outcome = ended.is(Cause::Transient, Code::E002);
        assert!(outcome.worked && outcome.session_id.as_deref() == Some(spec.session_id.as_str()));
        // Nobody told what it has cost: the tokens of its one message are charged for by the table of prices.
        let written = outcome.tokens_out.and_then(|tokens| i64::try_from(tokens).ok());
        let read = 12 * 3 + 1000 * 15 / 4 + 2000 * 3 / 10;
        assert!(
            outcome.cost_estimated && written.is_some_and(|written| written > 0),
            "{outcome:?}"
        );
        assert_eq!(outcome.cost, written.map(|written| Cost(read + 15 * written)));
        fs::remove_file(world.work("begun")).unwrap();

        spec.resume = true;
        let resumed = world.run(&spec, "Go on.");
        resumed.is_done();
        assert_eq!(resumed.report.result_text, "finished");
    }
    // What SIGKILL leaves behind of the tool is the launcher's to end; here it is this test's.
    end_tools_of(&world.path("work"));
}

#[test]
fn an_interrupted_session_exits_zero_and_did_not_succeed() {
    let script = always(&json!([{"bash": "touch begun; tail -f /dev/null"}]));
    let Some(world) = World::new(&script) else { return };
    let spec = world.spec();
    let running = world.start(&spec, "Work.");
    wait_for("the tool runs", || Path::new(&world.work("begun")).exists());
    running.signal(Signal::INT);
    running.end(&spec).is(Cause::Transient, Code::E003);
}

#[test]
fn session_ids_that_exist_and_that_do_not() {
    let Some(world) = World::new(&always(&json!([{"say": "ok"}]))) else {
        return;
    };
    let spec = world.spec();
    world.run(&spec, "Hi.").is_done();
    let again = world.run(&spec, "Hi.");
    let outcome = again.is(Cause::Transient, Code::E003);
    assert!(
        outcome.worked && outcome.session_id.as_deref() == Some(spec.session_id.as_str()),
        "to be resumed"
    );

    let mut spec = world.spec();
    spec.resume = true;
    let lost = world.run(&spec, "Go on.");
    let outcome = lost.is(Cause::Transient, Code::E003);
    assert!(
        outcome.session_lost && !outcome.worked && outcome.session_id.is_none(),
        "to be started anew"
    );
    assert_eq!(world.api.requests().len(), 1);
}
