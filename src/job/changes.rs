//! What differs between two plans of one job, for a run that is given the second while it has the first.

use super::plan::{BackendKind, Plan, Sheet};
use crate::model::{SheetNo, Span};

/// The parts of a job file in which the plans differ, in its own words. Where only comments or the like differ, `text`.
pub fn parts(old: &Plan, new: &Plan) -> Vec<&'static str> {
    // Every field is named, so that none is forgotten.
    let Plan {
        version: _,
        name: _,
        description,
        workspace,
        base_directory,
        source,
        hash,
        backend,
        sheets,
        prompt,
        retry,
        rate_limit,
        idle_timeout,
        first_event_timeout,
        on_limit,
        dependencies,
        parallel,
        circuit_breaker,
        cost_limits,
        cross_sheet,
        validations,
        pause_between_sheets,
        priority,
        checkpoint_path,
        checkpoint_every_sheet,
        dormant,
    } = old;
    // What sheets have of `backend` is no part of `sheet`.
    let bare = |sheets: &[Sheet]| -> Vec<Sheet> {
        let sheets = sheets.iter().cloned();
        sheets
            .map(|sheet| Sheet {
                timeout: Span(0),
                model: None,
                ..sheet
            })
            .collect()
    };
    let same_overrides = sheets
        .iter()
        .zip(&new.sheets)
        .all(|(old, new)| (old.timeout, &old.model) == (new.timeout, &new.model));
    let checkpoint = (checkpoint_path, checkpoint_every_sheet) == (&new.checkpoint_path, &new.checkpoint_every_sheet);
    let differs = [
        ("description", *description != new.description),
        ("workspace", *workspace != new.workspace),
        ("backend", *backend != new.backend || !same_overrides),
        ("sheet", bare(sheets) != bare(&new.sheets)),
        ("prompt", *prompt != new.prompt),
        ("retry", *retry != new.retry),
        ("rate_limit", *rate_limit != new.rate_limit),
        (
            "stale_detection",
            (idle_timeout, first_event_timeout) != (&new.idle_timeout, &new.first_event_timeout),
        ),
        ("on_limit", *on_limit != new.on_limit),
        ("dependencies", *dependencies != new.dependencies),
        ("parallel", *parallel != new.parallel),
        ("circuit_breaker", *circuit_breaker != new.circuit_breaker),
        ("cost_limits", *cost_limits != new.cost_limits),
        ("cross_sheet", *cross_sheet != new.cross_sheet),
        ("validations", *validations != new.validations),
        (
            "pause_between_sheets_seconds",
            *pause_between_sheets != new.pause_between_sheets,
        ),
        ("priority", *priority != new.priority),
        ("state_backend", !checkpoint),
        ("sections without effect yet", *dormant != new.dormant),
    ];
    let mut parts: Vec<_> = differs
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(part, _)| part)
        .collect();
    let text = |plan: &Plan| (plan.source.clone(), plan.hash.clone(), plan.base_directory.clone());
    if parts.is_empty() && (source.clone(), hash.clone(), base_directory.clone()) != text(new) {
        parts.push("text");
    }
    parts
}

/// Sheets of both plans whose number is another piece of work in each: other items, another stage or instance.
pub fn other_work(old: &Plan, new: &Plan) -> Vec<SheetNo> {
    let work = |sheet: &Sheet| (sheet.start_item, sheet.end_item, sheet.stage, sheet.instance);
    let both = old.sheets.iter().zip(&new.sheets);
    both.filter(|(old, new)| work(old) != work(new))
        .map(|(old, _)| SheetNo(old.number))
        .collect()
}

