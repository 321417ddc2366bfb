//! The real conductor kills itself at every named point of its path, amid sessions of every kind, at every passing of
//! it; systemd starts it again, the job ends as if nothing had happened, and what sessions, spools and ledger say agrees.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use mozart::api::request::RunSelector;
use mozart::probe::{CRASH_AT, Point};

use super::{audit, home, inside};
use crate::support::{Desk, Service, output, said, wait_until};

/// For a point that comes after the job's end.
const LATE: Duration = Duration::from_millis(300);

/// How often the steps of a run's path pass their points before what its first session came to is decided: with its
/// submission, its start and its end.
const THIRD: u32 = 3;

/// The installed service with a switch for its points.
struct Crashes {
    service: Service,
    switches: PathBuf,
    /// Every passing, not only one of each point.
    all: bool,
    reached: BTreeSet<Point>,
    times: u32,
    wrong: Vec<String>,
}

/// A directory for the switches of the service that is to be started, which comes back soon when it was killed.
pub(super) fn switches() -> PathBuf {
    let (switches, config) = (home("switches"), home(".config"));
    for directory in [
        &switches,
        &config.join("mozart"),
        &config.join("systemd/user/mozart.service.d"),
    ] {
        fs::create_dir_all(directory).expect("a directory");
    }
    let write = |name: &str, text: &str| fs::write(config.join(name), text).expect("a file");
    write("mozart/environment", &format!("{CRASH_AT}={}\n", switches.display()));
    // As it is installed it waits for a second.
    write(
        "systemd/user/mozart.service.d/soon.conf",
        "[Service]\nRestartSec=20ms\n",
    );
    switches
}

impl Crashes {
    fn new(settings: &str) -> Self {
        let switches = switches();
        let config = home(".config/mozart");
        fs::write(config.join("mozartd.yaml"), format!("max_job_history: 10\n{settings}")).expect("a file");
        Self {
            service: Service::fresh(),
            switches,
            all: std::env::var_os("MOZART_TEST_ALL_PASSES").is_some(),
            reached: BTreeSet::new(),
            times: 0,
            wrong: Vec::new(),
        }
    }

    /// Runs a job of that behaviour and kills the conductor where it passes the point for the `pass`th time; whether it
    /// did. What only a conductor passes that came back is passed by one that was killed while a session ran.
    fn kill_at(&mut self, behaviour: &str, point: Point, pass: u32) -> bool {
        let switch = self.switches.join(point.as_str());
        fs::write(&switch, pass.to_string()).expect("a switch");
        if matches!(point, Point::Opened | Point::Adopting) {
            fs::write(self.switches.join(Point::Started.as_str()), "1").expect("a switch");
        }
        let desk = Desk::new();
        let job = format!("{}-{}-{pass}", behaviour, point.as_str());
        let file = desk.write(&format!("{job}.yaml"), &file_of(&job, behaviour));
        // What was submitted may have been taken in although the answer was lost.
        let run = self.reach(&["run", "--detach", &file.to_string_lossy()], |error| {
            error.contains("went away before")
        });
        let wait = self.reach(&["wait", &job], |_| false);
        let begun = Instant::now();
        while switch.exists() && begun.elapsed() < LATE {
            std::thread::sleep(Duration::from_millis(10));
        }
        let reached = fs::remove_file(&switch).is_err();
        let failed = [run, wait].into_iter().filter(|done| !done.status.success());
        self.wrong.extend(failed.map(|done| format!("{job}: {}", said(&done))));
        self.check(&desk, &job, behaviour);
        self.times += u32::from(reached);
        reached
    }

    /// What `mozartctl` says, asked again where the service was killed while it started, and where `excused` by its error.
    fn reach(&self, words: &[&str], excused: impl Fn(&str) -> bool) -> Output {
        loop {
            let done = output(&mut self.service.ctl(words));
            let error = String::from_utf8_lossy(&done.stderr);
            if done.status.code() != Some(5) || !(error.contains("could not be started") || excused(&error)) {
                return done;
            }
        }
    }

