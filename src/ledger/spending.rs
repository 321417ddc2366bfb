//! What was spent, by day: what the budget of a day is kept by, and what people are told of costs.

use std::collections::BTreeMap;

use sqlx::{Row, SqliteConnection};

use super::Ledger;
use super::error::StoreError;
use super::rows::RunRow;
use super::table::Beside;
use crate::engine::charge;
use crate::engine::event::Spent;
use crate::model::{AccountId, Cost, Outcome, Timestamp};
use crate::summary::{CostFilter, CostSummary};

/// At most so many facts are looked through for the latest starts.
const NEWEST_FACTS: u32 = 5000;

impl Ledger {
    /// Books an attempt that has ended on its day.
    pub(super) async fn write_spending(
        &self,
        connection: &mut SqliteConnection,
        day: &str,
        run: &RunRow,
        outcome: &Outcome,
        model: Option<&str>,
        beside: Option<&Beside>,
    ) -> Result<(), StoreError> {
        if !outcome.worked && outcome.cost.is_none() {
            return Ok(());
        }
        let charged = charge(outcome, beside.and_then(|known| known.reserved)).0;
        let cost = outcome.cost.unwrap_or_default().0;
        let count = |tokens: Option<u64>| i64::try_from(tokens.unwrap_or(0)).unwrap_or(i64::MAX);
        sqlx::query(
            "INSERT INTO spending VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO UPDATE SET sessions = sessions + 1, unknown = unknown + excluded.unknown,
             paid = paid + excluded.paid, charged = charged + excluded.charged, cost = cost + excluded.cost,
             estimated = estimated + excluded.estimated, tokens_in = tokens_in + excluded.tokens_in,
             tokens_out = tokens_out + excluded.tokens_out",
        )
        .bind(day)
        .bind(beside.and_then(|known| known.account.as_deref()).unwrap_or_default())
        .bind(run.job.as_str())
        .bind(run.no.0)
        .bind(model.unwrap_or_default())
        .bind(outcome.cost.is_none())
        .bind(charged > 0)
        .bind(charged)
        .bind(cost)
        .bind(if outcome.cost_estimated { cost } else { 0 })
        .bind(count(outcome.tokens_in))
        .bind(count(outcome.tokens_out))
        .execute(connection)
        .await
        .map_err(self.writing())?;
        Ok(())
    }

    /// What each account's budget was booked with on that day.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn spent_on(&self, day: &str) -> Result<BTreeMap<AccountId, Spent>, StoreError> {
        let rows: Vec<(String, i64, u32)> = sqlx::query_as(
            "SELECT account, sum(charged), sum(paid) FROM spending WHERE day = ? AND account <> '' GROUP BY account",
        )
        .bind(day)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let told = |(account, charged, sessions)| {
            let cost = Cost(charged);
            (AccountId(account), Spent { cost, sessions })
        };
        Ok(rows.into_iter().map(told).collect())
    }

    /// The starts of sessions after that moment, in order, each with its account; those of runs that have ended too. They
    /// are looked for from the newest fact back to the first that is older: what was noted before that one is older still,
    /// whatever the clock showed then.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn starts_since(&self, since: Timestamp) -> Result<Vec<(Timestamp, AccountId)>, StoreError> {
        let rows: Vec<(i64, String)> = sqlx::query_as(
            "SELECT json_extract(f.json, '$.at'), json_extract(o.context, '$.account')
             FROM facts f CROSS JOIN sources o ON o.run = f.run
             WHERE f.seq > coalesce(
                 (SELECT seq FROM facts WHERE seq > (SELECT max(seq) FROM facts) - ?1
                  AND json_extract(json, '$.at') <= ?2 ORDER BY seq DESC LIMIT 1),
                 (SELECT max(seq) FROM facts) - ?1)
             AND json_extract(f.json, '$.fact') = 'attempt_intended'
             AND json_extract(o.context, '$.account') IS NOT NULL ORDER BY f.seq",
        )
        .bind(NEWEST_FACTS)
        .bind(since.0)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let told = |(at, account)| (Timestamp(at), AccountId(account));
        Ok(rows.into_iter().map(told).collect())
    }

    /// What was spent, added up by what the filter names, in its order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn costs(&self, filter: &CostFilter) -> Result<Vec<CostSummary>, StoreError> {
        let rows = sqlx::query(
            "SELECT day, account, job, run, model, sessions, unknown, cost, estimated, tokens_in, tokens_out FROM spending
             WHERE day >= ?1 AND (?2 IS NULL OR job = ?2) AND (?3 IS NULL OR run = ?3)",
        )
        .bind(&filter.since)
        .bind(&filter.job)
        .bind(filter.run)
        .fetch_all(&mut self.store().await?.connection)
        .await
        .map_err(self.reading())?;
        let mut sums: BTreeMap<Vec<String>, CostSummary> = BTreeMap::new();
        for row in &rows {
            let part = cost_of(row).map_err(self.reading())?;
            let key = filter.by.iter().map(|key| part.key(*key)).collect();
            match sums.get_mut(&key) {
                Some(sum) => sum.add(&part),
                None => {
                    sums.insert(key, part.only(&filter.by));
                }
            }
        }
        Ok(sums.into_values().collect())
    }
}

fn cost_of(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<CostSummary> {
    let known = |text: String| Some(text).filter(|text| !text.is_empty());
    let tokens = |column| -> sqlx::Result<u64> { Ok(u64::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0)) };
    Ok(CostSummary {
        day: Some(row.try_get("day")?),
        account: known(row.try_get("account")?),
        job: Some(row.try_get("job")?),
        run: Some(row.try_get("run")?),
        model: known(row.try_get("model")?),
        sessions: row.try_get("sessions")?,
        unknown: row.try_get("unknown")?,
        cost: Cost(row.try_get("cost")?),
        estimated: Cost(row.try_get("estimated")?),
        tokens_in: tokens("tokens_in")?,
        tokens_out: tokens("tokens_out")?,
    })
}
