//! Every example is planned without a problem, and the offline one is run by hand.

use crate::model::Ask;
use std::path::{Path, PathBuf};

use super::files::{Files, PathKind};
use super::plan::{Check, Plan};
use super::rules::rules_for;
use super::{JobInput, load, report};
use crate::prompt::compose;

/// The disk, also where the library is built without anything that does I/O.
struct TestDisk;

impl Files for TestDisk {
    fn read(&self, path: &Path) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|error| error.to_string())
    }

    fn kind(&self, path: &Path) -> PathKind {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => PathKind::Directory,
            Ok(_) => PathKind::File,
            Err(_) => PathKind::Missing,
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn plan(path: &Path, workspace: Option<&Path>) -> Plan {
    let text = std::fs::read(path).unwrap();
    let directory = directory();
    let input = JobInput {
        path: Some(path),
        workspace,
        ..JobInput::of(&text, &directory)
    };
    let loaded = load(&input, &TestDisk);
    let shown = report(
        &loaded.problems,
        &path.display().to_string(),
        &String::from_utf8_lossy(&text),
        false,
    );
    assert_eq!(shown, "", "an example has problems");
    loaded.plan.unwrap()
}

#[test]
fn every_example_is_planned_without_problems() {
    let mut count = 0;
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let plan = plan(&path, None);
            for sheet in &plan.sheets {
                assert!(!compose(&plan, sheet, Ask::Task, &[]).unwrap().is_empty());
            }
            count += 1;
        }
    }
    assert!(count >= 2);
}

/// What its sessions are told works, and its rules hold afterwards and not before.
#[test]
fn hello_does_what_its_rules_ask_for() {
    let workspace = tempfile::tempdir().unwrap();
    let workspace_path = workspace.path().canonicalize().unwrap();
    let plan = plan(&directory().join("hello.yaml"), Some(&workspace_path));
    let shell = |script: &str| {
        let output = std::process::Command::new("sh")
            .args(["-e", "-c", script])
            .current_dir(&workspace_path)
            .output()
            .unwrap();
        output.status.success()
    };
    for sheet in &plan.sheets {
        let rules = rules_for(&plan, sheet).unwrap();
        assert_eq!(rules.len(), if sheet.number == 3 { 6 } else { 5 });
        let holds = |check: &Check| match check {
            Check::CommandSucceeds { command, .. } => shell(command),
            Check::FileExists { path } | Check::FileModified { path } => Path::new(path).is_file(),
            Check::ContentContains { path, pattern } => {
                std::fs::read_to_string(path).is_ok_and(|text| text.contains(pattern))
            }
            Check::ContentRegex { path, pattern } => std::fs::read_to_string(path)
                .is_ok_and(|text| super::pattern::Pattern::new(pattern, false).unwrap().is_in(&text) == Ok(true)),
        };
        assert!(!holds(&rules[0].check) && !holds(&rules[2].check));
        assert!(shell(&compose(&plan, sheet, Ask::Task, &[]).unwrap()));
        for rule in &rules {
            assert!(holds(&rule.check), "sheet {}: {}", sheet.number, rule.description);
        }
    }
    let report = std::fs::read_to_string(workspace_path.join("report2.md")).unwrap();
    assert_eq!(report, "# Text 2 of 3\nwords: 5\n");
}
