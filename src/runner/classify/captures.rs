//! Every captured output of the real CLI must be read as what it was. The captures are not part of the project: set
//! `MOZART_CAPTURES_DIR` to a directory of `<version>/<case>.<format>.{stdout,stderr,meta.json}`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::fixtures::{at, certificate, claude};
use super::*;
use crate::job::prices::Prices;
use crate::runner::backend::{Caps, Reader, Tariff};
use crate::runner::spec::Secrets;

/// What a case must be read as.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Read {
    Done,
    Failed(Cause, Code),
    /// Nothing was ever run.
    Skip,
}

use Cause::{Fatal, RateLimit, Transient, Validation};
use Read::{Done, Failed, Skip};

/// By name of the case, the first that fits; a star at the end stands for anything.
const EXPECTED: &[(&str, Read)] = &[
    // Nothing started: the argument is longer than the system allows.
    ("argv_131072", Skip),
    ("argv_14*", Skip),
    ("argv_2*", Skip),
    ("argv_*", Done),
    // Usage.
    ("badflag", Failed(Fatal, Code::E306)),
    ("emptyprompt", Failed(Fatal, Code::E306)),
    ("noprompt*", Failed(Fatal, Code::E306)),
    ("prompt_dash", Failed(Fatal, Code::E306)),
    ("sf_bypass_root", Failed(Fatal, Code::E306)),
    ("streamjson_noverbose", Failed(Fatal, Code::E306)),
    ("sjin_bad", Failed(Fatal, Code::E306)),
    ("sysprompt_file", Failed(Fatal, Code::E306)),
    ("sess_id_notuuid", Failed(Fatal, Code::E306)),
    ("sess_resume_and_id", Failed(Fatal, Code::E306)),
    ("sess_resume_notuuid", Failed(Fatal, Code::E306)),
    ("mcp_bad*", Failed(Fatal, Code::E305)),
    ("sf_badmcp", Failed(Fatal, Code::E305)),
    ("tmp_unwritable", Failed(Fatal, Code::E601)),
    ("stdin_12000000", Failed(Fatal, Code::E602)),
    // Sessions.
    ("sess_err_reuse", Failed(Transient, Code::E003)),
    ("sess_reuse_id*", Failed(Transient, Code::E003)),
    ("sess_resume_unknown", Failed(Transient, Code::E003)),
    ("sess_nopersist_resume", Failed(Transient, Code::E003)),
    ("sess_killedtool", Failed(Transient, Code::E002)),
    ("sess_limit_first", Failed(RateLimit, Code::E104)),
    ("sess_*", Done),
    // Signals.
    ("INT_*", Failed(Transient, Code::E003)),
    ("TERM_*", Failed(Transient, Code::E002)),
    ("sig_INT_*", Failed(Transient, Code::E003)),
    ("sig_*", Failed(Transient, Code::E002)),
    ("hang_firstbyte", Failed(Transient, Code::E002)),
    ("hangmid_apitimeout3s", Failed(Transient, Code::E002)),
    ("hangmid_idle5s", Failed(Transient, Code::E002)),
    ("ra_30", Failed(Transient, Code::E002)),
    ("ra_45", Failed(Transient, Code::E002)),
    // Limits.
    ("limit_*", Failed(RateLimit, Code::E104)),
    ("oauth_limit_*", Failed(RateLimit, Code::E104)),
    ("wd_limit*", Failed(RateLimit, Code::E104)),
    ("oauth_429plain", Failed(RateLimit, Code::E101)),
    ("r0_usagecap", Failed(RateLimit, Code::E105)),
    ("def_429_twice_then_ok", Done),
    ("def_429_*", Failed(RateLimit, Code::E101)),
    ("r0_429*", Failed(RateLimit, Code::E101)),
    ("ra_*", Failed(RateLimit, Code::E101)),
    ("sjin_429", Failed(RateLimit, Code::E101)),
    // The API.
    ("def_500_twice_then_ok", Done),
    ("def_529_twice_then_ok", Done),
    ("def_529", Failed(Transient, Code::E103)),
    ("r0_529", Failed(Transient, Code::E103)),
    ("r2_529", Failed(Transient, Code::E103)),
    ("fallback_529", Failed(Transient, Code::E103)),
    ("r0_500", Failed(Transient, Code::E503)),
    ("r0_502html", Failed(Transient, Code::E503)),
    ("r0_badjson", Failed(Transient, Code::E503)),
    ("r0_garbage200", Failed(Transient, Code::E503)),
    ("def_504", Failed(Transient, Code::E504)),
    ("r0_504", Failed(Transient, Code::E504)),
    ("hang_apitimeout3s", Failed(Transient, Code::E504)),
    ("hang_default", Failed(Transient, Code::E504)),
    ("def_drop", Failed(Transient, Code::E501)),
    ("r0_drop", Failed(Transient, Code::E501)),
    ("r0_drop_how-fin", Failed(Transient, Code::E501)),
    ("dropmid_nofallback", Failed(Transient, Code::E501)),
    ("def_serverdown", Failed(Transient, Code::E501)),
    ("r2_serverdown", Failed(Transient, Code::E501)),
    ("down", Failed(Transient, Code::E501)),
    ("def_401", Failed(Fatal, Code::E502)),
    ("def_403", Failed(Fatal, Code::E502)),
    ("r0_401*", Failed(Fatal, Code::E502)),
    ("r0_403*", Failed(Fatal, Code::E502)),
    ("oauth_403revoked", Failed(Fatal, Code::E502)),
    ("noauth", Failed(Fatal, Code::E502)),
    ("r0_orgdisabled", Failed(Fatal, Code::E502)),
    ("def_credit", Failed(Fatal, Code::E506)),
    ("r0_credit", Failed(Fatal, Code::E506)),
    ("r0_402", Failed(Fatal, Code::E506)),
    ("model_404", Failed(Fatal, Code::E507)),
    ("r0_refusal", Failed(Fatal, Code::E508)),
    ("def_400long", Failed(Fatal, Code::E509)),
    ("r0_400long", Failed(Fatal, Code::E509)),
    ("r0_413", Failed(Fatal, Code::E509)),
    ("r0_ctxwindow", Failed(Fatal, Code::E509)),
    ("r0_maxtokens", Failed(Fatal, Code::E509)),
    ("max_output_tokens", Failed(Fatal, Code::E509)),
    ("stdin_5000000", Failed(Fatal, Code::E509)),
    ("stdin_9900000", Failed(Fatal, Code::E509)),
    ("r0_400", Failed(Fatal, Code::E503)),
    ("maxturns*", Failed(Validation, Code::E510)),
    ("budget", Failed(Fatal, Code::E701)),
    // Without a rule, denials and empty answers fail.
    ("tool_bash_default", Failed(Validation, Code::E206)),
    ("tool_bash_allowed_git_only", Failed(Validation, Code::E206)),
    ("tool_write_dontask", Failed(Validation, Code::E206)),
    ("tool_write_plan", Failed(Validation, Code::E206)),
    ("r0_empty", Failed(Validation, Code::E205)),
    ("slash_bare", Failed(Validation, Code::E205)),
    ("prompt_slash", Done),
    ("prompt_slash_*", Failed(Validation, Code::E205)),
    // What ended well.
    ("tool_*", Done),
    ("slash_*", Done),
    ("prompt_*", Done),
    ("stdin_*", Done),
    ("model_*", Done),
    ("oauth_*", Done),
    ("no_*", Done),
    ("wd_*", Done),
    ("r50_500", Done),
    ("r0_badtool", Done),
    ("r0_dropmid*", Done),
    ("r0_errmid", Done),
    ("r0_multiline", Done),
    ("r0_ok", Done),
    ("r0_slow*", Done),
    ("hangmid_*", Done),
    ("adddir_missing", Done),
    ("allowed*", Done),
    ("append_sys", Done),
    ("authtoken", Done),
    ("bare", Done),
    ("baseurl_slash", Done),
    ("bg_bash_left", Done),
    ("home_ro_nobody", Done),
    ("jsonschema", Done),
    ("mcp_failing", Done),
    ("nested", Done),
    ("nontraffic_off", Done),
    ("ok", Done),
    ("partial", Done),
    ("schema_ok", Done),
    ("sjin_two", Done),
    ("system_prompt", Done),
    ("warn", Done),
    ("write", Done),
];

