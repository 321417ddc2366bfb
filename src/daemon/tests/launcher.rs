//! Each call of the launcher fails once, amid the canonical jobs with real commands: whatever it is, the run ends as it
//! would have, nothing that ran is lost and nothing runs twice.

use std::collections::BTreeMap;

use super::faults::{CANONICAL, Canonical, opened, outcome, quick_directory};
use super::*;
use crate::daemon::clock;
use crate::runner::launch::scripted::{Call, Fails, Scripted};

/// What goes wrong with a run.
#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    /// That call of the launcher fails so.
    failing: Option<(usize, Fails)>,
    /// The conductor ends after that many calls, and another one follows.
    ends_after: Option<usize>,
    /// The first session lives until it is stopped; then the run is resumed.
    stopped: bool,
}

/// What came of it.
#[derive(Debug)]
struct Came {
    /// The verdicts, in the ledger and in the checkpoint.
    told: String,
    calls: Vec<Call>,
}

async fn conductor(paths: &Paths, ledger: &Arc<Ledger>, machine: &Scripted) -> Conductor {
    let runner = runner_of(paths, ledger, Launcher::Scripted(machine.another()));
    let restored = restored(Settings::default(), paths.clone(), ledger, true, runner);
    restored.await.unwrap()
}

/// Runs the job to its end.
async fn run(job: &'static Canonical, trouble: Trouble) -> Came {
    let directory = quick_directory();
    let paths = paths_in(directory.path());
    let path = ("PATH".to_owned(), "/usr/bin:/bin".to_owned());
    let submit = Submit {
        text: job.text(&job.commands()),
        base_directory: directory.path().display().to_string(),
        environment: Some(BTreeMap::from([path])),
        ..Submit::default()
    };
    let machine = Scripted::default();
    machine.fail(trouble.failing);
    if trouble.stopped {
        machine.idle_first();
    }
    let ledger = opened(&paths).await;
    let mut present = conductor(&paths, &ledger, &machine).await;
    present.submit(submit).await.unwrap();
    let (mut lives, mut to_stop) = (true, trouble.stopped);
    for step in 0.. {
        assert!(step < 500, "it does not come to an end");
        if lives && trouble.ends_after.is_some_and(|calls| machine.calls().len() > calls) {
            lives = false;
            present.drained().await;
            drop(present);
            present = conductor(&paths, &ledger, &machine).await;
        }
        present.drained().await;
        if !present.running.is_empty() {
            let (attempt, progress) = present.progress.recv().await.unwrap();
            let runs = matches!(progress, Progress::Started { .. });
            present.report(attempt, progress).await;
            if runs && std::mem::take(&mut to_stop) {
                let pause = present.ask(|reply| Request::Pause(newest(job.name), true, reply));
                pause.await.unwrap();
            }
        } else if let Some(at) = present.next_alarm() {
            clock::test::forward_to(at);
            present.wake().await;
        } else if trouble.stopped && !present.live.is_empty() {
            let resume = present.ask(|reply| Request::Resume(newest(job.name), reply));
            resume.await.unwrap();
        } else {
            break;
        }
    }
    for (unit, times) in machine.ran() {
        assert_eq!(times, 1, "{unit} ran more than once");
    }
    let sessions: usize = job.sheets.iter().map(|ends| ends.len()).sum();
    let wanted = sessions + usize::from(trouble.stopped);
    assert_eq!(machine.ran().len(), wanted, "each session runs, and no other");
    Came {
        told: outcome(job, &ledger, &paths, directory.path()).await,
        calls: machine.calls(),
    }
}

/// But for how often each sheet was tried.
fn verdicts(told: &str) -> Vec<&str> {
    let lines = told.lines().filter(|line| !line.starts_with(' '));
    lines.map(|line| line.split(' ').next().unwrap_or_default()).collect()
}

const ALL: [Fails; 3] = [Fails::Refused, Fails::Lost, Fails::AnswerLost];

#[tokio::test(start_paused = true)]
async fn a_call_of_the_launcher_that_fails_changes_nothing_in_the_end() {
    for job in &CANONICAL {
        let well = run(job, Trouble::default()).await;
        assert!(well.calls.iter().all(|call| *call == Call::Start), "{:?}", well.calls);
        for number in 0.. {
            let mut any = false;
            for fails in ALL {
                let trouble = Trouble {
                    failing: Some((number, fails)),
                    ..Trouble::default()
                };
                let came = run(job, trouble).await;
                any |= number < came.calls.len();
                match fails {
                    // One attempt more: of one that was refused it is known that it did not run.
                    Fails::Refused => {
                        assert_eq!(verdicts(&came.told), verdicts(&well.told), "{}: {trouble:?}", job.name);
                    }
                    Fails::Lost | Fails::AnswerLost => assert_eq!(came.told, well.told, "{}: {trouble:?}", job.name),
                }
            }
            if !any {
                assert!(number >= well.calls.len());
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_conductor_left_is_taken_up_though_the_launcher_fails_then() {
    for job in &CANONICAL {
        let well = run(job, Trouble::default()).await;
        let mut adopted = 0;
        for calls in 0..well.calls.len() {
            for fails in [None, Some(Fails::Lost), Some(Fails::AnswerLost)] {
                let trouble = Trouble {
                    failing: fails.map(|fails| (calls + 1, fails)),
                    ends_after: Some(calls),
                    stopped: false,
                };
                let came = run(job, trouble).await;
                assert_eq!(came.told, well.told, "{}: {trouble:?}", job.name);
                adopted += came.calls.iter().filter(|call| **call == Call::Evidence).count();
            }
        }
        assert!(adopted > well.calls.len(), "nothing was looked for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_is_lost_is_asked_again() {
    for job in &CANONICAL {
        let trouble = Trouble {
            stopped: true,
            ..Trouble::default()
        };
        let well = run(job, trouble).await;
        let stop = well.calls.iter().position(|call| *call == Call::Stop).unwrap();
        for fails in ALL {
            let failing = Some((stop, fails));
            let came = run(job, Trouble { failing, ..trouble }).await;
            assert_eq!(came.told, well.told, "{}: {fails:?}", job.name);
            let stops = came.calls.iter().filter(|call| **call == Call::Stop).count();
            // Where only the answer was lost, its end may be known before it is asked again.
            assert!(stops == 2 || fails == Fails::AnswerLost, "{:?}", came.calls);
        }
    }
}
