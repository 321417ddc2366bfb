//! The two launchers with real processes: supervisors everywhere, units where `MOZART_TEST_HOST` says that there
//! is a user manager to throw away.

pub(crate) mod support;
mod systemd;

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mozart::model::{Code, Exit, Span, StopHow};
use mozart::runner::launch::spool::Spool;
use mozart::runner::launch::{Evidence, StartOutcome};
use rustix::process::Signal;
use support::{Bench, Kind, Victim, alive, own_child, wait_until};

use crate::recovery::Chance;

/// Each scenario once for either launcher.
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod supervised_launcher {
            $(#[tokio::test] async fn $name() { super::$name(super::Bench::new(super::Kind::Supervised).await).await; })*
        }
        mod systemd_launcher {
            $(#[tokio::test] async fn $name() {
                if !crate::host::inside() { return; }
                super::$name(super::Bench::new(super::Kind::Systemd).await).await;
            })*
        }
    };
}

both!(
    exit_statuses,
    signals,
    the_prompt_is_standard_input,
    arguments_arrive_as_written,
    the_environment_is_exactly_what_was_built,
    secrets_reach_the_session_and_nothing_else,
    a_timeout_ends_the_session,
    a_session_that_ignores_term_is_killed,
    a_session_that_ends_well_on_term_still_timed_out,
    a_stop_is_known_as_our_own,
    a_kill_does_not_wait,
    children_in_sessions_of_their_own_are_ended,
    a_background_child_does_not_keep_the_attempt,
    a_missing_directory_is_named,
    a_missing_program_is_named,
    a_forged_record_is_overruled,
    a_session_that_truncates_its_output_still_has_an_end,
    a_second_start_is_no_start,
    the_evidence_of_what_never_was,
    a_lost_record_is_unknown_and_not_never,
    a_killed_launcher_leaves_a_session_to_adopt,
    a_session_whose_spool_is_deleted_is_still_known,
    an_end_that_nobody_watched_is_known,
    fifty_at_once,
);

async fn exit_statuses(bench: Bench) {
    let good = bench.run("exit 0").await;
    assert_eq!((good.exit, good.result.as_str()), (Exit::Code(0), "success"));
    assert!(
        good.wall
            .is_some_and(|wall| wall > Span(0) && wall < Span::from_secs(20)),
        "{good:?}"
    );
    assert!(
        good.cpu.is_some_and(|cpu| cpu.0 >= 0 && cpu < Span::from_secs(5)),
        "{good:?}"
    );
    assert!(!good.stopped_by_us);
    let bad = bench.run("exit 37").await;
    assert_eq!((bad.exit, bad.result.as_str()), (Exit::Code(37), "exit-code"));
}

async fn signals(bench: Bench) {
    let killed = bench.run("kill -9 $$").await;
    assert_eq!((killed.exit, killed.result.as_str()), (Exit::Signal(9), "signal"));
    assert!(!killed.stopped_by_us);
    let crashed = bench.run("ulimit -c 0; kill -SEGV $$").await;
    assert_eq!(crashed.exit, Exit::Signal(11));
    assert!(
        ["signal", "core-dump"].contains(&crashed.result.as_str()),
        "{crashed:?}"
    );
}

async fn the_prompt_is_standard_input(bench: Bench) {
    let mut launch = bench.launch("cat; cat /dev/stdin; echo end");
    launch.input = b"/clear\n\xff\x00 $HOME".to_vec();
    bench.finish(&launch).await;
    // Opened anew it begins anew.
    assert_eq!(
        bench.output(&launch),
        b"/clear\n\xff\x00 $HOME/clear\n\xff\x00 $HOMEend\n"
    );
}

