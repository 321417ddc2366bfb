//! The checkpoint in the workspace: a copy of a run's state as JSON, for people, for scripts and for emergencies.
//!
//! Its keys and words are those of the Python Mozart, whose checkpoints are read too. It is not the truth: it
//! is written from the ledger, whole and atomically, and read only where the ledger knows nothing of the job.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::files;
use crate::model::Span;
use crate::probe::{self, Point};

/// A run's state. Every key is always written; reading takes whatever is there, and what cannot be read as the
/// type it should have counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    /// The job's id: its name.
    #[serde(deserialize_with = "lenient")]
    pub job_id: String,
    /// The job's name.
    #[serde(deserialize_with = "lenient")]
    pub job_name: String,
    /// `pending`, `running`, `completed`, `failed`, `paused` or `cancelled`.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// When the run was submitted; RFC 3339, UTC, like every time here.
    #[serde(deserialize_with = "lenient")]
    pub created_at: Option<String>,
    /// Its last change.
    #[serde(deserialize_with = "lenient")]
    pub updated_at: Option<String>,
    /// Its end.
    #[serde(deserialize_with = "lenient")]
    pub completed_at: Option<String>,
    /// Sheets in all.
    #[serde(deserialize_with = "lenient", alias = "total_batches")]
    pub total_sheets: u32,
    /// The highest sheet that completed; 0: none.
    #[serde(deserialize_with = "lenient", alias = "last_completed_batch")]
    pub last_completed_sheet: u32,
    /// A sheet that is running.
    #[serde(deserialize_with = "lenient", alias = "current_batch")]
    pub current_sheet: Option<u32>,
    /// Why the run failed.
    #[serde(deserialize_with = "lenient")]
    pub error_message: Option<String>,
    /// Throttlings waited for.
    #[serde(deserialize_with = "lenient")]
    pub rate_limit_waits: u32,
    /// Usage limits waited for.
    #[serde(deserialize_with = "lenient")]
    pub quota_waits: u32,
    /// Attempts beyond the first of their generation.
    #[serde(deserialize_with = "lenient")]
    pub total_retry_count: u32,
    /// Input tokens of all attempts.
    #[serde(deserialize_with = "lenient")]
    pub total_input_tokens: u64,
    /// Output tokens of all attempts.
    #[serde(deserialize_with = "lenient")]
    pub total_output_tokens: u64,
    /// Dollars, as far as the sessions told.
    #[serde(deserialize_with = "lenient")]
    pub total_estimated_cost: f64,
    /// Hash of the plan.
    #[serde(deserialize_with = "lenient")]
    pub config_hash: Option<String>,
    /// The job file as written; an object in checkpoints of the Python version.
    pub config_snapshot: Value,
    /// Sheets that were started, by number.
    #[serde(deserialize_with = "lenient_map", alias = "batches")]
    pub sheets: BTreeMap<u32, SheetEntry>,
}

/// A sheet's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SheetEntry {
    /// Its number.
    #[serde(deserialize_with = "lenient", alias = "batch_num")]
    pub sheet_num: u32,
    /// `pending`, `in_progress`, `completed`, `failed` or `skipped`.
    #[serde(deserialize_with = "lenient")]
    pub status: String,
    /// Start of its first attempt.
    #[serde(deserialize_with = "lenient")]
    pub started_at: Option<String>,
    /// Its verdict's time.
    #[serde(deserialize_with = "lenient")]
    pub completed_at: Option<String>,
    /// Attempts in all.
    #[serde(deserialize_with = "lenient")]
    pub attempt_count: u32,
    /// Exit status of the last attempt, where it exited.
    #[serde(deserialize_with = "lenient")]
    pub exit_code: Option<i32>,
    /// Signal that ended it, where one did.
    #[serde(deserialize_with = "lenient")]
    pub exit_signal: Option<i32>,
    /// `completed`, `timeout`, `killed` or `error`.
    #[serde(deserialize_with = "lenient")]
    pub exit_reason: Option<String>,
    /// The last failure in one sentence.
    #[serde(deserialize_with = "lenient")]
    pub error_message: Option<String>,
    /// Its cause.
    #[serde(deserialize_with = "lenient")]
    pub error_category: Option<String>,
    /// Whether every rule passed, once it was validated.
    #[serde(deserialize_with = "lenient")]
    pub validation_passed: Option<bool>,
    /// Each rule's result; values that are absent are left out.
    #[serde(deserialize_with = "lenient")]
    pub validation_details: Vec<Value>,
    /// Seconds of the last attempt.
    #[serde(deserialize_with = "lenient")]
    pub execution_duration_seconds: Option<f64>,
    /// Completion attempts in all.
    #[serde(deserialize_with = "lenient")]
    pub completion_attempts: u32,
    /// Descriptions of the rules that passed.
    #[serde(deserialize_with = "lenient")]
    pub passed_validations: Vec<String>,
    /// Descriptions of the rules that failed.
    #[serde(deserialize_with = "lenient")]
    pub failed_validations: Vec<String>,
    /// Share of rules that passed, in percent.
    #[serde(deserialize_with = "lenient")]
    pub last_pass_percentage: Option<f64>,
    /// `normal`, `retry` or `completion`.
    #[serde(deserialize_with = "lenient")]
    pub execution_mode: Option<String>,
    /// End of the standard output.
    #[serde(deserialize_with = "lenient")]
    pub stdout_tail: Option<String>,
    /// End of the standard error.
    #[serde(deserialize_with = "lenient")]
    pub stderr_tail: Option<String>,
    /// Input tokens of all its attempts.
    #[serde(deserialize_with = "lenient")]
    pub input_tokens: Option<u64>,
    /// Output tokens of all its attempts.
    #[serde(deserialize_with = "lenient")]
    pub output_tokens: Option<u64>,
    /// Dollars of all its attempts.
    #[serde(deserialize_with = "lenient")]
    pub estimated_cost: Option<f64>,
}

