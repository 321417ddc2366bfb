//! Every call, its options, its rows and its errors, from the client's values to the conductor's and back.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use mozart::api::request::{ApiError, CostRequest, RunFilter, RunSelector, Submit};
use mozart::api::view::{GateState, GateView, ManagerView, QuestionView};
use mozart::bus::client::{CallError, Client};
use mozart::model::{
    AttemptKind, AttemptReport, Cause, Certificate, Code, Cost, Exit, Failure, Limit, LimitKind, Outcome, RuleResult,
    RunState, SessionReport, Severity, SheetNo, SheetStatus, Span, Timestamp, ValidationReport,
};
use mozart::summary::{AttemptSummary, CostKey, CostSummary, SheetSummary};
use zbus::Variant;

use super::script::{Table, World, change, gate, problem, question, recovered, run_view, sheet};

fn newest(job: &str) -> RunSelector {
    RunSelector {
        job: job.to_owned(),
        run: None,
    }
}

fn submit() -> Submit {
    Submit {
        text: "name: my-batch job\n".to_owned(),
        base_directory: "/home/me".to_owned(),
        path: Some("/home/me/job.yaml".to_owned()),
        workspace: Some("/home/me/work".to_owned()),
        environment: Some([("PATH".to_owned(), "/bin".to_owned())].into()),
        start_sheet: Some(3),
        fresh: true,
        priority: Some(7),
        set: [("audience".to_owned(), "engineers".to_owned())].into(),
        dry_run: false,
        resume: true,
        infer: true,
    }
}

fn rule(passed: bool) -> RuleResult {
    RuleResult {
        rule: 2,
        kind: "content_regex".to_owned(),
        description: "has a summary".to_owned(),
        path: Some("/w/report.md".to_owned()),
        pattern: Some("^## ".to_owned()),
        passed,
        actual: Some("nothing".to_owned()),
        expected: None,
        reason: Some("no match".to_owned()),
        category: Some("incomplete".to_owned()),
        hint: None,
        checked_at: Timestamp(1_795_000_000_000_009),
        duration_ms: 12,
        code: (!passed).then_some(Code::E202),
    }
}

fn failed_sheet(number: u32) -> SheetSummary {
    SheetSummary {
        description: Some("chapter".to_owned()),
        state: SheetStatus::Failed,
        reason: "waits".to_owned(),
        until: Some(Timestamp(1_795_000_000_000_011)),
        attempts: 4,
        completion_attempts: 1,
        cause: Some(Cause::Validation),
        code: Some(Code::E202),
        message: Some("no summary".to_owned()),
        flags: vec!["denied tools: Bash".to_owned()],
        validations: vec![rule(true), rule(false)],
        started_at: Some(Timestamp(1)),
        ended_at: Some(Timestamp(2)),
        cost: Some(Cost(5)),
        tokens_in: 6,
        tokens_out: 7,
        ..sheet(number)
    }
}

fn attempt(number: u32) -> AttemptSummary {
    let limit = Limit {
        kind: LimitKind::Usage,
        window: Some("five_hour".to_owned()),
        resets_at: Some(Timestamp(99)),
        from_text: true,
        retry_after: None,
    };
    let session = SessionReport {
        has_result: true,
        result_text: "done".to_owned(),
        api_status: Some(429),
        limit: Some(limit.clone()),
        denied_tools: vec!["Bash".to_owned(), "Write".to_owned()],
        cost: Some(Cost(-3)),
        stdout_tail: "…".to_owned(),
        ..SessionReport::default()
    };
    let failure = Failure {
        cause: Cause::RateLimit,
        code: Code::E104,
        message: "usage limit".to_owned(),
        hint: None,
        limit: Some(limit),
    };
    let report = AttemptReport {
        started_at: Some(Timestamp(3)),
        ended_at: Timestamp(4),
        certificate: Certificate {
            exit: Exit::Code(37),
            result: "exit-code".to_owned(),
            wall: Some(Span(5)),
            cpu: None,
            peak_memory: Some(6),
            stopped_by_us: false,
        },
        session,
        validation: ValidationReport {
            rules: vec![rule(false)],
        },
        outcome: Outcome {
            failure: Some(failure),
            flags: Vec::new(),
            rules_passed: 0,
            rules_total: 1,
            worked: true,
            session_id: Some("b5f1".to_owned()),
            session_lost: true,
            cost: None,
            cost_estimated: false,
            tokens_in: Some(8),
            tokens_out: None,
        },
    };
    AttemptSummary {
        sheet_num: 2,
        attempt: number,
        kind: AttemptKind::Completion,
        session_id: "b5f1".to_owned(),
        unit: "mozart-0a-1-2-3".to_owned(),
        intended_at: Timestamp(2),
        started_at: Some(Timestamp(3)),
        invocation: Some("f00d".to_owned()),
        report: Some(report),
    }
}

