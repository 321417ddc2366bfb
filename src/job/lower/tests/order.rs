//! Fan-out, dependencies and parallel sheets.

use super::*;
use crate::job::plan::{Dependency, FailFast, Parallel, SheetRange, TemplateEngine};
use crate::model::SheetNo;

fn range(first: u32, last: u32) -> SheetRange {
    (SheetNo(first), SheetNo(last)).into()
}

fn sheet(fields: &str) -> String {
    with("sheet", &format!("sheet: {{size: 1, {fields}}}"))
}

/// What each sheet waits for, as `2: 1` and `5: 2 3 4`.
fn waits(plan: &Plan) -> Vec<String> {
    let of = |sheet: SheetNo| {
        let needs = plan
            .dependencies
            .iter()
            .filter_map(|dependency| dependency.needs(sheet));
        let mut needs: Vec<_> = needs.flat_map(SheetRange::sheets).map(|sheet| sheet.0).collect();
        needs.sort_unstable();
        needs
    };
    let sheets = (1..=plan.sheets.len()).map(|no| SheetNo(no as u32));
    let lines = sheets.filter_map(|sheet| {
        let needs: Vec<_> = of(sheet).iter().map(u32::to_string).collect();
        (!needs.is_empty()).then(|| format!("{sheet}: {}", needs.join(" ")))
    });
    lines.collect()
}

// field: sheet.fan_out
#[test]
fn fan_out_makes_instances_of_stages() {
    let plan = plan(&sheet(
        "total_items: 3, fan_out: {2: 3}, dependencies: {2: [1], 3: [2]}",
    ));
    let shape: Vec<_> = plan
        .sheets
        .iter()
        .map(|sheet| {
            (
                sheet.number,
                sheet.stage,
                sheet.instance,
                sheet.fan_count,
                sheet.start_item,
            )
        })
        .collect();
    assert_eq!(
        shape,
        [
            (1, 1, 1, 1, 1),
            (2, 2, 1, 3, 2),
            (3, 2, 2, 3, 3),
            (4, 2, 3, 3, 4),
            (5, 3, 1, 1, 5)
        ]
    );
    assert!(plan.sheets.iter().all(|sheet| sheet.end_item == sheet.start_item));
    assert_eq!(waits(&plan), ["2: 1", "3: 1", "4: 1", "5: 2 3 4"]);
}

// field: sheet.dependencies
#[test]
fn dependencies_expand_by_the_numbers_of_instances() {
    let expanded = |fields: &str| waits(&plan(&sheet(fields)));
    assert_eq!(
        expanded("total_items: 2, fan_out: {1: 2, 2: 2}, dependencies: {2: [1]}"),
        ["3: 1", "4: 2"],
        "as many: instance to instance"
    );
    assert_eq!(
        expanded("total_items: 2, fan_out: {1: 2, 2: 3}, dependencies: {2: [1]}"),
        ["3: 1 2", "4: 1 2", "5: 1 2"],
        "not as many: all to all"
    );
    assert_eq!(
        expanded("total_items: 4, dependencies: {4: [1, 2, 2], 2: [3], 1: []}"),
        ["2: 3", "4: 1 2"],
        "one is named twice, and one waits for a later one"
    );
}

#[test]
fn a_chain_is_one_dependency() {
    let list: Vec<String> = (2..=15_000).map(|no| format!("    {no}:\n    - {}", no - 1)).collect();
    let text = with(
        "sheet",
        &format!(
            "sheet:\n  size: 1\n  total_items: 15000\n  dependencies:\n{}",
            list.join("\n")
        ),
    );
    assert_eq!(
        plan(&text).dependencies,
        [Dependency {
            of: range(2, 15_000),
            on: range(1, 14_999),
            pairwise: true
        }]
    );
}

