//! Stays with a run until it is over: what `run`, `resume` and `wait` do once the conductor has said yes.
//!
//! The conductor's signals only say when to look; what is told comes from looking. So nothing depends on a
//! signal having arrived, and a conductor that restarts meanwhile is found again.

use std::time::Duration;

use mozart::api::request::RunSelector;
use mozart::api::view::{QuestionView, RunView};
use mozart::bus::client::Hint;
use mozart::model::{RunNo, RunState};
use mozart::summary::SheetSummary;

use crate::commands::answer;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::link::{COME_BACK, Link, TRY_AGAIN, Watch};
use crate::narrator::Narrator;
use crate::output::Out;
use crate::signals::{Asked, Signals};
use crate::text::{clean, count, shell_word};
use crate::typed::Typed;

/// Looked again at least so often, whatever the signals say.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// After a signal, others are waited for so long: one look for a burst.
const GATHER: Duration = Duration::from_millis(40);
/// Another `mozartctl` that conducted ends with its run; another conductor may be there after so long.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// Runs of others in this process are looked at so often.
const OTHERS: Duration = Duration::from_secs(1);

/// How an attached verb differs from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Manner {
    /// The first line says which run it is.
    pub(crate) introduce: bool,
    /// Everything that happened to it so far is news, too.
    pub(crate) fresh: bool,
}

/// What ended the watching.
enum End {
    /// The run is over or paused.
    Over(Box<RunView>, Vec<SheetSummary>),
    /// The run waits for an answer, and nobody is here to give it.
    Unanswered(Box<RunView>, Vec<SheetSummary>),
    /// The person went away; the run goes on.
    Detached,
}

/// Watches the run and returns the exit code that its end asks for.
///
/// # Errors
/// Where the conductor is lost and does not come back, or does not know the run.
pub(crate) async fn watch(
    link: &mut Link,
    finder: &Finder<'_>,
    run: &RunSelector,
    manner: Manner,
    out: &Out,
) -> Result<ExitCode, CliError> {
    let mut watcher = Watcher {
        link,
        finder,
        run,
        narrator: Narrator::new(out),
        signals: Signals::new()?,
        interrupts: 0,
        out,
        asked: None,
        typed: None,
    };
    match watcher.follow(manner).await {
        Ok(End::Over(view, sheets)) => {
            watcher.narrator.end(&view, &sheets);
            watcher.wait_for_others().await?;
            Ok(match view.summary.state {
                RunState::Completed => ExitCode::Done,
                RunState::Failed => ExitCode::Failed,
                _ if watcher.interrupts > 0 => ExitCode::Interrupted,
                _ => ExitCode::Held,
            })
        }
        Ok(End::Unanswered(view, sheets)) => {
            watcher.narrator.end(&view, &sheets);
            if watcher.link.is_embedded() {
                out.note(&format!(
                    "there is no service that waits: after the answer `mozartctl resume {}` lets it go on",
                    shell_word(&run.job)
                ));
            }
            watcher.wait_for_others().await?;
            Ok(if watcher.interrupts > 0 {
                ExitCode::Interrupted
            } else {
                ExitCode::Held
            })
        }
        Ok(End::Detached) => {
            watcher.narrator.close();
            let job = shell_word(&run.job);
            out.note(&format!(
                "detached; {} goes on. `mozartctl status {job}` shows it, `mozartctl wait {job}` attaches again, \
                 `mozartctl pause {job}` and `mozartctl cancel {job}` hold or end it",
                clean(&run.job)
            ));
            Ok(ExitCode::Interrupted)
        }
        Err(error) => {
            watcher.narrator.close();
            Err(error)
        }
    }
}

/// Somebody who stays with a run.
struct Watcher<'a> {
    link: &'a mut Link,
    finder: &'a Finder<'a>,
    run: &'a RunSelector,
    narrator: Narrator<'a>,
    signals: Signals,
    interrupts: u32,
    out: &'a Out,
    /// The question that the person was asked.
    asked: Option<QuestionView>,
    typed: Option<Typed>,
}