#[tokio::test]
async fn another_plan_and_a_recovery_arrive_as_they_were_sent() {
    let warning = problem("V101", Severity::Warning, "no validation");
    let mut world = World::new(Table {
        problems: vec![warning.clone()],
        runs: vec![run_view("review", 3, RunState::Paused)],
        ..Table::default()
    });
    let client = world.client().await;
    let third = RunSelector {
        run: Some(3),
        ..newest("review")
    };
    let plan = Submit {
        start_sheet: None,
        fresh: false,
        infer: false,
        ..submit()
    };
    let modified = client.modify(&third, &plan).await.unwrap();
    assert_eq!((modified.job.as_str(), modified.run.0), ("review", 3));
    assert_eq!(modified.parts, ["prompt", "retry"]);
    assert_eq!(modified.sheets, [change(1, 4, SheetStatus::Completed, "kept")]);
    assert_eq!(modified.problems, [warning]);
    assert_eq!(world.table.lock().unwrap().submitted, [plan]);

    let rows = client.recover(&third, Some(SheetNo(3)), true).await.unwrap();
    assert_eq!(rows, [recovered(3)]);
    client.recover(&newest("review"), None, false).await.unwrap();
    assert_eq!(
        world.calls(),
        [
            "recent",
            "modify review Some(3) resume true",
            "recover review Some(3) Some(SheetNo(3)) true",
            "recover review None None false"
        ]
    );

    // What is for new runs is no wish to be forgotten silently.
    let error = client.modify(&third, &submit()).await.unwrap_err();
    assert!(
        matches!(&error, CallError::Api(ApiError::InvalidArgument(text)) if text.contains("start_sheet")),
        "{error:?}"
    );
    let refusal = ApiError::WrongState("sheet 4 is completed".to_owned());
    world.table.lock().unwrap().fails = Some(refusal.clone());
    for answer in [
        client
            .modify(
                &third,
                &Submit {
                    start_sheet: None,
                    fresh: false,
                    infer: false,
                    ..submit()
                },
            )
            .await
            .map(drop),
        client.recover(&third, None, false).await.map(drop),
    ] {
        assert!(matches!(answer, Err(CallError::Api(error)) if error == refusal));
    }
}

#[tokio::test]
async fn a_submission_arrives_as_it_was_sent() {
    let warning = problem("V101", Severity::Warning, "no validation");
    let mut world = World::new(Table {
        problems: vec![warning.clone()],
        ..Table::default()
    });
    let client = world.client().await;

    let submitted = client.submit(&submit()).await.unwrap();
    assert_eq!(
        (submitted.job.as_str(), submitted.run.0, submitted.attached),
        ("my-batch job", 4, false)
    );
    assert_eq!(submitted.problems, std::slice::from_ref(&warning));
    assert_eq!(world.table.lock().unwrap().submitted, [submit()]);
    // Its object is there already.
    assert_eq!(
        client.run(&newest("my-batch job")).await.unwrap().summary.state,
        RunState::Queued
    );
    assert_eq!(state(&client, "my_2dbatch_20job").await, "queued");

    world.table.lock().unwrap().attached = true;
    let submitted = client.submit(&submit()).await.unwrap();
    assert!(submitted.attached);
    assert_eq!(submitted.problems, [warning]);

    let bare = Submit {
        base_directory: "/".to_owned(),
        dry_run: true,
        ..Submit::default()
    };
    assert_eq!(client.submit(&bare).await.unwrap().run.0, 0);
    assert_eq!(world.table.lock().unwrap().submitted.last(), Some(&bare));
}

