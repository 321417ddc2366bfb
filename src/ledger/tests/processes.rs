//! What only shows with more than one process: the lock, kill -9, and the bytes that a process writes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::damage::Chance;
use super::*;
use crate::engine::Engine;
use crate::ledger::{Holder, OpenError, checkpoint};

/// Names the part that the child plays.
const PART: &str = "MOZART_TEST_LEDGER_PART";

/// Where it plays.
const PLACE: &str = "MOZART_TEST_LEDGER_PLACE";

/// This test binary as another process; it is killed when this goes.
struct Other {
    child: Child,
    lines: Receiver<String>,
}

impl Other {
    fn start(part: &str, place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "ledger::tests::processes::child",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .env(PART, part)
            .env(PLACE, place)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (said, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| said.send(line))
        });
        Self { child, lines }
    }

    /// The rest of the next line that begins with `word`; `None` at the end of its output.
    fn next(&mut self, word: &str) -> Option<String> {
        loop {
            if let Some(said) = after(&self.lines.recv().ok()?, word) {
                return Some(said);
            }
        }
    }

    /// The same of the last such line that is there already.
    fn last(&mut self, word: &str) -> Option<String> {
        self.lines.try_iter().filter_map(|line| after(&line, word)).last()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Holds it as it is, each thread between two system calls, as `kill -9` would end it.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.child.id());
        let stands = |thread: std::fs::DirEntry| {
            let status = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            status.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        while !std::fs::read_dir(&threads).unwrap().flatten().all(stands) {
            std::thread::yield_now();
        }
    }
}

fn after(line: &str, word: &str) -> Option<String> {
    let (_, rest) = line.split_once(word)?;
    Some(rest.trim().to_owned())
}

