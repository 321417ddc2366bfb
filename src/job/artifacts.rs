//! How far a job got by what its sessions left behind: for a resume where nothing else is known.

use std::collections::HashMap;

use super::plan::Plan;
use super::rules::{SheetRule, path_of, rules_for};
use crate::prompt::variables;

/// How far a job got.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// So many sheets look done, from the first on and without a gap.
    pub done: u32,
    /// What the next one lacks; `None` where no rule could tell, or where there is no next one.
    pub lacks: Option<SheetRule>,
}

/// Which files are a sheet's own: those of rules that name another one for every other sheet.
#[derive(Debug)]
pub struct OwnFiles {
    sheets_with: HashMap<(usize, String), u32>,
    sheets: usize,
}

impl OwnFiles {
    /// Those of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut sheets_with: HashMap<(usize, String), u32> = HashMap::new();
        for sheet in &plan.sheets {
            let variables = variables(plan, sheet);
            for (index, rule) in plan.validations.iter().enumerate() {
                // Also where its condition does not hold: whether a path differs does not hang on that.
                let path = rule.check.path().map(|path| path_of(path, &plan.workspace, &variables));
                if let Some(Ok(path)) = path {
                    *sheets_with.entry((index, path)).or_default() += 1;
                }
            }
        }
        let sheets = plan.sheets.len();
        Self { sheets_with, sheets }
    }

    /// Whether a rule names such a file. The only sheet has no other from which it could differ.
    pub fn is_named_by(&self, rule: &SheetRule) -> bool {
        let path = rule.check.path().map(str::to_owned);
        let index = usize::try_from(rule.index).unwrap_or(usize::MAX);
        self.sheets > 1 && path.is_some_and(|path| self.sheets_with.get(&(index, path)) == Some(&1))
    }
}

/// Takes sheets for done, in order, as long as every rule that names a file of the sheet's own `holds`.
///
/// Rules that name no file of the sheet's own ([`OwnFiles`]) prove nothing: what they ask for may be the work of any sheet, or have been there before. The error is that of [`rules_for`].
pub fn found(plan: &Plan, mut holds: impl FnMut(&SheetRule) -> bool) -> Result<Found, String> {
    let files = OwnFiles::of(plan);
    let mut done = 0;
    for sheet in &plan.sheets {
        let rules = rules_for(plan, sheet)?.into_iter();
        let own: Vec<SheetRule> = rules.filter(|rule| files.is_named_by(rule)).collect();
        let lacks = own.iter().find(|rule| !holds(rule)).cloned();
        if own.is_empty() || lacks.is_some() {
            return Ok(Found { done, lacks });
        }
        done += 1;
    }
    Ok(Found { done, lacks: None })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::job::plan_of;

    /// A job of that many sheets with these rules, each a line of YAML.
    fn plan(sheets: u32, rules: &[impl AsRef<str>]) -> Plan {
        let rules: Vec<_> = rules.iter().map(|rule| format!("\n  - {}", rule.as_ref())).collect();
        let text = format!(
            "name: j\nworkspace: /w\nbackend: {{type: command, command: [a]}}\nsheet: {{size: 1, total_items: {sheets}}}\n\
             prompt: {{template: x}}\nvalidations:{}\n",
            rules.concat()
        );
        plan_of(&text)
    }

    /// How many sheets look done where these files are there, and what the next one lacks.
    fn done(plan: &Plan, there: &[&str]) -> (u32, Option<String>) {
        let found = found(plan, |rule| {
            let path = rule.check.path().expect("only rules with a path are asked");
            there.iter().any(|name| path == format!("/w/{name}"))
        });
        let found = found.unwrap();
        (found.done, found.lacks.and_then(|rule| rule.shown_path))
    }

    #[test]
    fn only_files_of_a_sheets_own_tell() {
        const OUT: &str = "{type: file_exists, path: \"out-{sheet_num}\"}";
        const LOG: &str = "{type: file_modified, path: \"{start_item}.log\"}";
        const TEXT: &str = "{type: content_contains, path: \"out-{sheet_num}\", pattern: x}";
        const SHARED: &str = "{type: file_exists, path: all.md}";
        const CONSTANT: &str = "{type: file_exists, path: \"of-{total_sheets}\"}";
        const COMMAND: &str = "{type: command_succeeds, command: \"test -e out-{sheet_num}\"}";
        const ODD: &str = "{type: file_exists, path: \"odd-{sheet_num}\", condition: \"sheet_num != 2\"}";
        const FIRST: &str = "{type: file_exists, path: setup, condition: \"sheet_num == 1\"}";
        const HALVES: &str = "{type: file_exists, path: \"{{ 'a' if sheet_num < 3 else 'b' }}\"}";

        let lacks = |done: u32, what: &str| (done, Some(what.to_owned()));
        let nothing = |done: u32| (done, None);
        for (sheets, rules, there, expected) in [
            (3, &[OUT][..], &[][..], lacks(0, "out-1")),
            (3, &[OUT], &["out-1", "out-2"], lacks(2, "out-3")),
            (3, &[OUT], &["out-1", "out-3"], lacks(1, "out-2")),
            (3, &[OUT], &["out-2", "out-3"], lacks(0, "out-1")),
            (3, &[OUT], &["out-1", "out-2", "out-3"], nothing(3)),
            (3, &[OUT, LOG], &["out-1", "out-2", "1.log"], lacks(1, "2.log")),
            (2, &[LOG, TEXT], &["1.log", "out-1"], lacks(1, "2.log")),
            // What all sheets share neither proves nor stands in the way.
            (3, &[SHARED, CONSTANT, COMMAND], &["all.md", "of-3"], nothing(0)),
            (3, &[OUT, SHARED, COMMAND], &["out-1"], lacks(1, "out-2")),
            (4, &[HALVES], &["a"], nothing(0)),
            // A sheet that no rule tells of is not done, and nothing behind it is.
            (3, &[ODD], &["odd-1", "odd-2", "odd-3"], nothing(1)),
            (3, &[ODD, OUT], &["odd-1", "out-1", "out-2"], lacks(2, "odd-3")),
            (3, &[FIRST], &["setup"], nothing(0)),
            (3, &[FIRST, OUT], &["out-1"], lacks(1, "out-2")),
            // The only sheet has no other from which it could differ.
            (1, &[OUT], &["out-1"], nothing(0)),
        ] {
            assert_eq!(done(&plan(sheets, rules), there), expected, "{rules:?} {there:?}");
        }
        assert_eq!(done(&plan(3, &[] as &[&str]), &["out-1"]), nothing(0));
    }

    proptest! {
        #[test]
        fn a_sheet_is_done_if_all_its_files_are_there_and_all_before_it_are_done(
            sheets in 2_u32..8,
            own in 1_usize..4,
            there in proptest::collection::btree_set((0_usize..4, 1_u32..8), 0..28),
        ) {
            let rules: Vec<_> = (0..own)
                .map(|rule| format!("{{type: file_exists, path: \"{rule}-{{sheet_num}}\"}}"))
                .collect();
            let names: Vec<_> = there.iter().map(|(rule, sheet)| format!("{rule}-{sheet}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let whole: BTreeSet<u32> =
                (1..=sheets).filter(|sheet| (0..own).all(|rule| there.contains(&(rule, *sheet)))).collect();
            let (done, lacks) = done(&plan(sheets, &rules), &names);
            prop_assert!((1..=done).all(|sheet| whole.contains(&sheet)));
            prop_assert!(!whole.contains(&(done + 1)));
            prop_assert_eq!(lacks.is_some(), done < sheets);
        }
    }
}