impl Watcher<'_> {
    async fn follow(&mut self, manner: Manner) -> Result<End, CliError> {
        let (link, run) = (&*self.link, self.run);
        let mut watch = link.patiently(async || link.watch(&run.job).await).await?;
        let mut view = link.patiently(async || link.run(run).await).await?;
        let sheets = link.patiently(async || link.sheets(run).await).await?;
        if manner.introduce {
            self.introduce(&view);
        }
        if !manner.fresh {
            self.narrator.begin(&sheets);
        }
        self.narrator.run(&view);
        sheets.iter().for_each(|sheet| self.narrator.sheet(sheet));
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looked = tokio::time::Instant::now();

        loop {
            if self.link.is_still(&view.summary) {
                match self.link.sheets(self.run).await {
                    // Its conductor may have ended with it.
                    Err(error) if error.is_lost() => watch = self.come_back().await?,
                    Err(error) => return Err(error),
                    Ok(sheets) => {
                        // The last signals may have been overtaken by the run's end.
                        sheets.iter().for_each(|sheet| self.narrator.sheet(sheet));
                        return Ok(End::Over(Box::new(view), sheets));
                    }
                }
                continue;
            }
            if !self.put_question(&view).await? {
                return Ok(End::Unanswered(Box::new(view), self.link.sheets(self.run).await?));
            }
            tokio::select! {
                line = typed(&mut self.typed), if self.asked.is_some() => match line {
                    Some(line) => self.reply(&line).await?,
                    None => return Ok(End::Unanswered(Box::new(view), self.link.sheets(self.run).await?)),
                },
                asked = self.signals.next() => {
                    if !self.interrupt(asked) {
                        return Ok(End::Detached);
                    }
                }
                hint = watch.next() => {
                    if !self.gather(&mut watch, hint, view.summary.run).await {
                        watch = self.come_back().await?;
                    }
                }
                drained = self.link.drained() => drained?,
                _ = clock.tick() => {
                    self.narrator.tick();
                    if looked.elapsed() < LOOK_AGAIN {
                        continue;
                    }
                }
            }
            looked = tokio::time::Instant::now();
            view = loop {
                match self.link.run(self.run).await {
                    Err(error) if error.is_lost() => watch = self.come_back().await?,
                    other => break other?,
                }
            };
            self.narrator.run(&view);
        }
    }

    /// Asks the person what the run waits for, once, and takes the question back when somebody has answered it. False:
    /// nobody is here to be asked.
    async fn put_question(&mut self, view: &RunView) -> Result<bool, CliError> {
        let waits = view.summary.state == RunState::Waiting;
        let Some(id) = view.summary.question.as_ref().filter(|_| waits) else {
            if self.asked.take().is_some() {
                // Behind what was not answered on its line.
                self.narrator.note("\nanswered elsewhere");
                self.narrator.reopen();
            }
            return Ok(true);
        };
        if self.asked.as_ref().is_some_and(|asked| asked.id == *id) {
            return Ok(true);
        }
        if !self.out.can_ask() {
            return Ok(false);
        }
        let questions = match self.link.questions().await {
            // Whoever looks next finds out.
            Err(error) if error.is_lost() => return Ok(true),
            other => other?,
        };
        if let Some(question) = questions.into_iter().find(|question| question.id == *id) {
            self.narrator.close();
            match &mut self.typed {
                Some(typed) => typed.forget(),
                none => *none = Some(Typed::start()),
            }
            for line in answer::lines(&question) {
                self.narrator.note(&line);
            }
            self.out.prompt(&answer::prompt(&question));
            self.asked = Some(question);
        }
        Ok(true)
    }

    /// Gives the answer that was typed, or asks again where it is none.
    async fn reply(&mut self, line: &str) -> Result<(), CliError> {
        let Some(question) = self.asked.take() else {
            return Ok(());
        };
        let word = line.trim().to_ascii_lowercase();
        if !question.choices.contains(&word) {
            self.out.prompt(&answer::prompt(&question));
            self.asked = Some(question);
            return Ok(());
        }
        match self.link.answer(&question.id, &word).await {
            Err(error) if error.kind == Kind::NoSuchQuestion => self.narrator.note("somebody has answered it already"),
            done => done?,
        }
        self.narrator.reopen();
        Ok(())
    }

    fn introduce(&self, view: &RunView) {
        let summary = &view.summary;
        self.narrator.note(&format!(
            "{}#{}: {} in {}",
            clean(summary.job.as_str()),
            summary.run,
            count(summary.sheets_total, "sheet"),
            clean(&summary.workspace)
        ));
    }

    /// Tells the sheet of this hint and of those that follow close behind; false: the conductor has gone.
    async fn gather(&mut self, watch: &mut Watch, first: Hint, run: RunNo) -> bool {
        let gathered = tokio::time::sleep(GATHER);
        tokio::pin!(gathered);
        let mut hint = first;
        loop {
            match &hint {
                Hint::Sheet(no, sheet) if *no == run => self.narrator.sheet(sheet),
                Hint::Gone => return false,
                _ => {}
            }
            hint = tokio::select! {
                () = &mut gathered => return true,
                hint = watch.next() => hint,
            };
        }
    }

    /// Does what the signal asks for; false: the person leaves, the run goes on elsewhere.
    fn interrupt(&mut self, asked: Asked) -> bool {
        self.interrupts += 1;
        let stop = asked == Asked::End || self.interrupts > 1;
        if !self.link.interrupt(stop) {
            return false;
        }
        let sheets = self
            .narrator
            .running_sheets()
            .iter()
            .map(|sheet| format!("sheet {sheet}"))
            .collect::<Vec<_>>();
        let sheets = sheets.join(", ");
        self.narrator.note(&match (sheets.is_empty(), stop) {
            (true, _) => "stopping; `mozartctl resume` goes on later".to_owned(),
            (false, false) => format!(
                "no new sheet starts; waiting for {sheets} to finish (Ctrl+C again stops it; `mozartctl resume` goes on \
                 in either case)"
            ),
            (false, true) => format!("stopping {sheets}; what `mozartctl resume` needs is saved"),
        });
        true
    }

    /// A conductor in this process may have taken runs in from elsewhere: they are not left behind unasked.
    async fn wait_for_others(&mut self) -> Result<(), CliError> {
        let mut told = false;
        while self.interrupts == 0 {
            let others = self.link.others_live().await;
            if others.is_empty() {
                return Ok(());
            }
            if !std::mem::replace(&mut told, true) {
                let others = others.iter().map(|job| clean(job)).collect::<Vec<_>>().join(", ");
                self.narrator.note(&format!(
                    "{others}, submitted from elsewhere, still runs in this process (Ctrl+C pauses it)"
                ));
            }
            tokio::select! {
                () = tokio::time::sleep(OTHERS) => {}
                _ = self.signals.next() => {
                    self.interrupts += 1;
                    self.link.interrupt(true);
                    self.link.drained().await?;
                }
            }
        }
        Ok(())
    }

    /// Waits for a conductor that restarts, without starting one: whoever stopped it may have meant it.
    ///
    /// One that was another `mozartctl` does not come back. What it left behind is then read from the ledger.
    async fn come_back(&mut self) -> Result<Watch, CliError> {
        let gone = CliError::new(Kind::NoConductor, "the conductor went away").hint(
            "sessions that were running go on; `mozartctl start` or `mozartctl resume JOB` takes the run up again",
        );
        let (patience, last) = match self.link {
            Link::Service(_) => (COME_BACK, None),
            Link::Private(_) => (LEFT_ALONE, Some(Need::Answer)),
            Link::Embedded(_) => return Err(gone),
        };
        if last.is_none() {
            self.narrator
                .note("the conductor went away; waiting for it to come back");
        }
        let deadline = tokio::time::Instant::now() + patience;
        while tokio::time::Instant::now() < deadline {
            tokio::select! {
                () = tokio::time::sleep(TRY_AGAIN) => {}
                _ = self.signals.next() => return Err(gone),
            }
            if let Some(watch) = self.found(Need::Existing).await {
                self.narrator.note("the conductor is back");
                return Ok(watch);
            }
        }
        match last {
            Some(need) => self.found(need).await.ok_or(gone),
            None => Err(gone),
        }
    }

    async fn found(&mut self, need: Need) -> Option<Watch> {
        let link = self.finder.find(need).await.ok().flatten()?;
        let watch = link.watch(&self.run.job).await.ok()?;
        *self.link = link;
        Some(watch)
    }
}

/// The next line that is typed; for ever where nobody was asked anything.
async fn typed(typed: &mut Option<Typed>) -> Option<String> {
    match typed {
        Some(typed) => typed.next().await,
        None => std::future::pending().await,
    }
}
