//! `costs`: what sessions have cost.

use mozart::api::request::CostRequest;
use mozart::summary::{CostKey, CostSummary};

use crate::cli::CostsArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::json::{CostLine, Costs};
use crate::output::{Out, Paint, Row};
use crate::text::{clean, count, money, tokens};

/// Shows what was spent, added up as asked, and the sum of it.
pub(crate) async fn run(arguments: &CostsArgs, finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let mut request = CostRequest {
                days: arguments.days,
                by: arguments.by.clone(),
                ..CostRequest::default()
            };
            if let Some(word) = &arguments.job {
                let selected = link.select(word).await?;
                // The whole job, unless a run of it was named.
                request.run = selected.run.filter(|_| selected.job != *word);
                request.job = Some(selected.job);
            }
            let costs = link.costs(&request).await?;
            let mut total = CostSummary::default();
            costs.iter().for_each(|cost| total.add(cost));
            if out.json {
                out.document(&Costs {
                    costs: costs.iter().map(CostLine::from).collect(),
                    total: CostLine::from(&total),
                });
            } else if costs.is_empty() {
                out.line("no session has cost anything");
            } else {
                out.table(&rows(&costs, &total, &request.by));
                explain(&total, out);
            }
            Ok(ExitCode::Done)
        })
        .await
}

fn rows(costs: &[CostSummary], total: &CostSummary, by: &[CostKey]) -> Vec<Row> {
    let heading = by.iter().map(|key| key.as_str().to_uppercase());
    let heading = heading.chain(["COST", "SESSIONS", "TOKENS IN", "OUT"].map(str::to_owned));
    let mut rows: Vec<Row> = vec![heading.map(|text| (text, Paint::Dim)).collect()];
    let figures = |cost: &CostSummary| {
        [
            (spent(cost), Paint::Plain),
            (cost.sessions.to_string(), Paint::Plain),
            (tokens(cost.tokens_in), Paint::Plain),
            (tokens(cost.tokens_out), Paint::Plain),
        ]
    };
    for cost in costs {
        let keys = by.iter().map(|key| (named(cost, *key), Paint::Bold));
        rows.push(keys.chain(figures(cost)).collect());
    }
    if costs.len() > 1 {
        let blank = by.iter().skip(1).map(|_| (String::new(), Paint::Plain));
        let keys = std::iter::once(("all".to_owned(), Paint::Dim)).chain(blank);
        rows.push(keys.chain(figures(total)).collect());
    }
    rows
}

/// What the row is about; what nobody knows is a dash.
fn named(cost: &CostSummary, key: CostKey) -> String {
    let text = match key {
        CostKey::Day => &cost.day,
        CostKey::Account => &cost.account,
        CostKey::Job => &cost.job,
        CostKey::Run => {
            let job = cost.job.as_deref().unwrap_or_default();
            return format!("{}#{}", clean(job), cost.run.unwrap_or_default());
        }
        CostKey::Model => &cost.model,
    };
    text.as_deref()
        .map_or_else(|| "-".to_owned(), |text| clean(text).into_owned())
}

/// An unknown cost is never shown as none.
fn spent(cost: &CostSummary) -> String {
    let estimated = if cost.estimated.0 > 0 { "~" } else { "" };
    match (cost.sessions - cost.unknown.min(cost.sessions), cost.unknown) {
        (0, _) => "unknown".to_owned(),
        (_, 0) => format!("{estimated}{}", money(cost.cost)),
        (_, unknown) => format!("{estimated}{} and {unknown} unknown", money(cost.cost)),
    }
}

fn explain(total: &CostSummary, out: &Out) {
    if total.estimated.0 > 0 {
        let estimated = money(total.estimated);
        out.note(&format!(
            "~ {estimated} of it by the price of tokens: those sessions did not say what they cost"
        ));
    }
    if total.unknown > 0 {
        let sessions = count(total.unknown, "session");
        out.note(&format!("unknown: {sessions} worked and did not say what that cost"));
    }
}