/// Where a version differs.
const OF_A_VERSION: &[(&str, &str, Read)] = &[
    // It told every 429 of a subscriber as a usage limit, without a time.
    ("1.0.83", "oauth429", Failed(RateLimit, Code::E104)),
    ("", "oauth429", Failed(RateLimit, Code::E101)),
];

fn expected(version: &str, case: &str) -> Option<Read> {
    let of_version = OF_A_VERSION
        .iter()
        .find(|(of, name, _)| version.starts_with(of) && *name == case);
    if let Some((_, _, read)) = of_version {
        return Some(*read);
    }
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => case.starts_with(prefix),
        None => case == pattern,
    };
    EXPECTED
        .iter()
        .find(|(pattern, _)| fits(pattern))
        .map(|(_, read)| *read)
}

/// The directory of the captures, where one is set; else says that the test is skipped.
fn captures() -> Option<PathBuf> {
    let directory = std::env::var_os("MOZART_CAPTURES_DIR").map(PathBuf::from);
    if directory.is_none() {
        // Past the harness, which shows no output of a test that passes.
        let text = "SKIPPED: MOZART_CAPTURES_DIR is not set, no captured output is read\n";
        std::io::stderr().write_all(text.as_bytes()).ok();
    }
    directory
}

fn files(directory: &Path, ending: &str) -> Vec<(String, String, PathBuf)> {
    let mut found = Vec::new();
    for version in std::fs::read_dir(directory).unwrap() {
        let version = version.unwrap();
        for file in std::fs::read_dir(version.path()).unwrap() {
            let file = file.unwrap();
            if let Some(case) = file.file_name().to_str().unwrap().strip_suffix(ending) {
                let base = version.path().join(case);
                found.push((version.file_name().into_string().unwrap(), case.to_owned(), base));
            }
        }
    }
    found.sort();
    found
}

