//! Six jobs that between them take every way through the engine, and what each of their sessions does. Shared by the
//! tests of the library and of the programs, so that every fault is tried on the same work.

use std::fmt::Write;

/// How one session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Every rule passes.
    Well,
    /// No rule passes.
    Wrong,
    /// Two rules of three pass: the missing part is asked for.
    Partly,
    /// A usage limit refuses it.
    Limited,
}

/// A job, by what its sessions do.
#[derive(Debug)]
pub(crate) struct Canonical {
    /// Its name, which says what it is about.
    pub(crate) name: &'static str,
    /// Of each sheet, how its attempts end; none where it is never started.
    pub(crate) sheets: &'static [&'static [Ends]],
}

/// The six.
pub(crate) const CANONICAL: [Canonical; 6] = [
    Canonical {
        name: "completes",
        sheets: &[&[Ends::Well]],
    },
    Canonical {
        name: "in-order",
        sheets: &[&[Ends::Well], &[Ends::Well], &[Ends::Well]],
    },
    Canonical {
        name: "retried",
        sheets: &[&[Ends::Wrong, Ends::Well]],
    },
    Canonical {
        name: "made-complete",
        sheets: &[&[Ends::Partly, Ends::Well]],
    },
    Canonical {
        name: "limited",
        sheets: &[&[Ends::Limited, Ends::Well]],
    },
    Canonical {
        name: "fails",
        sheets: &[&[Ends::Well], &[Ends::Wrong, Ends::Wrong], &[]],
    },
];

/// The files that the rules of a sheet ask for, before its number.
const WANTED: [&str; 3] = ["one", "two", "three"];

impl Canonical {
    /// Whether it ends well.
    pub(crate) fn completes(&self) -> bool {
        self.sheets.iter().all(|ends| ends.last() == Some(&Ends::Well))
    }

    /// Its file, with that backend section; the workspace has its name.
    pub(crate) fn text(&self, backend: &str) -> String {
        let mut text = format!(
            "name: {name}\nworkspace: ./{name}\npause_between_sheets_seconds: 0\nbackend: {backend}\n\
             sheet: {{size: 1, total_items: {}}}\nprompt: {{template: \"Sheet {{{{ sheet_num }}}}\"}}\n\
             retry: {{max_retries: 1, base_delay_seconds: 0.05, jitter: false, max_completion_attempts: 1, \
             completion_delay_seconds: 0.05, completion_threshold_percent: 50}}\n\
             rate_limit: {{detection_patterns: [usage limit reached]}}\nvalidations:\n",
            self.sheets.len(),
            name = self.name,
        );
        for file in WANTED {
            writeln!(
                text,
                "  - {{type: file_exists, path: \"{{workspace}}/{file}-{{sheet_num}}\"}}"
            )
            .expect("a text takes every line");
        }
        text
    }

    /// A backend section whose sessions do all that for real. Sheets run in order, so the number of a start says which
    /// attempt of which sheet it is.
    pub(crate) fn commands(&self) -> String {
        let mut script = "cd \"$1\"; echo >> starts; case $(grep -c '' starts) in ".to_owned();
        let all = (1..).zip(self.sheets);
        let starts = all.flat_map(|(sheet, ends)| ends.iter().map(move |ends| (sheet, *ends)));
        for (start, (sheet, ends)) in (1..).zip(starts) {
            let files: Vec<_> = WANTED.iter().map(|file: &&str| format!("{file}-{sheet}")).collect();
            let does = match ends {
                Ends::Well => format!("touch {}", files.join(" ")),
                Ends::Wrong => "true".to_owned(),
                Ends::Partly => format!("touch {}", files[1..].join(" ")),
                Ends::Limited => "echo usage limit reached >&2; exit 1".to_owned(),
            };
            write!(script, "{start}) {does};; ").expect("a text takes every word");
        }
        script.push_str("*) exit 1;; esac");
        let script = serde_json::to_string(&script).expect("a text");
        format!(
            "{{type: command, command: [sh, -c, {script}, sh, ./{}], working_directory: .}}",
            self.name
        )
    }
}
