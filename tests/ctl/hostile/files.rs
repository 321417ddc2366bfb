//! Files made to hurt, for the tests and for the benchmark of `mozartctl validate`.

/// What is right with each of them.
pub(crate) const BEGIN: &[u8] = b"name: hostile\nsheet: {size: 1, total_items: 1}\nprompt: {template: x}\n";

/// A name, what stands behind [`BEGIN`], and what must be said of it with which exit code.
pub(crate) type Case = (&'static str, Vec<u8>, &'static str, i32);

/// The files.
pub(crate) fn cases() -> Vec<Case> {
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
        case(
            "folded",
            format!("description: words\n{}", long("  and more words of it\n", 190_000)),
            "more than 1 MiB",
            2,
        ),
        case(
            "quoted",
            format!(
                "description: \"words\n{}\"\n",
                long("words: and more words of it\n", 190_000)
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
