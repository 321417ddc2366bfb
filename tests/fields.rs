//! Every field of the job file that is said to work has a test that shows it: a comment `// field: NAME` directly
//! above the test claims the field, tests/fields.txt lists them all, and tests/FIELDS.md is the table of both.
//! A test below src/job shows only that the field is read; another one must show what it does. A field without such
//! a test, a claim for a field that is not listed, or a stale table fails.
//! `MOZART_WRITE=1 cargo test --test main fields` writes the table anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Tests below it know what a job file says, not what comes of it.
const READING: &str = "src/job/";

/// Where tests live.
const ROOTS: [&str; 2] = ["src", "tests"];

#[test]
fn every_field_has_a_test_and_the_table_says_which() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let list = read("tests/fields.txt");
    let fields = || list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    // For each field the tests that show its effect, and those that show that it is read.
    let mut table: BTreeMap<&str, (Vec<String>, Vec<String>)> =
        fields().map(|field| (field, Default::default())).collect();
    assert_eq!(table.len(), fields().count(), "tests/fields.txt names a field twice");

    let mut unknown = Vec::new();
    for path in ROOTS.iter().flat_map(|directory| rust_files(&root.join(directory))) {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        let shown = path
            .strip_prefix(root)
            .expect("it was found below the root")
            .display()
            .to_string();
        for (field, test) in claims(&text) {
            match table.get_mut(field.as_str()) {
                Some((_, read)) if shown.starts_with(READING) => read.push(format!("`{test}` in {shown}")),
                Some((effect, _)) => effect.push(format!("`{test}` in {shown}")),
                None => unknown.push(format!("{shown}: {field} (above {test})")),
            }
        }
    }

    let mut markdown = "# Which test shows which field\n\nMade by tests/fields.rs; see there.\n\n| field | its effect is shown by | that it is read, by |\n| --- | --- | --- |\n".to_owned();
    for (field, (effect, read)) in &mut table {
        effect.sort();
        read.sort();
        markdown += &format!("| {field} | {} | {} |\n", effect.join(", "), read.join(", "));
    }
    if std::env::var_os("MOZART_WRITE").is_some() {
        fs::write(root.join("tests/FIELDS.md"), &markdown).expect("the checkout is writable");
    }
    let gaps: Vec<_> = table
        .iter()
        .filter(|(_, (effect, _))| effect.is_empty())
        .map(|(field, _)| *field)
        .collect();
    assert!(unknown.is_empty(), "claimed, but not in tests/fields.txt: {unknown:#?}");
    assert!(gaps.is_empty(), "no test shows what these fields do: {gaps:#?}");
    assert!(
        read("tests/FIELDS.md") == markdown,
        "tests/FIELDS.md is stale; write it anew with MOZART_WRITE=1"
    );
}

/// What has its effect, by the JSON Schema, is in the list, and what is in the list is a field.
#[test]
fn the_list_has_every_field_that_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = fs::read_to_string(root.join("tests/fields.txt")).expect("the list");
    let list: BTreeSet<&str> = list
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let (mut all, mut single) = (BTreeSet::new(), BTreeSet::new());
    working(&mozart::job::json_schema(), "", &mut all, &mut single);
    assert!(single.len() > 60, "{single:?}");
    // Each kind of rule is a line of its own.
    let has = |field: &String| {
        list.iter()
            .any(|line| line == field || line.starts_with(&format!("{field}.")))
    };
    let missing: Vec<_> = single.iter().filter(|field| !has(field)).collect();
    assert!(missing.is_empty(), "not in tests/fields.txt: {missing:#?}");
    let is_field = |line: &str| line == "batch" || all.contains(line) || line.starts_with("validations.type.");
    let unknown: Vec<_> = list.iter().filter(|line| !is_field(line)).collect();
    assert!(unknown.is_empty(), "no fields, or without effect: {unknown:#?}");
}

/// Paths of the fields below a schema that are not marked as without effect: all, and those that hold no others.
fn working(schema: &serde_json::Value, path: &str, all: &mut BTreeSet<String>, single: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_alias = field["description"]
            .as_str()
            .is_some_and(|text| text.starts_with("Another word for"));
        if is_alias || field["deprecated"] == true {
            continue;
        }
        let here = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        let before = all.len();
        working(field, &here, all, single);
        working(&field["items"], &here, all, single);
        if all.len() == before {
            single.insert(here.clone());
        }
        all.insert(here);
    }
}

#[test]
fn a_claim_belongs_to_the_test_below_it() {
    let text = "// field: a.b\n// field: c\n#[test]\n#[cfg(unix)]\nfn shows_both() {}\n\n// field: d\nlet x = 1;\nfn other() {}\n    // field: e\n    #[tokio::test]\n    async fn shows_e() {}\n// field: f\nfn no_test() {}\n";
    let claims: Vec<_> = claims(text);
    assert_eq!(
        claims,
        [("a.b", "shows_both"), ("c", "shows_both"), ("e", "shows_e")].map(|(a, b)| (a.to_owned(), b.to_owned()))
    );
}

/// Field and test for each claim in a source text. A claim counts only where comments, attributes and then a
/// function follow it without anything else between, one of the attributes (or a macro around it) being a test's.
fn claims(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut fields: Vec<&str> = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(field) = line.strip_prefix("// field: ") {
            fields.push(field.trim());
        } else if line.starts_with("#[") {
            is_test |= line.contains("test") && !line.contains("cfg(test)");
        } else if let Some(name) = function_name(line) {
            if is_test {
                found.extend(fields.iter().map(|field| ((*field).to_owned(), name.to_owned())));
            }
            fields.clear();
            is_test = false;
        } else if !line.starts_with("//") {
            fields.clear();
            is_test = false;
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    let line = line.strip_prefix("async ").unwrap_or(line);
    let name = line.strip_prefix("fn ")?;
    name.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

fn rust_files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)
        .expect("a source directory is readable")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}
