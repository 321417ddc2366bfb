//! The exit record: one line after the session's last output, written when no process of it is left.
//!
//! It is how the end of a session is learnt that nobody watched. The last such line of the file counts, so a
//! session that prints one of its own is overruled by the real one.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::model::{Certificate, Exit, Span, Timestamp};

/// What a record's line begins with, after the line feed that ends the session's own last line.
const PREFIX: &[u8] = b"\n\x1emozart-exit-record ";

/// Far more than a record needs: only so much of the file's end is searched for one.
const TAIL: u64 = 16 * 1024;

/// How a session ended, in systemd's words (`systemd.exec(5)`, the environment of `ExecStopPost=`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Version of this shape.
    pub v: u16,
    /// `SERVICE_RESULT`: `success`, `exit-code`, `signal`, `timeout`, …
    pub result: String,
    /// `EXIT_CODE`: `exited`, `killed` or `dumped`; empty where nothing was started.
    pub code: String,
    /// `EXIT_STATUS`: the exit status, or the signal's name without `SIG`.
    pub status: String,
    /// CPU time of all its processes in microseconds, where the system tells.
    pub cpu_us: Option<i64>,
    /// Peak memory of all its processes in bytes, where the system tells.
    pub peak_memory: Option<u64>,
    /// When the record was written.
    pub at: Timestamp,
}

impl Record {
    /// Appends the record to `out` in one write.
    ///
    /// # Errors
    /// What the write says, such as a full file system.
    pub fn append(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = PREFIX.to_vec();
        serde_json::to_writer(&mut line, self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }

    /// The exit status or signal; unknown where the words are not understood.
    pub fn exit(&self) -> Exit {
        exit_of(&self.code, &self.status)
    }

    /// The certificate that follows from this record alone.
    pub fn certificate(&self, started: Option<Timestamp>, stopped_by_us: bool) -> Certificate {
        Certificate {
            exit: self.exit(),
            result: self.result.clone(),
            wall: started.map(|started| self.at.since(started)),
            cpu: self.cpu_us.map(Span),
            peak_memory: self.peak_memory,
            stopped_by_us,
        }
    }
}

/// The last record of `stdout`, and how many bytes of the file are the session's own. `None` where the file
/// holds no record; all of it is the session's then.
///
/// # Errors
/// What opening or reading says; `NotFound` where there is no such file.
pub fn find(stdout: &Path) -> io::Result<Option<(Record, u64)>> {
    let mut file = File::open(stdout)?;
    let length = file.metadata()?.len();
    let from = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    let mut end = tail.len();
    while let Some(at) = rfind(&tail[..end], PREFIX) {
        let rest = &tail[at + PREFIX.len()..];
        let record = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .and_then(|stop| serde_json::from_slice(&rest[..stop]).ok());
        if let Some(record) = record {
            return Ok(Some((record, from + at as u64)));
        }
        end = at;
    }
    Ok(None)
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).rposition(|window| window == what)
}

fn exit_of(code: &str, status: &str) -> Exit {
    match code {
        "exited" => status.parse().map_or(Exit::Unknown, Exit::Code),
        "killed" | "dumped" => signal_number(status).map_or(Exit::Unknown, Exit::Signal),
        _ => Exit::Unknown,
    }
}

/// Names of signals 1 to 31 on x86-64 and arm64 (`signal(7)`), as systemd writes them.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

fn signal_number(name: &str) -> Option<i32> {
    if let Some(at) = SIGNALS.iter().position(|signal| *signal == name) {
        return i32::try_from(at + 1).ok();
    }
    if let Some(real_time) = name.strip_prefix("RTMIN+") {
        return real_time.parse::<i32>().ok().map(|n| 34 + n);
    }
    name.parse().ok()
}

/// The name of a signal without `SIG`; its number where it has none.
pub fn signal_name(number: i32) -> String {
    let index = usize::try_from(number).ok().and_then(|n| n.checked_sub(1));
    index
        .and_then(|n| SIGNALS.get(n))
        .map_or_else(|| number.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(status: &str) -> Record {
        Record {
            v: 1,
            result: "exit-code".to_owned(),
            code: "exited".to_owned(),
            status: status.to_owned(),
            cpu_us: Some(5),
            peak_memory: None,
            at: Timestamp(7),
        }
    }

    fn file(parts: &[&[u8]]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for part in parts {
            file.write_all(part).unwrap();
        }
        file
    }

    fn line(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        record.append(&mut line).unwrap();
        line
    }

    #[test]
    fn the_last_record_counts_and_is_no_output() {
        let forged = line(&record("0"));
        let real = line(&record("37"));
        let file = file(&[b"hello", &forged, b"more\n", &real]);
        let (found, own) = find(file.path()).unwrap().unwrap();
        assert_eq!(found.exit(), Exit::Code(37));
        assert_eq!(own, (5 + forged.len() + 5) as u64);
    }

    #[test]
    fn output_without_a_record_is_all_output() {
        assert_eq!(find(file(&[b"", b"abc"]).path()).unwrap(), None);
        assert_eq!(find(file(&[]).path()).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_not_believed() {
        let real = line(&record("37"));
        let torn = &real[..real.len() - 4];
        assert_eq!(find(file(&[b"abc", torn]).path()).unwrap(), None);
        let (found, own) = find(file(&[b"abc", &real, torn]).path()).unwrap().unwrap();
        assert_eq!((found.exit(), own), (Exit::Code(37), 3));
    }

    #[test]
    fn a_record_is_found_behind_much_output() {
        let file = file(&[&vec![b'x'; 3 * TAIL as usize], &line(&record("1"))]);
        assert_eq!(find(file.path()).unwrap().unwrap().1, 3 * TAIL);
    }

    #[test]
    fn systemds_words_are_understood() {
        assert_eq!(exit_of("exited", "0"), Exit::Code(0));
        assert_eq!(exit_of("killed", "TERM"), Exit::Signal(15));
        assert_eq!(exit_of("killed", "KILL"), Exit::Signal(9));
        assert_eq!(exit_of("dumped", "SEGV"), Exit::Signal(11));
        assert_eq!(exit_of("killed", "RTMIN+1"), Exit::Signal(35));
        assert_eq!(exit_of("", ""), Exit::Unknown);
        assert_eq!(exit_of("exited", "many"), Exit::Unknown);
        for number in 1..=31 {
            assert_eq!(signal_number(&signal_name(number)), Some(number));
        }
    }
}