async fn arguments_arrive_as_written(bench: Bench) {
    let mut launch = bench.launch("");
    let arguments = [
        "$HOME", "${HOME}", "$$", "%n %h", "a b", "", "-x", "\\", "\"", "'", "ü\n*", "@", "$MAINPID",
    ];
    launch.argv = vec!["/usr/bin/printf".to_owned(), "[%s]\n".to_owned()];
    launch.argv.extend(arguments.map(str::to_owned));
    launch.description = "100% $done \"quoted\" \\".to_owned();
    // The spool's own path goes through systemd's parser.
    launch.spool = bench.directory().join("sp $HOME ${X} %h\\ 'x'");
    assert_eq!(bench.finish(&launch).await.exit, Exit::Code(0));
    let expected: String = arguments.iter().map(|argument| format!("[{argument}]\n")).collect();
    assert_eq!(String::from_utf8(bench.output(&launch)).unwrap(), expected);
}

async fn the_environment_is_exactly_what_was_built(bench: Bench) {
    let mut launch = bench.launch("");
    launch.argv = vec!["env".to_owned(), "-0".to_owned()];
    launch.env.insert("TEXT".to_owned(), "a $HOME\n\"b\"".to_owned());
    bench.finish(&launch).await;
    let output = String::from_utf8(bench.output(&launch)).unwrap();
    let found: BTreeMap<String, String> = output
        .split_terminator('\0')
        .filter_map(|line| {
            line.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    assert_eq!(found, launch.env);
}

async fn secrets_reach_the_session_and_nothing_else(bench: Bench) {
    const SECRET: &str = "sk-ant-0123456789abcdef";
    let mut launch = bench.launch("printf %s \"$TOKEN\"; touch begun; sleep 60");
    launch.secrets.0.insert("TOKEN".to_owned(), SECRET.to_owned());
    bench.start(&launch).await;
    let spool = Spool::new(&launch.spool);
    wait_until(|| fs::read(spool.stdout()).is_ok_and(|output| output == SECRET.as_bytes())).await;
    for entry in fs::read_dir(spool.directory()).unwrap() {
        let path = entry.unwrap().path();
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(path == spool.stdout() || !text.contains(SECRET), "{}", path.display());
    }
    for (pid, command) in support::processes() {
        assert!(!command.contains(SECRET), "{pid}: {command}");
    }
    if bench.kind == Kind::Systemd {
        let unit = format!("{}.service", launch.unit);
        for arguments in [["show", &unit], ["cat", &unit]] {
            let shown = support::systemctl(&arguments);
            assert!(shown.contains("mozart-exec"), "{shown}");
            assert!(!shown.contains(SECRET), "{shown}");
        }
        let files = format!(
            "{}/mozart/credentials/{}",
            std::env::var("XDG_RUNTIME_DIR").unwrap(),
            launch.unit
        );
        assert!(!fs::exists(&files).unwrap(), "{files} is still there");
    }
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Kill)
        .await
        .unwrap();
    bench.ended(&launch).await;
}

async fn a_timeout_ends_the_session(bench: Bench) {
    let mut launch = bench.launch("sleep 60");
    launch.timeout = Span::from_secs_f64(0.3);
    let begun = Instant::now();
    let ended = bench.finish(&launch).await;
    assert_eq!((ended.exit, ended.result.as_str()), (Exit::Signal(15), "timeout"));
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert!(!ended.stopped_by_us);
}

async fn a_session_that_ignores_term_is_killed(bench: Bench) {
    let mut launch = bench.launch("trap '' TERM; while :; do sleep 1; done");
    launch.timeout = Span::from_secs_f64(0.3);
    launch.stop_grace = Span::from_secs_f64(0.4);
    let begun = Instant::now();
    let ended = bench.finish(&launch).await;
    assert_eq!((ended.exit, ended.result.as_str()), (Exit::Signal(9), "timeout"));
    assert!(begun.elapsed() >= Duration::from_millis(690), "{:?}", begun.elapsed());
}

async fn a_session_that_ends_well_on_term_still_timed_out(bench: Bench) {
    let mut launch = bench.launch("trap 'exit 143' TERM; while :; do sleep 0.05; done");
    launch.timeout = Span::from_secs_f64(0.3);
    let ended = bench.finish(&launch).await;
    assert_eq!((ended.exit, ended.result.as_str()), (Exit::Code(143), "timeout"));
}

async fn a_stop_is_known_as_our_own(bench: Bench) {
    let launch = bench.launch("sleep 60");
    bench.start(&launch).await;
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Terminate)
        .await
        .unwrap();
    let ended = bench.ended(&launch).await;
    assert_eq!((ended.exit, ended.stopped_by_us), (Exit::Signal(15), true), "{ended:?}");
    // What is over can be stopped again.
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Terminate)
        .await
        .unwrap();
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Kill)
        .await
        .unwrap();
}

