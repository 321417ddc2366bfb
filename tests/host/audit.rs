//! What the sessions wrote themselves, their spools and the ledger, compared after conductors were killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mozart::api::request::RunSelector;
use mozart::bus::client::Client;
use mozart::model::SheetStatus;
use mozart::runner::launch::spool::Spool;
use sqlx::Connection as _;

use super::{checkout, home};
use crate::support::{Desk, Service, runtime, systemctl, wait_until};

/// The stand-in for the Claude CLI. It notes its start in the file `starts` of its working directory.
pub(super) fn session() -> PathBuf {
    checkout().join("tests/host/session")
}

/// What the sessions that worked at this desk noted.
pub(super) fn starts(desk: &Desk) -> Vec<PathBuf> {
    desk.lines("starts").into_iter().map(PathBuf::from).collect()
}

/// Where Mozart keeps its state in this machine.
fn state() -> PathBuf {
    home(".local/state/mozart")
}

/// How many sessions a sheet takes of which the first behaves so.
pub(super) fn sessions_of(behaviour: &str) -> usize {
    match behaviour {
        "well" | "leaving" | "truncating" => 1,
        _ => 2,
    }
}

/// What is wrong with that run, every sheet of which was to be completed in so many sessions; each in one sentence.
/// `starts`: all that sessions noted of themselves.
pub(super) async fn of_run(
    client: &Client,
    run: &RunSelector,
    starts: &[PathBuf],
    sessions: impl Fn(u32) -> usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            wrong.push(format!("{}#{}: {what}", run.job, run.run.unwrap_or_default()));
        }
    };
    let mut attempted = BTreeSet::new();
    let sheets = client.sheets(run, 1).await.expect("its sheets");
    expect(!sheets.is_empty(), "it has no sheets".to_owned());
    for sheet in sheets {
        let number = sheet.sheet_num;
        let known = client.attempts(run, number).await.expect("its attempts");
        expect(
            known.len() == sheet.attempts as usize,
            format!("the ledger has {} attempts at sheet {number}", known.len()),
        );
        let mut ran = 0;
        for attempt in known {
            let name = &attempt.unit;
            let directory = spool_of(name);
            let recorded = Spool::new(&directory).record().is_some();
            let times = starts.iter().filter(|start| **start == directory).count();
            let Some(report) = attempt.report else {
                expect(false, format!("{name} has not ended in the ledger"));
                continue;
            };
            // What was held between its intent and its start has a number and nothing else.
            let began = usize::from(report.started_at.is_some());
            ran += began;
            expect(
                times == began,
                format!("{name} began {began} times and was started {times} times"),
            );
            expect(
                recorded == (began > 0),
                format!(
                    "{name} began {began} times; an exit record in {}: {recorded}",
                    directory.display()
                ),
            );
            attempted.insert(directory);
        }
        expect(
            sheet.state == SheetStatus::Completed && ran == sessions(number),
            format!("sheet {number} is {} after {ran} sessions", sheet.state),
        );
    }
    let known: BTreeSet<&Path> = attempted.iter().map(PathBuf::as_path).collect();
    let parents: BTreeSet<&Path> = known.iter().filter_map(|directory| directory.parent()).collect();
    for start in starts
        .iter()
        .filter(|start| start.parent().is_some_and(|run| parents.contains(run)))
    {
        expect(
            known.contains(start.as_path()),
            format!("{} was started, and the ledger knows no such attempt", start.display()),
        );
    }
    for entry in parents
        .iter()
        .flat_map(|run| fs::read_dir(run).into_iter().flatten().flatten())
    {
        let path = entry.path();
        expect(
            !path.is_dir() || known.contains(path.as_path()),
            format!("{} is left of no attempt", path.display()),
        );
    }
    wrong
}

/// The directory of an attempt, told from its unit: `mozart-<ledger>-<run>-<sheet>-<attempt>`.
fn spool_of(unit: &str) -> PathBuf {
    let mut parts = unit.split('-').skip(1);
    let mut part = || parts.next().unwrap_or_default();
    let (ledger, run) = (part(), part());
    state().join(format!("spool/{ledger}/{run}/{}-{}", part(), part()))
}

/// What is wrong with what is left when every run is over: units, and a ledger that is stopped for it.
pub(super) fn of_the_rest(service: &Service) -> Vec<String> {
    wait_until("no session unit is left", Duration::from_secs(20), || {
        service.units().is_empty()
    });
    systemctl(&["stop", "mozart.socket", "mozart.service"]);
    let runtime = runtime();
    // A generation has one verdict for each sheet.
    let queries = [
        "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'",
        "SELECT 'sheet ' || run || '-' || sheet || ' has ' || count(*) || ' verdicts' FROM facts \
         WHERE json_extract(json, '$.fact') = 'sheet_ended' GROUP BY run, sheet HAVING count(*) <> 1",
    ];
    let mut wrong: Vec<String> = runtime.block_on(async {
        let place = format!("sqlite://{}", state().join("ledger.db").display());
        let mut ledger = sqlx::SqliteConnection::connect(&place).await.expect("the ledger");
        let mut answers = Vec::new();
        for query in queries {
            let found = sqlx::query_scalar(query).fetch_all(&mut ledger).await;
            answers.extend(found.expect("an answer"));
        }
        answers
    });
    let left = fs::read_dir(state()).into_iter().flatten().flatten();
    let set_aside = left.filter(|entry| entry.file_name().to_string_lossy().contains("damaged"));
    wrong.extend(set_aside.map(|entry| format!("{} was set aside", entry.path().display())));
    wrong
}
