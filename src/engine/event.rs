//! Everything that can happen, and everything that can be asked of the shell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::budget::Use;
use super::fact::{Choice, Fact, QuestionId};
use super::rules::RunRules;
use crate::model::{
    AccountId, Ask, AttemptKind, AttemptRef, Cost, JobName, Limit, Outcome, RunId, RunNo, SheetNo, Span, StopHow,
    Timestamp,
};

/// Everything that can happen. `now` comes beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A person submitted a job; the conductor gave it numbers.
    Submitted {
        /// New number of the run.
        run: RunId,
        /// The job.
        job: JobName,
        /// Number within the job.
        no: RunNo,
        /// How it is to go.
        rules: RunRules,
        /// Sheets that are done already (taken over from a checkpoint).
        completed: Vec<SheetNo>,
    },
    /// The session's process runs (started or adopted).
    AttemptStarted {
        /// Which.
        attempt: AttemptRef,
        /// When it started.
        at: Timestamp,
        /// systemd's InvocationID, or the supervisor's start id.
        invocation: Option<String>,
    },
    /// The evidence was read: nothing of this attempt ever ran. The same attempt may start again.
    NeverRan {
        /// Which.
        attempt: AttemptRef,
    },
    /// The attempt is over and classified.
    AttemptFinished {
        /// Which.
        attempt: AttemptRef,
        /// What became of it.
        outcome: Outcome,
    },
    /// The API answered a session that is still at work.
    AttemptAnswered {
        /// Which.
        attempt: AttemptRef,
    },
    /// A session that is still at work says how one of its limits stands.
    LimitSeen {
        /// Which.
        attempt: AttemptRef,
        /// The limit.
        limit: Limit,
        /// It refused the session.
        refused: bool,
    },
    /// A person answered a question.
    Answered {
        /// Which.
        question: QuestionId,
        /// How.
        choice: Choice,
    },
    /// A person opens gates: all of an account, or all there are.
    GatesCleared {
        /// Whose; `None`: everybody's.
        account: Option<AccountId>,
    },
    /// What keeps this conductor from starting anything has changed: pressure, quiet hours, a person's hold.
    HoldsChanged {
        /// All that do so now.
        holds: Vec<StartHold>,
    },
    /// Another day of the calendar than before, as the wall clock of the person has it: midnight, or the clock was set.
    DayBegan {
        /// The day, and what was spent on it already.
        today: Today,
    },
    /// Time has passed.
    Tick,
    /// Pause a run.
    PauseRequested {
        /// Which.
        run: RunId,
        /// Stop its sessions now; they are resumed later as `interrupted`.
        now: bool,
        /// Who wants it.
        why: PauseWhy,
    },
    /// Go on: a paused, failed or cancelled run, at what is not completed.
    ResumeRequested {
        /// Which.
        run: RunId,
    },
    /// Run the sheets of a paused or ended run again from that one on, completed ones too.
    RetryRequested {
        /// Which.
        run: RunId,
        /// The first of them.
        from: SheetNo,
    },
    /// A person gives a run the job file as it is now.
    ModifyRequested {
        /// Which.
        run: RunId,
        /// The new plan; `None`: it is the one that it has.
        plan: Option<Box<NewPlan>>,
        /// Go on, too: with what failed or was left out, also where the run has ended.
        resume: bool,
    },
    /// A person had the rules of sheets asked without a session.
    RecoverRequested {
        /// Which run.
        run: RunId,
        /// The sheets whose rules all hold, each with the attempts that had been made at it when they were asked.
        passed: Vec<(SheetNo, u32)>,
    },
    /// Cancel a run: its sessions get TERM, grace, KILL.
    CancelRequested {
        /// Which.
        run: RunId,
    },
    /// Settings were read anew.
    SettingsChanged {
        /// The new ones.
        settings: EngineSettings,
    },
    /// The conductor stops. No new starts; with `stop_sessions` running ones are stopped and later resumed as `interrupted`.
    ShutdownRequested {
        /// Stop sessions too.
        stop_sessions: bool,
    },
    /// The journal was loaded: everything intended or running is to be looked for.
    Restored {
        /// The last conductor that took it up did so since the system started. After a power cut a session's files
        /// may be gone although it ran, so what an earlier boot intended counts as started.
        same_boot: bool,
    },
}

/// A plan for a run that has another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewPlan {
    /// How the run is to go with it.
    pub rules: RunRules,
    /// Sheets of both plans whose number is another piece of work in each.
    pub other_work: Vec<SheetNo>,
    /// Sessions of the old plan can be resumed with the new one.
    pub same_sessions: bool,
}

