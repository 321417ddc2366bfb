//! Writing and reading the journal.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use sha2::{Digest, Sha256};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

use super::error::StoreError;
use super::evidence::{self, Tails};
use super::rows::{self, Rows};
use super::table::Beside;
use super::{Ledger, codec, table};
use crate::engine::fact::{Fact, FactKind, Subject};
use crate::job::plan::{Plan, SubmitContext};
use crate::model::{AttemptRef, AttemptReport, JobName, RunId, RunNo, SheetNo, Timestamp, ValidationReport};
use crate::probe::{self, Point};

/// What is committed at once: all of it, or nothing.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// What was decided, in order.
    pub facts: &'a [Fact],
    /// With the fact that submits a run, or gives it another plan: what it is made of.
    pub submission: Option<Submission<'a>>,
    /// With the facts that take sheets for completed without a session: what their rules gave.
    pub checked: &'a [(SheetNo, ValidationReport)],
    /// With the fact that ends an attempt: its report. Without such a fact it is kept as late evidence.
    pub reports: Vec<(AttemptRef, &'a AttemptReport)>,
    /// When: told of late evidence, facts have their own times.
    pub at: Timestamp,
    /// The day of the calendar on which what was spent is booked.
    pub day: &'a str,
}

/// What a commit was about, as it is since.
#[derive(Debug, Default)]
pub struct Committed {
    pub(super) rows: Rows,
}

/// What a run is made of.
#[derive(Debug)]
pub struct Submission<'a> {
    /// The run, as [`Ledger::next_numbers`] gave it.
    pub run: RunId,
    /// The plan.
    pub plan: &'a Plan,
    /// What the submitter brought along.
    pub context: &'a SubmitContext,
}

/// What goes with a run.
const TRIMMED: [&str; 7] = [
    // Of the session's own report the cost is of use while an attempt may resume the session.
    "DELETE FROM sessions WHERE id IN (SELECT json_extract(json, '$.session.id') FROM facts
      WHERE run = ? AND json_extract(json, '$.fact') = 'attempt_intended')",
    "DELETE FROM late_reports WHERE run = ?",
    "DELETE FROM sheets WHERE run = ?",
    "DELETE FROM facts WHERE run = ?",
    "DELETE FROM sources WHERE run = ?",
    "DELETE FROM former_sources WHERE run = ?",
    "DELETE FROM runs WHERE id = ?",
];

