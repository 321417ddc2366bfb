mod bad;
mod doubtful;
mod fields;
mod fuzz;
#[cfg(feature = "daemon")]
mod includes;
mod order;
mod reports;

use super::*;
use crate::job::files::Fake;

/// A small job without problems; tests add to it.
const GOOD: &str = "\
name: good
workspace: ./w
sheet: {size: 1, total_items: 2}
prompt: {template: 'Do {{ sheet_num }}'}
validations: [{type: command_succeeds, command: make check}]
";

fn files() -> Fake {
    Fake::new(&[
        ("/jobs/", ""),
        ("/jobs/a-file", "x"),
        ("/home/u/", ""),
        ("/jobs/t/main.j2", "Main {{ sheet_num }}\r\n{% include 'part.j2' %}\n"),
        ("/jobs/t/part.j2", "part\n"),
        ("/jobs/system.md", "Be kind."),
        ("/jobs/w/", ""),
        ("/jobs/w/there.md", "x"),
    ])
}

fn load_with(text: &str, change: impl FnOnce(&mut Fixture)) -> Loaded {
    let mut fixture = Fixture::default();
    change(&mut fixture);
    let input = JobInput {
        text: text.as_bytes(),
        path: Some(Path::new(&fixture.path)),
        base_directory: Path::new("/jobs"),
        submit_directory: Some(Path::new("/home/u")),
        workspace: fixture.workspace.as_deref(),
        set: &fixture.set,
        environment: &fixture.environment,
        priority: fixture.priority,
        default_thinking_method: fixture.thinking,
    };
    load(&input, &fixture.files)
}

struct Fixture {
    path: String,
    workspace: Option<PathBuf>,
    set: BTreeMap<String, String>,
    environment: BTreeMap<String, String>,
    priority: Option<u8>,
    thinking: Option<&'static str>,
    files: Fake,
}

impl Default for Fixture {
    fn default() -> Self {
        Self {
            path: "/jobs/job.yaml".to_owned(),
            workspace: None,
            set: BTreeMap::new(),
            environment: BTreeMap::from([("HOME".to_owned(), "/home/u".to_owned())]),
            priority: None,
            thinking: None,
            files: files(),
        }
    }
}

/// Problems in one line each: `ERROR V007 5:3 field: message; help`.
fn shown(loaded: &Loaded) -> Vec<String> {
    loaded
        .problems
        .iter()
        .map(|problem| {
            let place = match (problem.line, problem.column) {
                (Some(line), Some(column)) => format!("{line}:{column}"),
                _ => "-".to_owned(),
            };
            let severity = format!("{:?}", problem.severity).to_uppercase();
            let field = problem.context.clone().unwrap_or_default();
            let help = problem
                .suggestion
                .as_ref()
                .map_or(String::new(), |help| format!("; {help}"));
            format!(
                "{severity} {} {place} {field}: {}{help}",
                problem.check_id, problem.message
            )
        })
        .collect()
}

fn problems(text: &str) -> Vec<String> {
    shown(&load_with(text, |_| ()))
}

/// The plan of a job without errors.
fn plan(text: &str) -> Plan {
    let loaded = load_with(text, |_| ());
    let problems = shown(&loaded);
    loaded.plan.unwrap_or_else(|| panic!("{problems:#?}"))
}

/// The good job with `more` at its end.
fn plus(more: &str) -> String {
    format!("{GOOD}{more}\n")
}

/// The good job with one of its lines replaced by `line`.
fn with(key: &str, line: &str) -> String {
    let mut found = false;
    let lines: Vec<&str> = GOOD
        .lines()
        .map(|old| {
            let this = old.starts_with(&format!("{key}:"));
            found |= this;
            if this { line } else { old }
        })
        .collect();
    assert!(found, "{key}");
    format!("{}\n", lines.join("\n"))
}

#[test]
fn a_good_job_has_a_plan_and_no_problems() {
    let loaded = load_with(GOOD, |_| ());
    assert_eq!(shown(&loaded), Vec::<String>::new());
    let plan = loaded.plan.unwrap();
    assert_eq!(plan.name.as_str(), "good");
    assert_eq!(plan.workspace, "/jobs/w");
    assert_eq!(plan.checkpoint_path, "/jobs/w/good.json");
    assert_eq!(plan.sheets.len(), 2);
    assert_eq!(plan.hash.len(), 64);
    assert_eq!(plan.source, GOOD);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
}
