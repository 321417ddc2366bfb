//! What each code of an attempt means, for people.

use super::Code;

/// The page of a code: what `mozartctl explain` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The code, such as `V101`.
    pub code: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// What it means, and what follows from it.
    pub means: &'static str,
    /// How it comes about: lines of a job file, or what happened.
    pub example: &'static str,
    /// How to mend it.
    pub mend: &'static str,
}

impl Code {
    /// The code's page.
    pub fn page(self) -> Page {
        let (means, example, mend) = text(self);
        Page {
            code: self.as_str(),
            title: self.meaning(),
            means,
            example,
            mend,
        }
    }
}

/// Meaning, example, and how to mend it.
fn text(code: Code) -> (&'static str, &'static str, &'static str) {
    match code {
        Code::E001 => (
            "The attempt took longer than `backend.timeout_seconds` and was ended with its whole tree. It counts as a \
             transient fault.",
            "a session that still worked after 1800 s",
            "Give the sheet more time (`timeout_seconds`, or `timeout_overrides` for one sheet), or less work.",
        ),
        Code::E002 => (
            "A signal from outside ended the session's process.",
            "somebody called `kill` with the process id of the session",
            "Nothing, if that was meant; `mozartctl resume` goes on. Otherwise look in the system's journal for who did it.",
        ),
        Code::E003 => (
            "The session's program crashed: a segmentation fault, an abort. The sheet is not tried again by itself.",
            "the program ended with SIGSEGV",
            "Update or reinstall the program, and see `mozartctl logs JOB --sheet N` for its last words.",
        ),
        Code::E004 => (
            "The session was interrupted by something that is no fault of its own: a restart, a logout, a power cut. It \
             uses up no retry.",
            "the machine was restarted while the session worked",
            "Nothing: the session goes on by itself.",
        ),
        Code::E005 => (
            "The kernel ended the session because memory ran out.",
            "a build inside a session took all memory",
            "Let fewer sheets run at once (`parallel.max_concurrent`), or give the machine more memory.",
        ),
        Code::E006 => (
            "The session printed nothing for `stale_detection.idle_timeout_seconds` and was ended; it counts as a \
             transient fault.",
            "a session that waits for an answer on a terminal that is not there",
            "See with `mozartctl logs` what it did last. If so long a silence is normal, raise `idle_timeout_seconds`; \
             before its first output `first_event_timeout_seconds` counts, where the job file has it.",
        ),
        Code::E009 => (
            "The program ended with an exit code that says nothing more. For `type: command` every failure is one.",
            "command: [sh, -c, 'exit 3']",
            "Read its output: `mozartctl logs JOB --sheet N`.",
        ),
        Code::E101 => (
            "The API refused a request because there were too many of them. The sheet waits and uses up no retry.",
            "HTTP 429 with a `retry-after`",
            "Nothing; if it happens often, let fewer sheets run at once.",
        ),
        Code::E102 => (
            "The CLI says that a limit holds, without saying which. The account's gate is closed for a while.",
            "the error output matches `rate_limit.detection_patterns`",
            "Nothing; `mozartctl rate-limits` shows until when. If it is no limit, write narrower `detection_patterns`.",
        ),
        Code::E103 => (
            "The API is overloaded. The sheet is tried again after a growing delay.",
            "HTTP 529",
            "Nothing: it passes.",
        ),
        Code::E104 => (
            "The usage limit of the account is reached. Every job of the account waits for its reset.",
            "the limit of five hours of a subscription",
            "Nothing; or `on_limit: stop` or `ask` for jobs that should not wait. `mozartctl clear-rate-limits` if it is over.",
        ),
        Code::E105 => (
            "The account's limit of money is reached, until a date.",
            "the monthly limit of an API account",
            "Raise it with the provider, or wait; then `mozartctl clear-rate-limits`.",
        ),
        Code::E201 => (
            "A file that a rule asks for is not there after the session ended, or was not changed.",
            "- {type: file_exists, path: \"{workspace}/report{sheet_num}.md\"}",
            "The session is told and tries again. If it never makes the file, name it in the prompt as the rule does.",
        ),
        Code::E202 => (
            "A file is there, and the text or pattern that a rule asks for is not in it.",
            "- {type: content_regex, path: report.md, pattern: '(?m)^## Summary'}",
            "Compare file and pattern: `mozartctl status JOB --verbose` shows both. `^` and `$` need `(?m)` to mean lines.",
        ),
        Code::E203 => (
            "The command of a rule exited with another code than 0.",
            "- {type: command_succeeds, command: cargo test}",
            "Run the command in the workspace by hand; its output is kept with the attempt.",
        ),
        Code::E204 => (
            "The command of a rule took longer than its `timeout_seconds` (300 where not said) and was ended.",
            "a test suite that hangs",
            "Give the rule a longer `timeout_seconds`, or a quicker command.",
        ),
        Code::E205 => (
            "The session ended well and said nothing at all.",
            "an empty result in the session's last event",
            "See `mozartctl logs JOB --sheet N`; a prompt that asks for nothing is the usual reason.",
        ),
        Code::E206 => (
            "The session could not use a tool, because nobody was there to permit it.",
            "backend: {skip_permissions: false}",
            "Set `skip_permissions: true`, or list the tool in `allowed_tools`.",
        ),
        Code::E207 => (
            "The session itself says that it did not finish.",
            "its last text tells what is left to do",
            "Give the sheet less work, or rules that say what finished means.",
        ),
        Code::E209 => (
            "Rules of the sheet failed, in more than one way.",
            "one file missing, another without its heading",
            "`mozartctl status JOB` shows each rule and why it failed.",
        ),
        Code::E301 => (
            "A field of the job file does not exist here, has the wrong type, or a value out of its bounds; or it is known \
             and not supported yet.",
            "retry: {max_retries: many}",
            "The report shows the place and what is wanted; `mozartctl schema` and mozart.yaml(5) have every field.",
        ),
        Code::E302 => (
            "A field that a job needs is missing.",
            "sheet: {size: 1}",
            "Add it. A job needs `name`, and `sheet` with `size` and `total_items`.",
        ),
        Code::E303 => (
            "A path cannot be used: it leaves the workspace, names an unknown placeholder or variable, or is no directory \
             where one is needed.",
            "validations: [{type: file_modified, path: ../x}]",
            "Write it relative to the workspace (rules) or to the job file (all else).",
        ),
        Code::E304 => (
            "The file is not YAML, or has the same key twice.",
            "name: twice",
            "Mend it at the place that is shown. Texts with `:`, `#`, `{` or `*` need quotes.",
        ),
        Code::E305 => (
            "The CLI cannot use its MCP configuration.",
            "a server of yours that does not start, with `disable_mcp: false`",
            "Mend the server, or set `disable_mcp: true`.",
        ),
        Code::E306 => (
            "The CLI refused its command line.",
            "backend: {cli_extra_args: [--no-such-flag]}",
            "Look at `cli_extra_args`, and at the CLI's version.",
        ),
        Code::E401 => (
            "What Mozart keeps about runs is damaged. The damaged ledger is kept beside a new one.",
            "a disk that lost a page of `ledger.db`",
            "`mozartctl resume job.yaml` takes each job up from its checkpoint.",
        ),
        Code::E402 => (
            "What Mozart keeps cannot be read.",
            "`ledger.db` belongs to another user",
            "Give the file back to yourself, or move it away.",
        ),
        Code::E403 => (
            "What Mozart keeps cannot be written.",
            "a state directory that is mounted read-only",
            "Make it writable; runs go on by themselves.",
        ),
        Code::E404 => (
            "What Mozart keeps was written by a newer version.",
            "an older `mozartd` after a newer one",
            "Install the newer version again.",
        ),
        Code::E501 => (
            "The API cannot be reached. The sheet is tried again.",
            "the network is down",
            "Nothing, if it comes back; otherwise look at proxy and network.",
        ),
        Code::E502 => (
            "The API does not know who asks. The run waits behind a question.",
            "a login that has run out",
            "Log in again, then `mozartctl answer` with `retry`.",
        ),
        Code::E503 => (
            "The answer of the API or the CLI cannot be understood.",
            "a session whose last event is cut off",
            "It is tried again. If it stays, update the CLI.",
        ),
        Code::E504 => (
            "The backend did not answer in time.",
            "a server behind an overloaded proxy",
            "It is tried again.",
        ),
        Code::E505 => (
            "The program of the backend is not there.",
            "backend: {cli_path: claud}",
            "Install it, put it on the PATH of the shell that calls `mozartctl run`, or name it in `cli_path`.",
        ),
        Code::E506 => (
            "The account has no credit. The run waits behind a question.",
            "a prepaid balance of zero",
            "Add credit, then `mozartctl answer` with `retry`.",
        ),
        Code::E507 => (
            "The backend does not know the model.",
            "backend: {cli_model: sonet}",
            "Correct `cli_model`, or leave it out.",
        ),
        Code::E508 => (
            "The model refused to answer.",
            "the session ended with the stop reason `refusal`",
            "Say in the prompt what the work is for, or change the task.",
        ),
        Code::E509 => (
            "The conversation or the answer does not fit into the model's window.",
            "a sheet that makes the session read a whole repository",
            "Make sheets smaller, or take a model with a larger window.",
        ),
        Code::E510 => (
            "The session used up the turns that it may take.",
            "backend: {cli_extra_args: [--max-turns, '5']}",
            "Allow more turns, or make the sheet smaller.",
        ),
        Code::E601 => (
            "The workspace, or a path that the attempt needs, is gone.",
            "the workspace was moved while the run was under way",
            "Put it back, then `mozartctl resume JOB`.",
        ),
        Code::E602 => (
            "The prompt of a sheet is large: from 50,000 tokens on a warning, above 150,000 an error unless the model's \
             window is larger.",
            "prompt: {template: '{% for i in range(50000) %}words {% endfor %}'}",
            "Name files instead of putting their text into the prompt, or make sheets smaller.",
        ),
        Code::E603 => (
            "The working directory cannot be entered.",
            "it was deleted after the run was accepted",
            "Make it again, then `mozartctl resume JOB`.",
        ),
        Code::E604 => (
            "A rule cannot be asked: an expression in it cannot be filled in, or what it needs is not there.",
            "validations: [{type: command_succeeds, command: 'echo {{ nobody }}'}]",
            "Mend the expression; the report names it.",
        ),
        Code::E701 => (
            "The sheet's budget is used up. The run waits behind a question.",
            "cost_limits: {enabled: true, max_cost_per_sheet: 1}",
            "`mozartctl answer`: `continue` gives as much again, `stop` ends it.",
        ),
        Code::E702 => (
            "The job's budget is used up. The run waits behind a question.",
            "cost_limits: {enabled: true, max_cost_per_job: 20}",
            "`mozartctl answer`: `continue` gives as much again, `stop` ends it.",
        ),
        Code::E703 => (
            "The budget of the day is used up; nothing starts before tomorrow.",
            "daily_budget_usd: 50 in the settings",
            "Wait, or raise it in the settings.",
        ),
        Code::E801 => (
            "There is no room on a disk that the attempt needs. It costs no attempt.",
            "a quota that is exceeded",
            "Make room; the run goes on within a second.",
        ),
        Code::E802 => (
            "The sheet was skipped, because one that it waits for failed.",
            "dependencies: {3: [2]}, and sheet 2 failed",
            "Mend what failed there, then `mozartctl resume JOB`.",
        ),
        Code::E803 => (
            "The run used up the time that it may run, waiting not counted.",
            "job_timeout_seconds: 86400 in the settings",
            "`mozartctl resume JOB` goes on; raise the setting for longer runs.",
        ),
        Code::E901 => (
            "The network failed. The sheet is tried again.",
            "a connection that was reset",
            "Nothing, if it passes.",
        ),
        Code::E902 => (
            "A name could not be resolved. The sheet is tried again.",
            "no DNS server answers",
            "Look at the network's DNS settings, if it stays.",
        ),
        Code::E903 => (
            "A secure connection could not be made.",
            "a proxy with a certificate of its own",
            "Make its certificate known to the CLI, for example with `NODE_EXTRA_CA_CERTS` in `pass_env`.",
        ),
        Code::E904 => (
            "The network did not answer in time. The sheet is tried again.",
            "a connection that hangs",
            "Nothing, if it passes.",
        ),
        Code::E999 => (
            "The attempt failed, and nothing tells why.",
            "an error that Mozart does not know",
            "Read `mozartctl logs JOB --sheet N`; a report of it would help to give it a code.",
        ),
    }
}
