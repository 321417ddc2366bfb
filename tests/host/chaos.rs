//! The conductor is killed again and again, for as long as one likes, while twenty jobs of fifty sheets are at work; then
//! everything is audited. `tests/host/chaos` does it for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mozart::api::request::{RunFilter, RunSelector};
use mozart::summary::RunSummary;

use super::{audit, home, inside};
use crate::recovery::Chance;
use crate::support::{Desk, Service, json, output, systemctl, wait_until};

const JOBS: usize = 20;
/// Between two kills, in milliseconds.
const PAUSE: (u64, u64) = (500, 3000);
/// For what is at work when the last kill was done.
const REST: Duration = Duration::from_secs(800);

/// Of which the jobs' sheets take turns.
const MIXED: &str = "well partial well crashing leaving wrong well empty truncating overloaded";
const LIMITED: &str = "well well limited well well well well throttled well well";
const COMMANDS: &str = "well well exiting well crashing";

fn behaviours(job: usize) -> &'static str {
    match job % 10 {
        0 => LIMITED,
        1..=3 => COMMANDS,
        _ => MIXED,
    }
}

fn job(desk: &Desk, number: usize, sheets: u32) -> PathBuf {
    let session = audit::session().display().to_string();
    let backend = match behaviours(number) {
        COMMANDS => format!("type: command, command: [{session}]"),
        _ => format!("cli_path: {session}"),
    };
    // Whoever meets a limit has an account of its own.
    let account = match behaviours(number) {
        LIMITED => format!(", ANTHROPIC_BASE_URL: \"http://127.0.0.1:{}\"", 9000 + number),
        _ => String::new(),
    };
    let parallel = match number % 2 {
        0 => "parallel: {enabled: true, max_concurrent: 3}\n",
        _ => "",
    };
    desk.write(
        &format!("chaos-{number}.yaml"),
        &format!(
            "name: chaos-{number}\nworkspace: ./workspace\npause_between_sheets_seconds: 0\n\
             backend: {{{backend}, working_directory: ., env: {{BEHAVIOUR: {}, TAKES: \"0.1 1.5\"{account}}}}}\n\
             sheet: {{size: 1, total_items: {sheets}}}\nprompt: {{template: \"Do {{{{ sheet_num }}}}.\"}}\n\
             retry: {{max_retries: 1, transient_retries: 1, max_completion_attempts: 1, completion_delay_seconds: 0, \
             base_delay_seconds: 0.2, max_delay_seconds: 1}}\ncircuit_breaker: {{recovery_timeout_seconds: 3}}\n{parallel}\
             validations:\n  - {{type: file_exists, path: \"{{workspace}}/half-{{sheet_num}}\"}}\n\
             \x20 - {{type: file_modified, path: \"{{workspace}}/out-{{sheet_num}}\"}}\n",
            behaviours(number),
        ),
    )
}

/// Every run that the service knows.
fn runs(service: &Service) -> Vec<RunSummary> {
    service.ask(async |client| {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            // Whoever is killed meanwhile is asked again.
            match client.runs(&RunFilter::default(), 500, &cursor).await {
                Ok((page, next)) => {
                    all.extend(page);
                    cursor = next;
                    if cursor.is_empty() {
                        return all;
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    })
}

#[test]
fn twenty_jobs_are_done_as_if_nobody_had_been_killed() {
    if !inside() {
        return;
    }
    // A little of it, unless more is asked for.
    let asked = std::env::var("MOZART_TEST_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let (seconds, sheets) = asked.map_or((20, 5), |seconds| (seconds, 50));
    let time = Duration::from_secs(seconds);
    let mut chance = Chance::new();
    let settings = home(".config/mozart");
    std::fs::create_dir_all(&settings).expect("a directory");
    std::fs::write(
        settings.join("mozartd.yaml"),
        "max_concurrent_jobs: 20\nmax_concurrent_sheets: 10\npressure: off\n",
    )
    .expect("the settings");
    let service = Service::fresh();
    let desks: Vec<_> = (0..JOBS).map(|_| Desk::new()).collect();
    let files: Vec<_> = desks
        .iter()
        .enumerate()
        .map(|(number, desk)| job(desk, number, sheets))
        .collect();

    let (begun, over) = (Instant::now(), AtomicBool::new(false));
    let (kills, accepted) = std::thread::scope(|scope| {
        // A person who begins each job anew when it is over.
        let person = scope.spawn(|| {
            let mut accepted = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let live: BTreeSet<_> = runs(&service)
                    .into_iter()
                    .filter(|run| !run.state.is_ended())
                    .map(|run| run.job.to_string())
                    .collect();
                for (number, file) in files.iter().enumerate() {
                    if live.contains(&format!("chaos-{number}")) {
                        continue;
                    }
                    let run = output(service.ctl(["run", "--detach", "--json"]).arg(file));
                    if run.status.success() {
                        let run = json(&run);
                        accepted.insert((
                            run["id"].as_str().unwrap_or("?").to_owned(),
                            run["run"].as_u64().unwrap_or_default(),
                        ));
                    }
                }
                std::thread::sleep(Duration::from_millis(500));
            }
            accepted
        });
        let mut kills = 0;
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(PAUSE.0 + chance.below(PAUSE.1 - PAUSE.0)));
            kills += u32::from(
                systemctl(&["kill", "--signal=KILL", "--kill-whom=main", "mozart.service"])
                    .status
                    .success(),
            );
        }
        over.store(true, Ordering::Relaxed);
        (kills, person.join().expect("no panic"))
    });
    wait_until("every run is over", REST, || {
        runs(&service).iter().all(|run| run.state.is_ended())
    });
    wait_until("no session unit is left", Duration::from_secs(20), || {
        service.units().is_empty()
    });
    let took = begun.elapsed();

    let all = runs(&service);
    let mut wrong = Vec::new();
    for (job, run) in &accepted {
        if !all
            .iter()
            .any(|known| known.job.as_str() == job && u64::from(known.run.0) == *run)
        {
            wrong.push(format!("{job}#{run} was accepted and is not known"));
        }
    }
    let starts: Vec<_> = desks.iter().map(audit::starts).collect();
    let mut done = 0;
    for run in &all {
        done += run.sheets_total;
        let number: usize = run
            .job
            .as_str()
            .trim_start_matches("chaos-")
            .parse()
            .expect("its number");
        let words: Vec<_> = behaviours(number).split(' ').collect();
        let sessions = |sheet: u32| audit::sessions_of(words[(sheet as usize - 1) % words.len()]);
        let selector = RunSelector {
            job: run.job.to_string(),
            run: Some(run.run.0),
        };
        wrong.extend(service.ask(async |client| audit::of_run(&client, &selector, &starts[number], sessions).await));
    }
    let mut kinds = BTreeMap::new();
    for run in &all {
        *kinds.entry(run.state.to_string()).or_insert(0) += 1;
    }
    wrong.extend(audit::of_the_rest(&service));
    // Shown by tests/host/chaos.
    println!(
        "{kills} kills, {} runs ({kinds:?}), {done} sheets, {} starts in {:.0} s; {} things wrong",
        all.len(),
        starts.iter().map(Vec::len).sum::<usize>(),
        took.as_secs_f64(),
        wrong.len()
    );
    assert!(all.len() > 4 && kills > 4, "there was nothing to kill");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
