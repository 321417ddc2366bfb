-- The journal is `facts`; every other table can be told from it again, but for `plans`, `sources` and `late_reports`.
-- Pages are small and each commit touches few of them: what changes often stands apart from what never changes.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Plans as JSON, each kept once; `digest` is of the JSON itself.
CREATE TABLE plans (
    id     INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    json   TEXT NOT NULL
) STRICT;

-- AUTOINCREMENT: a run's number is never given to another, not even when old runs are trimmed.
CREATE TABLE runs (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    job              TEXT NOT NULL,
    no               INTEGER NOT NULL,
    state            TEXT NOT NULL,
    phase            TEXT NOT NULL,
    sheets_total     INTEGER NOT NULL,
    completed        INTEGER NOT NULL,
    skipped          INTEGER NOT NULL,
    failed           INTEGER NOT NULL,
    running          INTEGER NOT NULL,
    waiting          INTEGER NOT NULL,
    last_completed   INTEGER NOT NULL,
    reason_sheet     INTEGER,
    until            INTEGER,
    submitted_at     INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    started_at       INTEGER,
    ended_at         INTEGER,
    cost             INTEGER,
    tokens_in        INTEGER NOT NULL,
    tokens_out       INTEGER NOT NULL,
    rate_limit_waits INTEGER NOT NULL,
    quota_waits      INTEGER NOT NULL,
    retries          INTEGER NOT NULL,
    revision         INTEGER NOT NULL,
    UNIQUE (job, no)
) STRICT;

-- Runs that have not ended.
CREATE TABLE live (
    run INTEGER PRIMARY KEY
) STRICT;

-- What a run was made of; never changes, so it is not beside the counters of `runs`.
CREATE TABLE sources (
    run           INTEGER PRIMARY KEY,
    plan          INTEGER NOT NULL,
    plan_hash     TEXT NOT NULL,
    workspace     TEXT NOT NULL,
    capture_bytes INTEGER NOT NULL,
    whole_tails   INTEGER NOT NULL,
    context       TEXT NOT NULL
) STRICT;

-- `sheet` is 0 where the fact is about the whole run. `evidence`: the attempt's report, beside the fact that ended it.
CREATE TABLE facts (
    seq      INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL,
    sheet    INTEGER NOT NULL,
    json     TEXT NOT NULL,
    evidence TEXT
) STRICT;

CREATE INDEX facts_of_sheet ON facts (run, sheet);

-- Made with the first fact about a sheet; a sheet without a row is pending.
CREATE TABLE sheets (
    run                 INTEGER NOT NULL,
    sheet               INTEGER NOT NULL,
    state               TEXT NOT NULL,
    generation          INTEGER NOT NULL,
    attempts            INTEGER NOT NULL,
    completion_attempts INTEGER NOT NULL,
    last_attempt        INTEGER NOT NULL,
    ended_attempt       INTEGER NOT NULL,
    last_kind           TEXT,
    report_seq          INTEGER,
    validated_seq       INTEGER,
    started_at          INTEGER,
    ended_at            INTEGER,
    until               INTEGER,
    cause               TEXT,
    code                TEXT,
    message             TEXT,
    reason              TEXT,
    flags               TEXT,
    cost                INTEGER,
    tokens_in           INTEGER NOT NULL,
    tokens_out          INTEGER NOT NULL,
    PRIMARY KEY (run, sheet)
) STRICT, WITHOUT ROWID;

-- The fact that closed each gate that is closed; `seq` is the newest fact of `facts` that it follows.
CREATE TABLE gates (
    gate TEXT PRIMARY KEY,
    seq  INTEGER NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What each session said it had cost in all, last.
CREATE TABLE sessions (
    id         TEXT PRIMARY KEY,
    total_cost INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Reports that came when their attempt was over already: evidence, without effect.
CREATE TABLE late_reports (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    run     INTEGER NOT NULL,
    sheet   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    json    TEXT NOT NULL
) STRICT;
