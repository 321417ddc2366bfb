-- Of a run that was given another plan: those that it had before. What was started with one of them is taken up with it.
CREATE TABLE former_sources (
    run      INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    plan     INTEGER NOT NULL,
    context  TEXT NOT NULL,
    PRIMARY KEY (run, revision)
) STRICT, WITHOUT ROWID;
