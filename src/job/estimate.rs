//! How long a job may take and what it may cost, by what sheets of it took before.

use std::collections::{BTreeMap, HashMap};

use super::plan::{Plan, Sheet};
use super::waves::makespan;
use crate::model::{Cost, SheetNo, Span};

/// What a sheet of an earlier run took until it was completed, all its attempts together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// Its number.
    pub sheet: SheetNo,
    /// How long its sessions were at work; what it waited between them is left out.
    pub work: Span,
    /// What they have cost; `None`: nobody knows.
    pub cost: Option<Cost>,
    /// The model that worked, where it is known.
    pub model: Option<String>,
}

/// A figure, and between which others it may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<T> {
    /// Each sheet is the quickest, or cheapest, that it may be like.
    pub low: T,
    /// Each is the mean of those.
    pub likely: T,
    /// Each is the slowest, or dearest.
    pub high: T,
}

impl Range<i64> {
    /// Of those; `None` where there are none.
    fn of(all: impl Iterator<Item = i64> + Clone) -> Option<Self> {
        let (low, high) = (all.clone().min()?, all.clone().max()?);
        let (sum, count) = all.fold((0, 0), |(sum, count), one| (sum + i128::from(one), count + 1));
        let likely = i64::try_from(sum / count).unwrap_or(high);
        Some(Self { low, likely, high })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            low: self.low.saturating_add(other.low),
            likely: self.likely.saturating_add(other.likely),
            high: self.high.saturating_add(other.high),
        }
    }
}

/// What a job may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// From its start to its end, pauses between sheets included, waits for limits and the like not.
    pub time: Range<Span>,
    /// `None`: of one of its sheets nobody knows.
    pub cost: Option<Range<Cost>>,
}

/// What those sheets of a plan may take for which `runs` is true; `None` where nothing was before.
///
/// A sheet is taken to be like the one of its number, and where that has none, like all of them. What another model has
/// cost says nothing.
pub fn estimate(plan: &Plan, runs: impl Fn(&Sheet) -> bool, earlier: &[Earlier]) -> Option<Estimate> {
    let mut by_number: HashMap<SheetNo, Vec<&Earlier>> = HashMap::new();
    for one in earlier {
        by_number.entry(one.sheet).or_default().push(one);
    }
    let all: Vec<&Earlier> = earlier.iter().collect();
    let mut of_all: BTreeMap<Option<&str>, Figures> = BTreeMap::new();
    let mut work: Vec<Option<Range<i64>>> = Vec::with_capacity(plan.sheets.len());
    let mut cost = Some(Range {
        low: 0,
        likely: 0,
        high: 0,
    });
    for sheet in &plan.sheets {
        if !runs(sheet) {
            work.push(None);
            continue;
        }
        let model = plan.backend.model(Some(sheet));
        let (all_work, all_cost) = *of_all.entry(model).or_insert_with(|| figures(&all, model));
        let own = by_number.get(&SheetNo(sheet.number));
        let (own_work, own_cost) = own.map_or((None, None), |own| figures(own, model));
        work.push(Some(own_work.or(all_work)?));
        cost = cost.zip(own_cost.or(all_cost)).map(|(sum, one)| sum.plus(one));
    }
    let span_of = |pick: fn(Range<i64>) -> i64| {
        let of = |sheet: SheetNo| {
            let index = usize::try_from(sheet.0).ok()?.checked_sub(1)?;
            work.get(index).copied().flatten().map(|range| Span(pick(range)))
        };
        makespan(plan, of)
    };
    let likely = span_of(|range| range.likely);
    Some(Estimate {
        // Shorter sheets can, in another order, take longer beside each other.
        time: Range {
            low: span_of(|range| range.low).min(likely),
            likely,
            high: span_of(|range| range.high).max(likely),
        },
        cost: cost.map(|Range { low, likely, high }| Range {
            low: Cost(low),
            likely: Cost(likely),
            high: Cost(high),
        }),
    })
}

