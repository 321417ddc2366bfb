//! Tells what happens to a run: a line for each event, and a progress bar on a terminal.
//!
//! Lines begin with the clock and a verdict of fixed width, then how far the run is:
//! `10:20:14  DONE   ( 7/40)  sheet 7, 5 min 12 s`.

use std::collections::{BTreeMap, HashMap};

use indicatif::{ProgressBar, ProgressStyle};
use mozart::api::view::RunView;
use mozart::model::{RunState, SheetStatus, Span, Timestamp};
use mozart::summary::{RunSummary, SheetSummary};

use crate::output::{Out, Paint};
use crate::text::{clean, clock, count, length, moment, money, now, shell_word, whole};

/// What was last told of a sheet: a repetition is not told again.
type Told = (SheetStatus, u32);

/// Remembers what was told, and tells the rest.
pub(crate) struct Narrator<'a> {
    out: &'a Out,
    lines: bool,
    /// There is to be a bar.
    watched: bool,
    bar: Option<ProgressBar>,
    told: HashMap<u32, Told>,
    told_run: Option<(RunState, String)>,
    running: BTreeMap<u32, Timestamp>,
    view: Option<(RunView, Timestamp)>,
}

impl<'a> Narrator<'a> {
    /// With a bar, where standard error is a terminal and standard output is not a file of lines.
    pub(crate) fn new(out: &'a Out) -> Self {
        let watched = out.stderr_is_terminal && (out.stdout_is_terminal || out.json);
        Self {
            out,
            lines: !out.json && !out.quiet,
            watched: watched && !out.quiet,
            bar: (watched && !out.quiet).then(|| bar(out)),
            told: HashMap::new(),
            told_run: None,
            running: BTreeMap::new(),
            view: None,
        }
    }

    /// Takes the sheets as they are for told: only what changes from here on is news.
    pub(crate) fn begin(&mut self, sheets: &[SheetSummary]) {
        for sheet in sheets {
            self.remember(sheet);
        }
    }

    /// A sheet as it is now.
    pub(crate) fn sheet(&mut self, sheet: &SheetSummary) {
        let before = self
            .told
            .get(&sheet.sheet_num)
            .copied()
            .unwrap_or((SheetStatus::Pending, 0));
        self.remember(sheet);
        if before == (sheet.state, sheet.attempts) {
            return;
        }
        if let Some((word, paint, text)) = self.sheet_event(sheet) {
            self.event(word, paint, &text);
        }
        self.redraw();
    }

