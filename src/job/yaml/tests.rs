use super::*;

fn parse(text: &str) -> Node {
    let document = read(text.as_bytes()).unwrap();
    assert_eq!(document.faults, []);
    document.root
}

fn value(text: &str) -> Value {
    parse(&format!("k: {text}\n")).get("k").unwrap().to_value()
}

fn refusal(bytes: &[u8]) -> (Option<(u32, u32)>, String) {
    let error = read(bytes).unwrap_err();
    (error.at.map(|at| (at.line, at.column)), error.message)
}

fn at(node: &Node) -> (u32, u32) {
    (node.at.line, node.at.column)
}

#[test]
fn every_node_knows_its_place() {
    let text = "name: x\nretry:\n  max_retries: 3\nlist:\n  - one\n  -   two\n  - {a: 1, ü: [7]}\nempty: {}\nnothing:\nlast: 'q'\n";
    let root = parse(text);
    let entries = root.map().unwrap();
    assert_eq!(at(&entries[0].0), (1, 1));
    assert_eq!(at(&entries[0].1), (1, 7));
    let retry = root.get("retry").unwrap();
    assert_eq!(at(&retry.map().unwrap()[0].0), (3, 3));
    assert_eq!(at(retry.get("max_retries").unwrap()), (3, 16));
    let list = root.get("list").unwrap().list().unwrap();
    assert_eq!(at(&list[0]), (5, 5));
    assert_eq!(at(&list[1]), (6, 7));
    assert_eq!(at(&list[2]), (7, 6));
    assert_eq!(at(&list[2].get("ü").unwrap().list().unwrap()[0]), (7, 16));
    assert_eq!(at(root.get("empty").unwrap()), (8, 1));
    assert_eq!(at(root.get("last").unwrap()), (10, 7));
}

#[test]
fn places_hold_with_crlf_bom_anchors_and_blocks() {
    let text = "\u{feff}a: &x yes\r\nb: |\r\n  one\r\n  two\r\nc: *x\r\nd: !!str 12\r\n";
    let root = parse(text);
    assert_eq!(at(root.get("a").unwrap()), (1, 4));
    assert_eq!(root.get("a").unwrap().to_value(), Value::Bool(true));
    let block = root.get("b").unwrap();
    assert_eq!(at(block), (2, 4));
    assert_eq!(block.text(), Some("one\ntwo\n"));
    assert_eq!(block.scalar().unwrap().block_line, Some(3));
    assert_eq!(root.get("c").unwrap().to_value(), Value::Bool(true));
    assert_eq!(root.get("d").unwrap().to_value(), Value::Text("12".into()));
    assert_eq!(at(&root.map().unwrap()[3].0), (6, 1));
}

/// The right column is what PyYAML 6 gives for the left one.
#[test]
fn plain_scalars_are_read_as_pyyaml_reads_them() {
    let text = |text: &str| Value::Text(text.into());
    let table = [
        ("yes", Value::Bool(true)),
        ("Off", Value::Bool(false)),
        ("true", Value::Bool(true)),
        ("y", text("y")),
        ("'yes'", text("yes")),
        ("\"10\"", text("10")),
        ("10", Value::Int(10)),
        ("-10", Value::Int(-10)),
        ("+1_000", Value::Int(1000)),
        ("012", Value::Int(10)),
        ("09", text("09")),
        ("0o14", text("0o14")),
        ("0x1F", Value::Int(31)),
        ("0b101", Value::Int(5)),
        ("1:30", Value::Int(90)),
        ("22:00-06:00", text("22:00-06:00")),
        ("1.5", Value::Float(1.5)),
        ("1.", Value::Float(1.0)),
        (".5", Value::Float(0.5)),
        ("1e3", text("1e3")),
        ("1.0e+3", Value::Float(1000.0)),
        ("1.0e3", text("1.0e3")),
        ("~", Value::Null),
        ("null", Value::Null),
        ("", Value::Null),
        ("2024-01-01", text("2024-01-01")),
        ("claude-sonnet-4-20250514", text("claude-sonnet-4-20250514")),
        ("1.2.3", text("1.2.3")),
        ("-", Value::List(vec![Value::Null])),
        ("99999999999999999999", Value::Float(1e20)),
        (
            "[yes, 'no', 3]",
            Value::List(vec![Value::Bool(true), text("no"), Value::Int(3)]),
        ),
        ("!!int \"7\"", Value::Int(7)),
    ];
    for (yaml, expected) in table {
        if yaml == "-" {
            assert_eq!(parse("k:\n  -\n").get("k").unwrap().to_value(), expected);
        } else {
            assert_eq!(value(yaml), expected, "{yaml}");
        }
    }
}

#[test]
fn scalars_that_the_two_versions_read_differently_say_so() {
    for (yaml, expected) in [
        ("yes", Some("a text")),
        ("012", Some("a text")),
        ("1:30", Some("a text")),
        ("1e3", Some("a number")),
        ("0o14", Some("a number")),
        ("true", None),
        ("10", None),
        ("1.5", None),
        ("'yes'", None),
        ("~", None),
        (".nan", None),
    ] {
        let root = parse(&format!("k: {yaml}\n"));
        assert_eq!(root.get("k").unwrap().scalar().unwrap().ambiguous, expected, "{yaml}");
    }
}