async fn a_kill_does_not_wait(bench: Bench) {
    let mut launch = bench.launch("trap '' TERM; echo ready; while :; do sleep 1; done");
    launch.stop_grace = Span::from_secs(60);
    bench.start(&launch).await;
    wait_until(|| !bench.output(&launch).is_empty()).await;
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Terminate)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Kill)
        .await
        .unwrap();
    let ended = bench.ended(&launch).await;
    assert_eq!((ended.exit, ended.stopped_by_us), (Exit::Signal(9), true), "{ended:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

async fn children_in_sessions_of_their_own_are_ended(bench: Bench) {
    // As the real CLI's tools do: each child in a session of its own, one of them deaf to TERM, one a grandchild
    // whose parent is gone.
    let script = |number: u32, last: &str| {
        format!(
            "setsid sleep 7{number}1 & setsid sh -c 'trap \"\" TERM; sleep 7{number}2' & \
             setsid sh -c 'setsid sleep 7{number}3 & exit 0'; echo ready; {last}"
        )
    };
    let left = |number: u32| (1..=3).any(|child| alive(&format!("sleep 7{number}{child}")));
    let pid = std::process::id() % 10_000;

    let ends = pid * 10 + 1;
    let ended = bench.run(&script(ends, "sleep 0.2; exit 5")).await;
    assert_eq!((ended.exit, ended.result.as_str()), (Exit::Code(5), "exit-code"));
    assert!(!left(ends));

    let overdue = pid * 10 + 2;
    let mut launch = bench.launch(&script(overdue, "sleep 60"));
    launch.timeout = Span::from_secs_f64(0.5);
    assert_eq!(bench.finish(&launch).await.result, "timeout");
    assert!(!left(overdue));

    let killed = pid * 10 + 3;
    let launch = bench.launch(&script(killed, "sleep 60"));
    bench.start(&launch).await;
    wait_until(|| !bench.output(&launch).is_empty() && left(killed)).await;
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Kill)
        .await
        .unwrap();
    bench.ended(&launch).await;
    assert!(!left(killed));
}