    /// The run as it is now.
    pub(crate) fn run(&mut self, view: &RunView) {
        self.view = Some((view.clone(), now()));
        let run = &view.summary;
        let key = (run.state, run.reason.clone());
        if self.told_run.as_ref() != Some(&key) {
            let first = self.told_run.is_none();
            self.told_run = Some(key);
            let until = run
                .until
                .map(|at| format!(" until {}", moment(at, now(), &self.out.zone)))
                .unwrap_or_default();
            let reason = if run.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", clean(&run.reason))
            };
            match run.state {
                // The sheet that waits was told with its own reason.
                RunState::Waiting
                    if run.question.is_none()
                        && self.told.values().any(|(state, _)| *state == SheetStatus::Waiting) => {}
                RunState::Waiting | RunState::Queued | RunState::Paused => {
                    self.event("HOLD", Paint::Warn, &format!("run {}{until}{reason}", run.state));
                }
                RunState::Running if !first && run.sheets_running == 0 => self.event("GO", Paint::Busy, "run goes on"),
                _ => {}
            }
        }
        self.redraw();
    }

    /// Moves the clocks of the bar; to be called every second.
    pub(crate) fn tick(&self) {
        self.redraw();
    }

    /// A remark that is not an event of the run.
    pub(crate) fn note(&self, text: &str) {
        self.out.note(text);
    }

    /// Sheets that run now.
    pub(crate) fn running_sheets(&self) -> Vec<u32> {
        self.running.keys().copied().collect()
    }

    /// Takes the bar away and says how it ended, with what to do next.
    pub(crate) fn end(&mut self, view: &RunView, sheets: &[SheetSummary]) {
        self.close();
        if self.out.json {
            self.out.document(&crate::json::RunDetail::new(view, sheets));
        } else {
            for line in closing(view, sheets, self.out) {
                self.out.line(&line);
            }
        }
    }

    /// Puts the bar back, after a question that was asked in its place.
    pub(crate) fn reopen(&mut self) {
        if self.watched && self.bar.is_none() {
            self.bar = Some(bar(self.out));
        }
    }

    /// Takes the bar away.
    pub(crate) fn close(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn remember(&mut self, sheet: &SheetSummary) {
        self.told.insert(sheet.sheet_num, (sheet.state, sheet.attempts));
        if sheet.state == SheetStatus::Running {
            self.running.entry(sheet.sheet_num).or_insert_with(now);
        } else {
            self.running.remove(&sheet.sheet_num);
        }
    }

    fn sheet_event(&self, sheet: &SheetSummary) -> Option<(&'static str, Paint, String)> {
        let label = sheet
            .description
            .as_deref()
            .map(|text| format!(" ({})", clean(text)))
            .unwrap_or_default();
        let name = format!("sheet {}{label}", sheet.sheet_num);
        let failure = failure(sheet);
        let until = sheet
            .until
            .map(|at| format!(", again at {}", clock(at, &self.out.zone)))
            .unwrap_or_default();
        let took = match (sheet.started_at, sheet.ended_at) {
            (Some(from), Some(to)) => format!(", {}", length(to.since(from))),
            _ => String::new(),
        };
        let flags = if sheet.flags.is_empty() {
            String::new()
        } else {
            format!(", but: {}", clean(&sheet.flags.join("; ")))
        };
        Some(match sheet.state {
            SheetStatus::Pending => return None,
            SheetStatus::Running if sheet.attempts > 1 => {
                ("TRY", Paint::Busy, format!("{name}, attempt {}", sheet.attempts))
            }
            SheetStatus::Running => ("START", Paint::Busy, name),
            SheetStatus::Waiting => ("WAIT", Paint::Warn, format!("{name}: {failure}{until}")),
            SheetStatus::Completed => {
                let paint = if flags.is_empty() { Paint::Good } else { Paint::Warn };
                let tries = if sheet.attempts > 1 {
                    format!(", {} attempts", sheet.attempts)
                } else {
                    String::new()
                };
                ("DONE", paint, format!("{name}{took}{tries}{flags}"))
            }
            SheetStatus::Failed => ("FAIL", Paint::Bad, format!("{name}: {failure}")),
            SheetStatus::Skipped => ("SKIP", Paint::Dim, format!("{name}: {}", clean(&sheet.reason))),
            SheetStatus::Cancelled => ("STOP", Paint::Warn, format!("{name}: cancelled")),
        })
    }

    fn event(&self, word: &str, paint: Paint, text: &str) {
        // The bar shows what runs; a line for each start would only push the verdicts away.
        if !self.lines || (self.bar.is_some() && word == "START") {
            return;
        }
        let total = self.view.as_ref().map_or(0, |(view, _)| view.summary.sheets_total);
        let ended = self.told.values().filter(|(state, _)| is_over(*state)).count();
        let width = total.to_string().len();
        self.out.line(&format!(
            "{}  {}  {}  {text}",
            self.out.paint(Paint::Dim, &clock(now(), &self.out.zone)),
            self.out.paint(paint, &format!("{word:<5}")),
            self.out.paint(Paint::Dim, &format!("({ended:>width$}/{total})")),
        ));
    }

    fn redraw(&self) {
        let (Some(bar), Some((view, seen))) = (&self.bar, &self.view) else {
            return;
        };
        let run = &view.summary;
        let now = now();
        let mut parts = Vec::new();
        if run.state == RunState::Running {
            for (sheet, since) in self.running.iter().take(3) {
                parts.push(format!("sheet {sheet} ({})", whole(now.since(*since))));
            }
            if let Some(eta) = view.eta {
                let rest = Span((eta.0 - now.since(*seen).0).max(0));
                parts.push(format!("about {} left", whole(rest)));
            }
        } else {
            let until = run
                .until
                .map(|at| format!(" until {}", moment(at, now, &self.out.zone)))
                .unwrap_or_default();
            parts.push(format!("{}{until}", run.state));
            if !run.reason.is_empty() {
                parts.push(clean(&run.reason).into_owned());
            }
        }
        if run.sheets_failed > 0 {
            parts.push(format!("{} failed", run.sheets_failed));
        }
        parts.extend(run.cost.map(money));
        let ended = self.told.values().filter(|(state, _)| is_over(*state)).count();
        // One change, one picture: the setters draw each for itself.
        bar.update(|state| {
            state.set_len(u64::from(run.sheets_total));
            state.set_pos(ended as u64);
        });
        bar.set_message(parts.join("  "));
    }
}