/// Work and cost, where they are known.
type Figures = (Option<Range<i64>>, Option<Range<i64>>);

/// Work and cost of a sheet that is like those, with that model.
fn figures(like: &[&Earlier], model: Option<&str>) -> Figures {
    let agreeing: Vec<&Earlier> = like.iter().copied().filter(|one| agrees(model, one)).collect();
    let timed = if agreeing.is_empty() { like } else { &agreeing };
    (
        Range::of(timed.iter().map(|one| one.work.0)),
        Range::of(agreeing.iter().filter_map(|one| one.cost).map(|cost| cost.0)),
    )
}

/// Whether that may have been the model: a word such as `opus` stands for any whose name has it.
fn agrees(model: Option<&str>, earlier: &Earlier) -> bool {
    match (model, &earlier.model) {
        (Some(asked), Some(worked)) => worked.contains(asked.trim_end_matches("[1m]")),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::plan_of;

    fn plan(lines: &str) -> Plan {
        plan_of(&format!("name: j\nworkspace: /w\nprompt: {{template: x}}\n{lines}\n"))
    }

    fn earlier(sheet: u32, seconds: i64, usd: Option<f64>) -> Earlier {
        Earlier {
            sheet: SheetNo(sheet),
            work: Span::from_secs(seconds),
            cost: usd.map(Cost::from_usd),
            model: None,
        }
    }

    fn seconds(estimate: &Estimate) -> [i64; 3] {
        let Range { low, likely, high } = estimate.time;
        [low, likely, high].map(|span| span.0 / 1_000_000)
    }

    fn usd(estimate: &Estimate) -> Option<[f64; 3]> {
        let range = estimate.cost?;
        Some([range.low, range.likely, range.high].map(Cost::as_usd))
    }

    const FIVE: &str = "sheet: {size: 1, total_items: 5}\npause_between_sheets_seconds: 10";

    #[test]
    fn a_sheet_is_like_that_of_its_number_else_like_all() {
        let plan = plan(FIVE);
        let past = [
            earlier(1, 100, Some(1.0)),
            earlier(1, 300, Some(3.0)),
            earlier(2, 20, Some(0.5)),
        ];
        let estimated = estimate(&plan, |_| true, &past).unwrap();
        // 1: 100, 200, 300; 2: 20; the three others 20, 140, 300; four pauses.
        assert_eq!(seconds(&estimated), [220, 680, 1260]);
        assert_eq!(usd(&estimated), Some([3.0, 7.0, 12.5]));
        let two = estimate(&plan, |sheet| sheet.number <= 2, &past).unwrap();
        assert_eq!(seconds(&two), [130, 230, 330]);
        assert_eq!(usd(&two), Some([1.5, 2.5, 3.5]));
    }

    #[test]
    fn what_nobody_knows_is_not_nothing() {
        let plan = plan(FIVE);
        assert_eq!(estimate(&plan, |_| true, &[]), None);
        let estimated = estimate(&plan, |_| true, &[earlier(3, 10, None)]).unwrap();
        assert_eq!((seconds(&estimated), estimated.cost), ([90; 3], None));
    }

    #[test]
    fn another_models_price_says_nothing() {
        let with = |backend: &str| {
            plan(&format!(
                "sheet: {{size: 1, total_items: 2}}\npause_between_sheets_seconds: 0\n{backend}"
            ))
        };
        let past = [("claude-haiku-4-5", 10, 0.1), ("claude-opus-4-5", 90, 2.0)].map(|(model, seconds, usd)| Earlier {
            model: Some(model.to_owned()),
            ..earlier(1, seconds, Some(usd))
        });
        let told = |backend: &str| {
            let estimated = estimate(&with(backend), |_| true, &past).unwrap();
            (seconds(&estimated), usd(&estimated))
        };
        assert_eq!(told("backend: {cli_model: haiku}"), ([20; 3], Some([0.2; 3])));
        assert_eq!(told("backend: {cli_model: 'opus[1m]'}"), ([180; 3], Some([4.0; 3])));
        assert_eq!(
            told("backend: {cli_model: haiku, sheet_overrides: {2: {cli_model: opus}}}"),
            ([100; 3], Some([2.1; 3]))
        );
        assert_eq!(told("backend: {cli_model: sonnet}"), ([20, 100, 180], None));
        assert_eq!(told("backend: {}"), ([20, 100, 180], Some([0.2, 2.1, 4.0])));
    }

    #[test]
    fn sheets_beside_each_other_take_no_longer_than_the_longest_way() {
        let plan = plan(
            "sheet: {size: 1, total_items: 3, fan_out: {2: 3}, dependencies: {2: [1], 3: [2]}}\n\
             parallel: {enabled: true, max_concurrent: 2}",
        );
        let past: Vec<_> = (1..)
            .zip([10, 30, 40, 20, 5])
            .map(|(no, work)| earlier(no, work, None))
            .collect();
        // 30 and 40 begin at 10, 20 where 30 ends at 40, so the last begins at 60.
        assert_eq!(seconds(&estimate(&plan, |_| true, &past).unwrap()), [65; 3]);
    }

    prop_compose! {
        fn past()(all in prop::collection::vec((1_u32..15, 0_i64..10_000, prop::option::of(0_i64..9_000_000)), 0..40))
            -> Vec<Earlier> {
            all.into_iter().map(|(sheet, seconds, cost)| Earlier { cost: cost.map(Cost), ..earlier(sheet, seconds, None) })
                .collect()
        }
    }

    proptest! {
        #[test]
        fn an_estimate_lies_between_its_bounds(
            past in past(),
            places in 0_u32..5,
            stages in 1_u32..6,
            width in 1_u32..5,
            chained in any::<bool>(),
            first in 1_u32..4,
        ) {
            let chain: Vec<_> = (2..=stages).map(|stage| format!("{stage}: [{}]", stage - 1)).collect();
            let dependencies = if chained { chain.join(", ") } else { String::new() };
            let parallel = if places > 0 { format!("parallel: {{enabled: true, max_concurrent: {places}}}") } else { String::new() };
            let plan = plan(&format!(
                "sheet: {{size: 1, total_items: {stages}, fan_out: {{1: {width}}}, dependencies: {{{dependencies}}}}}\n{parallel}"
            ));
            let runs = |sheet: &Sheet| sheet.number >= first;
            let Some(estimated) = estimate(&plan, runs, &past) else {
                prop_assert!(past.is_empty());
                return Ok(());
            };
            let Range { low, likely, high } = estimated.time;
            prop_assert!(low <= likely && likely <= high);
            let mean = |sheet: &Sheet| {
                let own: Vec<_> = past.iter().filter(|one| one.sheet.0 == sheet.number).collect();
                let like = if own.is_empty() { past.iter().collect() } else { own };
                like.iter().map(|one| one.work.0).sum::<i64>() / i64::try_from(like.len()).unwrap()
            };
            let works: Vec<i64> = plan.sheets.iter().filter(|sheet| runs(sheet)).map(mean).collect();
            let (sum, longest) = (works.iter().sum::<i64>(), works.iter().max().copied().unwrap_or(0));
            if places == 0 {
                let pauses = i64::try_from(works.len().saturating_sub(1)).unwrap();
                prop_assert_eq!(likely.0, sum + pauses * plan.pause_between_sheets.0);
            } else {
                prop_assert!(longest <= likely.0 && sum <= likely.0 * i64::from(places) && likely.0 <= sum);
            }
            let known = past.iter().any(|one| one.cost.is_some());
            prop_assert_eq!(estimated.cost.is_some(), known || works.is_empty());
            if let Some(Range { low, likely, high }) = estimated.cost {
                prop_assert!(low <= likely && likely <= high);
            }
        }
    }
}
