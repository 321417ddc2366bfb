//! Job files written for the Python Mozart, with what it made of them: `MOZART_SCORES_DIR` names a directory of
//! `NAME.yaml` and `NAME.expected.json`.

use std::path::PathBuf;

use serde_json::Value as Json;

use super::super::template::with_template;
use super::*;
use crate::job::placeholder::{Place, expand};
use crate::job::plan::{Append, Check, SheetRange, TemplateEngine};
use crate::job::rules::rules_for;
use crate::job::yaml::{self, Node};
use crate::job::{JobInput, preview};
use crate::model::SheetNo;

fn scores() -> Vec<(String, Node, Json)> {
    let Some(directory) = std::env::var_os("MOZART_SCORES_DIR").map(PathBuf::from) else {
        println!("skipped: MOZART_SCORES_DIR is not set");
        return Vec::new();
    };
    let mut scores: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let root = yaml::read(&std::fs::read(&path).unwrap()).unwrap().root;
            let expected = std::fs::read(path.with_extension("expected.json")).unwrap();
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                root,
                serde_json::from_slice(&expected).unwrap(),
            )
        })
        .collect();
    scores.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(!scores.is_empty(), "no score in MOZART_SCORES_DIR");
    scores
}

fn prompt_of(root: &Node) -> Prompt {
    let text = |field: &str| root.get_path(field).and_then(Node::text).unwrap_or_default().to_owned();
    let variables = root
        .get_path("prompt.variables")
        .and_then(Node::map)
        .unwrap_or_default();
    Prompt {
        template: text("prompt.template"),
        template_name: "prompt.template".into(),
        engine: TemplateEngine::Jinja,
        includes: BTreeMap::new(),
        variables: variables
            .iter()
            .map(|(key, value)| (key.text().unwrap().to_owned(), value.to_value()))
            .collect(),
        stakes: text("prompt.stakes"),
        thinking_method: text("prompt.thinking_method"),
        append: Append {
            requirements: true,
            lessons: true,
            advice: true,
        },
        extensions: Vec::new(),
    }
}

/// The variables that the expected file gives for a sheet.
fn variables_for(prompt: &Prompt, expected: &Json, history: bool) -> BTreeMap<String, Value> {
    let number = |name: &str| Value::Int(expected[name].as_i64().unwrap());
    let sheet = expected["sheet_num"].as_i64().unwrap();
    let mut variables = BTreeMap::new();
    for name in [
        "sheet_num",
        "total_sheets",
        "start_item",
        "end_item",
        "stage",
        "instance",
        "fan_count",
        "total_stages",
    ] {
        variables.insert(name.to_owned(), number(name));
    }
    variables.insert("batch_num".to_owned(), number("sheet_num"));
    variables.insert("total_batches".to_owned(), number("total_sheets"));
    variables.insert(
        "workspace".to_owned(),
        Value::Text(expected["workspace"].as_str().unwrap().to_owned()),
    );
    let earlier = if history { 1..sheet } else { 1..1 };
    let outputs = earlier
        .clone()
        .map(|i| (Value::Int(i), Value::Text(format!("output of sheet {i}"))));
    let files = earlier.map(|i| (Value::Text(format!("file{i}.md")), Value::Text(format!("content {i}"))));
    variables.insert("previous_outputs".to_owned(), Value::Map(outputs.collect()));
    variables.insert("previous_files".to_owned(), Value::Map(files.collect()));
    variables.extend(prompt.variables.clone());
    variables.insert("stakes".to_owned(), Value::Text(prompt.stakes.clone()));
    variables.insert(
        "thinking_method".to_owned(),
        Value::Text(prompt.thinking_method.clone()),
    );
    variables
}

/// Byte for byte what Python rendered, with and without history.
#[test]
fn scores_render_as_in_python() {
    for (name, root, expected) in scores() {
        let prompt = prompt_of(&root);
        for sheet in expected["sheets"].as_array().unwrap() {
            let with_history = sheet["prompt"].as_str().unwrap();
            let without = sheet["prompt_without_history"].as_str().unwrap_or(with_history);
            for (history, text) in [(true, with_history), (false, without)] {
                let variables = variables_for(&prompt, sheet, history);
                let rendered = with_template(&prompt, TemplateEngine::Jinja, |template| template.render(&variables));
                assert_eq!(
                    rendered.and_then(|text| text).as_deref(),
                    Ok(text),
                    "{name} sheet {}",
                    sheet["sheet_num"]
                );
            }
        }
    }
}