/// The last failure of a sheet: cause, code and sentence, as far as they are known; else the reason of its state.
pub(crate) fn failure(sheet: &SheetSummary) -> String {
    let what = match (sheet.cause, sheet.code) {
        (Some(cause), Some(code)) => format!("{cause} {code}"),
        (Some(cause), None) => cause.to_string(),
        (None, Some(code)) => code.to_string(),
        (None, None) => return clean(&sheet.reason).into_owned(),
    };
    match (&sheet.message, sheet.code) {
        (Some(message), _) => format!("{what}: {}", clean(message.trim_end_matches('.'))),
        (None, Some(code)) => format!("{what}: {}", code.meaning()),
        (None, None) => what,
    }
}

/// Whether nothing more happens to the sheet by itself.
pub(crate) fn is_over(state: SheetStatus) -> bool {
    match state {
        SheetStatus::Completed | SheetStatus::Failed | SheetStatus::Skipped | SheetStatus::Cancelled => true,
        SheetStatus::Pending | SheetStatus::Running | SheetStatus::Waiting => false,
    }
}

/// The command with which a person goes on from here, where there is one.
pub(crate) fn next_step(run: &RunSummary, sheets: &[SheetSummary]) -> Option<String> {
    let job = shell_word(run.job.as_str());
    Some(match run.state {
        RunState::Completed => return None,
        RunState::Paused | RunState::Cancelled => format!("`mozartctl resume {job}` lets it go on"),
        RunState::Failed => match sheets.iter().find(|sheet| sheet.state == SheetStatus::Failed) {
            Some(sheet) => format!(
                "`mozartctl logs {job} --sheet {}` shows what that session did; `mozartctl resume {job}` tries again what is not completed",
                sheet.sheet_num
            ),
            None => format!("`mozartctl resume {job}` tries again what is not completed"),
        },
        RunState::Waiting if run.question.is_some() => {
            let question = run.question.as_deref().map(clean).unwrap_or_default();
            format!("`mozartctl answer {question} CHOICE` answers what it waits for; `mozartctl cancel {job}` ends it")
        }
        RunState::Queued | RunState::Running | RunState::Waiting => {
            format!(
                "`mozartctl logs -F {job}` follows it; `mozartctl pause {job}` and `mozartctl cancel {job}` hold or end it"
            )
        }
    })
}

fn closing(view: &RunView, sheets: &[SheetSummary], out: &Out) -> Vec<String> {
    let run = &view.summary;
    let paint = match run.state {
        RunState::Completed => Paint::Good,
        RunState::Failed => Paint::Bad,
        _ => Paint::Warn,
    };
    let mut line = format!(
        "{}#{} {}: {} of {} done",
        clean(run.job.as_str()),
        run.run,
        out.paint(paint, run.state.as_str()),
        run.sheets_done,
        count(run.sheets_total, "sheet")
    );
    if run.sheets_failed > 0 {
        line.push_str(&format!(", {} failed", run.sheets_failed));
    }
    if let (Some(from), Some(to)) = (run.started_at, run.ended_at) {
        line.push_str(&format!(" in {}", length(to.since(from))));
    }
    if let Some(cost) = run.cost {
        line.push_str(&format!(", {}", money(cost)));
    }
    if !run.reason.is_empty() && (run.sheets_failed == 0 || run.question.is_some()) {
        line.push_str(&format!(" ({})", clean(&run.reason)));
    }
    let mut lines = vec![line];
    for sheet in sheets.iter().filter(|sheet| sheet.state == SheetStatus::Failed) {
        lines.push(format!("  sheet {}: {}", sheet.sheet_num, failure(sheet)));
        for rule in sheet.validations.iter().filter(|rule| !rule.passed) {
            let reason = rule
                .reason
                .as_deref()
                .map(|text| format!(": {}", clean(text)))
                .unwrap_or_default();
            lines.push(format!(
                "    {} {}{reason}",
                out.paint(Paint::Bad, "failed"),
                clean(&rule.description)
            ));
        }
    }
    lines.extend(next_step(run, sheets));
    lines
}

fn bar(out: &Out) -> ProgressBar {
    let bar = out.bars.add(ProgressBar::new(0));
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len}  {elapsed}  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