impl Drop for Other {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The other process. By itself, without a part, it does nothing.
#[tokio::test]
#[ignore = "started by the other tests of this file"]
async fn child() {
    let (Ok(part), Ok(place)) = (std::env::var(PART), std::env::var(PLACE)) else {
        return;
    };
    let place = PathBuf::from(place);
    match part.as_str() {
        "hold" => {
            let _ledger = Ledger::open(&place).await.unwrap();
            println!("held");
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
        "commit" => commit_for_ever(&place).await,
        "thousand" => thousand_sheets(&place).await,
        other => panic!("no part {other}"),
    }
}

async fn commit_for_ever(place: &Path) {
    let ledger = Ledger::open(place).await.unwrap();
    let plan = plan("a", 5_000);
    let run = submit(&ledger, &plan, 0).await;
    for sheet in 1.. {
        complete(&ledger, run, sheet, 10).await;
        println!("done {sheet}");
    }
}

#[tokio::test]
async fn a_second_process_is_told_at_once_who_holds_it() {
    let home = Home::new();
    let mut other = Other::start("hold", &home.path());
    other.next("held").unwrap();
    let error = refused_at_once(&home.path()).await;
    let OpenError::Held {
        holder: Holder::Process {
            pid,
            command: Some(command),
        },
        ..
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!(u32::try_from(*pid).unwrap(), other.child.id());
    assert!(
        std::env::current_exe()
            .unwrap()
            .to_string_lossy()
            .contains(command.as_str()),
        "{command}"
    );
    assert!(
        error
            .to_string()
            .ends_with(&format!("is in use by {command} (pid {pid})")),
        "{error}"
    );
    drop(other);
    Ledger::open(&home.path()).await.unwrap();
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    for round in 0..5 {
        let home = Home::new();
        let mut other = Other::start("commit", &home.path());
        let mut acknowledged: u32 = 0;
        for _ in 0..(7 + round * 13) {
            acknowledged = other.next("done ").unwrap().parse().unwrap();
        }
        other.child.kill().unwrap();
        while let Some(more) = other.next("done ") {
            acknowledged = more.parse().unwrap();
        }
        drop(other);
        holds(&home.open().await, acknowledged).await;
    }
}

/// The ledger of [`commit_for_ever`] is whole and holds what was acknowledged; its facts tell an engine, and facts
/// and rows are of the same moment.
async fn holds(ledger: &Ledger, acknowledged: u32) {
    let row = ledger.run("a", Some(1)).await.unwrap().unwrap();
    assert!(row.sheets_done >= acknowledged, "{} of {acknowledged}", row.sheets_done);
    let facts = ledger.live_facts().await.unwrap();
    let changes = facts
        .iter()
        .filter(|fact| !matches!(fact.kind, FactKind::AttemptStarted { .. }))
        .count();
    assert_eq!(changes as u64, row.revision);
    let mut engine = Engine::new(crate::daemon::settings::Settings::default().engine, ledger.id(), 1);
    for fact in &facts {
        engine.try_apply(fact).unwrap();
    }
    assert_eq!(engine.run(row.id).unwrap().counts().completed, row.sheets_done);
    let mut store = ledger.store().await.unwrap();
    let check: String = sqlx::query_scalar("PRAGMA integrity_check")
        .fetch_one(&mut store.connection)
        .await
        .unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn every_copy_of_the_files_of_a_ledger_that_is_written_holds_what_was_acknowledged() {
    let mut chance = Chance::new();
    let home = Home::new();
    let mut other = Other::start("commit", &home.path());
    let mut acknowledged: u32 = other.next("done ").unwrap().parse().unwrap();
    for _ in 0..40 {
        other.signal(Signal::CONT);
        // However busy the machine is, something is written in between.
        acknowledged = other.next("done ").unwrap().parse().unwrap();
        std::thread::sleep(Duration::from_micros(chance.below(50_000) as u64));
        if let Some(more) = other.last("done ") {
            acknowledged = more.parse().unwrap();
        }
        other.freeze();
        let copy = home.copied();
        let (ledger, set_aside) = Ledger::open_or_set_aside(&copy.path(), at(0)).await.unwrap();
        assert_eq!(set_aside, None);
        holds(&ledger, acknowledged).await;
    }
    assert!(acknowledged > 40, "it hardly wrote: {acknowledged}");
}

const SHEETS: u32 = 1_000;

/// A run as the conductor commits it: for each sheet its start, then its end together with the next one's intent;
/// a sheet every 40 ms of pretended time; the checkpoint by its rule. Tells the bytes of all, of the checkpoints,
/// and of the ledger alone in each quarter.
async fn thousand_sheets(place: &Path) {
    let ledger = Ledger::open(place).await.unwrap();
    let path = place.with_file_name("checkpoint.json");
    let plan = plan("a", SHEETS);
    let before = written_bytes();
    let run = submit(&ledger, &plan, 0).await;
    commit(&ledger, 1, [intended(attempt(run, 1, 1), AttemptKind::First)]).await;
    let (mut last_ended, mut last_written) = (0, Span(0));
    let mut copies = 0;
    let mut quarters = Vec::new();
    let mut quarter = written_bytes();
    for sheet in 1..=SHEETS {
        let of = attempt(run, sheet, 1);
        commit(&ledger, 2, [started(of, 2)]).await;
        let next = if sheet < SHEETS {
            intended(attempt(run, sheet + 1, 1), AttemptKind::First)
        } else {
            FactKind::RunEnded {
                run,
                state: RunState::Completed,
            }
        };
        finish(
            &ledger,
            3,
            of,
            &report(None, &[true]),
            [ended(run, sheet, Verdict::Completed), next],
        )
        .await;
        ledger.lessons(run, SheetNo(sheet)).await.unwrap();
        let now = Span(i64::from(sheet) * 40_000);
        let due = checkpoint::due(SHEETS, sheet, last_ended) && now.0 >= last_written.0 + checkpoint::pause(sheet).0;
        if sheet == SHEETS || due {
            (last_ended, last_written) = (sheet, now);
            let before = written_bytes();
            checkpoint::write(&path, &ledger.checkpoint(run).await.unwrap()).unwrap();
            copies += written_bytes() - before;
            quarter += written_bytes() - before;
        }
        if sheet % (SHEETS / 4) == 0 {
            quarters.push((written_bytes() - quarter).to_string());
            quarter = written_bytes();
        }
    }
    ledger.close().await.unwrap();
    println!("bytes {} {copies} {}", written_bytes() - before, quarters.join(" "));
}

/// What this process gave to be written, on whatever file system.
fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test]
async fn a_run_of_a_thousand_sheets_writes_little() {
    let home = Home::new();
    let mut other = Other::start("thousand", &home.path());
    let told = other.next("bytes ").unwrap();
    println!("bytes in all, of checkpoints, of the ledger in each quarter: {told}");
    let bytes: Vec<u64> = told.split(' ').map(|number| number.parse().unwrap()).collect();
    let [all, _, first, _, _, last] = bytes[..] else {
        panic!("{told}")
    };
    assert!(all <= 20_000_000, "{told}");
    assert!(last * 10 <= first * 11, "a sheet costs more at the end: {told}");
    let ledger = home.open().await;
    let row = ledger.run("a", None).await.unwrap().unwrap();
    assert_eq!((row.state, row.sheets_done), (RunState::Completed, SHEETS));
    let read = checkpoint::read(&home.path().with_file_name("checkpoint.json")).unwrap();
    assert_eq!(read.completed_sheets().len() as u32, SHEETS);
}