/// What keeps the conductor from starting anything. What runs goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartHold {
    /// Why, as a phrase that "until …" may follow.
    pub why: String,
    /// Until when, where that is known.
    pub until: Option<Timestamp>,
    /// From this moment on one start is let through all the same, while nothing runs.
    pub one_at: Option<Timestamp>,
}

/// A day of the calendar, and what was spent on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Today {
    /// Its first moment.
    pub begins: Timestamp,
    /// The first moment of the next.
    pub ends: Timestamp,
    /// By account.
    pub spent: BTreeMap<AccountId, Spent>,
}

impl Today {
    /// Whether that moment is in it.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.begins <= at && at < self.ends
    }
}

/// What was spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// So much.
    pub cost: Cost,
    /// By so many sessions.
    pub sessions: u32,
}

/// Who paused a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PauseWhy {
    /// A person asked.
    Person,
    /// The embedded conductor was interrupted (Ctrl+C, SIGTERM, SIGHUP).
    Interrupted,
}

/// The conductor's settings that the engine decides by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EngineSettings {
    /// Runs that may run sheets at once, 1–1,000.
    pub max_concurrent_jobs: u32,
    /// Sheets that may run at once, over all runs, 1–1,000.
    pub max_concurrent_sheets: u32,
    /// Sessions of one account that may run at once; `None`: as many as there are places.
    pub max_sessions_per_account: Option<u32>,
    /// Starts of one account in a minute; `None`: as many as there are places. The first minute's worth may start at once.
    pub max_starts_per_minute: Option<u32>,
    /// What each account may spend in a day of the calendar; `None`: anything.
    pub daily_budget: Option<Cost>,
    /// A run with sessions at work for so long altogether is ended.
    pub job_timeout: Span,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            max_concurrent_jobs: 5,
            max_concurrent_sheets: 10,
            max_sessions_per_account: None,
            max_starts_per_minute: None,
            daily_budget: None,
            job_timeout: Span::from_secs(86_400),
        }
    }
}

/// What the shell is to do, after the facts were committed and applied, in this order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Start a session (its intent is committed).
    StartAttempt(Start),
    /// Find out what became of an attempt that the journal says was intended or running: adopt it, or report.
    AdoptAttempt(Start),
    /// End a running session.
    StopAttempt {
        /// Which.
        attempt: AttemptRef,
        /// How.
        how: StopHow,
    },
}

/// What is needed to start or adopt an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Which.
    pub attempt: AttemptRef,
    /// Why.
    pub kind: AttemptKind,
    /// What the session is told.
    pub ask: Ask,
    /// In which session.
    pub session: SessionChoice,
    /// What it may cost at most.
    pub budget: Option<Cost>,
    /// The number of the plan within the run that it is an attempt at.
    pub revision: u32,
}

/// Which session an attempt is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "session", content = "id")]
pub enum SessionChoice {
    /// A new one, under this UUID.
    New(String),
    /// An earlier one, resumed.
    Resume(String),
}

impl SessionChoice {
    /// The session's id.
    pub fn id(&self) -> &str {
        match self {
            Self::New(id) | Self::Resume(id) => id,
        }
    }
}

/// Why a request was not followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No such live run in the engine.
    NoSuchRun(RunId),
    /// The run's state does not allow it; the text says which state and what would work.
    WrongState(String),
    /// No such question is open.
    NoSuchQuestion(QuestionId),
    /// That is no answer to it.
    WrongChoice {
        /// The question.
        question: QuestionId,
        /// What would be one.
        choices: Vec<Choice>,
    },
}

/// What follows from an event: commit the facts, apply them, then carry the commands out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// To be committed together, then applied in this order.
    pub facts: Vec<Fact>,
    /// To be carried out in this order, once the facts are applied.
    pub commands: Vec<Command>,
    /// Budgets of which a large part is used now.
    pub warnings: Vec<Use>,
    /// Why a request was not followed; then there are no facts that it asked for.
    pub refusal: Option<Refusal>,
}

impl Refusal {
    /// The sentence for the person who asked.
    pub fn text(&self) -> String {
        match self {
            Self::NoSuchRun(run) => format!("there is no live run with the number {run}"),
            Self::WrongState(text) => text.clone(),
            Self::NoSuchQuestion(question) => {
                format!(
                    "there is no open question {}; it may have been answered already",
                    question.0
                )
            }
            Self::WrongChoice { question, choices } => {
                let words: Vec<&str> = choices.iter().map(|choice| choice.as_str()).collect();
                format!("question {} can be answered with {}", question.0, words.join(" or "))
            }
        }
    }
}