#[test]
fn what_cannot_be_followed_is_told_with_its_place() {
    let table = [
        (
            "total_items: 2, dependencies: {3: [1]}",
            "there is no 3 here: this job has 2",
        ),
        (
            "total_items: 2, dependencies: {2: [7]}",
            "there is no 7 to wait for: this job has 2",
        ),
        ("total_items: 2, dependencies: {2: [2]}", "2 waits for itself"),
        ("total_items: 2, fan_out: {3: 2}", "there is no 3 here"),
        (
            "total_items: 5, dependencies: {5: [4], 4: [2, 1], 2: [5], 3: [1]}",
            "these wait for each other, so none of them could ever start: 2 → 5 → 4 → 2",
        ),
        ("total_items: 2, fan_out: {1: 100000}", "this makes 100001 sheets"),
        (
            "total_items: 2, start_item: 2, fan_out: {1: 2}",
            "`start_item` must be 1, and it is 2",
        ),
    ];
    for (fields, message) in table {
        let found = problems(&sheet(fields));
        assert!(
            found
                .iter()
                .any(|found| found.starts_with("ERROR E301 3:") && found.contains(message)),
            "{fields}: {found:#?}"
        );
    }
    let found = problems(&with("sheet", "sheet: {size: 2, total_items: 4, fan_out: {1: 2}}"));
    assert!(
        found
            .iter()
            .any(|found| found.contains("`size` must be 1, and it is 2")),
        "{found:#?}"
    );
}

#[test]
fn fan_out_alone_is_doubtful() {
    let found = problems(&sheet("total_items: 2, fan_out: {1: 2}"));
    assert!(
        found[0].starts_with("WARNING V206 3:") && found[1].starts_with("INFO V207 3:"),
        "{found:#?}"
    );
    let whole = format!(
        "{}parallel: {{enabled: true}}\n",
        sheet("total_items: 2, fan_out: {1: 2}, dependencies: {2: [1]}")
    );
    assert_eq!(problems(&whole), Vec::<String>::new());
    assert_eq!(
        problems(&sheet("total_items: 2, fan_out: {1: 1}")),
        Vec::<String>::new()
    );
}

// field: parallel
#[test]
fn parallel_has_its_defaults() {
    assert_eq!(
        plan(&plus("parallel: {enabled: false, max_concurrent: 9}")).parallel,
        None
    );
    let parallel = |fields: &str| {
        plan(&plus(&format!("parallel: {{enabled: true, {fields}}}")))
            .parallel
            .unwrap()
    };
    assert_eq!(
        parallel(""),
        Parallel {
            max_concurrent: 3,
            fail_fast: FailFast::Hold,
            weights: Vec::new(),
        }
    );
    assert_eq!(parallel("max_concurrent: 100").max_concurrent, 100);
    assert_eq!(parallel("fail_fast: no").fail_fast, FailFast::Off);
    assert_eq!(parallel("fail_fast: cancel").fail_fast, FailFast::Cancel);
    assert_eq!(parallel("weights: {2: 4, 1: 1}").weights, [(SheetNo(2), 4)]);
    assert!(problems(&plus("parallel: {enabled: true, max_concurrent: 101}"))[0].contains("from 1 to 100"));
}

// field: priority
#[test]
fn priority_is_from_1_to_10() {
    assert_eq!(plan(GOOD).priority, 5);
    assert_eq!(plan(&plus("priority: 9")).priority, 9);
    assert!(problems(&plus("priority: 11"))[0].contains("from 1 to 10"));
}

/// Very many sheets are rendered in parts, on several processors; what is told is of all of them.
#[test]
fn of_very_many_sheets_each_is_rendered() {
    let many =
        |template: &str| with("sheet", "sheet: {size: 1, total_items: 5000}").replace("'Do {{ sheet_num }}'", template);
    let told = problems(&many("\"{{ 1 / (4321 - sheet_num) }} {{ 1 / (1234 - sheet_num) }}\""));
    assert_eq!(
        told.iter().filter(|problem| problem.contains("sheet 1234")).count(),
        1,
        "{told:#?}"
    );
    assert!(
        !told.iter().any(|problem| problem.contains("sheet 4321")),
        "the same was told: {told:#?}"
    );
    let plan = |template: &str| plan(&many(template)).prompt.engine;
    assert_eq!(plan("\"{{ sheet_num }}\""), TemplateEngine::Tera);
    let differs = "\"{% if sheet_num == 4900 %}{{ [1] }} {{ true }}{% endif %}{{ sheet_num }}\"";
    assert_eq!(plan(differs), TemplateEngine::Jinja, "the two differ in one sheet");
}
