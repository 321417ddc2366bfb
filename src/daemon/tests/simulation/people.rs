//! What happens beside sessions and waits: a person does something, or the world does.

use super::*;

/// What happens beside sessions and waits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    Submit(usize, bool),
    Pause(usize, bool),
    Resume(usize),
    Cancel(usize),
    Retry(usize),
    /// A person gives the job's run another plan; `true`: and lets it go on.
    Modify(usize, bool),
    /// A person has sheets of the job's run checked, and some are done.
    Recover(usize),
    Answer(usize),
    ClearGates,
    Hold(bool),
    Settings,
    SetClock,
    Sleep,
    PowerCut,
    End(Point),
    DiskFull(bool),
    Stop,
    Restart,
    /// A session's end is reported once more.
    Repeat,
}

impl Simulation {
    pub(super) fn plan_the_week(&mut self) {
        let mut submitted = Vec::new();
        for job in 0..self.jobs.len() {
            let at = self.dice.span(SECOND, 2 * 24 * HOUR);
            self.acts.push((at, Act::Submit(job, false)));
            submitted.push(at);
        }
        for _ in 0..self.dice.from(6, 24) {
            let job = usize::try_from(self.dice.from(0, 4)).unwrap() % self.jobs.len();
            let yes = self.dice.percent(50);
            let point = self
                .dice
                .one(&[Point::Decided, Point::Committed, Point::Applied, Point::Acting]);
            let act = match self.dice.from(0, 31) {
                0 | 1 => Act::Submit(job, true),
                2 | 3 => Act::Pause(job, yes),
                4..=6 => Act::Resume(job),
                7 => Act::Cancel(job),
                8 => Act::ClearGates,
                9 | 10 => Act::Hold(yes),
                11 => Act::Settings,
                12 | 13 => Act::SetClock,
                14 => Act::Sleep,
                15 | 16 => Act::PowerCut,
                17..=23 => Act::End(point),
                24 | 25 => Act::DiskFull(true),
                26 => Act::Stop,
                27 => Act::Repeat,
                28 | 29 => Act::Retry(job),
                _ => Act::Restart,
            };
            // Most of it while there is something to do.
            let near = if self.dice.percent(75) { submitted[job] } else { 0 };
            let latest = if near > 0 { 6 * HOUR } else { WEEK };
            let at = near + self.dice.span(SECOND, latest);
            self.acts.push((at, act));
        }
        for _ in 0..self.changes.from(-3, 6) {
            let job = usize::try_from(self.changes.from(0, 4)).unwrap() % self.jobs.len();
            let act = match self.changes.percent(60) {
                true => Act::Modify(job, self.changes.percent(40)),
                false => Act::Recover(job),
            };
            let at = submitted[job] + self.changes.span(SECOND, 12 * HOUR);
            self.acts.push((at, act));
        }
    }

