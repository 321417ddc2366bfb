//! Rules about files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use super::Finding;
use super::baseline::{Baseline, Stamp};
use crate::job::pattern::Pattern;
use crate::job::plan::Check;
use crate::model::{Code, count};

/// Of a larger file only so much is read.
pub(super) const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// Looks at the file of `check`; `shown` is its path for people. Blocks.
pub(super) fn look(check: &Check, shown: &str, baseline: &Baseline) -> Finding {
    let Some(path) = check.path() else {
        return Finding::wrong(Code::E209, "error", "the rule names no file");
    };
    if let Some(finding) = no_file(path, shown) {
        return finding;
    }
    match check {
        Check::FileExists { .. } => Finding::good("the file is there"),
        Check::FileModified { .. } => modified(path, shown, baseline),
        Check::ContentContains { pattern, .. } => with_content(path, shown, |text| contains(text, pattern, shown)),
        Check::ContentRegex { pattern, .. } => with_content(path, shown, |text| matches(text, pattern, shown)),
        Check::CommandSucceeds { .. } => Finding::wrong(Code::E209, "error", "the rule is not about a file"),
    }
}

/// Why there is no regular file at `path`; none where there is one.
fn no_file(path: &str, shown: &str) -> Option<Finding> {
    let finding = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => return None,
        Ok(metadata) => {
            let kind = if metadata.is_dir() {
                "a directory"
            } else {
                "no regular file"
            };
            Finding::wrong(Code::E201, "malformed", format!("{shown} is {kind}")).actual(kind)
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            let finding = Finding::wrong(Code::E201, "missing", format!("there is no file {shown}"));
            finding
                .actual(missing_part(Path::new(path)))
                .hint(format!("Write the file to exactly this path: {path}"))
        }
        Err(error) => unreadable(shown, &error),
    };
    Some(finding.expected("a regular file"))
}

/// How much of the path exists: a wrong directory is the commonest mistake.
fn missing_part(path: &Path) -> String {
    match path.ancestors().skip(1).find(|ancestor| ancestor.is_dir()) {
        Some(parent) if path.parent() == Some(parent) => "nothing of that name in its directory".to_owned(),
        Some(parent) => format!("of its path only {} exists", parent.display()),
        None => "nothing".to_owned(),
    }
}

fn unreadable(shown: &str, error: &io::Error) -> Finding {
    Finding::wrong(Code::E209, "error", format!("{shown} cannot be read: {error}"))
}

fn modified(path: &str, shown: &str, baseline: &Baseline) -> Finding {
    let finding = match Stamp::of(Path::new(path)) {
        Some(stamp) if baseline.is_changed(path, &stamp) => return Finding::good("changed"),
        Some(_) => Finding::wrong(
            Code::E209,
            "stale",
            format!("{shown} is as it was before the sheet's first attempt"),
        )
        .actual("unchanged")
        .hint("Write the file anew, or change what is in it."),
        None => Finding::wrong(
            Code::E201,
            "missing",
            format!("{shown} went away while it was looked at"),
        ),
    };
    finding.expected("another content or modification time than before the sheet's first attempt")
}

fn with_content(path: &str, shown: &str, check: impl FnOnce(&str) -> Finding) -> Finding {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return unreadable(shown, &error);
    }
    let cut = bytes.len() as u64 > MAX_BYTES;
    bytes.truncate(usize::try_from(MAX_BYTES).unwrap_or(usize::MAX));
    let mut finding = check(&String::from_utf8_lossy(&bytes));
    if cut && let Some(wrong) = &mut finding.failure {
        wrong.reason.push_str(" (only its first 64 MiB were read)");
    }
    finding
}

fn contains(text: &str, pattern: &str, shown: &str) -> Finding {
    if text.contains(pattern) {
        return Finding::good("the text is there");
    }
    let finding = Finding::wrong(
        Code::E202,
        "incomplete",
        format!("{shown} does not contain {pattern:?}"),
    );
    let finding = finding.expected(format!("the text {pattern:?}")).actual(summary(text));
    if text.to_lowercase().contains(&pattern.to_lowercase()) {
        finding.hint("The text is there, but in capitals or small letters other than asked for.")
    } else {
        finding
    }
}

fn matches(text: &str, pattern: &str, shown: &str) -> Finding {
    let found = Pattern::new(pattern, false).and_then(|compiled| compiled.is_in(text));
    let finding = match found {
        Ok(true) => return Finding::good("the pattern is found"),
        Ok(false) => Finding::wrong(Code::E202, "malformed", format!("{shown} does not match {pattern}")),
        Err(error) => Finding::wrong(
            Code::E209,
            "error",
            format!("the pattern {pattern} cannot be used: {error}"),
        ),
    };
    let finding = finding.expected(format!("a match of {pattern}")).actual(summary(text));
    // What people mean by ^ and $ in a file of several lines.
    let by_line = pattern.contains(['^', '$'])
        && Pattern::new(&format!("(?m){pattern}"), false).and_then(|compiled| compiled.is_in(text)) == Ok(true);
    if by_line {
        finding.hint("^ and $ stand for the whole text's beginning and end; with (?m) in front, for each line's.")
    } else {
        finding
    }
}

