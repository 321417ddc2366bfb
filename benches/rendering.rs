//! Prompts in a second, by one processor: the quick start's template, as it is planned (compiled once for all sheets), and as
//! before each attempt (compiled anew, with what is appended).

#![expect(clippy::print_stdout, reason = "its table is what it is for")]

mod plan;

use std::error::Error;
use std::time::Instant;

use mozart::job::plan::TemplateEngine;
use mozart::model::Ask;
use mozart::prompt;

const README: &str = include_str!("../README.md");

fn main() -> Result<(), Box<dyn Error>> {
    let sheets = if std::env::args().any(|argument| argument == "--quick") {
        1000
    } else {
        50_000
    };
    let job = quick_start().ok_or("README.md has no quick start")?;
    let mut plan = plan::plan(&job.replace("total_items: 100", &format!("total_items: {sheets}0")))?;
    println!("| prompts of the quick start | goal | a second |");
    println!("| --- | --- | --- |");
    for (engine, name) in [(TemplateEngine::Tera, "Tera"), (TemplateEngine::Jinja, "MiniJinja")] {
        plan.prompt.engine = engine;
        let begin = Instant::now();
        let tasks = prompt::first_tasks(&plan, &plan.sheets)?;
        let all = tasks.len() as f64 / begin.elapsed().as_secs_f64();
        println!("| {name}, one template for {sheets} sheets | ≥ 20,000 | {all:.0} |");
        let few = &plan.sheets[..sheets / 10];
        let begin = Instant::now();
        for (sheet, task) in few.iter().zip(&tasks) {
            if prompt::compose(&plan, sheet, Ask::Task, &[])? != task.sent {
                return Err("what is sent differs from what is planned".into());
            }
        }
        let each = few.len() as f64 / begin.elapsed().as_secs_f64();
        println!("| {name}, compiled for each | – | {each:.0} |");
    }
    Ok(())
}

/// The first job file of the README.
fn quick_start() -> Option<String> {
    let (_, rest) = README.split_once("## Quick start")?;
    let (_, rest) = rest.split_once("```yaml\n")?;
    Some(rest.split_once("```")?.0.to_owned())
}
