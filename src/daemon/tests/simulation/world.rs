//! What a week is made of: jobs, what comes of their sessions, outages, settings.

use super::*;

/// A job, and what its sheets are like.
pub(super) struct Job {
    pub(super) submit: Submit,
    pub(super) name: String,
    /// Whose sessions they are; a `command` is nobody's.
    pub(super) account: Option<usize>,
    /// Sheets whose sessions always fail in this way.
    pub(super) stubborn: BTreeMap<u32, Ends>,
}

/// What a session that nothing prevents comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Well,
    Wrong,
    Partly,
    Empty,
    Hung,
    Crashed,
    Overloaded,
    Hopeless,
}

/// For a while an account's sessions are refused.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) account: usize,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) refuses: Refuses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refuses {
    /// A usage limit: the reset is told to the second, to the minute, or not.
    Usage(Option<bool>),
    Throttle(bool),
    Overload,
    Login,
}

pub(super) fn settings(dice: &mut Dice) -> EngineSettings {
    let some = |dice: &mut Dice, most| u32::try_from(dice.from(1, most)).unwrap();
    EngineSettings {
        max_concurrent_jobs: some(dice, 4),
        max_concurrent_sheets: some(dice, 8),
        max_sessions_per_account: dice.percent(40).then(|| some(dice, 3)),
        max_starts_per_minute: dice.percent(30).then(|| some(dice, 10)),
        daily_budget: dice.percent(30).then(|| Cost(dice.span(300_000, 30_000_000))),
        ..EngineSettings::default()
    }
}

pub(super) fn outages(dice: &mut Dice) -> Vec<Outage> {
    let mut outages = Vec::new();
    for _ in 0..dice.from(1, 6) {
        let from = dice.span(10 * SECOND, 3 * 24 * HOUR);
        let told = dice.percent(70);
        let (refuses, longest) = match dice.from(0, 9) {
            0..=4 => (Refuses::Usage(told.then(|| dice.percent(30))), 48 * HOUR),
            5 | 6 => (Refuses::Throttle(told), 10 * MINUTE),
            7 | 8 => (Refuses::Overload, HOUR),
            _ => (Refuses::Login, 12 * HOUR),
        };
        outages.push(Outage {
            account: usize::from(dice.percent(30)),
            from,
            to: from + dice.span(10 * SECOND, longest),
            refuses,
        });
    }
    outages
}

pub(super) fn job(dice: &mut Dice, number: i64, directory: &Path) -> Job {
    let name = format!("job-{number}");
    let sheets = dice.from(1, 6);
    let account = (!dice.percent(15)).then(|| usize::from(dice.percent(30)));
    let mut text = format!("name: {name}\nworkspace: ./{name}\nprompt: {{template: hello}}\n");
    let backend = match account {
        None => "{type: command, command: [/bin/true], working_directory: .}".to_owned(),
        Some(account) => format!(
            "{{type: claude_cli, cli_path: /bin/true, working_directory: ., env: {{CLAUDE_CONFIG_DIR: /account-{account}}}}}"
        ),
    };
    let pause = dice.one(&[0, 0, 10, 120]);
    writeln!(text, "backend: {backend}\npause_between_sheets_seconds: {pause}").unwrap();
    writeln!(text, "priority: {}", dice.from(1, 10)).unwrap();
    writeln!(text, "on_limit: {}", dice.one(&["wait", "wait", "wait", "stop", "ask"])).unwrap();
    if dice.percent(50) {
        let (threshold, rest) = (dice.from(1, 4), dice.one(&[30, 300, 3600]));
        writeln!(
            text,
            "circuit_breaker: {{failure_threshold: {threshold}, recovery_timeout_seconds: {rest}}}"
        )
        .unwrap();
    }
    let mut needs: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    if sheets > 1 && dice.percent(50) {
        for _ in 0..dice.from(1, 5) {
            let of = dice.from(2, sheets);
            needs.entry(of).or_default().insert(dice.from(1, of - 1));
        }
    }
    let needs: Vec<_> = needs
        .iter()
        .map(|(of, on)| format!("{of}: {on:?}").replace('{', "[").replace('}', "]"))
        .collect();
    let needs = needs.join(", ");
    writeln!(
        text,
        "sheet: {{size: 1, total_items: {sheets}, dependencies: {{{needs}}}}}"
    )
    .unwrap();
    if dice.percent(60) {
        let fail_fast = dice.one(&["true", "false", "cancel"]);
        let most = dice.from(1, 4);
        let weight = if dice.percent(30) {
            format!("1: {}", dice.from(2, 5))
        } else {
            String::new()
        };
        writeln!(
            text,
            "parallel: {{enabled: true, max_concurrent: {most}, fail_fast: {fail_fast}, weights: {{{weight}}}}}"
        )
        .unwrap();
    }
    let (retries, completions, transients) = (dice.from(0, 2), dice.from(0, 2), dice.from(0, 4));
    let jitter = dice.percent(50);
    writeln!(
        text,
        "retry: {{max_retries: {retries}, max_completion_attempts: {completions}, transient_retries: {transients}, \
         jitter: {jitter}}}"
    )
    .unwrap();
    let (waits, quota_waits, wait) = (dice.from(1, 4), dice.from(1, 4), dice.one(&[1, 20, 60]));
    writeln!(
        text,
        "rate_limit: {{max_waits: {waits}, max_quota_waits: {quota_waits}, wait_minutes: {wait}, detection_patterns: []}}"
    )
    .unwrap();
    if account.is_some() && dice.percent(25) {
        let (sheet, all) = (dice.span(10, 500) as f64 / 100.0, dice.span(10, 2000) as f64 / 100.0);
        let limits = dice.one(&["sheet", "job", "both"]);
        let mut given = Vec::new();
        if limits != "job" {
            given.push(format!("max_cost_per_sheet: {sheet}"));
        }
        if limits != "sheet" {
            given.push(format!("max_cost_per_job: {all}"));
        }
        writeln!(text, "cost_limits: {{enabled: true, {}}}", given.join(", ")).unwrap();
    }
    let mut stubborn = BTreeMap::new();
    for sheet in 1..=u32::try_from(sheets).unwrap() {
        if dice.percent(8) {
            let ends = [
                Ends::Wrong,
                Ends::Partly,
                Ends::Empty,
                Ends::Hung,
                Ends::Crashed,
                Ends::Hopeless,
            ];
            stubborn.insert(sheet, dice.one(&ends));
        }
    }
    let submit = Submit {
        text,
        base_directory: directory.display().to_string(),
        ..Submit::default()
    };
    Job {
        submit,
        name,
        account,
        stubborn,
    }
}