impl Ledger {
    /// The numbers of a job's next run: the ledger's own, and the one within the job. Taken only when the
    /// submission is committed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn next_numbers(&self, job: &JobName) -> Result<(RunId, RunNo), StoreError> {
        let row = sqlx::query(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'runs'), 0) + 1,
                    coalesce((SELECT max(no) FROM runs WHERE job = ?), 0) + 1",
        )
        .bind(job.as_str())
        .fetch_one(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let id = row.try_get(0).map_err(self.reading())?;
        let no = row.try_get(1).map_err(self.reading())?;
        Ok((RunId(id), RunNo(no)))
    }

    /// Whether the last conductor that took this ledger up did so in the boot of that id. An id that is not known
    /// is no boot's.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn is_of_boot(&self, boot: &str) -> Result<bool, StoreError> {
        let noted: Option<String> = sqlx::query_scalar("SELECT value FROM meta WHERE key = 'boot'")
            .fetch_optional(&mut self.store().await?.connection)
            .await
            .map_err(self.reading())?;
        Ok(!boot.is_empty() && noted.as_deref() == Some(boot))
    }

    /// Notes the boot in which a conductor took this ledger up.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn note_boot(&self, boot: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO meta (key, value) VALUES ('boot', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        )
        .bind(boot)
        .execute(&mut self.store().await?.connection)
        .await
        .map_err(self.writing())?;
        Ok(())
    }

    /// Appends the facts to the journal and follows them in the rows, in one transaction. When it returns, all
    /// of it survives the end of this process, and a power cut if anything is acted on because of it
    /// ([`FactKind::is_acted_on`]).
    ///
    /// # Errors
    /// The ledger cannot be written (a full disk, say), or the facts do not fit to it. Then nothing was kept.
    pub async fn commit(&self, batch: Batch<'_>) -> Result<Committed, StoreError> {
        if batch.facts.is_empty() && batch.submission.is_none() && batch.reports.is_empty() {
            return Ok(Committed::default());
        }
        let lasting = batch.submission.is_some()
            || !batch.reports.is_empty()
            || batch.facts.iter().any(|fact| fact.kind.is_acted_on());
        let mut store = self.store().await?;
        store.begin_with(lasting).await.map_err(self.writing())?;
        let written = self.write(&mut store.connection, &batch).await;
        probe::pass(Point::Committing);
        let ended = match written {
            Ok(rows) => store.end().await.map(|()| Committed { rows }).map_err(self.writing()),
            Err(error) => Err(error),
        };
        if ended.is_err() {
            // What failed first is told; this is tried again before the connection is used.
            store.roll_back().await.ok();
        } else if let Some(submission) = &batch.submission {
            store.sources.retain(|(run, ..)| *run != submission.run);
        }
        ended
    }

    /// Forgets the runs that ended longest ago, so that so many ended ones are left, with everything that is only
    /// theirs; tells which. All in one transaction.
    ///
    /// # Errors
    /// The ledger cannot be read or written. Then nothing was forgotten.
    pub async fn trim(&self, keep: u32) -> Result<Vec<RunId>, StoreError> {
        let mut store = self.store().await?;
        let old: Vec<i64> = sqlx::query_scalar(
            "SELECT id FROM runs WHERE phase = 'ended' ORDER BY ended_at DESC, id DESC LIMIT -1 OFFSET ?",
        )
        .bind(keep)
        .fetch_all(&mut store.connection)
        .await
        .map_err(self.reading())?;
        if old.is_empty() {
            return Ok(Vec::new());
        }
        store.begin().await.map_err(self.writing())?;
        let forgotten = async {
            for run in &old {
                for table in TRIMMED {
                    sqlx::query(table).bind(run).execute(&mut store.connection).await?;
                }
            }
            let unused =
                "DELETE FROM plans WHERE id NOT IN (SELECT plan FROM sources UNION SELECT plan FROM former_sources)";
            sqlx::query(unused).execute(&mut store.connection).await?;
            sqlx::Result::Ok(())
        };
        let ended = match forgotten.await {
            Ok(()) => store.end().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            // What failed first is told; this is tried again before the connection is used.
            store.roll_back().await.ok();
            return Err(self.writing()(error));
        }
        store.sources.retain(|(run, ..)| !old.contains(&run.0));
        Ok(old.into_iter().map(RunId).collect())
    }

    async fn write(&self, connection: &mut SqliteConnection, batch: &Batch<'_>) -> Result<Rows, StoreError> {
        if let Some(submission) = &batch.submission {
            let revision = batch.facts.iter().find_map(|fact| match fact.kind {
                FactKind::RunModified { run, revision, .. } if run == submission.run => Some(revision),
                _ => None,
            });
            if let Some(revision) = revision {
                self.keep_source(connection, submission.run, revision.saturating_sub(1))
                    .await?;
            }
            self.write_source(connection, submission).await?;
        }
        let mut reports = batch.reports.clone();
        let (before, beside) = self.load(connection, batch.facts, &reports).await?;
        let beside = |attempt: AttemptRef| beside.get(&(attempt.run, attempt.sheet));
        let tails = |attempt: AttemptRef| {
            let known = beside(attempt).map(|known| known.tails);
            known.ok_or(StoreError::NoSuchRun(attempt.run.0))
        };
        let mut rows = before.clone();
        let mut appended = Vec::new();
        for fact in batch.facts {
            if let Some(subject) = fact.kind.subject() {
                self.append(connection, &mut appended, &mut rows).await?;
                self.write_open(connection, subject, fact).await?;
                continue;
            }
            let evidence = match &fact.kind {
                FactKind::AttemptEnded { attempt, outcome } => {
                    let given = reports.iter().position(|(of, _)| of == attempt);
                    let given = given.map(|place| reports.remove(place).1);
                    if let Some(given) = given {
                        self.write_cost(connection, given).await?;
                    }
                    if let Some(run) = rows.runs.get(&attempt.run) {
                        let model = given.and_then(|given| given.session.model.as_deref());
                        self.write_spending(connection, batch.day, run, outcome, model, beside(*attempt))
                            .await?;
                    }
                    match given {
                        Some(given) => Some(evidence::encode(given, Some(outcome), tails(*attempt)?)?),
                        None => None,
                    }
                }
                FactKind::SheetRecovered { sheet, .. } => {
                    let checked = batch.checked.iter().find(|(no, _)| no == sheet);
                    checked
                        .map(|(_, validation)| evidence::checked(validation))
                        .transpose()?
                }
                _ => None,
            };
            appended.push((fact, codec::encode(fact)?, evidence));
        }
        self.append(connection, &mut appended, &mut rows).await?;
        for (attempt, report) in reports {
            self.write_late(connection, batch.at, attempt, report, tails(attempt)?)
                .await?;
        }
        table::store(connection, &before, &rows).await.map_err(self.writing())?;
        Ok(rows)
    }

    /// What the facts are about, as it is now, and what is kept of the attempts that end with them or did before: in one
    /// question, since each wakes SQLite's thread, and that wakes this one.
    async fn load(
        &self,
        connection: &mut SqliteConnection,
        facts: &[Fact],
        reports: &[(AttemptRef, &AttemptReport)],
    ) -> Result<(Rows, BTreeMap<(RunId, SheetNo), Beside>), StoreError> {
        let mut asked: BTreeMap<(RunId, Option<SheetNo>), bool> = BTreeMap::new();
        for fact in facts {
            let Some(run) = fact.kind.run() else { continue };
            let ends = matches!(fact.kind, FactKind::AttemptEnded { .. });
            *asked.entry((run, fact.kind.sheet())).or_default() |= ends;
        }
        for (attempt, _) in reports {
            asked.insert((attempt.run, Some(attempt.sheet)), true);
        }
        let (mut rows, mut beside) = (Rows::default(), BTreeMap::new());
        if !asked.is_empty() {
            let known = table::about(connection, &asked).await.map_err(self.reading())?;
            for (run, sheet, of_attempt) in known {
                beside.extend(of_attempt.map(|(sheet, kept)| ((run.id, sheet), kept)));
                rows.sheets.extend(sheet.map(|sheet| ((run.id, sheet.sheet), sheet)));
                rows.runs.insert(run.id, run);
            }
        }
        for fact in facts {
            if let FactKind::RunModified { run, rules, .. } = &fact.kind {
                let dropped = table::sheets_above(connection, *run, rules.sheets).await;
                for row in dropped.map_err(self.reading())? {
                    rows.sheets.insert((*run, row.sheet), row);
                }
            }
        }
        Ok((rows, beside))
    }

    /// Appends those facts, encoded and with their evidence, and follows them in the rows.
    async fn append(
        &self,
        connection: &mut SqliteConnection,
        facts: &mut Vec<(&Fact, String, Option<String>)>,
        rows: &mut Rows,
    ) -> Result<(), StoreError> {
        for some in facts.chunks(table::AT_ONCE) {
            let mut query = QueryBuilder::<Sqlite>::new("INSERT INTO facts (run, sheet, json, evidence) ");
            query.push_values(some, |mut values, (fact, json, evidence)| {
                values
                    .push_bind(fact.kind.run().map_or(0, |run| run.0))
                    .push_bind(fact.kind.sheet().map_or(0, |sheet| sheet.0))
                    .push_bind(json)
                    .push_bind(evidence);
            });
            let written = query.build().execute(&mut *connection).await.map_err(self.writing())?;
            // Numbered one after the other, in their order (https://www.sqlite.org/autoinc.html).
            let first = written.last_insert_rowid() + 1 - some.len() as i64;
            for ((fact, ..), seq) in some.iter().zip(first..) {
                rows::project(rows, seq, fact).map_err(StoreError::Inconsistent)?;
            }
        }
        facts.clear();
        Ok(())
    }

    /// Of a gate, a question or a day only the last fact is kept, and only while it is open. One that only opens a gate further
    /// stands where the gate was closed, and so does one that moves the time of a gate that is past: the sessions that went
    /// through since come after it.
    async fn write_open(
        &self,
        connection: &mut SqliteConnection,
        subject: Subject<'_>,
        fact: &Fact,
    ) -> Result<(), StoreError> {
        // A gate's name is a map, a question's a text, a day's a list: they cannot meet in one column.
        let (name, open) = match subject {
            Subject::Gate(gate, open) => (codec::encode(gate)?, open),
            Subject::Question(id, open) => (codec::encode(id)?, open),
            Subject::Day(account) => (codec::encode(&[account])?, true),
        };
        let query = match open {
            true => sqlx::query(
                "INSERT INTO gates (gate, seq, json) VALUES (?, (SELECT coalesce(max(seq), 0) FROM facts), ?)
                 ON CONFLICT (gate) DO UPDATE SET json = excluded.json, seq = iif(
                   json_extract(excluded.json, '$.until') IS json_extract(gates.json, '$.until')
                     OR json_extract(excluded.json, '$.until') <= json_extract(excluded.json, '$.at'),
                   gates.seq, excluded.seq)",
            )
            .bind(name)
            .bind(codec::encode(fact)?),
            false => sqlx::query("DELETE FROM gates WHERE gate = ?").bind(name),
        };
        query.execute(connection).await.map_err(self.writing())?;
        Ok(())
    }

    /// Puts what a run was made of so far beside what it will be made of.
    async fn keep_source(
        &self,
        connection: &mut SqliteConnection,
        run: RunId,
        revision: u32,
    ) -> Result<(), StoreError> {
        for query in [
            sqlx::query(
                "INSERT INTO former_sources (run, revision, plan, context)
                 SELECT run, ?2, plan, context FROM sources WHERE run = ?1",
            )
            .bind(run.0)
            .bind(revision),
            sqlx::query("DELETE FROM sources WHERE run = ?").bind(run.0),
        ] {
            query.execute(&mut *connection).await.map_err(self.writing())?;
        }
        Ok(())
    }

    async fn write_source(
        &self,
        connection: &mut SqliteConnection,
        submission: &Submission<'_>,
    ) -> Result<(), StoreError> {
        let Submission { run, plan, context } = submission;
        let json = codec::encode(plan)?;
        // The plan's own hash leaves out where it is run, so it cannot tell two plans apart.
        let digest: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
        let plan_id: i64 = sqlx::query_scalar(
            "INSERT INTO plans (digest, json) VALUES (?, ?) ON CONFLICT (digest) DO UPDATE SET digest = digest RETURNING id",
        )
        .bind(digest)
        .bind(json)
        .fetch_one(&mut *connection)
        .await
        .map_err(self.writing())?;
        sqlx::query(
            "INSERT INTO sources (run, plan, plan_hash, workspace, capture_bytes, whole_tails, context)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(run.0)
        .bind(plan_id)
        .bind(&plan.hash)
        .bind(&plan.workspace)
        .bind(i64::try_from(plan.backend.max_output_capture_bytes).unwrap_or(i64::MAX))
        .bind(plan.checkpoint_every_sheet)
        .bind(codec::encode(context)?)
        .execute(connection)
        .await
        .map_err(self.writing())?;
        Ok(())
    }

    async fn write_cost(&self, connection: &mut SqliteConnection, report: &AttemptReport) -> Result<(), StoreError> {
        let (Some(session), Some(cost)) = (&report.session.session_id, report.session.total_cost) else {
            return Ok(());
        };
        sqlx::query(
            "INSERT INTO sessions (id, total_cost) VALUES (?, ?)
             ON CONFLICT (id) DO UPDATE SET total_cost = excluded.total_cost",
        )
        .bind(session)
        .bind(cost.0)
        .execute(connection)
        .await
        .map_err(self.writing())?;
        Ok(())
    }

    async fn write_late(
        &self,
        connection: &mut SqliteConnection,
        at: Timestamp,
        attempt: AttemptRef,
        report: &AttemptReport,
        tails: Tails,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO late_reports (at, run, sheet, attempt, json) VALUES (?, ?, ?, ?, ?)")
            .bind(at.0)
            .bind(attempt.run.0)
            .bind(attempt.sheet.0)
            .bind(attempt.attempt.0)
            .bind(evidence::encode(report, None, tails)?)
            .execute(connection)
            .await
            .map_err(self.writing())?;
        Ok(())
    }

    /// Tells everything that is not over: all facts of runs that have not ended, and of gates that are closed, in the
    /// order in which they were committed. Each as it is read, since there may be tens of thousands.
    ///
    /// # Errors
    /// The ledger cannot be read, or a newer version wrote to it.
    pub async fn tell_live(&self, mut tell: impl FnMut(Fact)) -> Result<(), StoreError> {
        let mut store = self.store().await?;
        // Gates come after the fact that they followed.
        let mut rows = sqlx::query(
            "SELECT facts.seq, 0 AS gate, facts.json FROM live CROSS JOIN facts ON facts.run = live.run
             UNION ALL SELECT seq, 1, json FROM gates ORDER BY 1, 2",
        )
        .fetch(&mut store.connection);
        while let Some(row) = rows.try_next().await.map_err(self.reading())? {
            tell(self.fact(&row, 2)?);
        }
        Ok(())
    }

    /// The same, all at once.
    #[cfg(test)]
    pub(crate) async fn live_facts(&self) -> Result<Vec<Fact>, StoreError> {
        let mut facts = Vec::new();
        self.tell_live(|fact| facts.push(fact)).await?;
        Ok(facts)
    }

    /// All facts of one run, in order; none where there is no such run.
    ///
    /// # Errors
    /// The ledger cannot be read, or a newer version wrote to it.
    pub async fn facts_of(&self, run: RunId) -> Result<Vec<Fact>, StoreError> {
        let rows = sqlx::query("SELECT seq, json FROM facts WHERE run = ? ORDER BY seq")
            .bind(run.0)
            .fetch_all(&mut self.store().await?.connection)
            .await
            .map_err(self.reading())?;
        rows.iter().map(|row| self.fact(row, 1)).collect()
    }

    fn fact(&self, row: &SqliteRow, json: usize) -> Result<Fact, StoreError> {
        let seq: i64 = row.try_get(0).map_err(self.reading())?;
        let json: &str = row.try_get(json).map_err(self.reading())?;
        codec::decode_fact(seq, json)
    }
}
