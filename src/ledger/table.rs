//! The rows of runs and sheets in their tables.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, QueryBuilder, Row, Sqlite, SqliteConnection, Type};

use super::evidence::Tails;
use super::rows::{Phase, Rows, RunRow, SheetRow};
use crate::engine::event::PauseWhy;
use crate::model::{AttemptKind, Cause, Cost, Generation, JobName, RunId, RunNo, SheetNo, Timestamp};

/// So many rows are written by one statement at most: each number of them is a statement of its own to SQLite.
pub(super) const AT_ONCE: usize = 8;

/// The columns that [`run_of`] reads, in its order; `runs` is called `r`.
macro_rules! run_columns {
    () => {
        "r.id, r.job, r.no, r.state, r.phase, r.sheets_total, r.completed, r.skipped, r.failed, r.running, r.waiting, \
         r.last_completed, r.reason_sheet, r.until, r.submitted_at, r.updated_at, r.started_at, r.ended_at, r.cost, \
         r.tokens_in, r.tokens_out, r.rate_limit_waits, r.quota_waits, r.retries, r.revision"
    };
}

/// The columns that [`sheet_of`] reads, in its order; `sheets` is called `s`.
macro_rules! sheet_columns {
    () => {
        "s.run, s.sheet, s.state, s.generation, s.attempts, s.completion_attempts, s.last_attempt, s.ended_attempt, \
         s.last_kind, s.report_seq, s.validated_seq, s.started_at, s.ended_at, s.until, s.cause, s.code, s.message, \
         s.reason, s.flags, s.cost, s.tokens_in, s.tokens_out"
    };
}

pub(super) use {run_columns, sheet_columns};

/// Reads a row's columns one after the other.
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Columns<'r> {
    /// From the first column on.
    pub(super) fn of(row: &'r SqliteRow) -> Self {
        Self { row, next: 0 }
    }

    /// The next column.
    pub(super) fn take<T: Decode<'r, Sqlite> + Type<Sqlite>>(&mut self) -> sqlx::Result<T> {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index)
    }

    /// A word that stands for a value.
    fn word<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> sqlx::Result<T> {
        let word: &str = self.take()?;
        read(word).ok_or_else(|| unknown_word(word))
    }

    fn optional_word<T>(&mut self, read: impl Fn(&str) -> Option<T>) -> sqlx::Result<Option<T>> {
        let word: Option<&str> = self.take()?;
        word.map(|word| read(word).ok_or_else(|| unknown_word(word)))
            .transpose()
    }

    fn time(&mut self) -> sqlx::Result<Option<Timestamp>> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp))
    }

    fn count(&mut self) -> sqlx::Result<u64> {
        Ok(u64::try_from(self.take::<i64>()?).unwrap_or(0))
    }
}

fn unknown_word(word: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("{word:?} is no known word here").into())
}

pub(super) fn run_of(columns: &mut Columns<'_>) -> sqlx::Result<RunRow> {
    let id = RunId(columns.take()?);
    let job: String = columns.take()?;
    let job = JobName::new(job).map_err(|wrong| sqlx::Error::Decode(format!("the job's name {wrong}").into()))?;
    let no = RunNo(columns.take()?);
    let state = columns.word(|word| word.parse().ok())?;
    let phase = columns.word(|word| match word {
        "live" => Some(Phase::Live),
        "paused" => Some(Phase::Paused(PauseWhy::Person)),
        "interrupted" => Some(Phase::Paused(PauseWhy::Interrupted)),
        "cancelling" => Some(Phase::Cancelling),
        "ended" => Some(Phase::Ended(state)),
        _ => None,
    })?;
    Ok(RunRow {
        id,
        job,
        no,
        phase,
        sheets_total: columns.take()?,
        completed: columns.take()?,
        skipped: columns.take()?,
        failed: columns.take()?,
        running: columns.take()?,
        waiting: columns.take()?,
        last_completed: columns.take()?,
        reason_sheet: columns.take()?,
        until: columns.time()?,
        submitted_at: Timestamp(columns.take()?),
        updated_at: Timestamp(columns.take()?),
        started_at: columns.time()?,
        ended_at: columns.time()?,
        cost: columns.take::<Option<i64>>()?.map(Cost),
        tokens_in: columns.count()?,
        tokens_out: columns.count()?,
        rate_limit_waits: columns.take()?,
        quota_waits: columns.take()?,
        retries: columns.take()?,
        revision: columns.count()?,
    })
}

