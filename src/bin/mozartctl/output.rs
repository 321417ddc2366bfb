//! The only place that writes to the terminal: lines, tables, JSON, warnings and errors.
//!
//! Standard output carries what was asked for, standard error everything else. JSON is never wrapped, cut or
//! coloured. A closed pipe (`| head`) is no error: what follows is dropped, and the verb goes on or ends as it likes.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal as _, Write};

use indicatif::MultiProgress;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::cli::Global;
use crate::error::{CliError, Kind};

/// What a piece of text means. Colour only repeats what the words say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    Plain,
    /// A heading or a name.
    Bold,
    /// Less important.
    Dim,
    /// Went well.
    Good,
    /// Works right now.
    Busy,
    /// Waits, or is odd.
    Warn,
    /// Failed.
    Bad,
}

impl Paint {
    fn apply(self, text: &str, color: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Good => 32,
            Self::Busy => 36,
            Self::Warn => 33,
            Self::Bad => 31,
        };
        if color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A row of a table: texts with what they mean.
pub(crate) type Row = Vec<(String, Paint)>;

/// Where everything is written to, and how.
pub(crate) struct Out {
    /// `--json`.
    pub(crate) json: bool,
    /// `--verbose`, how often.
    pub(crate) verbose: u8,
    /// `--quiet`.
    pub(crate) quiet: bool,
    /// Standard output is a terminal.
    pub(crate) stdout_is_terminal: bool,
    /// Standard error is a terminal.
    pub(crate) stderr_is_terminal: bool,
    /// The local time zone.
    pub(crate) zone: TimeZone,
    /// Progress bars; whatever is written meanwhile goes above them.
    pub(crate) bars: MultiProgress,
    stdout_color: bool,
    stderr_color: bool,
    closed: Cell<bool>,
    failed: RefCell<Option<io::Error>>,
}

impl Out {
    /// Looks at the terminal, `NO_COLOR` and `TERM`.
    pub(crate) fn new(global: &Global) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let stdout_is_terminal = io::stdout().is_terminal();
        let stderr_is_terminal = io::stderr().is_terminal();
        Self {
            json: global.json,
            verbose: global.verbose,
            quiet: global.quiet,
            stdout_is_terminal,
            stderr_is_terminal,
            zone: TimeZone::system(),
            bars: MultiProgress::new(),
            stdout_color: wanted && stdout_is_terminal,
            stderr_color: wanted && stderr_is_terminal,
            closed: Cell::new(false),
            failed: RefCell::new(None),
        }
    }

    /// Text as standard output shows it.
    pub(crate) fn paint(&self, paint: Paint, text: &str) -> String {
        paint.apply(text, self.stdout_color)
    }

    /// Whether standard output may be coloured.
    pub(crate) fn stdout_color(&self) -> bool {
        self.stdout_color
    }

    /// Whether standard error may be coloured.
    pub(crate) fn stderr_color(&self) -> bool {
        self.stderr_color
    }

    /// Nobody reads standard output any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// Begins a new picture on a terminal.
    pub(crate) fn clear(&self) {
        // Home, then clear to the end of the screen: what is redrawn does not flicker.
        self.bytes(b"\x1b[H\x1b[J");
    }

    /// One line of what was asked for.
    pub(crate) fn line(&self, text: &str) {
        self.bytes(format!("{text}\n").as_bytes());
    }

    /// Bytes of what was asked for, as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        if self.closed.get() {
            return;
        }
        let written = self.bars.suspend(|| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        });
        if let Err(error) = written {
            self.closed.set(true);
            if error.kind() != io::ErrorKind::BrokenPipe {
                *self.failed.borrow_mut() = Some(error);
            }
        }
    }

    /// One JSON document, indented.
    pub(crate) fn document(&self, value: &impl Serialize) {
        match serde_json::to_string_pretty(value) {
            Ok(text) => self.line(&text),
            Err(error) => *self.failed.borrow_mut() = Some(error.into()),
        }
    }

    /// One JSON document on a line of its own.
    pub(crate) fn json_line(&self, value: &impl Serialize) {
        match serde_json::to_string(value) {
            Ok(text) => self.line(&text),
            Err(error) => *self.failed.borrow_mut() = Some(error.into()),
        }
    }

    /// Rows with columns aligned; the last column is as long as it is.
    pub(crate) fn table(&self, rows: &[Row]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.0.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let mut line = String::new();
            for (column, (text, paint)) in row.iter().enumerate() {
                line.push_str(&self.paint(*paint, text));
                if column + 1 < row.len() {
                    let gap = widths[column].saturating_sub(text.chars().count()) + 2;
                    line.extend(std::iter::repeat_n(' ', gap));
                }
            }
            self.line(line.trim_end());
        }
    }

    /// A remark beside the output; silent with `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.stderr(text);
        }
    }

    /// Something odd; silent with `--quiet`.
    pub(crate) fn warn(&self, text: &str) {
        if !self.quiet {
            self.stderr(&format!("{} {text}", Paint::Warn.apply("warning:", self.stderr_color)));
        }
    }

    /// What is wrong with a job file, whatever `--quiet` says.
    pub(crate) fn report(&self, text: &str) {
        self.stderr(text.trim_end());
    }

    /// Whether somebody is there who could answer: this is a terminal, and not in its background, where reading would
    /// stop the program.
    pub(crate) fn can_ask(&self) -> bool {
        let stdin = io::stdin();
        let in_front = || rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
        !self.json && self.stderr_is_terminal && stdin.is_terminal() && in_front()
    }

    /// A question, behind which the answer is typed on the same line.
    pub(crate) fn prompt(&self, question: &str) {
        let _told = self.bars.suspend(|| {
            let mut stderr = io::stderr().lock();
            write!(stderr, "{question} ").and_then(|()| stderr.flush())
        });
    }

    /// Asks, and gives the answer in small letters, which is typed on the same line. `None`: this is no terminal, and
    /// nobody is there to answer.
    ///
    /// # Errors
    /// [`Kind::System`] where standard input cannot be read.
    pub(crate) fn ask(&self, question: &str) -> Result<Option<String>, CliError> {
        if !self.can_ask() {
            return Ok(None);
        }
        self.prompt(question);
        let mut answer = String::new();
        io::stdin()
            .read_line(&mut answer)
            .map_err(|error| CliError::new(Kind::System, format!("standard input cannot be read: {error}")))?;
        Ok(Some(answer.trim().to_ascii_lowercase()))
    }

    /// An error with its hints; with `--json` an object on standard output as well.
    pub(crate) fn error(&self, error: &CliError) {
        if self.json {
            self.document(&crate::json::error(error));
        }
        self.stderr(&format!(
            "{} {}",
            Paint::Bad.apply("error:", self.stderr_color),
            error.message
        ));
        for hint in &error.hints {
            self.stderr(&format!("{} {hint}", Paint::Busy.apply("hint:", self.stderr_color)));
        }
    }

    /// What could not be written to standard output.
    ///
    /// # Errors
    /// The first failure other than a closed pipe.
    pub(crate) fn finish(&self) -> Result<(), CliError> {
        match self.failed.borrow_mut().take() {
            Some(error) => Err(CliError::new(
                Kind::System,
                format!("standard output cannot be written: {error}"),
            )),
            None => Ok(()),
        }
    }

    fn stderr(&self, text: &str) {
        // There is nobody left to tell where even this fails.
        let _told = self.bars.suspend(|| writeln!(io::stderr().lock(), "{text}"));
    }
}
