//! Files that nobody would write: the corpus with pieces cut, doubled, swapped and put in, read, planned and rendered.
//! Nothing may panic, take long or say very much, and a plan is the same after it was stored.
//!
//! `MOZART_FUZZ_SECONDS` (2) says for how long, `MOZART_FUZZ_SEED` (1) with which seed; `tests/fuzz` does it for
//! minutes, within bounds of memory.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::model::Ask;
use crate::prompt::compose;

const CORPUS: &[&str] = &[
    GOOD,
    include_str!("../../../../tests/corpus/jinja.yaml"),
    include_str!("../../../../tests/corpus/tera.yaml"),
    include_str!("../../../../tests/corpus/short.yaml"),
    include_str!("../../../../examples/hello.yaml"),
    include_str!("../../../../examples/fan-out.yaml"),
    include_str!("../../../../examples/batch-review.yaml"),
];

/// What is put in besides pieces of the corpus: what hurts readers of YAML, of templates, of patterns and of numbers.
const WORDS: &[&str] = &[
    "",
    " ",
    "\n",
    "\t",
    "\r",
    ": ",
    "- ",
    "? ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "&a ",
    "*a",
    "<<: ",
    "!x ",
    "!!str ",
    "| \n",
    ">-\n",
    "'",
    "\"",
    "#",
    "---\n",
    "...\n",
    "%",
    "@",
    "`",
    "\\",
    "\u{0}",
    "\u{85}",
    "\u{feff}",
    "é",
    "日",
    "\u{1f600}",
    "~",
    "null",
    "yes",
    "off",
    "012",
    "1:30",
    "0x1F",
    ".nan",
    "-.inf",
    "1e999",
    "-1",
    "0",
    "1",
    "64",
    "99999",
    "4294967296",
    "9223372036854775807",
    "99999999999999999999999",
    "0.0000001",
    "{{",
    "}}",
    "{%",
    "%}",
    "{#",
    "{% raw %}",
    "{% for x in range(100000) %}",
    "{% for x in range(end=100000) %}",
    "{% endfor %}",
    "{% set s = s ~ s %}",
    "{% if sheet_num %}",
    "{% endif %}",
    "{% macro m() %}",
    "{{ m() }}",
    "{% endmacro %}",
    "{% include 'main.j2' %}",
    "{% extends 'main.j2' %}",
    "{{ 'x' * 1000000000 }}",
    "{{ 9 ** 99999 }}",
    "{{ x[::-1] }}",
    "| join(',')",
    ".items()",
    ".format(",
    "{sheet_num:09999999d}",
    "{workspace}",
    "{unknown}",
    "{",
    "${HOME}",
    "~/",
    "/",
    "../",
    "(a+)+$",
    "(?=x)",
    "(?P<n>",
    "{1000}",
    "\\p{L}",
    "[^",
    "sheet:",
    "batch:",
    "prompt:",
    "template: ",
    "template_file: ",
    "variables:",
    "validations:",
    "fan_out: {1: 99999}",
    "dependencies: {1: [2], 2: [1]}",
    "total_items: 100000",
    "size: 1",
    "condition: ",
    "not ",
    " in ",
    " or ",
    "==",
    "stage",
    "range(1, 10)",
];

/// Files in one round.
const CASES: u32 = 64;

/// One change: a place (of 2^16 parts of the text), and what happens there.
#[derive(Debug, Clone)]
struct Edit(u16, Change);

#[derive(Debug, Clone)]
enum Change {
    Put(usize),
    Byte(u8),
    Cut(u8),
    /// The piece from another place, so long, so often.
    Copy(u16, u8, u8),
    /// A piece of another file.
    Graft(usize, u16, u8),
    /// The line once more, elsewhere.
    Line(u16),
}

fn edits() -> impl Strategy<Value = (usize, Vec<Edit>)> {
    let change = prop_oneof![
        4 => (0..WORDS.len()).prop_map(Change::Put),
        1 => any::<u8>().prop_map(Change::Byte),
        2 => any::<u8>().prop_map(Change::Cut),
        1 => (any::<u16>(), any::<u8>(), 1..40_u8).prop_map(|(from, length, times)| Change::Copy(from, length, times)),
        2 => (0..CORPUS.len(), any::<u16>(), any::<u8>()).prop_map(|(file, from, length)| Change::Graft(file, from, length)),
        2 => any::<u16>().prop_map(Change::Line),
    ];
    let edit = (any::<u16>(), change).prop_map(|(place, change)| Edit(place, change));
    (0..CORPUS.len(), prop::collection::vec(edit, 1..12))
}

