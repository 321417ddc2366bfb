//! `explain [CODE]`: prints what a code means; without one, lists all.

use mozart::job::suggest::nearest;
use mozart::job::{page, pages};
use mozart::model::Page;
use serde::Serialize;

use crate::cli::ExplainArgs;
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::output::{Out, Paint};
use crate::text::clean;

/// A page as `--json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    code: &'static str,
    title: &'static str,
    means: &'static str,
    example: &'static str,
    mend: &'static str,
}

impl From<Page> for Shown {
    fn from(page: Page) -> Self {
        Self {
            code: page.code,
            title: page.title,
            means: page.means,
            example: page.example,
            mend: page.mend,
        }
    }
}

/// Prints it to standard output.
pub(crate) fn run(arguments: &ExplainArgs, out: &Out) -> Result<ExitCode, CliError> {
    let Some(code) = &arguments.code else {
        if out.json {
            out.document(&pages().map(Shown::from).collect::<Vec<_>>());
        } else {
            let rows: Vec<_> = pages()
                .map(|page| {
                    vec![
                        (page.code.to_owned(), Paint::Bold),
                        (page.title.to_owned(), Paint::Plain),
                    ]
                })
                .collect();
            out.table(&rows);
        }
        return Ok(ExitCode::Done);
    };
    let Some(page) = page(code) else {
        let error = CliError::new(Kind::Usage, format!("there is no code {}", clean(code)));
        let near = nearest(&code.to_ascii_uppercase(), pages().map(|page| page.code));
        return Err(match near {
            Some(near) => error.hint(format!("did you mean {near}? `mozartctl explain` lists all")),
            None => error.hint("`mozartctl explain` lists all"),
        });
    };
    if out.json {
        out.document(&Shown::from(page));
        return Ok(ExitCode::Done);
    }
    out.line(&format!("{}: {}", out.paint(Paint::Bold, page.code), page.title));
    for (heading, text) in [
        ("What it means", page.means),
        ("Example", page.example),
        ("What to do", page.mend),
    ] {
        out.line("");
        out.line(&out.paint(Paint::Dim, heading));
        // What stands in a file stays on one line.
        let lines = if heading == "Example" {
            text.lines().map(str::to_owned).collect()
        } else {
            wrapped(text, 92)
        };
        for line in lines {
            out.line(&format!("    {line}"));
        }
    }
    Ok(ExitCode::Done)
}

/// The text in lines of at most so many characters.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