/// The content in short.
fn summary(text: &str) -> String {
    const SHOWN: usize = 200;
    if text.is_empty() {
        return "an empty file".to_owned();
    }
    let begin: String = text.chars().take(SHOWN).collect();
    let dots = if begin.len() < text.len() { "…" } else { "" };
    format!("{}, beginning with {begin:?}{dots}", count(text.len(), "byte"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Files(tempfile::TempDir, Baseline);

    impl Files {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let baseline = Baseline::ensure(&directory.path().join("baseline.json"), &[]).unwrap();
            Self(directory, baseline)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn look(&self, name: &str, check: impl Fn(String) -> Check) -> Finding {
            look(&check(self.path(name).display().to_string()), name, &self.1)
        }
    }

    fn code(finding: &Finding) -> Option<(Code, &'static str)> {
        finding.failure.as_ref().map(|wrong| (wrong.code, wrong.category))
    }

    fn reason(finding: &Finding) -> &str {
        &finding.failure.as_ref().unwrap().reason
    }

    #[test]
    fn a_file_exists_only_if_it_is_a_regular_one() {
        let files = Files::new();
        let exists = |name: &str| files.look(name, |path| Check::FileExists { path });
        fs::write(files.path("a"), "").unwrap();
        fs::create_dir(files.path("d")).unwrap();
        std::os::unix::fs::symlink("a", files.path("link")).unwrap();
        std::os::unix::fs::symlink("gone", files.path("broken")).unwrap();
        assert_eq!(code(&exists("a")), None);
        assert_eq!(code(&exists("link")), None);
        assert_eq!(code(&exists("d")), Some((Code::E201, "malformed")));
        for missing in ["b", "broken", "x/y/z", "a/b"] {
            assert_eq!(code(&exists(missing)), Some((Code::E201, "missing")), "{missing}");
        }
        assert_eq!(reason(&exists("b")), "there is no file b");
        assert!(
            exists("x/y/z")
                .actual
                .unwrap()
                .contains(files.0.path().to_str().unwrap())
        );
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let files = Files::new();
        let status = std::process::Command::new("mkfifo")
            .arg(files.path("pipe"))
            .status()
            .unwrap();
        assert!(status.success());
        let finding = files.look("pipe", |path| Check::ContentContains {
            path,
            pattern: "x".to_owned(),
        });
        assert_eq!(code(&finding), Some((Code::E201, "malformed")));
    }

    #[test]
    fn contained_text_is_literal() {
        let files = Files::new();
        fs::write(files.path("a"), b"\xff## summary (a.c)\n").unwrap();
        let contains = |pattern: &str| {
            files.look("a", |path| Check::ContentContains {
                path,
                pattern: pattern.to_owned(),
            })
        };
        assert_eq!(code(&contains("## summary (a.c)")), None);
        assert_eq!(code(&contains("a.c")), None);
        assert_eq!(code(&contains("a*c")), Some((Code::E202, "incomplete")));
        let other_case = contains("## Summary");
        assert_eq!(code(&other_case), Some((Code::E202, "incomplete")));
        assert!(other_case.failure.unwrap().hint.unwrap().contains("capitals"));
    }

    #[test]
    fn a_regex_is_searched_and_knows_no_lines_by_itself() {
        let files = Files::new();
        fs::write(files.path("a"), "title\n## One\n").unwrap();
        let matches = |pattern: &str| {
            files.look("a", |path| Check::ContentRegex {
                path,
                pattern: pattern.to_owned(),
            })
        };
        assert_eq!(code(&matches(r"## \w+")), None);
        assert_eq!(code(&matches(r"(?m)^## \w+")), None);
        assert_eq!(code(&matches(r"(?<=# )One")), None);
        let anchored = matches(r"^## \w+");
        assert_eq!(code(&anchored), Some((Code::E202, "malformed")));
        assert!(anchored.failure.unwrap().hint.unwrap().contains("(?m)"));
        assert_eq!(code(&matches("(")), Some((Code::E209, "error")));
    }

    #[test]
    fn a_pattern_that_explodes_ends_and_is_told() {
        let files = Files::new();
        fs::write(files.path("a"), "x".repeat(200_000)).unwrap();
        let matches = |pattern: &str| {
            files.look("a", |path| Check::ContentRegex {
                path,
                pattern: pattern.to_owned(),
            })
        };
        let begun = std::time::Instant::now();
        let given_up = matches(r"(?=x)(x+x+)+y\1");
        assert_eq!(code(&given_up), Some((Code::E209, "error")));
        assert!(reason(&given_up).contains("steps"), "{}", reason(&given_up));
        assert_eq!(code(&matches("(x+x+)+y")), Some((Code::E202, "malformed")));
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_huge_file_is_read_in_part() {
        let files = Files::new();
        let file = File::create(files.path("huge")).unwrap();
        file.set_len(MAX_BYTES + 10).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"end", MAX_BYTES + 1).unwrap();
        let finding = files.look("huge", |path| Check::ContentContains {
            path,
            pattern: "end".to_owned(),
        });
        assert_eq!(code(&finding), Some((Code::E202, "incomplete")));
        assert!(reason(&finding).ends_with("(only its first 64 MiB were read)"));
    }
}
