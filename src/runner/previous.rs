//! What a sheet's template is told of the sheets before it: gathered before the sheet's first session, and kept, so that
//! every later attempt at it is told the same.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use regex::Regex;

use super::backend::redact;
use super::launch::spool;
use super::spec::{AttemptSpec, Secrets};
use crate::job::plan::CrossSheet;
use crate::job::rules::capture_patterns;
use crate::summary::History;

/// Files that may be captured.
const MAX_FILES: usize = 1000;
/// Bytes of all of them together.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Entries of directories that are looked at for them.
const MAX_ENTRIES: usize = 50_000;

/// The history of the spec's sheet: what was `kept`, or with `anew` what there is now. Blocks.
///
/// # Errors
/// It cannot be kept.
pub(super) fn history(spec: &AttemptSpec, kept: &Path, anew: bool) -> io::Result<History> {
    let Some(cross) = &spec.plan.cross_sheet else {
        return Ok(History::default());
    };
    // What cannot be read any more is gathered again: later than it should be, but not less.
    if !anew && let Some(history) = fs::read(kept).ok().and_then(|json| serde_json::from_slice(&json).ok()) {
        return Ok(history);
    }
    let sheet = spec.plan.sheet(spec.attempt.sheet);
    // A plan that was loaded has been asked for its patterns already.
    let patterns = sheet.and_then(|sheet| capture_patterns(&spec.plan, sheet).ok());
    let files = captured(
        &spec.plan.workspace,
        cross,
        &patterns.unwrap_or_default(),
        &spec.secrets,
    );
    let history = History {
        outputs: spec.outputs.clone(),
        files,
    };
    spool::keep(kept, &history)?;
    Ok(history)
}

/// The beginnings of the files that the patterns name, by path.
fn captured(workspace: &str, cross: &CrossSheet, patterns: &[String], secrets: &Secrets) -> Vec<(String, String)> {
    let Ok(within) = fs::canonicalize(workspace) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut entries = MAX_ENTRIES;
    for pattern in patterns {
        let parts: Vec<&str> = pattern
            .strip_prefix(workspace)
            .unwrap_or(pattern)
            .split('/')
            .filter(|part| !part.is_empty())
            .collect();
        find(Path::new(workspace), &parts, &mut entries, &mut found);
    }
    found.sort();
    found.dedup();
    let (mut files, mut room) = (Vec::new(), MAX_BYTES);
    for path in found.into_iter().take(MAX_FILES) {
        // A link out of the workspace names nothing of it.
        let inside = fs::canonicalize(&path).is_ok_and(|real| real.starts_with(&within));
        let text = inside.then(|| beginning(&path, cross.max_chars)).flatten();
        if let Some(text) = text.filter(|text| text.len() <= room) {
            room -= text.len();
            files.push((path.to_string_lossy().into_owned(), redact(&text, secrets).into_owned()));
        }
    }
    files
}

/// Paths below `directory` that a pattern names, part by part.
fn find(directory: &Path, parts: &[&str], entries: &mut usize, found: &mut Vec<PathBuf>) {
    let Some((part, rest)) = parts.split_first() else {
        return;
    };
    if *part == "**" {
        // No directory, or one more.
        find(directory, rest, entries, found);
    }
    if !part.contains(['*', '?', '[']) {
        return go_on(directory.join(part), rest, entries, found);
    }
    let (any_depth, hidden) = (*part == "**", part.starts_with('.'));
    let Some(wanted) = glob(part) else { return };
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Some(left) = entries.checked_sub(1) else { return };
        *entries = left;
        let named = |name: &str| wanted.is_match(name) && (hidden || !name.starts_with('.'));
        if !entry.file_name().to_str().is_some_and(named) {
            continue;
        }
        if any_depth {
            // Links are not followed down: they may lead round.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                find(&entry.path(), parts, entries, found);
            }
        } else {
            go_on(entry.path(), rest, entries, found);
        }
    }
}

fn go_on(path: PathBuf, rest: &[&str], entries: &mut usize, found: &mut Vec<PathBuf>) {
    if rest.is_empty() {
        if path.is_file() {
            found.push(path);
        }
    } else if path.is_dir() {
        find(&path, rest, entries, found);
    }
}

/// A pattern of one name as Python's `glob` reads it: `*`, `?`, `[a-z]`, `[!a]`.
fn glob(part: &str) -> Option<Regex> {
    let mut regex = String::from("^");
    let mut rest = part;
    while let Some(first) = rest.chars().next() {
        let class = rest.strip_prefix('[').and_then(|inner| {
            let from = inner.strip_prefix('!').unwrap_or(inner);
            let skip = inner.len() - from.len() + usize::from(from.starts_with(']'));
            let end = skip + inner.get(skip..)?.find(']')?;
            Some((inner.get(..end)?, end + 2))
        });
        let length = match (first, class) {
            ('*', _) => {
                regex.push_str(".*");
                1
            }
            ('?', _) => {
                regex.push('.');
                1
            }
            ('[', Some((inner, length))) => {
                let (not, inner) = match inner.strip_prefix('!') {
                    Some(inner) => ("^", inner),
                    None => ("", inner),
                };
                let escaped = inner
                    .replace('\\', "\\\\")
                    .replace('[', "\\[")
                    .replace(']', "\\]")
                    .replace('^', "\\^");
                let escaped = escaped.replace("&&", "&\\&").replace("~~", "~\\~");
                regex.push_str(&format!("[{not}{escaped}]"));
                length
            }
            (other, _) => {
                regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4])));
                other.len_utf8()
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    regex.push('$');
    Regex::new(&format!("(?s){regex}")).ok()
}

