//! The environment of a session: built, never inherited. And the account that it uses.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use crate::job::plan::BackendKind;
use crate::model::AccountId;
use crate::runner::spec::AttemptSpec;

/// Variables of the submitter that a `claude_cli` session gets without naming them in `pass_env`.
pub const CLI_PASSES: &[&str] = &[
    "ANTHROPIC_BASE_URL",
    "CLAUDE_CONFIG_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
];

/// Variables of a `claude_cli` session that hold a secret: they come from the conductor's environment or its
/// credentials at each start, and are never stored.
pub const SECRETS: &[&str] = &["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"];

/// What a session of the CLI sets for its children; a job submitted from inside one must not hand them on.
const OF_ANOTHER_SESSION: &[&str] = &[
    "CLAUDECODE",
    "CLAUDE_CODE_SESSION_ID",
    "CLAUDE_CODE_ENTRYPOINT",
    "CLAUDE_CODE_SSE_PORT",
    "CLAUDE_PID",
];

const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// The user as the password database knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passwd {
    /// Home directory.
    pub home: String,
    /// Login name.
    pub user: String,
    /// Login shell.
    pub shell: String,
    /// User id.
    pub uid: u32,
}

/// The whole environment of an attempt's process, secrets left out (the launcher adds those).
///
/// A later source wins: the password database; PATH, LANG, LC_*, TZ as they were where the job was submitted; what
/// the backend passes by itself ([`CLI_PASSES`]); the conductor's settings; the names in `pass_env`; what the backend
/// needs; `backend.env`.
pub fn environment(spec: &AttemptSpec, passwd: &Passwd) -> BTreeMap<String, String> {
    let backend = &spec.plan.backend;
    let submitted = &spec.context.environment;
    let cli = super::claude(&backend.kind);

    let mut env: BTreeMap<String, String> = [
        ("HOME", &passwd.home),
        ("USER", &passwd.user),
        ("LOGNAME", &passwd.user),
        ("SHELL", &passwd.shell),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.clone()))
    .collect();

    let travels = |name: &str| {
        matches!(name, "PATH" | "LANG" | "LANGUAGE" | "TZ")
            || name.starts_with("LC_")
            || cli.is_some() && CLI_PASSES.contains(&name)
    };
    env.extend(
        submitted
            .iter()
            .filter(|(name, _)| travels(name))
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    env.extend(spec.extra_env.iter().map(|(name, value)| (name.clone(), value.clone())));
    for name in &backend.pass_env {
        if let Some(value) = submitted
            .get(name)
            .filter(|_| !OF_ANOTHER_SESSION.contains(&name.as_str()))
        {
            env.insert(name.clone(), value.clone());
        }
    }
    env.extend(super::command_line(spec).env);
    // The CLI refuses `--dangerously-skip-permissions` to root outside of a sandbox. The job asked for it, so that
    // root's sessions work like anybody's; to refuse root is not Mozart's to decide.
    if passwd.uid == 0 && cli.is_some_and(|cli| cli.skip_permissions) {
        env.insert("IS_SANDBOX".to_owned(), "1".to_owned());
    }
    env.extend(backend.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    env.retain(|name, _| !spec.secrets.0.contains_key(name));
    env
}

/// Whose limit and money the sessions of this backend use; `None` where there is no account (`command`).
///
/// `env` is what the session will have (base URL, config directory, HOME), `secret_names` the names of secrets that
/// it will be given. The id holds the backend, the base URL's host and a digest of *where* the credential comes from,
/// in the order in which the CLI looks for one; never of the credential itself, so that it may be stored and shown.
pub fn account(
    kind: &BackendKind,
    env: &BTreeMap<String, String>,
    secret_names: &BTreeSet<String>,
) -> Option<AccountId> {
    super::claude(kind)?;
    let value = |name: &str| env.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let given = |name: &str| secret_names.contains(name) || value(name).is_some();
    let base_url = value("ANTHROPIC_BASE_URL")
        .unwrap_or(DEFAULT_BASE_URL)
        .trim_end_matches('/');

    let source = if let Some(cloud) = [
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "CLAUDE_CODE_USE_FOUNDRY",
    ]
    .into_iter()
    .find(|name| given(name))
    {
        format!("cloud {cloud}")
    } else if let Some(name) = ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]
        .into_iter()
        .find(|name| given(name))
    {
        format!("variable {name}")
    } else {
        match value("CLAUDE_CONFIG_DIR") {
            Some(directory) => format!("login in {directory}"),
            None => format!("login in {}/.claude", value("HOME").unwrap_or("~")),
        }
    };
    let digest = Sha256::digest(format!("{base_url}\n{source}"));
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Some(AccountId(format!("{}:{}:{digest}", kind.as_str(), host(base_url))))
}

/// Host and port of a URL; what else may stand in one (a password, a token in the query) is left out.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
