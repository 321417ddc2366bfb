//! The output of one attempt: read as it grows, turned into lines.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use mozart::job::plan::{BackendKind, ClaudeCli};
use mozart::runner::backend::LogRenderer;
use mozart::runner::growth::{Growth, Growths};
use serde::Serialize;

use crate::error::{CliError, Kind};
use crate::output::Out;

/// Of a longer output only the end is read, unless everything is asked for.
const END: u64 = 4 * 1024 * 1024;
/// More lines than these are worth reading all of the output.
const MANY_LINES: usize = 5_000;
/// The first line of an output is looked for in so many bytes.
const HEAD: usize = 64 * 1024;
/// Read at once.
const CHUNK: usize = 64 * 1024;
/// A longer line is shown in parts.
const LONGEST_LINE: usize = 16 * 1024 * 1024;
/// Where the kernel tells of no growth (some network file systems), it is looked for so often.
const LOOK: Duration = Duration::from_secs(1);
/// What the launcher's record of the end begins with; it belongs to Mozart, not to the session.
const RECORD: &[u8] = b"\x1emozart-exit-record ";

/// Which attempt a line is of, with `--json`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Source {
    /// The job's name.
    pub(super) id: String,
    /// Number of the run within the job.
    pub(super) run: u32,
    /// The sheet.
    pub(super) sheet_num: u32,
    /// The attempt.
    pub(super) attempt: u32,
}

/// A line with `--json`: what the session printed as an event, or as text where it is none.
#[derive(Debug, Serialize)]
struct JsonLine<'a> {
    #[serde(flatten)]
    source: &'a Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// How lines are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Rendered,
    Json,
    Raw,
}

/// An attempt's output, as far as it was read.
pub(super) struct Stream {
    file: File,
    source: Source,
    shape: Shape,
    renderer: Option<LogRenderer>,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Empty lines that are shown only if something follows: one goes before the record.
    blank: usize,
    growth: Option<Growth>,
    /// The record of its end was read: nothing follows.
    pub(super) ended: bool,
}

impl Stream {
    /// Over the descriptor that the conductor handed out.
    pub(super) fn new(output: OwnedFd, source: Source, raw: bool, out: &Out) -> Result<Self, CliError> {
        let file = File::from(output);
        let kind = kind(&file)?;
        let shape = match (raw, out.json) {
            (true, _) => Shape::Raw,
            (false, true) => Shape::Json,
            (false, false) => Shape::Rendered,
        };
        Ok(Self {
            growth: watch(&file),
            file,
            source,
            shape,
            renderer: Some(LogRenderer::new(&kind)),
            partial: Vec::new(),
            blank: 0,
            ended: false,
        })
    }

    /// Shows the last `lines` of what is there.
    pub(super) fn tail(&mut self, lines: usize, out: &Out) -> Result<(), CliError> {
        let size = self.file.metadata().map_err(unreadable)?.len();
        if lines < MANY_LINES && size > END {
            self.file.seek(SeekFrom::Start(size - END)).map_err(unreadable)?;
            // What is left of the line in the middle of which the end begins is no line.
            let mut byte = [0];
            while self.file.read(&mut byte).map_err(unreadable)? == 1 && byte[0] != b'\n' {}
        }
        let mut last: VecDeque<Vec<u8>> = VecDeque::new();
        self.read(|line| {
            if last.len() == lines {
                last.pop_front();
            }
            if lines > 0 {
                last.push_back(line);
            }
        })?;
        last.iter().for_each(|line| out.bytes(line));
        Ok(())
    }

    /// Shows what has come since.
    pub(super) fn more(&mut self, out: &Out) -> Result<(), CliError> {
        self.read(|line| out.bytes(&line))
    }

    /// Shows what a last line without an end says: nothing follows it.
    pub(super) fn finish(&mut self, out: &Out) {
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            self.line(&rest, &mut |line| out.bytes(&line));
        }
        let Some(renderer) = self.renderer.take() else { return };
        for line in renderer.finish() {
            if self.shape == Shape::Rendered {
                out.line(&line);
            }
        }
    }

    /// Waits until there may be more to read. Dropping the future loses nothing.
    pub(super) async fn grown(&self) {
        match &self.growth {
            Some(growth) => drop(tokio::time::timeout(LOOK * 10, growth.grown()).await),
            None => tokio::time::sleep(LOOK).await,
        }
    }

    fn read(&mut self, mut show: impl FnMut(Vec<u8>)) -> Result<(), CliError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut chunk).map_err(unreadable)?;
            if count == 0 {
                return Ok(());
            }
            let mut rest = &chunk[..count];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let mut line = std::mem::take(&mut self.partial);
                line.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                self.line(&line, &mut show);
            }
            self.partial.extend_from_slice(rest);
            if self.partial.len() > LONGEST_LINE {
                let line = std::mem::take(&mut self.partial);
                self.line(&line, &mut show);
            }
        }
    }

    fn line(&mut self, line: &[u8], show: &mut impl FnMut(Vec<u8>)) {
        if line.starts_with(RECORD) {
            self.ended = true;
            self.blank = self.blank.saturating_sub(1);
            return;
        }
        if line.is_empty() {
            self.blank += 1;
            return;
        }
        for _ in 0..std::mem::take(&mut self.blank) {
            self.shape(b"", show);
        }
        self.shape(line, show);
    }

    fn shape(&mut self, line: &[u8], show: &mut impl FnMut(Vec<u8>)) {
        let ended = |text: &[u8]| [text, b"\n"].concat();
        match self.shape {
            Shape::Raw => show(ended(line)),
            Shape::Rendered => {
                let Some(renderer) = &mut self.renderer else { return };
                renderer
                    .feed(&ended(line))
                    .into_iter()
                    .for_each(|line| show(ended(line.as_bytes())));
            }
            Shape::Json => {
                let event = serde_json::from_slice::<serde_json::Value>(line)
                    .ok()
                    .filter(serde_json::Value::is_object);
                let text = event.is_none().then(|| String::from_utf8_lossy(line).into_owned());
                let line = JsonLine {
                    source: &self.source,
                    event,
                    text,
                };
                show(ended(&serde_json::to_vec(&line).unwrap_or_default()));
            }
        }
    }
}

fn unreadable(error: std::io::Error) -> CliError {
    CliError::new(Kind::System, format!("the session's output cannot be read: {error}"))
}

/// What kind of session prints this: events of the Claude CLI carry a type and a session id, from the first on.
fn kind(file: &File) -> Result<BackendKind, CliError> {
    let mut head = vec![0; HEAD];
    let count = file.read_at(&mut head, 0).map_err(unreadable)?;
    let line = head[..count]
        .split(|byte| *byte == b'\n')
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    // The first event may be longer than what was read; how it begins tells enough.
    let events = match serde_json::from_slice::<serde_json::Value>(line) {
        Ok(event) => event["type"].is_string() && event["session_id"].is_string(),
        Err(_) => count == HEAD && line.starts_with(br#"{"type":""#),
    };
    Ok(if events || count == 0 {
        BackendKind::ClaudeCli(ClaudeCli {
            cli_path: String::new(),
            skip_permissions: false,
            disable_mcp: false,
            output_format: "text".to_owned(),
            model: None,
            allowed_tools: Vec::new(),
            system_prompt: None,
            extra_args: Vec::new(),
        })
    } else {
        BackendKind::Command { command: Vec::new() }
    })
}

/// Tells when the file grows, where the kernel does.
fn watch(file: &File) -> Option<Growth> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Growths::new().ok()?.watch(Path::new(&path)).ok()
}