async fn state(client: &Client, escaped: &str) -> String {
    property(client, escaped, "State").await
}

async fn property(client: &Client, escaped: &str, name: &str) -> String {
    let path = format!("/org/mozart/Mozart1/job/{escaped}");
    let proxy = zbus::Proxy::new(
        client.connection(),
        "org.mozart.Mozart1",
        path,
        "org.mozart.Mozart1.Job",
    );
    proxy.await.unwrap().get_property(name).await.unwrap()
}

#[tokio::test]
async fn a_job_file_may_be_large_but_not_too_large() {
    let mut world = World::new(Table::default());
    let client = world.client().await;
    let mut large = submit();
    large.text = "#".repeat(5 * 1024 * 1024);
    assert!(client.submit(&large).await.is_ok());
    large.text.push('#');
    assert!(argument_error(client.submit(&large).await).contains("larger than 5 MiB"));
}

#[tokio::test]
async fn the_problems_of_an_invalid_job_come_with_the_error() {
    let problems = vec![
        problem("E302", Severity::Error, "no prompt"),
        problem("V101", Severity::Warning, "hm"),
    ];
    let error = ApiError::InvalidJob {
        message: "job.yaml: 1 error".to_owned(),
        problems: problems.clone(),
    };
    let mut world = World::new(Table {
        problems: problems.clone(),
        fails: Some(error.clone()),
        ..Table::default()
    });
    let client = world.client().await;
    assert_eq!(client.submit(&submit()).await, Err(CallError::Api(error)));
    assert_eq!(client.validate(&submit()).await, Ok((false, problems)));
}

#[tokio::test]
async fn every_error_keeps_its_kind_and_its_sentence() {
    let mut world = World::new(Table::default());
    let client = world.client().await;
    let text = || "what happened, and what to do".to_owned();
    for error in [
        ApiError::NoSuchJob(text()),
        ApiError::NoSuchRun(text()),
        ApiError::NoSuchSheet(text()),
        ApiError::NoSuchQuestion(text()),
        ApiError::InvalidArgument(text()),
        ApiError::Busy(text()),
        ApiError::WrongState(text()),
        ApiError::Unconfirmed(text()),
        ApiError::QueueFull(text()),
        ApiError::NotSupported(text()),
        ApiError::Storage(text()),
        ApiError::Refused(text()),
        ApiError::Stopping(text()),
    ] {
        world.table.lock().unwrap().fails = Some(error.clone());
        assert_eq!(client.reload().await, Err(CallError::Api(error)));
    }
}

