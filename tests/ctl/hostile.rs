//! Files made to hurt: `mozartctl validate` says what is wrong with each, in little time and memory.

pub(crate) mod files;

use std::fs;

use files::{BEGIN, cases};

use crate::support::{Alone, Desk, MOZARTCTL, said};

/// Kilobytes of data (heap, anonymous memory) that it may take, and seconds of the processor: many more than its
/// goal of a tenth of one (benches/README.md), since a build for tests is slow.
const MEMORY: u32 = 50 * 1024;
const SECONDS: u32 = 10;

/// Templates that make much of little, engine first.
const GREEDY: &[(&str, &str, &str)] = &[
    (
        "jinja",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "MiB of memory",
    ),
    (
        "jinja",
        "{{ ('a' * 10000) | replace('a', 'b' * 10000) | replace('b', 'c' * 10000) | length }}",
        "MiB of memory",
    ),
    (
        "jinja",
        "{{ ((range(100000) | list) * 1000) | list | length }}",
        "MiB of memory",
    ),
    (
        "jinja",
        "{% for i in range(100000) %}{% if 'a' * 5000000 ~ i %}{% endif %}{% endfor %}",
        "takes more than",
    ),
    ("jinja", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
    (
        "tera",
        "{% set_global s = 'x' %}{% for i in range(end=60) %}{% set_global s = s ~ s %}{% endfor %}",
        "MiB of memory",
    ),
    (
        "tera",
        "{% set a = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' %}{% set b = a | replace(from='a', to=a) %}\
              {% set b = b | replace(from='a', to=b) %}{% set b = b | replace(from='a', to=b) %}{{ b | length }}",
        "MiB of memory",
    ),
];

/// What a template may take in all: see `prompt.template` in mozart.yaml(5). What its process has besides is small.
const RENDERING: u64 = 300 * 1024;

#[test]
fn greedy_templates_are_told_within_their_memory() {
    let (alone, desk) = (Alone::new(), Desk::new());
    for (index, (engine, template, says)) in GREEDY.iter().enumerate() {
        let file = desk.path(&format!("greedy-{index}.yaml"));
        let job = format!(
            "name: greedy\nworkspace: ./w\nsheet: {{size: 1, total_items: 1}}\nprompt:\n  engine: {engine}\n  \
             template: \"{template}\"\n"
        );
        fs::write(&file, job).expect("a file");
        // The most memory of any process below it, in kilobytes, behind what they said.
        let script = "import resource, subprocess, sys\n\
                      code = subprocess.run(sys.argv[1:], stderr=subprocess.STDOUT).returncode\n\
                      print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n\
                      sys.exit(code)";
        let mut python = alone.program("python3");
        python.args(["-c", script, MOZARTCTL, "validate"]).arg(&file);
        let shown = python.output().expect("python3");
        let all = said(&shown);
        assert_eq!(shown.status.code(), Some(1), "{template}: {all}");
        assert!(
            all.contains("V109") && all.contains(says),
            "{template}: `{says}` in {all}"
        );
        let output = String::from_utf8_lossy(&shown.stdout).into_owned();
        let peak: u64 = output
            .lines()
            .last()
            .and_then(|line| line.parse().ok())
            .expect("a number");
        assert!(peak < RENDERING, "{template}: {peak} KB");
    }
}

#[test]
fn hostile_files_are_told_soon_and_in_little_memory() {
    let (alone, desk) = (Alone::new(), Desk::new());
    for (name, text, says, code) in cases() {
        let file = desk.path(&format!("{name}.yaml"));
        fs::write(&file, [BEGIN, &text].concat()).expect("a file");
        let script = format!("ulimit -d {MEMORY} -t {SECONDS}; exec \"$@\"");
        let mut bash = alone.program("bash");
        bash.args(["-c", &script, "bash", MOZARTCTL, "validate"]).arg(&file);
        let shown = bash.output().expect("bash");
        let all = said(&shown);
        let start: String = all.chars().take(2_000).collect();
        assert_eq!(shown.status.code(), Some(code), "{name}: {start}");
        assert!(all.contains(says), "{name}: `{says}` in {start}");
        assert!(all.len() < 200_000, "{name}: {} bytes are said", all.len());
    }
}
