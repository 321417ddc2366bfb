//! Files made to hurt: `mozartctl validate` says what is wrong with each, in little time and memory.

use std::fs;

use crate::support::{Alone, Desk, MOZARTCTL, said};

/// Kilobytes of data (heap, anonymous memory) that it may take, and seconds of the processor: many more than its
/// goal of a tenth of one (benches/README.md), since a build for tests is slow.
const MEMORY: u32 = 50 * 1024;
const SECONDS: u32 = 10;

/// A name, what stands behind a valid job's fields, and what must be said of it with which exit code.
type Case = (&'static str, Vec<u8>, &'static str, i32);

fn cases() -> Vec<Case> {
    let case = |name, text: String, says, code| (name, text.into_bytes(), says, code);
    let long = |piece: &str, times: usize| piece.repeat(times);
    vec![
        case("bomb", bomb(), "once its aliases are expanded", 2),
        case("merged-bomb", merged_bomb(), "once its aliases are expanded", 2),
        case("itself", "x: &x [*x, *x]\n".into(), "levels deep", 2),
        case("brackets", format!("x: {}", long("[", 100_000)), "too many", 2),
        case(
            "closed",
            format!("x: {}{}", long("[", 4_900), long("]", 4_900)),
            "levels deep",
            2,
        ),
        case("braces", format!("x: {}", long("{a: ", 50_000)), "too many", 2),
        case("dashes", format!("x:\n  {}y\n", long("- ", 49_000)), "levels deep", 2),
        case("questions", format!("{}\n", long("? ", 49_000)), "levels deep", 2),
        case(
            "indented",
            (0..2_000).map(|n| format!("{}a:\n", long(" ", n))).collect(),
            "levels deep",
            2,
        ),
        case("items", format!("x:\n{}", long("- y\n", 48_000)), "no field `x`", 1),
        case(
            "more-items",
            format!("x:\n{}", long("- y\n", 150_000)),
            "too many lists and maps",
            2,
        ),
        case("fields", fields(24_000), "no field", 1),
        case("more-fields", fields(90_000), "too many lists and maps", 2),
        case("lines", long("\n", 8_000_000), "lines", 2),
        case("comments", long("# x x x x\n", 800_000), "lines", 2),
        case(
            "scalar",
            format!("description: {}\n", long("x", 9_000_000)),
            "larger than 8 MiB",
            2,
        ),
        case(
            "text",
            format!("description: '{}'\n", long("x; ", 2_600_000)),
            "more than 1 MiB",
            2,
        ),
        case(
            "block",
            format!(
                "description: |\n{}",
                long("  many words of a long text that goes on\n", 190_000)
            ),
            "more than 1 MiB",
            2,
        ),
        case("again", "name: other\n".into(), "stood on line 1 already", 1),
        case("many-again", long("name: x\n", 20_000), "stands here twice", 1),
        case("tab", "retry:\n\tmax_retries: 1\n".into(), "tab", 2),
        case(
            "tag",
            "description: !include x\n".into(),
            "has no meaning in a job file",
            2,
        ),
        case(
            "python-tag",
            "description: !!python/object:os.system x\n".into(),
            "!!python/object:os.system",
            1,
        ),
        ("latin", b"description: caf\xe9\n".to_vec(), "not UTF-8", 2),
        ("nul", b"description: a\0b\n".to_vec(), "NUL byte", 2),
        case(
            "huge-number",
            "priority: 99999999999999999999999\n".into(),
            "priority",
            1,
        ),
        case(
            "nan",
            "pause_between_sheets_seconds: .nan\n".into(),
            "pause_between_sheets_seconds",
            1,
        ),
        case(
            "infinite",
            "pause_between_sheets_seconds: .inf\n".into(),
            "pause_between_sheets_seconds",
            1,
        ),
        case(
            "nested-regex",
            rule(&format!("{}a{}", long("(", 5_000), long(")", 5_000))),
            "pattern",
            1,
        ),
        case(
            "huge-key",
            "backend: {timeout_overrides: {99999999999999999999999: 900}}\n".into(),
            "the number of a sheet",
            1,
        ),
        case(
            "two-keys",
            "backend: {timeout_overrides: {1: 900, '1': 901}}\n".into(),
            "1 stands here twice; it stood on line 4 already",
            1,
        ),
        case(
            "huge-float",
            "retry: {max_delay_seconds: 1.0e+400}\n".into(),
            "retry.max_delay_seconds",
            1,
        ),
        case("repeated-regex", rule("((a{1000}){1000}){1000}"), "pattern", 1),
        case("wide-regex", rule(r"(\pL{1000}){1000}"), "pattern", 1),
        case(
            "condition",
            format!(
                "validations: [{{type: file_exists, path: a, condition: '{}1 == 1'}}]\n",
                long("(", 5_000)
            ),
            "condition",
            1,
        ),
    ]
}

fn fields(number: u32) -> String {
    (0..number).map(|n| format!("f{n}: 1\n")).collect()
}

fn rule(pattern: &str) -> String {
    format!("validations: [{{type: content_regex, path: a, pattern: '{pattern}'}}]\n")
}

fn bomb() -> String {
    let mut text = "b0: &b0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let uses = vec![format!("*b{}", level - 1); 9].join(", ");
        text.push_str(&format!("b{level}: &b{level} [{uses}]\n"));
    }
    text
}

fn merged_bomb() -> String {
    let keys: String = (0..1_500).map(|n| format!("k{n}: 1, ")).collect();
    let uses: String = (0..100).map(|n| format!("m{n}: {{<<: *all}}\n")).collect();
    format!("all: &all {{{keys}}}\n{uses}")
}

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
    let valid = b"name: hostile\nsheet: {size: 1, total_items: 1}\nprompt: {template: x}\n";
    for (name, text, says, code) in cases() {
        let file = desk.path(&format!("{name}.yaml"));
        fs::write(&file, [&valid[..], &text].concat()).expect("a file");
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