fn place(text: &[u8], part: u16) -> usize {
    (text.len() * usize::from(part)) >> 16
}

fn piece(text: &[u8], from: u16, length: u8) -> Vec<u8> {
    let from = place(text, from);
    text[from..text.len().min(from + usize::from(length))].to_vec()
}

fn apply(file: usize, edits: &[Edit]) -> Vec<u8> {
    let mut text = CORPUS[file].as_bytes().to_vec();
    for Edit(at, change) in edits {
        let at = place(&text, *at);
        let (end, with) = match change {
            Change::Put(word) => (at, WORDS[*word].as_bytes().to_vec()),
            Change::Byte(byte) => (text.len().min(at + 1), vec![*byte]),
            Change::Cut(length) => (text.len().min(at + usize::from(*length)), Vec::new()),
            Change::Copy(from, length, times) => (at, piece(&text, *from, *length).repeat(usize::from(*times))),
            Change::Graft(file, from, length) => (at, piece(CORPUS[*file].as_bytes(), *from, *length)),
            Change::Line(from) => {
                let from = place(&text, *from);
                let start = text[..from]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |feed| feed + 1);
                let end = text[from..]
                    .iter()
                    .position(|byte| *byte == b'\n')
                    .map_or(text.len(), |feed| from + feed + 1);
                let line = text[start..end].to_vec();
                let at = text[..at]
                    .iter()
                    .rposition(|byte| *byte == b'\n')
                    .map_or(0, |feed| feed + 1);
                text.splice(at..at, line);
                continue;
            }
        };
        text.splice(at..end, with);
    }
    text
}

/// Reads, plans and renders it, as `run --dry-run` does.
fn live_through(text: &[u8]) {
    let begun = Instant::now();
    let set = BTreeMap::new();
    let environment = BTreeMap::from([("HOME".to_owned(), "/home/u".to_owned())]);
    let input = JobInput {
        path: Some(Path::new("/jobs/job.yaml")),
        set: &set,
        environment: &environment,
        ..JobInput::of(text, Path::new("/jobs"))
    };
    let loaded = load(&input, &files());
    let told = crate::job::report(&loaded.problems, "job.yaml", &String::from_utf8_lossy(text), false);
    // A line is quoted for each problem, and there are at most 200.
    assert!(told.len() < 400_000, "{} bytes are said of it", told.len());
    assert!(
        loaded.plan.is_some() || !loaded.problems.is_empty(),
        "no plan, and nothing is said"
    );
    if let Some(plan) = &loaded.plan {
        let stored = serde_json::to_string(plan).unwrap();
        let again: Plan = serde_json::from_str(&stored).unwrap();
        assert_eq!(&again, plan, "the stored plan differs");
        for sheet in plan.sheets.iter().take(5) {
            // It may fail to render for the lack of earlier sheets' outputs, in words.
            for ask in [Ask::Task, Ask::Completion] {
                if let Err(error) = compose(plan, sheet, ask, &[]) {
                    assert!(!error.to_string().is_empty());
                }
            }
        }
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "it took {took:?}");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_is_written_is_read_planned_and_rendered_or_told() {
    let seconds = number("MOZART_FUZZ_SECONDS", 2);
    let seed = number("MOZART_FUZZ_SEED", 1);
    let (begun, mut rounds) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&rounds.to_le_bytes());
        let config = Config {
            cases: CASES,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let outcome = runner.run(&edits(), |(file, edits)| {
            live_through(&apply(file, &edits));
            Ok(())
        });
        if let Err(proptest::test_runner::TestError::Fail(reason, (file, edits))) = outcome {
            panic!(
                "seed {seed}: {reason}\n{}",
                String::from_utf8_lossy(&apply(file, &edits))
            );
        }
        rounds += 1;
    }
    let files = rounds * u64::from(CASES);
    println!("{files} files in {} s, seed {seed}", begun.elapsed().as_secs());
}