#[test]
fn integer_keys_stay_integers_and_raw_text_is_kept() {
    let root = parse("1: a\n'1': b\n010: c\n");
    let keys: Vec<_> = root.map().unwrap().iter().map(|(key, _)| key.to_value()).collect();
    assert_eq!(keys, [Value::Int(1), Value::Text("1".into()), Value::Int(8)]);
    assert_eq!(root.map().unwrap()[2].0.scalar().unwrap().raw, "010");
}

#[test]
fn merge_keys_work_as_in_pyyaml() {
    let root =
        parse("base: &b {x: 1, y: 2}\nother: &o {y: 5, z: 6}\none: {<<: *b, y: 3}\ntwo:\n  <<: [*b, *o]\n  w: 0\n");
    let one = root.get("one").unwrap().to_value();
    let pair = |key: &str, value| (Value::Text(key.into()), Value::Int(value));
    assert_eq!(one, Value::Map(vec![pair("x", 1), pair("y", 3)]));
    let two = root.get("two").unwrap().to_value();
    assert_eq!(
        two,
        Value::Map(vec![pair("x", 1), pair("y", 2), pair("z", 6), pair("w", 0)])
    );
}

#[test]
fn duplicate_keys_are_faults_with_both_lines() {
    let document = read(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n<<: 4\n").unwrap();
    let faults: Vec<_> = document
        .faults
        .iter()
        .map(|fault| (fault.at.line, fault.message.as_str()))
        .collect();
    assert_eq!(
        faults,
        [
            (4, "the key `c` stands here twice; it stood on line 3 already"),
            (5, "the key `a` stands here twice; it stood on line 1 already"),
            (6, "`<<` takes a map or a list of maps"),
        ]
    );
}

#[test]
fn what_is_not_yaml_is_told() {
    type Case = (&'static [u8], Option<(u32, u32)>, &'static str);
    let table: &[Case] = &[
        (b"", None, "this is not YAML: the file is empty"),
        (b"# only a comment\n", None, "this is not YAML: the file holds nothing"),
        (
            b"\x7fELF\x00\x01",
            None,
            "this is not YAML: the file holds a NUL byte at byte 4, it is probably binary",
        ),
        (
            b"a: 1\nb: \xff\xfe\n",
            Some((2, 1)),
            "this is not YAML: byte 8 is not UTF-8 text",
        ),
        (
            b"a: 1\n---\nb: 2\n",
            None,
            "the file holds more than one YAML document; a job file is one",
        ),
        (
            b"a: !include x\n",
            Some((1, 4)),
            "a tag such as `!name` has no meaning in a job file",
        ),
        (b"a: *nobody\n", Some((1, 4)), "this is not YAML: unknown anchor"),
        (
            b"a: [1, 2\nb: 3\n",
            Some((2, 2)),
            "this is not YAML: did not find expected ',' or ']'",
        ),
        (
            b"a: 1\n\tb: 2\n",
            Some((2, 1)),
            "this is not YAML: found a tab character that violates indentation",
        ),
        (
            b"a: \x1b[0m\n",
            Some((1, 4)),
            "this is not YAML: the character \\u{1b} is not allowed",
        ),
    ];
    for (bytes, place, message) in table {
        assert_eq!(
            refusal(bytes),
            (*place, (*message).to_owned()),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    assert_eq!(
        refusal(&vec![b'x'; MAX_BYTES + 1]).1,
        "the file has 8388609 bytes; a job file may have at most 8388608 (8 MiB)"
    );
}

#[test]
fn tags_that_are_not_yamls_own_are_faults() {
    let faults = |text: &str| {
        let faults = read(text.as_bytes()).unwrap().faults;
        let shown = faults
            .iter()
            .map(|fault| (fault.at.line, fault.at.column, fault.message.as_str().to_owned()));
        shown.collect::<Vec<_>>()
    };
    let table = [
        ("a: !!python/object:os.system x\n", 1, 4, "!!python/object:os.system"),
        ("a: !!set {b: 1}\n", 1, 11, "!!set"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            1,
            37,
            "!!python/object/apply:os.system",
        ),
        ("a: !!omap\n  - b: 1\n", 2, 5, "!!omap"),
        ("a: !!x &anchor\n  b: 1\n", 2, 3, "!!x"),
        ("- !!timestamp 2026-01-01\n", 1, 3, "!!timestamp"),
    ];
    for (text, line, column, tag) in table {
        let message = format!("the tag `{tag}` has no meaning in a job file");
        assert_eq!(faults(text), [(line, column, message)], "{text}");
    }
    let fine = "a: !!str 1\nb: !!int \"2\"\nc: !!map {d: 1}\ne: !!seq\n  - no !!tag\n  - f: 1\n\"g !!h\":\n  i: 1\n";
    assert_eq!(faults(fine), []);
}

#[test]
fn a_long_text_has_a_file_of_its_own() {
    let lines =
        |indent: &str, bytes: usize| format!("{indent}some words of a text\n").repeat(bytes / (indent.len() + 21));
    let long = 1_200_000;
    for (text, line) in [
        (format!("a: b\nc: {}\n", "x".repeat(long)), 2),
        (format!("a: b\nc: |\n{}", lines("  ", long)), 2),
        (format!("a:\n- b: 1\n  c: >-\n{}", lines("    ", long)), 3),
        (format!("a:\n- |2\n{}", lines("   ", long)), 2),
        (format!("a: \"\n{}  \"\n", lines("  ", long)), 1),
        (format!("a: &t |\n{}", lines("  ", long)), 1),
        // In quotes it need not be indented, and may look like anything.
        (
            format!("b: 'it''s'\na: 'it''s\n{}'\n", "words of a text: |\n".repeat(long / 19)),
            2,
        ),
        (format!("- \"b\": !!str \"\\\"\n{}\"\n", lines("", long)), 1),
        (format!("a: {{b: 1, c: [d, \"\n{}\"]}}\n", lines("", long)), 1),
        (
            format!("a: words # it's\nb: |\n  'c\nd: words\n{}", lines("  ", long)),
            4,
        ),
        (format!("a:\n  words, and\n{}", lines("  ", long)), 2),
        (format!("---\na:\n-  - words\n{}", lines("     ", long)), 3),
    ] {
        let (at, message) = refusal(text.as_bytes());
        assert_eq!(at.map(|at| at.0), Some(line), "{message}");
        assert!(message.contains("has more than 1 MiB"), "{message}");
        assert!(bounds::text_of(text.as_bytes()).is_err(), "only the parser saw it");
    }
    // Each is short enough.
    let half = lines("    ", long / 2);
    let word = "x".repeat(long / 2_000);
    let each = |times: u32, entry: &dyn Fn(u32) -> String| (0..times).map(entry).collect::<String>();
    let blocks = each(20, &|n| format!("b{n}: |\n{}", lines("  ", long / 20)));
    for fine in [
        format!("a: |\n{half}b: |\n{half}c: {}\n", "x".repeat(long / 2)),
        format!("a:\n- b: |\n{half}  c: |\n{half}- |\n{half}- d: >+\n{half}"),
        format!("a: words\n{half}b: '{half}'\nc: \"{half}\"\nd:\n  - words\n{half}  - words\n{half}"),
        each(2_000, &|n| {
            format!(
                "# it's\nb{n}:\n- c: 'it''s'\n  d: [e,\n    f]\n  g: it's {}\n",
                "word ".repeat(long / 10_000)
            )
        }),
        format!(
            "{{\n\t\"a\": [\n\t\t2\n\t],\n{}\t\"z\": 1\n}}\n",
            each(2_000, &|n| format!("\t\"k{n}\":\t[\n\t\t\"{word}\"\n\t],\n"))
        ),
        format!(
            "a:\n{}",
            format!("  -\n    b: |\n{}", lines("      ", long / 20)).repeat(20)
        ),
        format!(
            "{{\n\"a\": [\n1,\n2\n],\n{}\"z\": 1\n}}\n",
            each(2_000, &|n| format!("\"k{n}\": \"{word}\",\n"))
        ),
        format!("a: the classes of '98, '99 - 'n\n{blocks}"),
        format!("a: &b # see: 'x\n  c: d\n{blocks}"),
    ] {
        assert_eq!(read(fine.as_bytes()).unwrap().faults, []);
    }
}

#[test]
fn a_bomb_of_aliases_ends_with_an_error_soon() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let uses = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{uses}]\n"));
    }
    let before = std::time::Instant::now();
    assert_eq!(
        refusal(text.as_bytes()).1,
        "the file makes more than 50000 values once its aliases are expanded"
    );
    assert!(before.elapsed().as_secs() < 20);
    assert_eq!(
        refusal(b"a: &a [*a, *a]\n").1,
        "lists and maps are nested more than 64 levels deep"
    );
}

#[test]
fn depth_and_size_are_bounded() {
    let deep = format!("a: {}{}\n", "[".repeat(65), "]".repeat(65));
    assert_eq!(
        refusal(deep.as_bytes()).1,
        "lists and maps are nested more than 64 levels deep"
    );
    let fine = format!("a: {}{}\n", "[".repeat(60), "]".repeat(60));
    assert!(read(fine.as_bytes()).is_ok());
    let before = std::time::Instant::now();
    for hostile in ["[", "- ", "? ", "{a: ", "-\n", "a: {"] {
        let mut text = hostile.repeat(MAX_BYTES / hostile.len());
        text.truncate(MAX_BYTES);
        assert!(read(text.as_bytes()).is_err(), "{hostile:?}");
    }
    assert!(before.elapsed().as_secs() < 60);
}
