//! Paths as job files write them, without looking at any disk.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// `~` and `${NAME}` filled in from the submitter's environment.
///
/// The error is a sentence fragment for a person.
pub(crate) fn expand_environment(text: &str, environment: &BTreeMap<String, String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    if let Some(after) = text.strip_prefix('~') {
        if !(after.is_empty() || after.starts_with('/')) {
            return Err("`~` stands for your own home only".to_owned());
        }
        out.push_str(
            environment
                .get("HOME")
                .ok_or("`~` cannot be expanded, HOME is not set")?,
        );
        rest = after;
    }
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        let name = &rest[start + 2..start + length];
        let value = environment
            .get(name)
            .ok_or_else(|| format!("the variable {name} is not set"))?;
        out.push_str(&rest[..start]);
        out.push_str(value);
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    if out.contains('\0') {
        Err("it holds a NUL byte".to_owned())
    } else {
        Ok(out)
    }
}

/// `path` from `base`, with `.` and `..` resolved by the text alone.
pub(crate) fn resolve(base: &Path, path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

/// Absolute path of something in the workspace; refuses what lies outside of it.
pub(crate) fn within(workspace: &str, path: &str) -> Result<String, String> {
    let workspace = Path::new(workspace);
    let full = resolve(workspace, path);
    if !full.starts_with(workspace) {
        return Err(format!(
            "`{}` is outside of the workspace {}",
            full.display(),
            workspace.display()
        ));
    }
    Ok(full.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_and_environment_are_filled_in_once() {
        let environment = BTreeMap::from([
            ("HOME".to_owned(), "/home/u".to_owned()),
            ("X".to_owned(), "${HOME}".to_owned()),
        ]);
        let expand = |text| expand_environment(text, &environment);
        assert_eq!(expand("~"), Ok("/home/u".into()));
        assert_eq!(expand("~/a/~"), Ok("/home/u/a/~".into()));
        assert_eq!(expand("a/${X}/b${HOME}"), Ok("a/${HOME}/b/home/u".into()));
        assert_eq!(expand("$HOME/{name}"), Ok("$HOME/{name}".into()));
        assert_eq!(expand("~other/x"), Err("`~` stands for your own home only".into()));
        assert_eq!(expand("${NOPE}/x"), Err("the variable NOPE is not set".into()));
        assert_eq!(expand("${open"), Ok("${open".into()));
    }

    #[test]
    fn only_paths_in_the_workspace_are_let_through() {
        assert_eq!(within("/w", "a/./b/../c"), Ok("/w/a/c".into()));
        assert_eq!(within("/w", "/w/x"), Ok("/w/x".into()));
        assert_eq!(within("/w", ""), Ok("/w".into()));
        for outside in ["../x", "/etc/passwd", "a/../../x", "/w/../w2/x", "/w2"] {
            assert!(
                within("/w", outside)
                    .unwrap_err()
                    .ends_with("is outside of the workspace /w"),
                "{outside}"
            );
        }
    }
}
