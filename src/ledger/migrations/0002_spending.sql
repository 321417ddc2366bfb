-- What was spent: by day of the calendar (as the person's clock had it when a session ended), account, run and model. It
-- outlives the runs, as the budget of a day is kept by it. `account` and `model` are empty where there is none or nobody
-- knows. `cost` is as sessions said or, as far as `estimated` goes, by the price of their tokens; `unknown` sessions
-- worked and nobody knows what they have cost. `charged` is what budgets were booked with, by `paid` sessions.
CREATE TABLE spending (
    day        TEXT NOT NULL,
    account    TEXT NOT NULL,
    job        TEXT NOT NULL,
    run        INTEGER NOT NULL,
    model      TEXT NOT NULL,
    sessions   INTEGER NOT NULL,
    unknown    INTEGER NOT NULL,
    paid       INTEGER NOT NULL,
    charged    INTEGER NOT NULL,
    cost       INTEGER NOT NULL,
    estimated  INTEGER NOT NULL,
    tokens_in  INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    PRIMARY KEY (day, account, job, run, model)
) STRICT, WITHOUT ROWID;

INSERT INTO spending
SELECT date(json_extract(f.json, '$.at') / 1000000, 'unixepoch', 'localtime'),
       coalesce(json_extract(o.context, '$.account'), ''), r.job, r.no,
       coalesce(json_extract(f.evidence, '$.session.model'), ''), count(*),
       sum(json_extract(f.json, '$.outcome.cost') IS NULL),
       sum(coalesce(json_extract(f.json, '$.outcome.cost'), 0) > 0),
       sum(coalesce(json_extract(f.json, '$.outcome.cost'), 0)),
       sum(coalesce(json_extract(f.json, '$.outcome.cost'), 0)), 0,
       sum(coalesce(json_extract(f.json, '$.outcome.tokens_in'), 0)),
       sum(coalesce(json_extract(f.json, '$.outcome.tokens_out'), 0))
FROM facts f JOIN runs r ON r.id = f.run JOIN sources o ON o.run = f.run
WHERE json_extract(f.json, '$.fact') = 'attempt_ended'
  AND (json_extract(f.json, '$.outcome.worked') OR json_extract(f.json, '$.outcome.cost') IS NOT NULL)
GROUP BY 1, 2, 3, 4, 5;