#[tokio::test]
async fn rows_come_back_as_they_were() {
    let mut runs = vec![
        run_view("a", 2, RunState::Completed),
        run_view("b", 1, RunState::Waiting),
    ];
    runs[1].summary.question = Some("q2-1-1".to_owned());
    let bare = QuestionView {
        account: None,
        code: None,
        ..question("q2-1-1")
    };
    let of_model = GateView {
        window: None,
        ..gate(GateState::Opening)
    };
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("stdout");
    std::fs::write(&output, "hello").unwrap();
    let mut running = attempt(4);
    running.report = None;
    let mut world = World::new(Table {
        runs: runs.clone(),
        sheets: vec![sheet(1), failed_sheet(2)],
        attempts: vec![attempt(3), running],
        output,
        questions: vec![question("q1-1-1"), bare],
        gates: vec![gate(GateState::Closed), of_model],
        costs: vec![
            CostSummary {
                day: Some("2026-11-21".to_owned()),
                model: Some("claude".to_owned()),
                sessions: 3,
                unknown: 1,
                cost: Cost::from_usd(1.25),
                estimated: Cost::from_usd(0.5),
                tokens_in: 7,
                tokens_out: 8,
                ..CostSummary::default()
            },
            CostSummary {
                account: Some("me".to_owned()),
                job: Some("a".to_owned()),
                run: Some(3),
                ..CostSummary::default()
            },
        ],
        manager: ManagerView {
            state_directory: "/s/mozart".to_owned(),
            slots: 5,
            running: 1,
            queued: 2,
            waiting: 3,
            pressure: "hold".to_owned(),
            holds: vec![
                ("quiet hours".to_owned(), Some(Timestamp(1_795_228_661_000_001))),
                ("held: backup".to_owned(), None),
            ],
            questions: 1,
            storage: "full".to_owned(),
        },
        ..Table::default()
    });
    let client = world.client().await;

    let summaries: Vec<_> = runs.iter().map(|run| run.summary.clone()).collect();
    let all = client.runs(&RunFilter::default(), 0, "").await.unwrap();
    assert_eq!(all, (summaries.clone(), String::new()));
    let (first, next) = client.runs(&RunFilter::default(), 1, "").await.unwrap();
    assert_eq!((first.as_slice(), next.as_str()), (&summaries[..1], "1"));
    let filter = RunFilter {
        states: vec![RunState::Waiting],
        ..RunFilter::default()
    };
    assert_eq!(client.runs(&filter, 0, "").await.unwrap().0, summaries[1..]);
    assert_eq!(client.run(&newest("b")).await.unwrap(), runs[1]);
    assert_eq!(
        client
            .run(&RunSelector {
                job: "a".to_owned(),
                run: Some(2)
            })
            .await
            .unwrap(),
        runs[0]
    );

    assert_eq!(
        client.sheets(&newest("a"), 1).await.unwrap(),
        [sheet(1), failed_sheet(2)]
    );
    assert_eq!(
        client.attempts(&newest("a"), 2).await.unwrap(),
        world.table.lock().unwrap().attempts
    );
    let mut text = String::new();
    let output: OwnedFd = client.open_output(&newest("a"), 2, 0).await.unwrap();
    std::fs::File::from(output).read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(client.manager().await.unwrap(), world.table.lock().unwrap().manager);
    assert_eq!(client.questions().await.unwrap(), world.table.lock().unwrap().questions);
    assert_eq!(client.gates().await.unwrap(), world.table.lock().unwrap().gates);
    assert_eq!(property(&client, "b", "Question").await, "q2-1-1");
    let asked = CostRequest {
        days: Some(7),
        job: Some("a".to_owned()),
        run: Some(3),
        by: vec![CostKey::Day, CostKey::Model],
    };
    assert_eq!(client.costs(&asked).await.unwrap(), world.table.lock().unwrap().costs);
    assert_eq!(world.table.lock().unwrap().costs_asked, [asked]);
    let of_no_job = CostRequest {
        run: Some(3),
        ..CostRequest::default()
    };
    let wrong = client.costs(&of_no_job).await.unwrap_err();
    assert!(
        matches!(wrong, CallError::Api(ApiError::InvalidArgument(_))),
        "{wrong:?}"
    );
    assert_eq!(property(&client, "a", "Question").await, "");
    assert_eq!(client.version().await.unwrap(), env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn calls_reach_the_run_that_is_meant() {
    let mut world = World::new(Table {
        runs: vec![run_view("a", 3, RunState::Running)],
        ..Table::default()
    });
    let client = world.client().await;
    world.calls();
    let older = RunSelector {
        job: "a".to_owned(),
        run: Some(3),
    };
    client.pause(&newest("a"), true).await.unwrap();
    client.pause(&older, false).await.unwrap();
    client.resume(&newest("a")).await.unwrap();
    client.retry(&newest("a"), mozart::model::SheetNo(3)).await.unwrap();
    client.cancel(&older).await.unwrap();
    client.stop(true).await.unwrap();
    client.stop(false).await.unwrap();
    client.reload().await.unwrap();
    client.answer("q1-1-1", "retry").await.unwrap();
    client.clear_gates(None).await.unwrap();
    client.clear_gates(Some("me")).await.unwrap();
    let calls = [
        "pause a None true",
        "pause a Some(3) false",
        "resume a None",
        "retry a None from 3",
        "cancel a Some(3)",
        "stop true",
        "stop false",
        "reload",
        "answer q1-1-1 retry",
        "clear None",
        "clear Some(\"me\")",
    ];
    assert_eq!(world.calls(), calls);
    let missing = client.pause(&newest("zz"), false).await.unwrap_err();
    assert!(matches!(missing, CallError::Api(ApiError::NoSuchJob(_))), "{missing:?}");
    let missing = client
        .run(&RunSelector {
            job: "a".to_owned(),
            run: Some(9),
        })
        .await
        .unwrap_err();
    assert!(matches!(missing, CallError::Api(ApiError::NoSuchRun(_))), "{missing:?}");
}

fn argument_error<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result.unwrap_err() {
        CallError::Api(ApiError::InvalidArgument(text)) => text,
        other => panic!("{other:?}"),
    }
}

async fn raw(client: &Client, method: &str, text: &str, options: &[(&str, Variant<'_>)]) -> Result<(), CallError> {
    let options: std::collections::HashMap<_, _> = options.iter().map(|(key, value)| (*key, value)).collect();
    let (path, interface) = ("/org/mozart/Mozart1", Some("org.mozart.Mozart1.Manager"));
    let destination = Some("org.mozart.Mozart1");
    let called = match method {
        "SubmitText" => {
            client
                .connection()
                .call_method(destination, path, interface, method, &(text, options))
                .await
        }
        _ => {
            client
                .connection()
                .call_method(destination, path, interface, method, &(options))
                .await
        }
    };
    called.map(drop).map_err(CallError::from)
}

#[tokio::test]
async fn wrong_options_are_refused_by_name() {
    let mut world = World::new(Table::default());
    let client = world.client().await;
    let base = ("base_directory", Variant::from("/x"));
    for (options, part) in [
        (vec![], "`base_directory` is missing"),
        (
            vec![("base_directory", Variant::from("x"))],
            "`base_directory` is not an absolute path",
        ),
        (
            vec![base.clone(), ("workspace", Variant::from("w"))],
            "`workspace` is not an absolute path",
        ),
        (
            vec![base.clone(), ("frehs", Variant::from(true))],
            "unknown option `frehs`; known are: base_directory",
        ),
        (
            vec![base.clone(), ("fresh", Variant::from("yes"))],
            "`fresh` has another type",
        ),
        (
            vec![base.clone(), ("priority", Variant::from(300_u32))],
            "`priority` is out of range",
        ),
    ] {
        let text = argument_error(raw(&client, "SubmitText", "name: x", &options).await);
        assert!(text.contains(part), "{text}");
    }
    let text = argument_error(raw(&client, "Stop", "", &[("stop_session", Variant::from(true))]).await);
    assert!(
        text.contains("unknown option `stop_session`; known are: stop_sessions"),
        "{text}"
    );
    let text = argument_error(raw(&client, "Reload", "", &[("x", Variant::from(true))]).await);
    assert!(text.contains("unknown option `x`; this call takes none"), "{text}");
    assert!(world.table.lock().unwrap().submitted.is_empty());
    assert!(world.calls().iter().all(|call| call == "recent"));

    raw(
        &client,
        "SubmitText",
        &"#".repeat(1_000_000),
        std::slice::from_ref(&base),
    )
    .await
    .unwrap();
    let text = argument_error(raw(&client, "SubmitText", &"#".repeat(1_000_001), &[base]).await);
    assert!(text.contains("pass it as a file"), "{text}");
}

async fn submit_file(client: &Client, file: OwnedFd) -> Result<(), CallError> {
    let options: std::collections::HashMap<_, _> = [("base_directory", Variant::from("/x"))].into();
    let (path, interface) = ("/org/mozart/Mozart1", Some("org.mozart.Mozart1.Manager"));
    let body = (zbus::OwnedFd::from(file), options);
    let called = client
        .connection()
        .call_method(Some("org.mozart.Mozart1"), path, interface, "Submit", &body)
        .await;
    called.map(drop).map_err(CallError::from)
}

#[tokio::test]
async fn only_a_file_of_text_is_read() {
    let mut world = World::new(Table::default());
    let client = world.client().await;
    // A pipe whose writer stays would keep its reader for ever.
    let (reader, _writer) = std::io::pipe().unwrap();
    let text = argument_error(submit_file(&client, reader.into()).await);
    assert!(text.contains("neither a regular file nor a memfd"), "{text}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("job.yaml");
    std::fs::write(&path, b"name: x\nprompt: \xff\n").unwrap();
    let error = submit_file(&client, std::fs::File::open(&path).unwrap().into())
        .await
        .unwrap_err();
    let CallError::Api(ApiError::InvalidJob { problems, .. }) = error else {
        panic!("{error:?}")
    };
    assert_eq!((problems[0].check_id.as_str(), problems[0].line), ("E304", Some(2)));

    // Read from its beginning, wherever the client left its position.
    std::fs::write(&path, "name: x").unwrap();
    let mut file = std::fs::File::open(&path).unwrap();
    file.read_to_end(&mut Vec::new()).unwrap();
    submit_file(&client, file.into()).await.unwrap();
    assert_eq!(world.table.lock().unwrap().submitted.last().unwrap().text, "name: x");
}

#[tokio::test]
async fn no_answer_is_larger_than_a_message_may_be() {
    let long = "x".repeat(100_000);
    let evidence = |number| {
        let mut row = failed_sheet(number);
        row.validations = vec![
            RuleResult {
                actual: Some(long.clone()),
                ..rule(false)
            };
            30
        ];
        row
    };
    let attempt = |number| {
        let mut attempt = attempt(number);
        let report = attempt.report.as_mut().unwrap();
        report.session.stdout_tail = format!("{long}end");
        report.validation.rules = vec![
            RuleResult {
                actual: Some(long.clone()),
                ..rule(false)
            };
            200
        ];
        attempt
    };
    let mut run = run_view("a", 3, RunState::Running);
    run.summary.workspace = "/w".repeat(4000);
    let mut world = World::new(Table {
        runs: vec![run; 300],
        sheets: (1..=40).map(evidence).collect(),
        attempts: (1..=12).map(attempt).collect(),
        ..Table::default()
    });
    let client = world.client().await;
    let sizes = Sizes::of(&client);

    let sheets = client.sheets(&newest("a"), 1).await.unwrap();
    assert_eq!(
        sheets.iter().map(|sheet| sheet.sheet_num).collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );
    assert!(sheets.iter().all(|sheet| sheet.validations.len() == 30));
    let attempts = client.attempts(&newest("a"), 2).await.unwrap();
    assert_eq!(
        attempts.iter().map(|attempt| attempt.attempt).collect::<Vec<_>>(),
        (1..=12).collect::<Vec<_>>()
    );
    let report = attempts[0].report.as_ref().unwrap();
    assert_eq!(report.validation.rules.len(), 200);
    assert!(report.session.stdout_tail.ends_with("end"));
    let (mut runs, mut cursor) = (0, String::new());
    loop {
        let (page, next) = client.runs(&RunFilter::default(), 0, &cursor).await.unwrap();
        runs += page.len();
        cursor = next;
        if cursor.is_empty() {
            break;
        }
    }
    assert_eq!(runs, 300);
    let largest = sizes.await;
    assert!((500_000..1_000_000).contains(&largest), "{largest}");
}

/// Watches the size of what a client receives.
struct Sizes;

impl Sizes {
    fn of(client: &Client) -> impl Future<Output = usize> + use<> {
        use futures_util::StreamExt as _;

        let mut messages = zbus::MessageStream::from(client.connection());
        let mut tasks = tokio::task::JoinSet::new();
        let largest = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let seen = largest.clone();
        tasks.spawn(async move {
            while let Some(Ok(message)) = messages.next().await {
                seen.fetch_max(message.data().len(), std::sync::atomic::Ordering::Relaxed);
            }
        });
        async move {
            tasks.shutdown().await;
            largest.load(std::sync::atomic::Ordering::Relaxed)
        }
    }
}