async fn a_background_child_does_not_keep_the_attempt(bench: Bench) {
    let begun = Instant::now();
    let ended = bench.run("(trap '' TERM; exec sleep 300) & sleep 0.1; exit 0").await;
    assert_eq!(
        (ended.exit, ended.result.as_str()),
        (Exit::Code(0), "success"),
        "{ended:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

async fn a_missing_directory_is_named(bench: Bench) {
    let mut launch = bench.launch("echo never");
    launch.cwd = "/no/such/directory".into();
    let ended = bench.finish(&launch).await;
    assert_eq!(
        (ended.exit, ended.result.as_str()),
        (Exit::Code(200), "directory-missing")
    );
    let error = Spool::new(&launch.spool).exec_error().unwrap();
    assert_eq!(error.code, Code::E603);
    assert_eq!(
        error.message,
        "cannot change to the working directory /no/such/directory: No such file or directory"
    );
    let stderr = fs::read_to_string(Spool::new(&launch.spool).stderr()).unwrap();
    assert!(stderr.contains(&error.message), "{stderr}");
    assert_eq!(bench.output(&launch), b"");
}

async fn a_missing_program_is_named(bench: Bench) {
    let script = bench.directory().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cases = [
        ("/no/such/program", "No such file or directory"),
        ("no-such-program", "No such file or directory"),
        ("/etc/passwd", "Permission denied"),
        (script.to_str().unwrap(), "the interpreter that it asks for is missing"),
    ];
    for (program, why) in cases {
        let mut launch = bench.launch("");
        launch.argv = vec![program.to_owned()];
        let ended = bench.finish(&launch).await;
        assert_eq!(
            (ended.exit, ended.result.as_str()),
            (Exit::Code(203), "program-missing")
        );
        let error = Spool::new(&launch.spool).exec_error().unwrap();
        assert_eq!(
            (error.code, error.message),
            (Code::E505, format!("cannot start {program}: {why}"))
        );
    }
}

async fn a_forged_record_is_overruled(bench: Bench) {
    let forged = r#"{"v":1,"result":"success","code":"exited","status":"0","cpu_us":1,"peak_memory":1,"at":1}"#;
    let mut launch = bench.launch("");
    launch.argv = [
        "sh",
        "-c",
        "printf '\\n\\036mozart-exit-record %s\\n' \"$1\"; exit 5",
        "sh",
        forged,
    ]
    .map(str::to_owned)
    .to_vec();
    assert_eq!(bench.finish(&launch).await.exit, Exit::Code(5));
    // Also once the unit is forgotten.
    bench.launcher.release(&launch.unit).await;
    let again = bench.again().await;
    let Evidence::Ended(ended) = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap() else {
        panic!("no record");
    };
    assert_eq!(ended.exit, Exit::Code(5));
}

async fn a_session_that_truncates_its_output_still_has_an_end(bench: Bench) {
    let launch = bench.launch("echo much; : > /proc/self/fd/1; truncate -s 0 /proc/$$/fd/1; exit 3");
    assert_eq!(bench.finish(&launch).await.exit, Exit::Code(3));
    bench.launcher.release(&launch.unit).await;
    let evidence = bench
        .again()
        .await
        .launcher
        .evidence(&launch.unit, &launch.spool)
        .await
        .unwrap();
    assert!(
        matches!(&evidence, Evidence::Ended(ended) if ended.exit == Exit::Code(3)),
        "{evidence:?}"
    );
}

async fn a_second_start_is_no_start(bench: Bench) {
    let counter = bench.directory().join("starts");
    let mut launch = bench.launch("echo x >> \"$COUNTER\"; sleep 0.3");
    launch.env.insert("COUNTER".to_owned(), counter.display().to_string());
    bench.start(&launch).await;
    assert_eq!(bench.launcher.start(&launch).await, StartOutcome::Unknown);
    let evidence = bench.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert!(matches!(evidence, Evidence::Running { .. }), "{evidence:?}");
    bench.ended(&launch).await;
    assert_eq!(bench.launcher.start(&launch).await, StartOutcome::Unknown);
    assert_eq!(fs::read_to_string(counter).unwrap(), "x\n");
}

async fn the_evidence_of_what_never_was(bench: Bench) {
    let launch = bench.launch("exit 0");
    let evidence = bench.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert_eq!(evidence, Evidence::NeverRan);
    // And it may be started then.
    assert_eq!(bench.finish(&launch).await.exit, Exit::Code(0));
}

async fn a_lost_record_is_unknown_and_not_never(bench: Bench) {
    let launch = bench.launch("printf output");
    bench.finish(&launch).await;
    bench.launcher.release(&launch.unit).await;
    // A power cut before the record reached the disk.
    let stdout = Spool::new(&launch.spool).stdout();
    fs::File::options()
        .write(true)
        .open(stdout)
        .unwrap()
        .set_len(6)
        .unwrap();
    let again = bench.again().await;
    let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert_eq!(evidence, Evidence::EndedUnknown);
    let ended = again.launcher.wait(&launch.unit, &launch.spool).await;
    assert_eq!((ended.exit, ended.result.as_str()), (Exit::Unknown, "lost"));
}

async fn a_killed_launcher_leaves_a_session_to_adopt(bench: Bench) {
    let launch = bench.launch("while [ ! -e go ]; do sleep 0.05; done; exit 37");
    let (first_pid, first_invocation) = own_child(&bench, &launch).await;
    for _ in 0..2 {
        let again = bench.again().await;
        let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
        let Evidence::Running {
            invocation,
            pid,
            started_at,
        } = evidence
        else {
            panic!("{evidence:?}");
        };
        assert_eq!((pid, invocation), (first_pid, first_invocation.clone()));
        assert!(started_at.is_some());
    }
    let again = bench.again().await;
    let wait = again.launcher.wait(&launch.unit, &launch.spool);
    let go = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        fs::write(launch.cwd.join("go"), "").unwrap();
    };
    let (ended, ()) = tokio::join!(wait, go);
    assert_eq!((ended.exit, ended.stopped_by_us), (Exit::Code(37), false));
}

async fn a_session_whose_spool_is_deleted_is_still_known(bench: Bench) {
    let launch = bench.launch("trap 'exit 37' TERM; touch up; while :; do sleep 0.05; done");
    own_child(&bench, &launch).await;
    wait_until(|| launch.cwd.join("up").exists()).await;
    fs::remove_dir_all(&launch.spool).unwrap();
    // Whichever launcher the next conductor has.
    let kinds = if crate::host::inside() {
        vec![Kind::Supervised, Kind::Systemd]
    } else {
        vec![bench.kind]
    };
    for kind in kinds {
        let again = bench.with(kind).await;
        let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
        assert!(
            matches!(evidence, Evidence::Running { pid: Some(_), .. }),
            "{kind:?}: {evidence:?}"
        );
    }
    let again = bench.again().await;
    // Taken up, so that the unit is held beyond its end.
    again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    again
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Terminate)
        .await
        .unwrap();
    let ended = again.ended(&launch).await;
    // A unit tells its end itself; a supervisor's record went where the spool went.
    let expected = match bench.kind {
        Kind::Systemd => (Exit::Code(37), "exit-code"),
        Kind::Supervised => (Exit::Unknown, "lost"),
    };
    assert_eq!((ended.exit, ended.result.as_str()), expected);
    again.launcher.release(&launch.unit).await;
    let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    assert_eq!(evidence, Evidence::NeverRan);
}