pub(super) fn sheet_of(columns: &mut Columns<'_>) -> sqlx::Result<SheetRow> {
    Ok(SheetRow {
        run: RunId(columns.take()?),
        sheet: SheetNo(columns.take()?),
        state: columns.word(|word| word.parse().ok())?,
        generation: Generation(columns.take()?),
        attempts: columns.take()?,
        completion_attempts: columns.take()?,
        last_attempt: columns.take()?,
        ended_attempt: columns.take()?,
        last_kind: columns.optional_word(attempt_kind)?,
        report_seq: columns.take()?,
        validated_seq: columns.take()?,
        started_at: columns.time()?,
        ended_at: columns.time()?,
        until: columns.time()?,
        cause: columns.optional_word(cause)?,
        code: columns.optional_word(|word| word.parse().ok())?,
        message: columns.take()?,
        reason: columns.take()?,
        flags: columns
            .optional_word(|json| serde_json::from_str(json).ok())?
            .unwrap_or_default(),
        cost: columns.take::<Option<i64>>()?.map(Cost),
        tokens_in: columns.count()?,
        tokens_out: columns.count()?,
    })
}

fn attempt_kind(word: &str) -> Option<AttemptKind> {
    use AttemptKind::{Completion, Continuation, First, Probe, Retry};
    [First, Retry, Completion, Probe, Continuation]
        .into_iter()
        .find(|kind| kind.as_str() == word)
}

fn cause(word: &str) -> Option<Cause> {
    use Cause::{Fatal, Interrupted, RateLimit, Transient, Validation};
    [RateLimit, Transient, Validation, Fatal, Interrupted]
        .into_iter()
        .find(|cause| cause.as_str() == word)
}

/// One run's row.
pub(super) async fn run(connection: &mut SqliteConnection, id: RunId) -> sqlx::Result<Option<RunRow>> {
    let row = sqlx::query(concat!("SELECT ", run_columns!(), " FROM runs r WHERE r.id = ?"))
        .bind(id.0)
        .fetch_optional(connection)
        .await?;
    row.map(|row| run_of(&mut Columns::of(&row))).transpose()
}

/// What is kept of a sheet's attempts when they end.
#[derive(Debug)]
pub(super) struct Beside {
    /// How much of their output.
    pub(super) tails: Tails,
    /// Whose money they spend; `None` where that was not told.
    pub(super) account: Option<String>,
    /// What was reserved for the last one.
    pub(super) reserved: Option<Cost>,
}

