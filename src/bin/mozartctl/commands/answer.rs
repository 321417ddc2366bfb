//! `answer [QUESTION [CHOICE]]`: what only a person can decide.

use mozart::api::view::QuestionView;

use crate::cli::AnswerArgs;
use crate::connect::{Finder, Need};
use crate::error::{CliError, Kind};
use crate::exit_code::ExitCode;
use crate::json::{Answered, Question, Questions};
use crate::link::Link;
use crate::output::Out;
use crate::text::{clean, shell_word};

/// Gives the answer; asks for what the command line does not say, where somebody is there to be asked.
pub(crate) async fn run(arguments: &AnswerArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let questions = link.questions().await?;
            let Some(id) = &arguments.question else {
                return without_arguments(link, &questions, out).await;
            };
            let question = questions.iter().find(|question| question.id == *id);
            let choice = match (&arguments.choice, question) {
                (Some(choice), _) => choice.to_ascii_lowercase(),
                (None, Some(question)) => typed(question, out)?,
                // That there is no such question is the conductor's to say.
                (None, None) => String::new(),
            };
            link.answer(id, &choice).await?;
            let runs = question.map(|question| question.runs.as_slice()).unwrap_or_default();
            answered(link, id, &choice, runs, out)
        })
        .await
}

/// Shows what is asked; the only question is answered at once by whoever is there.
async fn without_arguments(link: &Link, questions: &[QuestionView], out: &Out) -> Result<ExitCode, CliError> {
    if out.json {
        out.document(&Questions {
            questions: questions.iter().map(Question::from).collect(),
        });
        return Ok(ExitCode::Done);
    }
    match questions {
        [] => out.line("no question is open"),
        [question] if out.can_ask() => {
            let choice = typed(question, out)?;
            link.answer(&question.id, &choice).await?;
            return answered(link, &question.id, &choice, &question.runs, out);
        }
        several if out.can_ask() => several.iter().for_each(|question| describe(question, out)),
        several => {
            let named: Vec<_> = several.iter().map(named).collect();
            let error = CliError::new(
                Kind::Usage,
                format!("which question, and which answer? Open: {}", named.join("; ")),
            );
            return Err(error.hint("`mozartctl answer QUESTION CHOICE` answers it, `mozartctl status` shows all"));
        }
    }
    Ok(ExitCode::Done)
}

/// Asks until one of the choices is typed.
fn typed(question: &QuestionView, out: &Out) -> Result<String, CliError> {
    let nothing = || CliError::new(Kind::Usage, format!("nothing was answered to {}", named(question)));
    if !out.can_ask() {
        return Err(CliError::new(Kind::Usage, format!("which answer? {}", named(question))));
    }
    lines(question).iter().for_each(|line| out.line(line));
    loop {
        match out.ask(&prompt(question))? {
            Some(word) if question.choices.contains(&word) => return Ok(word),
            Some(word) if !word.is_empty() => {}
            Some(_) | None => return Err(nothing()),
        }
    }
}

fn answered(link: &Link, id: &str, choice: &str, runs: &[String], out: &Out) -> Result<ExitCode, CliError> {
    if out.json {
        out.document(&Answered {
            question: id,
            choice,
            runs,
        });
        return Ok(ExitCode::Done);
    }
    out.line(&format!("question {}: {}", clean(id), clean(choice)));
    if link.is_embedded() && choice != "stop" {
        for run in runs {
            let job = run.rsplit_once('#').map_or(run.as_str(), |(job, _)| job);
            out.note(&format!(
                "there is no service: `mozartctl resume {}` lets it go on",
                shell_word(job)
            ));
        }
    }
    Ok(ExitCode::Done)
}

/// The question, and what to type.
pub(crate) fn describe(question: &QuestionView, out: &Out) {
    lines(question).iter().for_each(|line| out.line(line));
    out.line(&format!(
        "  answer it: mozartctl answer {} {}",
        clean(&question.id),
        question.choices.join("|")
    ));
}

/// The question, whom it is about, and what its answers mean.
pub(crate) fn lines(question: &QuestionView) -> Vec<String> {
    let mut lines = vec![format!("question {}: {}", clean(&question.id), clean(&question.text))];
    if let Some(account) = &question.account {
        lines.push(format!("  account: {}", clean(account)));
    }
    let named = u32::try_from(question.runs.len()).unwrap_or(u32::MAX);
    let others = match question.runs_waiting.saturating_sub(named) {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    if named > 0 {
        lines.push(format!("  waiting: {}{others}", clean(&question.runs.join(", "))));
    }
    for choice in &question.choices {
        let meaning = match choice.as_str() {
            "retry" => "the cause is mended: try again what failed of it, and go on",
            "wait" => "wait until the limit is over, and go on",
            "continue" => "as much money again, and go on",
            "stop" => "cancel the runs that wait for the answer",
            _ => "",
        };
        lines.push(format!("  {}: {meaning}", clean(choice)));
    }
    lines
}

/// What stands before the place where the answer is typed.
pub(crate) fn prompt(question: &QuestionView) -> String {
    format!("{}?", question.choices.join(", "))
}

/// The question in one line, with its answers.
fn named(question: &QuestionView) -> String {
    format!(
        "{}: {} ({})",
        clean(&question.id),
        clean(question.text.trim_end_matches('.')),
        question.choices.join(" or ")
    )
}