async fn an_end_that_nobody_watched_is_known(bench: Bench) {
    let launch = bench.launch("echo answer; touch done; exit 37");
    own_child(&bench, &launch).await;
    wait_until(|| Spool::new(&launch.spool).record().is_some()).await;
    let again = bench.again().await;
    // Its last process may still be about to exit when the record can be read.
    let over = async {
        loop {
            match again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap() {
                Evidence::Running { .. } => tokio::time::sleep(Duration::from_millis(10)).await,
                evidence => return evidence,
            }
        }
    };
    let evidence = tokio::time::timeout(Duration::from_secs(30), over).await.unwrap();
    assert!(
        matches!(&evidence, Evidence::Ended(ended) if ended.exit == Exit::Code(37)),
        "{evidence:?}"
    );
    assert_eq!(
        again.launcher.wait(&launch.unit, &launch.spool).await.exit,
        Exit::Code(37)
    );
    assert_eq!(bench.output(&launch), b"answer\n");
}

async fn fifty_at_once(bench: Bench) {
    let launches: Vec<_> = (0..50)
        .map(|number| bench.launch(&format!("sleep 0.2; exit {}", number + 100)))
        .collect();
    let ends = futures_util::future::join_all(launches.iter().map(|launch| bench.finish(launch))).await;
    for (number, ended) in ends.iter().enumerate() {
        assert_eq!(ended.exit, Exit::Code(i32::try_from(number).unwrap() + 100));
    }
    for launch in &launches {
        bench.launcher.release(&launch.unit).await;
    }
    assert_eq!(bench.launcher.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
}

/// A session that is hard to end: itself deaf to TERM, with children in sessions of their own, deaf too, one of them
/// a daemon whose parent is gone. Its processes have the number in their command lines.
fn clinging(number: &str, first: &str) -> String {
    let deaf = format!("trap \"\" TERM HUP; while :; do sleep 0.05; done # {number}");
    format!(
        "trap '' TERM; {first} setsid sh -c '{deaf}' & setsid sh -c 'setsid sh -c \"$0\" & exit 0' '{deaf}'; \
         echo ready; while :; do sleep 0.05; done # {number}"
    )
}

/// Processes of such a session.
fn clinging_on(number: &str) -> usize {
    let mark = format!("# {number}");
    let found = support::processes().into_iter();
    found.filter(|(_, command)| command.ends_with(&mark)).count()
}

/// A number that no other test uses.
fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn when_guard_or_supervisor_is_killed_nothing_survives_and_the_end_is_known() {
    let bench = Bench::new(Kind::Supervised).await;
    for victim in [Victim::Guard, Victim::Supervisor] {
        for stopped_before in [false, true] {
            let number = unique();
            let mut launch = bench.launch(&clinging(&number, ""));
            launch.stop_grace = Span::from_secs(60);
            bench.start(&launch).await;
            wait_until(|| !bench.output(&launch).is_empty() && clinging_on(&number) == 3).await;
            if stopped_before {
                let how = StopHow::Terminate;
                bench.launcher.stop(&launch.unit, &launch.spool, how).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
                // A child that one of them has just forked for its sleep still looks like it.
                assert!(clinging_on(&number) >= 3);
            }
            assert!(victim.kill(&launch.unit));
            let ended = bench.ended(&launch).await;
            assert_eq!(clinging_on(&number), 0, "{victim:?}");
            assert_eq!(victim.pid(&launch.unit), None);
            assert_eq!(
                (ended.exit, ended.result.as_str(), ended.stopped_by_us),
                (Exit::Signal(9), "signal", stopped_before),
                "{victim:?}"
            );
            let again = bench.again().await;
            let evidence = again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
            assert_eq!(evidence, Evidence::Ended(ended));
        }
    }
}

#[tokio::test]
async fn whenever_guard_or_supervisor_is_killed_nothing_survives() {
    let bench = Bench::new(Kind::Supervised).await;
    let mut chance = Chance::new();
    let mut killed = 0;
    for round in 0..40 {
        let number = unique();
        let first = format!("touch {}/ran;", bench.directory().display());
        let mut launch = bench.launch(&clinging(&number, &first));
        launch.stop_grace = Span::from_secs_f64(0.03);
        let victim = [Victim::Guard, Victim::Supervisor][round % 2];
        // From before the first process to after the last one.
        let (moment, stop) = (chance.below(60_000), chance.below(60));
        let unit = launch.unit.clone();
        let killer = tokio::task::spawn_blocking(move || {
            std::thread::sleep(Duration::from_micros(moment));
            // A process is seen when it has its own command line.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(50) {
                if victim.kill(&unit) {
                    return true;
                }
            }
            false
        });
        let seen = format!("round {round}: {victim:?} killed after {moment} us, stopped after {stop} ms");
        match bench.launcher.start(&launch).await {
            StartOutcome::Started { .. } => {
                tokio::time::sleep(Duration::from_millis(stop)).await;
                let how = StopHow::Terminate;
                bench.launcher.stop(&launch.unit, &launch.spool, how).await.unwrap();
                let ended = bench.ended(&launch).await;
                let known = matches!(ended.exit, Exit::Signal(9 | 15));
                assert!(known && ended.stopped_by_us, "{seen}: {ended:?}");
            }
            // The guard itself had not begun.
            StartOutcome::Failed { .. } => {
                assert!(!bench.directory().join("ran").exists(), "{seen}");
                let evidence = bench.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
                assert_eq!(evidence, Evidence::NeverRan, "{seen}");
            }
            other => panic!("{seen}: {other:?}"),
        }
        assert_eq!(clinging_on(&number), 0, "{seen}");
        killed += u32::from(killer.await.unwrap());
        assert_eq!(
            (Victim::Guard.pid(&launch.unit), Victim::Supervisor.pid(&launch.unit)),
            (None, None)
        );
        fs::remove_file(bench.directory().join("ran")).ok();
    }
    assert!(killed >= 10, "only {killed} of 40 were killed in time");
}

