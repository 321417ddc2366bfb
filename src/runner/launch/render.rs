//! The process in which templates are rendered that may grow: this program once more, with little memory and time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::prompt::elsewhere::{MAX_MEMORY, MAX_SECONDS, NoAnswer, Place, serve};

/// The hidden argument.
pub(super) const RENDER: &str = "--mozart-render";

/// Answers what comes on standard input.
pub(super) fn render() -> ExitCode {
    let bounded = limit(Resource::Core, 0).and_then(|()| limit(Resource::Data, MAX_MEMORY));
    // Anew for each prompt.
    let begin = || {
        let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
        limit(Resource::Cpu, u64::try_from(used).unwrap_or(0) + 1 + MAX_SECONDS)
    };
    let served = bounded.and_then(|()| begin()).and_then(|()| {
        serve(&mut BufReader::new(io::stdin()), &mut io::stdout(), || {
            // It could be set a moment ago; where it cannot any more, the last one holds.
            begin().ok();
        })
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever asks reads it where no answer comes.
            writeln!(io::stderr(), "{error}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Sets what the process itself may raise again, and only within what it was given.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let given = getrlimit(resource);
    let current = given.maximum.map_or(most, |given| given.min(most));
    setrlimit(
        resource,
        Rlimit {
            current: Some(current),
            maximum: given.maximum,
        },
    )?;
    Ok(())
}

/// Starts such a process.
pub(super) fn open() -> Result<Box<dyn Place>, String> {
    // The file may have been replaced since; this is the one that runs.
    let mut child = Command::new("/proc/self/exe")
        .arg0("mozart")
        .arg(RENDER)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it cannot be started: {error}"))?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(questions), Some(answers)) => Ok(Box::new(Renderer {
            child,
            questions,
            answers: BufReader::new(answers),
        })),
        _ => Err("it has no pipes".to_owned()),
    }
}

struct Renderer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Place for Renderer {
    fn ask(&mut self, line: &[u8]) -> Result<Vec<u8>, NoAnswer> {
        // One that is gone is told by its status.
        let asked = self.questions.write_all(line);
        let mut answer = Vec::new();
        let read = asked.and_then(|()| self.answers.read_until(b'\n', &mut answer));
        if read.is_ok() && answer.ends_with(b"\n") {
            return Ok(answer);
        }
        // Whatever is wrong with it, it is not asked again.
        self.child.kill().ok();
        match self.child.wait() {
            Ok(status) => Err(self.why(status)),
            Err(error) => Err(NoAnswer::Other(error.to_string())),
        }
    }
}

impl Renderer {
    fn why(&mut self, status: ExitStatus) -> NoAnswer {
        let mut said = String::new();
        if let Some(stderr) = self.child.stderr.take() {
            // What was read until then is what there is.
            stderr.take(1000).read_to_string(&mut said).ok();
        }
        let is = |signal: Signal| status.signal() == Some(signal.as_raw());
        if is(Signal::XCPU) {
            NoAnswer::Time
        } else if said.contains("overflowed its stack") {
            NoAnswer::Depth
        } else if is(Signal::ABORT) {
            // What Rust does without memory.
            NoAnswer::Memory
        } else if said.trim().is_empty() {
            NoAnswer::Other(status.to_string())
        } else {
            NoAnswer::Other(said.trim().to_owned())
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        // It may be over already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