/// The value, or its default where it is of another type.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// The entries that read as sheets.
fn lenient_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u32, SheetEntry>, D::Error> {
    let entries: BTreeMap<String, Value> = lenient(deserializer)?;
    let sheet = |(number, entry): (String, Value)| Some((number.parse().ok()?, serde_json::from_value(entry).ok()?));
    Ok(entries.into_iter().filter_map(sheet).collect())
}

impl Checkpoint {
    /// Whether it is of that job; one that names none is taken for it.
    pub fn is_of(&self, job: &str) -> bool {
        let named = [&self.job_id, &self.job_name];
        named.iter().all(|id| id.is_empty()) || named.iter().any(|id| id.as_str() == job)
    }

    /// Numbers of the sheets that completed, each by its own word; one whose validation failed is none of them.
    pub fn completed_sheets(&self) -> Vec<u32> {
        self.numbers(|sheet| sheet.status == "completed" && sheet.validation_passed != Some(false))
    }

    /// Numbers of the sheets that are not to be run.
    pub fn skipped_sheets(&self) -> Vec<u32> {
        self.numbers(|sheet| sheet.status == "skipped")
    }

    fn numbers(&self, wanted: impl Fn(&SheetEntry) -> bool) -> Vec<u32> {
        self.sheets
            .iter()
            .filter(|(number, sheet)| **number > 0 && wanted(sheet))
            .map(|(number, _)| *number)
            .collect()
    }
}

/// Sheets after each of which it is written.
const EVERY_SHEET_UNTIL: u32 = 50;

/// Share of the sheets, in percent, after which it is written from then on.
const STEP_PERCENT: u64 = 2;

/// Whether a run of `total` sheets, of which `ended` have a verdict, has gone far enough since `written` of them
/// had one for its checkpoint to be written again, not sooner than [`pause`] after the last time. Not asked with
/// `state_backend: json` (after every sheet), nor at a pause, an end or a stop (always).
pub fn due(total: u32, ended: u32, written: u32) -> bool {
    let step = (u64::from(total) * STEP_PERCENT).div_ceil(100).max(1);
    match ended.checked_sub(written) {
        Some(0) => false,
        Some(more) => ended <= EVERY_SHEET_UNTIL || u64::from(more) >= step,
        // A person opened sheets again.
        None => true,
    }
}

/// The least time between two checkpoints of a run of which `ended` sheets have a verdict: a second; longer where
/// there is much to write, so that a quick run of many sheets does not spend its disk on copies of itself.
pub fn pause(ended: u32) -> Span {
    Span::from_secs(i64::from(ended / SHEETS_A_SECOND).max(1))
}

/// Sheets that are worth a second's pause.
const SHEETS_A_SECOND: u32 = 100;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system says no.
    #[error("cannot {activity} the checkpoint {}: {source}", path.display())]
    Io {
        /// What was tried.
        activity: &'static str,
        /// The checkpoint.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not a checkpoint of Mozart: {detail}", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}

impl CheckpointError {
    /// Nothing at all is there: no damaged one, and no link to one that cannot be reached now.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Io { path, source, .. } => {
                source.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err()
            }
            Self::Other { .. } => false,
        }
    }
}