/// Paths, patterns and commands of the first and the last sheet.
#[test]
fn placeholders_of_scores_are_filled_in_as_in_python() {
    let mut compared = 0;
    for (name, root, expected) in scores() {
        let prompt = prompt_of(&root);
        let rules = root.get("validations").and_then(Node::list).unwrap_or_default();
        for sheet in expected["sheets"].as_array().unwrap() {
            let variables = variables_for(&prompt, sheet, true);
            for (rule, filled) in rules
                .iter()
                .zip(sheet["validations_expanded"].as_array().into_iter().flatten())
            {
                for (field, place) in [
                    ("path", Place::Path),
                    ("command", Place::Command),
                    ("pattern", Place::Pattern),
                ] {
                    let (Some(written), Some(filled)) = (rule.get(field).and_then(Node::text), filled[field].as_str())
                    else {
                        continue;
                    };
                    // Python left expressions as they are.
                    let filled = filled.replace("{{ project_root }}", "/path/to/your/project");
                    assert_eq!(
                        expand(written, &variables, place).as_deref(),
                        Ok(filled.as_str()),
                        "{name}"
                    );
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} compared");
}

/// Each has a plan with Python's sheets, prompts and rules, also after it was stored, and no rule of it is doubted in vain.
#[test]
fn scores_are_planned_as_in_python() {
    let (mut planned, mut compared, mut doubted) = (0, 0, Vec::new());
    for (name, _, expected) in scores() {
        let path = Path::new(&std::env::var_os("MOZART_SCORES_DIR").unwrap()).join(format!("{name}.yaml"));
        let text = std::fs::read(&path).unwrap();
        let files = Fake::new(&[("/srv/", ""), ("/srv/space/", ""), ("/srv/scores/", "")]);
        let loaded = preview(
            &JobInput {
                workspace: Some(Path::new("/srv/space")),
                ..JobInput::of(&text, Path::new("/srv/scores"))
            },
            &files,
        );
        let plan = loaded.plan.unwrap_or_else(|| panic!("{name}: {:#?}", loaded.problems));
        let doubts = loaded.problems.iter().map(|problem| problem.check_id.as_str());
        let doubts = doubts.filter(|code| ("V213".."V218").contains(code));
        doubted.extend(doubts.map(|code| format!("{name} {code}")));
        // As a conductor has it that was started anew.
        let plan: Plan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        planned += 1;
        assert_eq!(plan.sheets.len() as u64, expected["total_sheets"].as_u64().unwrap());
        let needs = |sheet: u32| -> Vec<u64> {
            let needs = plan
                .dependencies
                .iter()
                .filter_map(|dependency| dependency.needs(SheetNo(sheet)));
            let mut needs: Vec<u64> = needs.flat_map(SheetRange::sheets).map(|sheet| sheet.0.into()).collect();
            needs.sort_unstable();
            needs
        };
        for (sheet, wanted) in plan.sheets.iter().zip(expected["sheets"].as_array().unwrap()) {
            let waits = &expected["dependencies"][sheet.number.to_string()];
            let waits: Vec<u64> = waits
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Json::as_u64)
                .collect();
            assert_eq!(needs(sheet.number), waits, "{name} sheet {}", sheet.number);
            for (field, value) in [
                ("start_item", sheet.start_item),
                ("end_item", sheet.end_item),
                ("stage", sheet.stage.into()),
                ("instance", sheet.instance.into()),
                ("fan_count", sheet.fan_count.into()),
            ] {
                assert_eq!(
                    wanted[field].as_i64(),
                    Some(value),
                    "{name} sheet {}: {field}",
                    sheet.number
                );
            }
        }
        for (sheet, expected) in plan.sheets.iter().zip(expected["sheets"].as_array().unwrap()) {
            let variables = variables(&plan, sheet);
            let rendered = with_template(&plan.prompt, plan.prompt.engine, |template| template.render(&variables));
            let wanted = expected["prompt_without_history"]
                .as_str()
                .or(expected["prompt"].as_str())
                .unwrap();
            assert_eq!(rendered.and_then(|text| text).as_deref(), Ok(wanted), "{name}");
            for rule in rules_for(&plan, sheet).unwrap() {
                let filled = &expected["validations_expanded"][usize::try_from(rule.index).unwrap()];
                let (pattern, command) = match &rule.check {
                    Check::ContentContains { pattern, .. } | Check::ContentRegex { pattern, .. } => {
                        (Some(pattern), None)
                    }
                    Check::CommandSucceeds { command, .. } => (None, Some(command)),
                    Check::FileExists { .. } | Check::FileModified { .. } => (None, None),
                };
                let path = rule.check.path().map(str::to_owned);
                for (field, found) in [("path", path.as_ref()), ("pattern", pattern), ("command", command)] {
                    let Some(filled) = filled[field].as_str() else { continue };
                    // Python left expressions as they are, and paths relative.
                    let filled = filled.replace("{{ project_root }}", "/path/to/your/project");
                    let filled = match field {
                        "path" => Path::new(&plan.workspace).join(filled).to_string_lossy().into_owned(),
                        _ => filled,
                    };
                    assert_eq!(found, Some(&filled), "{name} sheet {}: {field}", sheet.number);
                    compared += 1;
                }
            }
        }
    }
    if planned > 0 {
        assert!(
            planned >= 14 && compared > 100,
            "{planned} planned, {compared} compared"
        );
        // Its sheet 2 is not done before the file of sheet 1 is there, which runs at the same time.
        doubted.dedup();
        assert_eq!(doubted, ["fix-observability V213"], "false alarms");
    }
}