/// The beginning of a text file, at most so many characters; `None` where it is no text.
fn beginning(path: &Path, chars: u32) -> Option<String> {
    let chars = usize::try_from(chars).ok()?;
    let most = chars.saturating_mul(4).saturating_add(4).min(MAX_BYTES + 4);
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most as u64).read_to_end(&mut bytes).ok()?;
    let whole = bytes.len() < most;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        // The last character may be cut.
        Err(error) if !whole && error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    match text.char_indices().nth(chars) {
        Some((end, _)) => Some(format!("{}\n... [truncated]", &text[..end])),
        None => Some(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(pattern: &str, of: &[&str]) -> Vec<String> {
        let glob = glob(pattern).unwrap();
        let hidden = pattern.starts_with('.');
        of.iter()
            .filter(|name| glob.is_match(name) && (hidden || !name.starts_with('.')))
            .map(|name| (*name).to_owned())
            .collect()
    }

    #[test]
    fn patterns_are_pythons() {
        let all = ["a.md", "b.md", "ab.txt", ".a.md", "a]b", "a^b", "1.md", "x\ny.md"];
        assert_eq!(names("*.md", &all), ["a.md", "b.md", "1.md", "x\ny.md"]);
        assert_eq!(names(".*", &all), [".a.md"]);
        assert_eq!(names("?.md", &all), ["a.md", "b.md", "1.md"]);
        assert_eq!(names("[ab].md", &all), ["a.md", "b.md"]);
        assert_eq!(names("[!a].md", &all), ["b.md", "1.md"]);
        assert_eq!(names("[a-z].md", &all), ["a.md", "b.md"]);
        assert_eq!(names("a[]^]b", &all), ["a]b", "a^b"]);
        assert_eq!(names("a[", &all), Vec::<String>::new());
        assert_eq!(names("a.md", &all), ["a.md"]);
    }

    #[test]
    fn files_are_found_bounded_and_within_the_workspace() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("sub/deep")).unwrap();
        fs::create_dir(root.join(".hidden")).unwrap();
        for (path, text) in [
            ("a.md", "short"),
            ("b.md", "ärger mit Längen"),
            ("sub/c.md", "c"),
            ("sub/deep/d.md", "the password is hunter2"),
            (".hidden/e.md", "e"),
            ("f.bin", "\u{0}"),
        ] {
            fs::write(root.join(path), text).unwrap();
        }
        fs::write(root.join("g.md"), [0xff, 0xfe]).unwrap();
        fs::write(outside.path().join("secret.md"), "not yours").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret.md"), root.join("h.md")).unwrap();
        std::os::unix::fs::symlink(root.join("a.md"), root.join("i.md")).unwrap();
        let workspace = root.to_str().unwrap();
        let cross = CrossSheet {
            outputs: false,
            max_chars: 5,
            files: Vec::new(),
            lookback: 3,
        };
        let secrets = Secrets([("PASS".to_owned(), "hunter2".to_owned())].into());
        let captured = |patterns: &[&str], max_chars: u32| -> Vec<(String, String)> {
            let patterns: Vec<String> = patterns
                .iter()
                .map(|pattern| format!("{workspace}/{pattern}"))
                .collect();
            let cross = CrossSheet {
                max_chars,
                ..cross.clone()
            };
            let files = captured(workspace, &cross, &patterns, &secrets);
            files
                .into_iter()
                .map(|(path, text)| (path[workspace.len() + 1..].to_owned(), text))
                .collect()
        };
        let shown =
            |files: &[(String, String)]| -> Vec<String> { files.iter().map(|(path, _)| path.clone()).collect() };
        let top = captured(&["*.md", "a.md"], 5);
        assert_eq!(shown(&top), ["a.md", "b.md", "i.md"]);
        assert_eq!(top[0].1, "short");
        assert_eq!(top[1].1, "ärger\n... [truncated]");
        assert_eq!(shown(&captured(&["*/c.md", "none/*"], 5)), ["sub/c.md"]);
        let deep = captured(&["**/*.md"], 100);
        assert_eq!(shown(&deep), ["a.md", "b.md", "i.md", "sub/c.md", "sub/deep/d.md"]);
        assert!(!deep[4].1.contains("hunter2"), "{deep:?}");
        assert_eq!(shown(&captured(&[".hidden/*"], 5)), [".hidden/e.md"]);
    }
}