    pub(super) async fn act(&mut self, act: Act) {
        let name = |job: usize| newest(&self.jobs[job].name);
        match act {
            Act::Submit(job, fresh) => {
                let submit = Submit {
                    fresh,
                    ..self.jobs[job].submit.clone()
                };
                let conductor = self.conductor.as_mut().expect("there is one");
                match conductor.submit(submit).await {
                    Ok(submitted) => {
                        let name = (submitted.job.to_string(), submitted.run.0);
                        self.acknowledged.insert(name);
                    }
                    // Whoever was not heard asks again.
                    Err(ApiError::Storage(_)) => {
                        let at = self.time + self.dice.span(SECOND, HOUR);
                        self.acts.push((at, act));
                    }
                    Err(ApiError::Busy(_) | ApiError::WrongState(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            Act::Pause(job, now) => {
                let run = name(job);
                self.conductor().ask(|reply| Request::Pause(run, now, reply)).await.ok();
            }
            Act::Resume(job) => {
                let run = name(job);
                self.conductor().ask(|reply| Request::Resume(run, reply)).await.ok();
            }
            Act::Cancel(job) => {
                let run = name(job);
                self.conductor().ask(|reply| Request::Cancel(run, reply)).await.ok();
            }
            Act::Retry(job) => {
                let (run, from) = (name(job), SheetNo(u32::try_from(self.dice.from(1, 3)).unwrap()));
                self.retrying = true;
                self.conductor()
                    .ask(|reply| Request::Retry(run, from, reply))
                    .await
                    .ok();
                self.observe();
                self.retrying = false;
            }
            Act::Modify(number, resume) => {
                let other = job(&mut self.changes, i64::try_from(number).unwrap(), self.directory.path());
                let run = name(number);
                let submit = Submit {
                    resume,
                    ..other.submit.clone()
                };
                let conductor = self.conductor.as_mut().expect("there is one");
                let modified = conductor.modify(&run, submit).await;
                match modified {
                    Err(error @ (ApiError::InvalidJob { .. } | ApiError::InvalidArgument(_))) => panic!("{error:?}"),
                    // Committed already, perhaps.
                    Ok(_) => self.jobs[number] = other,
                    Err(_) if probe::has_ended() => self.jobs[number] = other,
                    Err(_) => {}
                }
            }
            Act::Recover(job) => {
                let run = name(job);
                let done = self.changes.roll();
                // What follows from the time that has passed is not because of it.
                if !self.looks_around().await {
                    return self.settle().await;
                }
                let conductor = self.conductor.as_mut().expect("there is one");
                if let Ok(row) = conductor.changeable(&run).await
                    && conductor.take_up(&row).await.is_ok()
                {
                    let sheets = conductor.engine.run(row.id).into_iter().flat_map(Run::sheets);
                    let sheets = sheets.filter(|(no, _)| done >> (no.0 % 64) & 1 == 1);
                    let passed = sheets.map(|(no, sheet)| (no, sheet.attempts())).collect();
                    let event = Event::RecoverRequested { run: row.id, passed };
                    conductor.step(event).await.ok();
                    conductor.put_back(row.id);
                    self.recovering = Some(row.id);
                    self.observe();
                    self.recovering = None;
                }
            }
            Act::Answer(choice) => {
                let open = self.conductor().engine.questions().next().cloned();
                if let Some(question) = open {
                    let choice = question.choices[choice.min(question.choices.len() - 1)];
                    self.answer(question.id, choice).await;
                    if self
                        .conductor
                        .as_ref()
                        .is_some_and(|conductor| conductor.engine.questions().next().is_some())
                    {
                        let at = self.time + self.dice.span(SECOND, 12 * HOUR);
                        self.acts.push((at, Act::Answer(0)));
                    }
                }
            }
            Act::ClearGates => {
                self.audit.clearing = true;
                self.conductor().step(Event::GatesCleared { account: None }).await.ok();
                self.observe();
                self.audit.clearing = false;
            }
            Act::Hold(on) => {
                let held = &mut self.conductor().holds;
                if on {
                    held.ask("pressure".to_owned());
                    let at = self.time + self.dice.span(MINUTE, 12 * HOUR);
                    self.acts.push((at, Act::Hold(false)));
                } else {
                    *held = Holds::default();
                }
                self.conductor().look_around().await.ok();
            }
            Act::Settings if self.conductor().storage().is_empty() => {
                // What follows from the time that has passed follows by the old ones.
                if !self.looks_around().await {
                    return self.settle().await;
                }
                let settings = settings(&mut self.dice);
                let event = Event::SettingsChanged {
                    settings: settings.clone(),
                };
                let before = std::mem::replace(&mut self.audit.settings, settings.clone());
                match self.conductor().step(event).await {
                    Ok(()) => self.settings.engine = settings,
                    // Committed already, perhaps; what follows from it is judged by what was decided.
                    Err(_) if probe::has_ended() => self.settings.engine = settings,
                    Err(_) => self.audit.settings = before,
                }
            }
            // Of a step forward that nobody saw nothing is known: it counts as time that has passed.
            Act::SetClock if self.conductor().storage().is_empty() => {
                probe::watch(None);
                let far = self.dice.span(SECOND / 2, 24 * HOUR);
                self.clock_set = Some(self.time);
                let by = if self.dice.percent(50) { far } else { -far };
                self.skew += by;
                self.unwritten = by;
                self.look_at_the_clock();
                self.conductor().wake().await;
            }
            Act::Settings | Act::SetClock => {}
            Act::Sleep => {
                let span = self.dice.span(MINUTE, 24 * HOUR);
                for session in self.sessions.values_mut() {
                    session.ends += span;
                }
                self.time += span;
                self.look_at_the_clock();
                self.conductor().wake().await;
            }
            Act::PowerCut => {
                self.end().await;
                self.power_cut();
                self.look_at_the_clock();
                self.disk_is_full = false;
                if self.ledger.is_some() {
                    self.ledger().refuse_writes(false).await;
                }
                return self.begin(false).await;
            }
            Act::End(point) => {
                let passes = u32::try_from(self.dice.from(0, 6)).unwrap();
                probe::watch(Some((point, passes)));
                return;
            }
            Act::DiskFull(full) => {
                self.disk_is_full = full;
                self.ledger().refuse_writes(full).await;
                if full {
                    let at = self.time + self.dice.span(SECOND, 30 * SECOND);
                    self.acts.push((at, Act::DiskFull(false)));
                }
                return;
            }
            Act::Stop => {
                if self.conductor().ask(|reply| Request::Stop(true, reply)).await.is_ok() {
                    self.leaving = true;
                    let at = self.time + self.dice.span(SECOND, MINUTE);
                    self.acts.push((at, Act::Restart));
                }
            }
            Act::Restart => {
                self.end().await;
                return self.begin(true).await;
            }
            Act::Repeat => {
                let Some((attempt, report)) = self.over.last().cloned() else {
                    return;
                };
                self.conductor().report(attempt, Progress::Finished(report)).await;
            }
        }
        self.settle().await;
    }

    pub(super) async fn answer(&mut self, question: crate::engine::QuestionId, choice: Choice) {
        self.conductor().step(Event::Answered { question, choice }).await.ok();
    }
}