fn with_ending(base: &Path, ending: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

#[test]
fn captured_output_is_read_as_what_it_was() {
    let Some(directory) = captures() else { return };
    let now = at("2026-11-21T00:30:00Z");
    let backend = claude();
    let (mut read, mut wrong) = (0, Vec::new());
    for (version, name, base) in files(&directory, ".meta.json") {
        let (case, format) = name.rsplit_once('.').unwrap();
        if format == "text" {
            continue;
        }
        let meta: serde_json::Value =
            serde_json::from_slice(&std::fs::read(with_ending(&base, ".meta.json")).unwrap()).unwrap();
        let Some(expected) = expected(&version, case) else {
            wrong.push(format!("{version}/{name}: no expectation"));
            continue;
        };
        if expected == Skip {
            assert!(
                meta["exit_code"].is_null() && meta["signal"].is_null(),
                "{version}/{name} did run"
            );
            continue;
        }
        let certificate = match (meta["exit_code"].as_i64(), meta["signal"].as_str()) {
            (Some(code), _) => certificate(Exit::Code(code as i32), if code == 0 { "success" } else { "exit-code" }),
            (None, Some("SIGKILL")) => certificate(Exit::Signal(9), "signal"),
            other => panic!("{version}/{name}: {other:?}"),
        };
        let stdout = std::fs::read(with_ending(&base, ".stdout")).unwrap();
        let stderr = std::fs::read(with_ending(&base, ".stderr")).unwrap();
        let report = |chunk: usize| {
            let mut reader = Reader::new(&backend);
            stdout.chunks(chunk).for_each(|chunk| reader.feed(chunk));
            let secrets = Secrets::default();
            let prices = Prices::packaged();
            let caps = Caps {
                tail_bytes: 10240,
                resumed: false,
                earlier_cost: None,
                tariff: Tariff {
                    own: None,
                    prices: &prices,
                },
                secrets: &secrets,
            };
            reader.finish(&certificate, &stderr, caps)
        };
        let session = report(usize::MAX);
        assert_eq!(session, report(7), "{version}/{name}: chunks matter");
        let outcome = classify(&ClassifyInput {
            started_as: "ours",
            backend: &backend,
            patterns: &[],
            certificate: &certificate,
            session: &session,
            validation: &ValidationReport::default(),
            now,
            timezone: Some("UTC"),
        });
        let got = outcome
            .failure
            .as_ref()
            .map_or(Done, |failure| Failed(failure.cause, failure.code));
        if got != expected {
            wrong.push(format!(
                "{version}/{name}: expected {expected:?}, got {got:?} {:?}",
                outcome.failure
            ));
        }
        if let Some(reset) = resets_at(&stdout) {
            let limit = outcome.failure.and_then(|failure| failure.limit);
            if got != Done && limit.and_then(|limit| limit.resets_at) != Some(reset) {
                wrong.push(format!("{version}/{name}: another reset than {}", reset.to_rfc3339()));
            }
        }
        read += 1;
    }
    println!("{read} captures read");
    assert!(
        wrong.is_empty(),
        "{} of {read} captures are read wrongly:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(read > 300, "only {read} captures in {}", directory.display());
}

/// The reset of the last rejection in a stream, found without the reader.
fn resets_at(stdout: &[u8]) -> Option<Timestamp> {
    let text = String::from_utf8_lossy(stdout);
    let line = text
        .lines()
        .rev()
        .find(|line| line.starts_with(r#"{"type":"rate_limit_event""#) && line.contains("rejected"))?;
    let seconds = line.split_once("\"resetsAt\":")?.1.split([',', '}']).next()?;
    Some(Timestamp::from_seconds(seconds.parse().ok()?))
}

/// The text format has no fields at all: the limit must be found in the words.
#[test]
fn captured_texts_of_limits_are_found() {
    let Some(directory) = captures() else { return };
    let now = at("2026-11-21T00:30:00Z");
    let (mut read, mut wrong) = (0, Vec::new());
    for (version, name, base) in files(&directory, ".text.stdout") {
        let text = std::fs::read_to_string(with_ending(&base, ".text.stdout")).unwrap();
        let limit = limits::find(&text, now, Some("UTC"));
        // "limit" alone: told as one by a version that tells every 429 so, or a cap of money.
        let is_limit = name.contains("limit") && name != "oauth_429plain" || name == "r0_usagecap";
        let is_limit = is_limit || version == "1.0.83" && name == "oauth429";
        let has_time = is_limit && !name.contains("noreset") && name != "oauth429";
        if limit.is_some() != is_limit || limit.and_then(|limit| limit.resets_at).is_some() != has_time {
            wrong.push(format!("{version}/{name}: {}", text.trim()));
        }
        read += 1;
    }
    assert!(wrong.is_empty(), "wrong of {read}:\n{}", wrong.join("\n"));
}