/// The rows of those runs, each with that of a sheet where one is named and has one yet, and beside it by what an end is kept
/// where that is wanted.
pub(super) async fn about(
    connection: &mut SqliteConnection,
    asked: &BTreeMap<(RunId, Option<SheetNo>), bool>,
) -> sqlx::Result<Vec<(RunRow, Option<SheetRow>, Option<(SheetNo, Beside)>)>> {
    let asked = asked.iter().map(|((run, sheet), ends)| {
        let sheet = sheet.map_or(0, |sheet| sheet.0);
        format!("[{},{sheet},{}]", run.0, u8::from(*ends))
    });
    let asked: Vec<_> = asked.collect();
    let rows = sqlx::query(concat!(
        "WITH asked AS (SELECT value ->> 0 AS run, value ->> 1 AS sheet, value ->> 2 AS ends FROM json_each(?)) SELECT ",
        run_columns!(),
        ", asked.sheet, o.capture_bytes, o.whole_tails, json_extract(o.context, '$.account'), \
         iif(o.run IS NULL, NULL, (SELECT json_extract(f.json, '$.budget') FROM facts f \
         WHERE f.run = asked.run AND f.sheet = asked.sheet \
         AND json_extract(f.json, '$.fact') = 'attempt_intended' ORDER BY f.seq DESC LIMIT 1)), \
         s.sheet IS NOT NULL, ",
        sheet_columns!(),
        " FROM asked CROSS JOIN runs r ON r.id = asked.run \
         LEFT JOIN sheets s ON s.run = asked.run AND s.sheet = asked.sheet \
         LEFT JOIN sources o ON o.run = asked.run AND asked.ends"
    ))
    .bind(format!("[{}]", asked.join(",")))
    .fetch_all(connection)
    .await?;
    let known = rows.iter().map(|row| {
        let mut columns = Columns::of(row);
        let run = run_of(&mut columns)?;
        let asked = SheetNo(columns.take()?);
        let beside = beside_of(&mut columns)?;
        let has_sheet: bool = columns.take()?;
        let sheet = has_sheet.then(|| sheet_of(&mut columns)).transpose()?;
        Ok((run, sheet, beside.map(|beside| (asked, beside))))
    });
    known.collect()
}

fn beside_of(columns: &mut Columns<'_>) -> sqlx::Result<Option<Beside>> {
    let tails: (Option<i64>, Option<bool>) = (columns.take()?, columns.take()?);
    let account = columns.take()?;
    let reserved = columns.take::<Option<i64>>()?.map(Cost);
    let (Some(capture_bytes), Some(whole)) = tails else {
        return Ok(None);
    };
    Ok(Some(Beside {
        tails: Tails {
            capture_bytes: usize::try_from(capture_bytes).unwrap_or(0),
            whole,
        },
        account,
        reserved,
    }))
}

/// The rows of a run's sheets above that number.
pub(super) async fn sheets_above(
    connection: &mut SqliteConnection,
    run: RunId,
    last: u32,
) -> sqlx::Result<Vec<SheetRow>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        sheet_columns!(),
        " FROM sheets s WHERE s.run = ? AND s.sheet > ?"
    ))
    .bind(run.0)
    .bind(last)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| sheet_of(&mut Columns::of(row))).collect()
}

/// Writes what differs.
pub(super) async fn store(connection: &mut SqliteConnection, before: &Rows, after: &Rows) -> sqlx::Result<()> {
    for (id, row) in &after.runs {
        let known = before.runs.get(id);
        if known != Some(row) {
            write_run(connection, row, known.is_none()).await?;
        }
        let was_live = known.is_some_and(|known| !matches!(known.phase, Phase::Ended(_)));
        let is_live = !matches!(row.phase, Phase::Ended(_));
        if was_live != is_live {
            let change = if is_live {
                "INSERT INTO live (run) VALUES (?)"
            } else {
                "DELETE FROM live WHERE run = ?"
            };
            sqlx::query(change).bind(id.0).execute(&mut *connection).await?;
        }
    }
    let changed = after
        .sheets
        .iter()
        .filter(|(key, row)| before.sheets.get(key) != Some(row));
    let changed: Vec<_> = changed.map(|(_, row)| row).collect();
    for some in changed.chunks(AT_ONCE) {
        write_sheets(connection, some).await?;
    }
    Ok(())
}