    fn check(&mut self, desk: &Desk, job: &str, behaviour: &str) {
        let starts = audit::starts(desk);
        let run = RunSelector {
            job: job.to_owned(),
            run: Some(1),
        };
        let sessions = |_| audit::sessions_of(behaviour);
        let audited = self
            .service
            .ask(async |client| audit::of_run(&client, &run, &starts, sessions).await);
        self.wrong.extend(audited);
        let checkpoint = fs::read_to_string(desk.path(&format!("workspace/{job}.json"))).unwrap_or_default();
        if !checkpoint.contains("\"status\": \"completed\"") {
            self.wrong.push(format!(
                "{job}: its checkpoint does not say that it is over:\n{checkpoint}"
            ));
        }
        wait_until("no session unit is left", Duration::from_secs(20), || {
            self.service.units().is_empty()
        });
    }

    /// Kills it at those points amid a session of each behaviour.
    fn kill(&mut self, behaviours: &[&str], points: &[Point]) {
        for (behaviour, point) in behaviours
            .iter()
            .flat_map(|of| points.iter().map(move |point| (*of, *point)))
        {
            let pass = match point {
                Point::Decided | Point::Committing | Point::Committed | Point::Applied | Point::Acted => THIRD,
                _ => 1,
            };
            let reached = match self.all {
                true => (1..).take_while(|pass| self.kill_at(behaviour, point, *pass)).count() > 0,
                false => self.kill_at(behaviour, point, pass),
            };
            if reached {
                self.reached.insert(point);
            }
        }
    }

    /// `never`: points that such sessions do not lead to.
    #[expect(clippy::print_stderr, reason = "how much was tried is worth knowing")]
    fn end(mut self, never: &[Point]) {
        eprintln!("killed {} times", self.times);
        self.wrong.extend(audit::of_the_rest(&self.service));
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        let mut missed = Point::ALL.to_vec();
        missed.retain(|point| !self.reached.contains(point));
        assert_eq!(missed, never, "points that were not passed");
    }
}

fn file_of(job: &str, behaviour: &str) -> String {
    let session = audit::session().display().to_string();
    let backend = match behaviour {
        "exiting" => format!("type: command, command: [{session}]"),
        _ => format!("cli_path: {session}"),
    };
    // A session that says nothing is one that hangs.
    format!(
        "name: {job}\nworkspace: ./workspace\nbackend: {{{backend}, working_directory: ., env: {{BEHAVIOUR: {behaviour}}}}}\n\
         sheet: {{size: 1, total_items: 1}}\nprompt: {{template: Do it.}}\n\
         retry: {{max_retries: 1, transient_retries: 1, max_completion_attempts: 1, completion_delay_seconds: 0, \
         base_delay_seconds: 0.05, max_delay_seconds: 0.05, jitter: false}}\n\
         stale_detection: {{idle_timeout_seconds: 1.5}}\n\
         validations:\n  - {{type: file_exists, path: \"{{workspace}}/half-{{sheet_num}}\"}}\n\
         \x20 - {{type: command_succeeds, command: \"test -e {{workspace}}/out-{{sheet_num}}\"}}\n"
    )
}

#[test]
fn amid_sessions_that_end_by_themselves() {
    if !inside() {
        return;
    }
    let mut crashes = Crashes::new("");
    crashes.kill(&["well", "wrong", "partial", "empty"], &Point::ALL);
    crashes.end(&[Point::Stopping]);
}

#[test]
fn amid_sessions_that_leave_the_beaten_track() {
    if !inside() {
        return;
    }
    let mut crashes = Crashes::new("");
    crashes.kill(&["crashing", "exiting", "leaving", "truncating"], &Point::ALL);
    crashes.end(&[Point::Stopping]);
}

#[test]
fn amid_sessions_that_the_api_refuses() {
    if !inside() {
        return;
    }
    let mut crashes = Crashes::new("");
    crashes.kill(&["overloaded", "limited"], &Point::ALL);
    // It waits for five seconds each time.
    crashes.kill(
        &["throttled"],
        &[Point::Decided, Point::Committed, Point::Acted, Point::Judged],
    );
    crashes.end(&[Point::Stopping]);
}

#[test]
fn amid_sessions_that_hang() {
    if !inside() {
        return;
    }
    let mut crashes = Crashes::new("");
    crashes.kill(&["silent"], &Point::ALL);
    // It has ten seconds before it is killed.
    crashes.kill(&["deaf"], &[Point::Stopping, Point::Judged]);
    crashes.end(&[]);
}

#[test]
fn amid_sessions_of_supervisors() {
    if !inside() {
        return;
    }
    let mut crashes = Crashes::new("launcher: supervised\n");
    crashes.kill(&["well", "partial", "leaving"], &Point::ALL);
    crashes.end(&[Point::Stopping]);
}
