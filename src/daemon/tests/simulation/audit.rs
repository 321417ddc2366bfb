//! What is held against what the conductor committed, commanded and left in its ledger.

use jiff::tz::TimeZone;

use super::*;
use crate::daemon::day::Day;

/// The account of a conductor with those settings.
pub(super) fn audit(settings: EngineSettings) -> Audit {
    let mut audit = Audit::new(settings);
    audit.turn = Some(TURN);
    audit.day = |at| {
        let day = Day::of(at, &TimeZone::system());
        (day.begins, day.ends)
    };
    audit
}

impl Simulation {
    /// What was committed and commanded since the last look.
    pub(super) fn observe(&mut self) {
        for seen in probe::seen() {
            match seen {
                Seen::Fact(now, fact) => {
                    tell(self.time, Told::Fact(Box::new(fact.kind.clone())));
                    self.note(&fact);
                    // With it is written whatever was not yet.
                    self.unwritten = 0;
                    self.audit.fact(&fact, self.audited(now));
                }
                Seen::Command(Command::StartAttempt(start) | Command::AdoptAttempt(start)) => {
                    self.audit.start(&start);
                    self.told.insert(start.attempt, start);
                }
                Seen::Command(Command::StopAttempt { attempt, .. }) => self.audit.stop(attempt),
            }
        }
    }

    pub(super) fn note(&mut self, fact: &Fact) {
        match &fact.kind {
            FactKind::RunSubmitted { run, job, .. } => {
                self.runs.insert(*run, job.to_string());
            }
            FactKind::AttemptIntended { attempt, .. } => {
                assert_ne!(self.recovering, Some(attempt.run), "it starts because it is recovered");
                self.intended.insert(*attempt);
            }
            FactKind::AttemptEnded { attempt, .. } => {
                self.told.remove(attempt);
                if let Some(session) = self.sessions.remove(attempt) {
                    self.over.push((*attempt, session.report));
                }
            }
            FactKind::SheetEnded { run, sheet, verdict } => {
                self.verdicts.insert((*run, *sheet), verdict.clone());
            }
            FactKind::GenerationOpened { run, sheet, .. } => {
                let verdict = self.verdicts.get(&(*run, *sheet));
                let done = matches!(verdict, Some(Verdict::Completed | Verdict::Skipped { .. }));
                assert!(self.retrying || !done, "what is done is done again, and nobody asked");
                self.verdicts.remove(&(*run, *sheet));
            }
            FactKind::SheetRecovered { run, sheet, .. } => {
                let before = self.verdicts.insert((*run, *sheet), Verdict::Completed);
                let done = matches!(before, Some(Verdict::Completed | Verdict::Skipped { .. }));
                assert!(!done, "it was done already");
            }
            FactKind::RunModified { run, rules, .. } => {
                let kept = |sheet: &SheetNo| sheet.0 <= rules.sheets;
                let dropped = |of: &RunId, sheet: &SheetNo| of == run && !kept(sheet);
                self.verdicts.retain(|(of, sheet), verdict| {
                    let drops = dropped(of, sheet);
                    assert!(!drops || *verdict != Verdict::Completed, "what is done is dropped");
                    !drops
                });
            }
            FactKind::QuestionAsked { .. } => {
                let at = self.time + self.dice.span(SECOND, 12 * HOUR);
                let choice = usize::from(self.dice.percent(10));
                self.acts.push((at, Act::Answer(choice)));
            }
            _ => {}
        }
    }

    /// The journal tells what the engine holds.
    pub(super) async fn compare(&self) {
        let conductor = self.conductor.as_ref().expect("there is one");
        let ledger = self.ledger();
        let mut told = Engine::new(self.settings.engine.clone(), ledger.id(), seed_of(ledger.id()));
        for fact in ledger.live_facts().await.unwrap() {
            told.try_apply(&fact).unwrap();
        }
        let (told, is) = (recorded(&told), recorded(&conductor.engine));
        for (key, told) in told.as_object().unwrap() {
            assert_eq!(Some(told), is.get(key), "the journal tells another story");
        }
    }

    /// Everything is over: what is to be found in the ledger.
    pub(super) async fn conclude(&mut self) {
        self.compare().await;
        assert!(self.conductor().live.is_empty(), "a run that has ended is held");
        assert!(
            self.sessions.is_empty(),
            "sessions that nobody heard of: {:?}",
            self.sessions
        );
        let ledger = Arc::clone(self.ledger());
        for (job, no) in &self.acknowledged {
            let row = ledger.run(job, Some(*no)).await.unwrap();
            assert!(row.is_some(), "{job}#{no} was acknowledged and is lost");
        }
        let (runs, _) = ledger.runs(&RunFilter::default(), 1000, "").await.unwrap();
        for row in runs {
            let mut told = Engine::new(self.settings.engine.clone(), ledger.id(), 0);
            for fact in ledger.facts_of(row.id).await.unwrap() {
                told.try_apply(&fact).unwrap();
            }
            let run = told.run(row.id).expect("it was submitted");
            let counts = run.counts();
            assert!(run.has_ended() && row.state.is_ended());
            assert_eq!(row.sheets_done, counts.completed + counts.skipped);
            assert_eq!(row.sheets_failed, counts.failed);
            for sheet in ledger.sheets(row.id, 1, 1000).await.unwrap() {
                let is = run.sheet(SheetNo(sheet.sheet_num)).expect("is a sheet");
                assert_eq!((sheet.state, sheet.attempts), (is.state().status(), is.attempts()));
                assert!(!matches!(is.state(), SheetState::Running(_) | SheetState::Waiting(_)));
            }
        }
    }
}