/// Whether a session of the old plan can be resumed with the new one, if it is the same account's: the Claude CLI keeps
/// its sessions by the directory that they work in.
pub fn same_sessions(old: &Plan, new: &Plan) -> bool {
    let (old, new) = (&old.backend, &new.backend);
    let cli = |kind: &BackendKind| matches!(kind, BackendKind::ClaudeCli(_));
    cli(&old.kind) && cli(&new.kind) && old.working_directory == new.working_directory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::plan_of;

    /// A job with these lines in place of those that begin with the same word.
    fn plan(lines: &[&str]) -> Plan {
        let usual = [
            "name: j",
            "workspace: /w",
            "backend: {type: claude_cli}",
            "sheet: {size: 2, total_items: 8}",
            "prompt: {template: x}",
            "validations: [{type: file_exists, path: a}]",
        ];
        let key = |line: &str| line.split(':').next().map(str::to_owned);
        let kept = usual
            .iter()
            .filter(|line| !lines.iter().any(|given| key(given) == key(line)));
        let text: Vec<&str> = kept.chain(lines).copied().collect();
        plan_of(&text.join("\n"))
    }

    #[test]
    fn each_part_is_named_by_the_word_of_the_file() {
        let before = plan(&[]);
        for (lines, expected) in [
            (&[][..], &[][..]),
            (&["# a remark"], &["text"]),
            (&["description: what for"], &["description"]),
            (&["prompt: {template: y}"], &["prompt"]),
            (&["cross_sheet: {auto_capture_stdout: true}"], &["cross_sheet"]),
            (
                &["sheet: {size: 2, total_items: 8, skip_when: {2: 'True'}}"],
                &["sheet"],
            ),
            (&["backend: {type: claude_cli, timeout_seconds: 99}"], &["backend"]),
            (&["backend: {type: claude_cli, cli_model: opus}"], &["backend"]),
            (
                &["backend: {type: claude_cli, sheet_overrides: {2: {cli_model: opus}}}"],
                &["backend"],
            ),
            (
                &["backend: {type: claude_cli, sheet_overrides: {4: {timeout_seconds: 900}}}"],
                &["backend"],
            ),
            (&["sheet: {size: 2, total_items: 9}"], &["sheet"]),
            (
                &["sheet: {size: 2, total_items: 8, dependencies: {2: [1]}}"],
                &["dependencies"],
            ),
            (&["parallel: {enabled: true}"], &["parallel"]),
            (&["validations: [{type: file_exists, path: b}]"], &["validations"]),
            (&["retry: {max_retries: 9}", "priority: 7"], &["retry", "priority"]),
            (&["cost_limits: {enabled: true, max_cost_per_job: 2}"], &["cost_limits"]),
            (
                &["on_limit: stop", "rate_limit: {max_waits: 2}"],
                &["rate_limit", "on_limit"],
            ),
            (&["pause_between_sheets_seconds: 3"], &["pause_between_sheets_seconds"]),
            (&["stale_detection: {enabled: false}"], &["stale_detection"]),
            (&["circuit_breaker: {failure_threshold: 2}"], &["circuit_breaker"]),
            (&["state_backend: json"], &["state_backend"]),
        ] {
            assert_eq!(parts(&before, &plan(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_number_is_the_same_work_while_its_items_are() {
        let before = plan(&[]);
        let others = |sheet: &str| -> Vec<u32> {
            let after = plan(&[sheet]);
            other_work(&before, &after).iter().map(|no| no.0).collect()
        };
        assert_eq!(others("sheet: {size: 2, total_items: 80}"), Vec::<u32>::new());
        assert_eq!(others("sheet: {size: 2, total_items: 7}"), [4]);
        assert_eq!(others("sheet: {size: 3, total_items: 8}"), [1, 2, 3]);
        assert_eq!(others("sheet: {size: 2, total_items: 8, start_item: 2}"), [1, 2, 3, 4]);
    }

    #[test]
    fn sessions_go_on_where_they_worked() {
        let before = plan(&[]);
        let same = |backend: &str| same_sessions(&before, &plan(&[backend]));
        assert!(same("backend: {type: claude_cli, cli_model: opus}"));
        assert!(same(
            "backend: {type: claude_cli, sheet_overrides: {1: {cli_model: opus}}}"
        ));
        assert!(!same("backend: {type: claude_cli, working_directory: /elsewhere}"));
        assert!(!same("backend: {type: command, command: [a]}"));
    }
}
