//! `rate-limits`, `clear-rate-limits`: what keeps sessions of an account from starting.

use mozart::api::view::{GateState, GateView};

use crate::cli::ClearRateLimitsArgs;
use crate::connect::{Finder, Need};
use crate::error::CliError;
use crate::exit_code::ExitCode;
use crate::json::{Cleared, Gate, RateLimits};
use crate::output::{Out, Paint, Row};
use crate::text::{clean, count, moment, now};

/// Shows each limit, how it stands, and how many runs wait for it.
pub(crate) async fn show(finder: &Finder<'_>, out: &Out) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let gates = link.gates().await?;
            if out.json {
                out.document(&RateLimits {
                    gates: gates.iter().map(Gate::from).collect(),
                });
            } else if gates.is_empty() {
                out.line("no limit holds anything");
            } else {
                out.table(&rows(&gates, out));
            }
            Ok(ExitCode::Done)
        })
        .await
}

/// Takes limits for over.
pub(crate) async fn clear(
    arguments: &ClearRateLimitsArgs,
    finder: &Finder<'_>,
    out: &Out,
) -> Result<ExitCode, CliError> {
    finder
        .with(Need::Answer, async |link| {
            let account = arguments.account.as_deref();
            let mut gates = link.gates().await?;
            gates.retain(|gate| account.is_none_or(|account| gate.account == account));
            link.clear_gates(account).await?;
            if out.json {
                out.document(&Cleared {
                    cleared: gates.iter().map(Gate::from).collect(),
                });
            } else {
                let cleared = u32::try_from(gates.len()).unwrap_or(u32::MAX);
                out.line(&format!("{} cleared", count(cleared, "limit")));
            }
            Ok(ExitCode::Done)
        })
        .await
}

fn rows(gates: &[GateView], out: &Out) -> Vec<Row> {
    let heading = ["ACCOUNT", "LIMIT", "STATE", "WAITING"];
    let mut rows: Vec<Row> = vec![heading.map(|text| (text.to_owned(), Paint::Dim)).to_vec()];
    for gate in gates {
        let kind = match gate.kind.as_str() {
            "usage" => "usage limit",
            "throttle" => "throttled",
            "faults" => "too many faults in a row",
            other => other,
        };
        let window = gate.window.as_deref().map(|window| format!(" ({})", clean(window)));
        let (state, paint) = match gate.state {
            GateState::Closed => (
                format!("closed until {}", moment(gate.until, now(), &out.zone)),
                Paint::Warn,
            ),
            GateState::Opening => (
                format!("opening, {} at a time ({} under way)", gate.places, gate.under_way),
                Paint::Busy,
            ),
            GateState::Open => ("open".to_owned(), Paint::Good),
        };
        rows.push(vec![
            (clean(&gate.account).into_owned(), Paint::Bold),
            (format!("{}{}", clean(kind), window.unwrap_or_default()), Paint::Plain),
            (state, paint),
            (count(gate.runs_waiting, "run"), Paint::Plain),
        ]);
    }
    rows
}