async fn write_run(connection: &mut SqliteConnection, row: &RunRow, new: bool) -> sqlx::Result<()> {
    // One statement for both would touch the page of AUTOINCREMENT each time.
    let statement = if new {
        "INSERT INTO runs (id, job, no, state, phase, sheets_total, completed, skipped, failed, running, waiting, \
         last_completed, reason_sheet, until, submitted_at, updated_at, started_at, ended_at, cost, tokens_in, \
         tokens_out, rate_limit_waits, quota_waits, retries, revision) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, \
         ?23, ?24, ?25)"
    } else {
        "UPDATE runs SET state = ?4, phase = ?5, sheets_total = ?6, completed = ?7, skipped = ?8, failed = ?9, \
         running = ?10, waiting = ?11, last_completed = ?12, reason_sheet = ?13, until = ?14, submitted_at = ?15, \
         updated_at = ?16, started_at = ?17, ended_at = ?18, cost = ?19, tokens_in = ?20, tokens_out = ?21, \
         rate_limit_waits = ?22, quota_waits = ?23, retries = ?24, revision = ?25 \
         WHERE id = ?1 AND job = ?2 AND no = ?3"
    };
    let phase = match row.phase {
        Phase::Live => "live",
        Phase::Paused(PauseWhy::Person) => "paused",
        Phase::Paused(PauseWhy::Interrupted) => "interrupted",
        Phase::Cancelling => "cancelling",
        Phase::Ended(_) => "ended",
    };
    sqlx::query::<Sqlite>(statement)
        .bind(row.id.0)
        .bind(row.job.as_str())
        .bind(row.no.0)
        .bind(row.state().as_str())
        .bind(phase)
        .bind(row.sheets_total)
        .bind(row.completed)
        .bind(row.skipped)
        .bind(row.failed)
        .bind(row.running)
        .bind(row.waiting)
        .bind(row.last_completed)
        .bind(row.reason_sheet)
        .bind(row.until.map(|at| at.0))
        .bind(row.submitted_at.0)
        .bind(row.updated_at.0)
        .bind(row.started_at.map(|at| at.0))
        .bind(row.ended_at.map(|at| at.0))
        .bind(row.cost.map(|cost| cost.0))
        .bind(stored(row.tokens_in))
        .bind(stored(row.tokens_out))
        .bind(row.rate_limit_waits)
        .bind(row.quota_waits)
        .bind(row.retries)
        .bind(stored(row.revision))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write_sheets(connection: &mut SqliteConnection, rows: &[&SheetRow]) -> sqlx::Result<()> {
    let mut flags = Vec::new();
    for row in rows {
        let json = (!row.flags.is_empty()).then(|| serde_json::to_string(&row.flags));
        flags.push(json.transpose().map_err(|error| sqlx::Error::Encode(error.into()))?);
    }
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT OR REPLACE INTO sheets (run, sheet, state, generation, attempts, completion_attempts, last_attempt, \
         ended_attempt, last_kind, report_seq, validated_seq, started_at, ended_at, until, cause, code, message, \
         reason, flags, cost, tokens_in, tokens_out) ",
    );
    query.push_values(rows.iter().zip(flags), |mut values, (row, flags)| {
        values
            .push_bind(row.run.0)
            .push_bind(row.sheet.0)
            .push_bind(row.state.as_str())
            .push_bind(row.generation.0)
            .push_bind(row.attempts)
            .push_bind(row.completion_attempts)
            .push_bind(row.last_attempt)
            .push_bind(row.ended_attempt)
            .push_bind(row.last_kind.map(AttemptKind::as_str))
            .push_bind(row.report_seq)
            .push_bind(row.validated_seq)
            .push_bind(row.started_at.map(|at| at.0))
            .push_bind(row.ended_at.map(|at| at.0))
            .push_bind(row.until.map(|at| at.0))
            .push_bind(row.cause.map(Cause::as_str))
            .push_bind(row.code.map(crate::model::Code::as_str))
            .push_bind(&row.message)
            .push_bind(&row.reason)
            .push_bind(flags)
            .push_bind(row.cost.map(|cost| cost.0))
            .push_bind(stored(row.tokens_in))
            .push_bind(stored(row.tokens_out));
    });
    query.build().execute(connection).await?;
    Ok(())
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