#[tokio::test]
async fn what_outlives_guard_and_supervisor_is_ended_before_the_attempt_counts_as_over() {
    let bench = Bench::new(Kind::Supervised).await;
    let number = unique();
    let launch = bench.launch(&clinging(&number, ""));
    bench.start(&launch).await;
    wait_until(|| !bench.output(&launch).is_empty() && clinging_on(&number) == 3).await;
    // Stopped first, so that neither can stand in for the other.
    let both = [Victim::Guard, Victim::Supervisor];
    for signal in [Signal::STOP, Signal::KILL] {
        assert!(both.iter().all(|victim| victim.send(&launch.unit, signal)));
    }
    wait_until(|| both.iter().all(|victim| !victim.send(&launch.unit, Signal::CONT))).await;
    // This process only reads, and so is none of the session's.
    let _reader = fs::File::open(Spool::new(&launch.spool).stdout()).unwrap();
    assert!(clinging_on(&number) >= 2);
    let again = bench.again().await;
    let look = async || again.launcher.evidence(&launch.unit, &launch.spool).await.unwrap();
    let mut evidence = look().await;
    // Who was killed holds its lock for a moment longer than it can be found.
    for _ in 0..100 {
        if !matches!(evidence, Evidence::Running { .. }) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        evidence = look().await;
    }
    assert_eq!(evidence, Evidence::EndedUnknown);
    assert_eq!(clinging_on(&number), 0);
    assert_eq!(bench.ended(&launch).await.result, "lost");
}