/// A bigger file is no checkpoint.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Writes the checkpoint: whatever happens, `path` then has the old content or the new, never a part. Blocks.
///
/// # Errors
/// What was tried and why it failed; a temporary file is not left behind.
pub fn write(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let written = write_through(path, &temporary, checkpoint);
    if written.is_err() {
        std::fs::remove_file(&temporary).ok();
    }
    written.map_err(|(activity, source)| CheckpointError::Io {
        activity,
        path: path.to_owned(),
        source,
    })
}

fn write_through(path: &Path, temporary: &Path, checkpoint: &Checkpoint) -> Result<(), (&'static str, io::Error)> {
    // Sessions can write to the workspace: made anew and never through a link that lies in the way.
    match std::fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(("replace", error)),
        _ => {}
    }
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(|e| ("create", e))?;
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    print(checkpoint, &mut out).map_err(|e| ("write", e))?;
    let file = out.into_inner().map_err(|e| ("write", e.into_error()))?;
    file.sync_all().map_err(|e| ("write", e))?;
    probe::pass(Point::Checkpoint);
    std::fs::rename(temporary, path).map_err(|e| ("put in place", e))?;
    match path.parent() {
        Some(directory) => files::sync_directory(directory).map_err(|e| ("put in place", e)),
        None => Ok(()),
    }
}

fn print(checkpoint: &Checkpoint, out: &mut impl Write) -> io::Result<()> {
    checkpoint.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, Lines::default()))?;
    out.write_all(b"\n")
}

/// One line for each key and for each sheet: readable, and hardly longer than without any.
#[derive(Default)]
struct Lines {
    depth: usize,
}

impl Lines {
    /// Deepest level whose entries stand on lines of their own: the sheets.
    const DEEPEST: usize = 2;

    fn line(&self, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        if self.depth <= Self::DEEPEST {
            write!(out, "\n{:1$}", "", 2 * self.depth)?;
        }
        Ok(())
    }
}

impl serde_json::ser::Formatter for Lines {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.depth < Self::DEEPEST {
            self.line(out)?;
        }
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.line(out)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.depth <= Self::DEEPEST { b": " } else { b":" })
    }
}

/// Reads a checkpoint, this program's or the Python version's. Blocks.
///
/// # Errors
/// It cannot be read, is no regular file, is too big, or is no checkpoint.
pub fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let io = |activity| {
        move |source| CheckpointError::Io {
            activity,
            path: path.to_owned(),
            source,
        }
    };
    let other = |detail: String| CheckpointError::Other {
        path: path.to_owned(),
        detail,
    };
    // A named pipe that lies there must not hold the caller up.
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(io("open"))?;
    if !file.metadata().map_err(io("read"))?.is_file() {
        return Err(other("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(io("read"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(other(format!("it is bigger than {} MiB", MAX_BYTES >> 20)));
    }
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| other(error.to_string()))?;
    if !["sheets", "batches"]
        .into_iter()
        .any(|key| json.get(key).is_some_and(Value::is_object))
    {
        return Err(other("it has no map `sheets`".to_owned()));
    }
    drop(json);
    let entries: Entries = serde_json::from_slice(&bytes).map_err(|error| other(error.to_string()))?;
    if let Some(wrong) = contradiction(&entries.sheets.0) {
        return Err(other(format!("it is damaged: {wrong}; mend it by hand")));
    }
    serde_json::from_slice(&bytes).map_err(|error| other(error.to_string()))
}

/// The sheets as they stand there.
#[derive(Deserialize)]
struct Entries {
    #[serde(alias = "batches")]
    sheets: Pairs,
}

/// A map with all its entries, also those under one and the same key.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Pairs;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map of sheets")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// What cannot have been written so: a sheet whose own words differ. Reading on would lose it, and run it again, or
/// take another for done.
fn contradiction(sheets: &[(String, Value)]) -> Option<String> {
    const WORDS: [&str; 5] = ["pending", "in_progress", "completed", "failed", "skipped"];
    let mut seen = std::collections::BTreeSet::new();
    sheets.iter().find_map(|(key, entry)| {
        let own = ["sheet_num", "batch_num"]
            .iter()
            .find_map(|name| entry.get(name)?.as_u64());
        if own.is_some_and(|own| key.parse() != Ok(own)) {
            return Some(format!("the entry `{key}` says of itself that it is another"));
        }
        let number: u32 = key.parse().ok()?;
        if !seen.insert(number) {
            return Some(format!("sheet {number} stands there twice"));
        }
        let status = entry.get("status").and_then(Value::as_str).unwrap_or("");
        (!WORDS.contains(&status)).then(|| format!("sheet {number} has the status `{status}`"))
    })
}
