//! Attempts to judge, and lines in the shapes of the CLI.

use serde_json::{Value, json};

use super::*;
use crate::job::plan::ClaudeCli;
use crate::job::prices::Prices;
use crate::model::RuleResult;
use crate::runner::backend::{Caps, Reader, Tariff};
use crate::runner::spec::Secrets;

pub(super) fn at(text: &str) -> Timestamp {
    Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

pub(super) fn certificate(exit: Exit, result: &str) -> Certificate {
    Certificate {
        exit,
        result: result.to_owned(),
        wall: None,
        cpu: None,
        peak_memory: None,
        stopped_by_us: false,
    }
}

pub(super) fn claude() -> BackendKind {
    BackendKind::ClaudeCli(ClaudeCli {
        cli_path: "claude".to_owned(),
        skip_permissions: true,
        disable_mcp: true,
        output_format: "text".to_owned(),
        model: None,
        allowed_tools: Vec::new(),
        system_prompt: None,
        extra_args: Vec::new(),
    })
}

pub(super) fn command() -> BackendKind {
    BackendKind::Command {
        command: vec!["tool".to_owned()],
    }
}

/// An attempt to judge: what its process did and printed, and what validation found.
pub(super) struct Attempt {
    pub(super) backend: BackendKind,
    pub(super) certificate: Certificate,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    pub(super) validation: ValidationReport,
    pub(super) patterns: Vec<String>,
}

impl Attempt {
    pub(super) fn exits(code: i32) -> Self {
        let result = if code == 0 { "success" } else { "exit-code" };
        Self {
            backend: claude(),
            certificate: certificate(Exit::Code(code), result),
            stdout: Vec::new(),
            stderr: String::new(),
            validation: ValidationReport::default(),
            patterns: Vec::new(),
        }
    }

    pub(super) fn ends(exit: Exit, result: &str) -> Self {
        Self {
            certificate: certificate(exit, result),
            ..Self::exits(0)
        }
    }

    pub(super) fn of(mut self, backend: BackendKind) -> Self {
        self.backend = backend;
        self
    }

    pub(super) fn prints(mut self, events: &[Value]) -> Self {
        for event in events {
            self.stdout.extend_from_slice(event.to_string().as_bytes());
            self.stdout.push(b'\n');
        }
        self
    }

    pub(super) fn stderr(mut self, text: &str) -> Self {
        text.clone_into(&mut self.stderr);
        self
    }

    pub(super) fn stopped_by_us(mut self) -> Self {
        self.certificate.stopped_by_us = true;
        self
    }

    pub(super) fn rules(mut self, rules: &[(bool, Option<Code>, Option<&str>)]) -> Self {
        for (index, (passed, code, category)) in rules.iter().enumerate() {
            self.validation.rules.push(RuleResult {
                rule: index as u32,
                kind: "file_exists".to_owned(),
                description: format!("rule {index}"),
                path: None,
                pattern: None,
                passed: *passed,
                actual: None,
                expected: None,
                reason: (!passed).then(|| "it is not there".to_owned()),
                category: category.map(str::to_owned),
                hint: None,
                checked_at: Timestamp(0),
                duration_ms: 0,
                code: *code,
            });
        }
        self
    }

    pub(super) fn patterns(mut self, patterns: &[&str]) -> Self {
        self.patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        self
    }

    pub(super) fn report(&self) -> SessionReport {
        let mut reader = Reader::new(&self.backend);
        reader.feed(&self.stdout);
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
        reader.finish(&self.certificate, self.stderr.as_bytes(), caps)
    }

    pub(super) fn outcome(&self) -> Outcome {
        classify(&ClassifyInput {
            started_as: "ours",
            backend: &self.backend,
            patterns: &self.patterns,
            certificate: &self.certificate,
            session: &self.report(),
            validation: &self.validation,
            now: at("2026-11-21T00:30:00Z"),
            timezone: Some("UTC"),
        })
    }

    pub(super) fn failure(&self) -> Failure {
        self.outcome().failure.expect("it failed")
    }

    #[track_caller]
    pub(super) fn is(&self, cause: Cause, code: Code) -> Outcome {
        let outcome = self.outcome();
        let failure = outcome.failure.as_ref();
        assert_eq!(
            failure.map(|failure| (failure.cause, failure.code)),
            Some((cause, code)),
            "{failure:?}"
        );
        let message = &failure.unwrap().message;
        assert!(
            message.ends_with('.') && !message.ends_with("..") && !message.contains('\n'),
            "{message}"
        );
        outcome
    }

    #[track_caller]
    pub(super) fn is_done(&self) -> Outcome {
        let outcome = self.outcome();
        assert_eq!(outcome.failure, None);
        outcome
    }
}

pub(super) fn init() -> Value {
    json!({"type": "system", "subtype": "init", "session_id": "5f0c", "model": "claude-opus-5-5", "claude_code_version": "2.1.329"})
}

pub(super) fn says(text: &str) -> Value {
    json!({"type": "assistant", "parent_tool_use_id": null,
           "message": {"id": format!("m-{text}"), "model": "claude-opus-5-5", "content": [{"type": "text", "text": text}]}})
}

pub(super) fn calls(tool: &str) -> Value {
    json!({"type": "assistant", "message": {"id": "m-tool", "model": "claude-opus-5-5",
           "content": [{"type": "tool_use", "id": "t1", "name": tool, "input": {"command": "true"}}]}})
}

pub(super) fn done(text: &str) -> Value {
    json!({"type": "result", "subtype": "success", "is_error": false, "result": text, "num_turns": 1, "session_id": "5f0c",
           "terminal_reason": "completed", "stop_reason": "end_turn", "total_cost_usd": 0.25, "permission_denials": []})
}

/// An API error in the shape of 2.1.329: a synthetic message and a result that calls itself a success.
pub(super) fn api_error(class: &str, status: Option<u16>, text: &str, more: Value) -> Vec<Value> {
    let mut message = json!({"type": "assistant", "is_api_error_message": true, "error": class, "api_error_status": status,
        "message": {"model": "<synthetic>", "content": [{"type": "text", "text": text}]}});
    let mut result = json!({"type": "result", "subtype": "success", "is_error": true, "result": text, "num_turns": 1,
        "api_error_status": status, "terminal_reason": "api_error", "stop_reason": "stop_sequence", "total_cost_usd": 0});
    for (name, value) in more.as_object().unwrap() {
        let event = if name == "api_error" { &mut message } else { &mut result };
        event[name] = value.clone();
    }
    vec![init(), message, result]
}

/// The result of an old version: no fields but the text.
pub(super) fn old_error(text: &str) -> Vec<Value> {
    vec![
        json!({"type": "result", "subtype": "success", "is_error": true, "result": text, "num_turns": 1, "total_cost_usd": 0}),
    ]
}

pub(super) fn rejected(info: Value) -> Value {
    let mut info = info;
    info["status"] = json!("rejected");
    json!({"type": "rate_limit_event", "rate_limit_info": info})
}
