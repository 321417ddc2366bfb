//! `new [FILE]`: writes a commented job file to start from, and the JSON Schema that editors check it with.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use mozart::model::JobName;

use crate::cli::{NewArgs, Pattern};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::output::Out;
use crate::text::{clean, shell_word};

/// What the patterns call their job.
const NAME: &str = "my-job";

/// Writes the file, which must not exist yet; `-` prints it.
pub(crate) fn run(arguments: &NewArgs, out: &Out) -> Result<ExitCode, CliError> {
    let path = &arguments.file;
    let schema = schema_file()?;
    let name = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .filter(|stem| is_plain(stem))
        .unwrap_or(NAME);
    let text = job(arguments.from, name, &schema);
    if path.as_os_str() == "-" {
        out.bytes(text.as_bytes());
        return Ok(ExitCode::Done);
    }
    let shown = path.to_string_lossy();
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CliError::new(Kind::Usage, format!("{} exists already", clean(&shown)))
                    .hint("name another file, or move it away")
            }
            _ => CliError::new(Kind::System, format!("{} cannot be written: {error}", clean(&shown))),
        })?;
    out.line(&format!("wrote {}", clean(&shown)));
    out.note(&format!("`mozartctl validate {}` checks it", shell_word(&shown)));
    Ok(ExitCode::Done)
}

/// The pattern with that name, and the line by which editors find the schema.
fn job(pattern: Pattern, name: &str, schema: &Path) -> String {
    format!(
        "# yaml-language-server: $schema={}\n{}",
        schema.display(),
        pattern.text().replace(NAME, name)
    )
}

/// A name that needs no quotes.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
        && JobName::new(name.to_owned()).is_ok()
}

/// Writes the schema to the user's data directory, anew where this version has another.
fn schema_file() -> Result<PathBuf, CliError> {
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let data = variable("XDG_DATA_HOME")
        .or_else(|| Some(variable("HOME")?.join(".local/share")))
        .ok_or_else(|| CliError::new(Kind::System, "HOME is not set, so there is no place for the schema"))?;
    let path = data.join("mozart/job.schema.json");
    let text = serde_json::to_string_pretty(&mozart::job::json_schema()).unwrap_or_default();
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(path);
    }
    std::fs::create_dir_all(data.join("mozart"))
        .and_then(|()| std::fs::write(&path, &text))
        .map_err(|error| CliError::new(Kind::System, format!("{} cannot be written: {error}", path.display())))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use mozart::job::files::Disk;
    use mozart::job::plan::TemplateEngine;
    use mozart::job::{JobInput, load};

    use super::*;

    #[test]
    fn every_pattern_is_planned_without_a_problem() {
        for pattern in Pattern::value_variants() {
            let text = job(*pattern, "fresh", Path::new("/schema.json"));
            let directory = tempfile::tempdir().unwrap();
            let loaded = load(&JobInput::of(text.as_bytes(), directory.path()), &Disk);
            assert_eq!(loaded.problems, [], "{pattern:?}");
            let plan = loaded.plan.unwrap();
            assert_eq!(
                (plan.name.as_str(), plan.prompt.engine),
                ("fresh", TemplateEngine::Tera)
            );
            assert!(plan.workspace.ends_with("/fresh-workspace"));
        }
    }

    #[test]
    fn only_names_that_need_no_quotes_are_taken_from_the_file() {
        assert!(is_plain("night-audit_2"));
        for other in ["", "2024", "a b", "x: y", "-", "yes#"] {
            assert!(!is_plain(other), "{other}");
        }
    }
}
