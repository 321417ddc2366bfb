//! Plays the same windows and storms against Mozart's policy and against a fixed wait without a gate, in virtual time,
//! and prints what each costs. Fails where Mozart's does not keep what it promises.

mod model;
#[path = "../rules.rs"]
mod rules;
mod scripts;

use std::error::Error;

use model::{Came, FixedWait, HOUR, Mozart, Policy, Work, jobs, play};
use scripts::{Script, scripts};

fn main() -> Result<(), Box<dyn Error>> {
    println!("| script | jobs | wasted calls | cut off | idle hours | finished after, h | given up |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut broken = Vec::new();
    for count in [1, 10, 50] {
        let work = jobs(count);
        for script in scripts(&work) {
            let ours = came(&script, &work, &mut Mozart::new(&work)?);
            let fixed = came(&script, &work, &mut FixedWait::new(&work));
            println!("{}", row(&script, count, &ours, &fixed));
            broken.extend(ours.broken().map(|why| format!("{}, {count} jobs: {why}", script.name)));
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(broken.join("\n").into()),
    }
}

fn came(script: &Script, work: &Work, policy: &mut dyn Policy) -> Came {
    play(script.account.clone(), work.clone(), policy)
}

/// Mozart's figure before that of the fixed wait.
fn row(script: &Script, jobs: usize, ours: &Came, fixed: &Came) -> String {
    let hours = |time: i64| time as f64 / HOUR as f64;
    let of = |figure: &dyn Fn(&Came) -> String| format!("{} / {}", figure(ours), figure(fixed));
    let cells = [
        script.name.to_owned(),
        jobs.to_string(),
        of(&|came| came.wasted.to_string()),
        of(&|came| came.cut_off.to_string()),
        of(&|came| format!("{:.2}", hours(came.idle))),
        of(&|came| format!("{:.1}", hours(came.finished))),
        of(&|came| came.given_up.to_string()),
    ];
    format!("| {} |", cells.join(" | "))
}