#[tokio::test]
async fn a_supervisor_whose_spool_is_deleted_is_listed() {
    let bench = Bench::new(Kind::Supervised).await;
    let launch = bench.launch("touch up; sleep 60");
    bench.start(&launch).await;
    // What is to run is read from there.
    wait_until(|| launch.cwd.join("up").exists()).await;
    fs::remove_dir_all(bench.directory().join("1")).unwrap();
    assert_eq!(
        bench.launcher.units(&bench.prefix).await.unwrap(),
        std::slice::from_ref(&launch.unit)
    );
    let elsewhere = tempfile::tempdir().unwrap();
    let other = support::launcher(Kind::Supervised, elsewhere.path()).await;
    assert_eq!(other.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
    let how = StopHow::Kill;
    bench.launcher.stop(&launch.unit, &launch.spool, how).await.unwrap();
    bench.ended(&launch).await;
    assert_eq!(bench.launcher.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_running_supervisor_is_listed() {
    let bench = Bench::new(Kind::Supervised).await;
    let launch = bench.launch("sleep 60");
    bench.start(&launch).await;
    assert_eq!(
        bench.launcher.units(&bench.prefix).await.unwrap(),
        std::slice::from_ref(&launch.unit)
    );
    assert_eq!(bench.launcher.units("another").await.unwrap(), Vec::<String>::new());
    bench
        .launcher
        .stop(&launch.unit, &launch.spool, StopHow::Kill)
        .await
        .unwrap();
    bench.ended(&launch).await;
    assert_eq!(bench.launcher.units(&bench.prefix).await.unwrap(), Vec::<String>::new());
}
