use super::*;

fn variables() -> BTreeMap<String, Value> {
    [
        ("workspace", Value::Text("/srv/my space".into())),
        ("sheet_num", Value::Int(7)),
        ("name", Value::Text("it's $(touch x) `y` \"z\" \\".into())),
        ("topic", Value::Text("plain".into())),
        ("domains", Value::Map(vec![(Value::Int(7), Value::Text("law".into()))])),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[test]
fn paths_take_names_formats_and_expressions() {
    let table = [
        (
            "{workspace}/batch{sheet_num}-output.md",
            Ok("/srv/my space/batch7-output.md"),
        ),
        ("{sheet_num:03d}.md", Ok("007.md")),
        ("{{ sheet_num - 1 }}.md", Ok("6.md")),
        (
            "{{ workspace }}/{{ domains[sheet_num] }}.md",
            Ok("/srv/my space/law.md"),
        ),
        ("plain.md", Ok("plain.md")),
        ("a{1}b", Ok("a{1}b")),
        ("${sheet_num}", Ok("${sheet_num}")),
        (
            "{sheet_nun}.md",
            Err("`{sheet_nun}` names no variable; did you mean `{sheet_num}`?"),
        ),
        ("{nothing}.md", Err("`{nothing}` names no variable")),
        (
            "{topic:02d}.md",
            Err("`{topic:02d}` cannot be filled in: this format is for numbers, and the value is a text"),
        ),
        (
            "{{ nobody }}",
            Err("`{{ nobody }}` cannot be filled in: `nobody` is undefined"),
        ),
        (
            "{{ 1 + }}",
            Err("`{{ 1 + }}` cannot be filled in: unexpected end of variable block"),
        ),
    ];
    for (text, expected) in table {
        let found = expand(text, &variables(), Place::Path);
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{text}");
    }
}

#[test]
fn in_patterns_every_other_brace_stays() {
    let table = [
        (r"^## {topic} [0-9]{3}", r"^## plain [0-9]{3}"),
        ("{unknown}", "{unknown}"),
        ("${topic} ${topic:-x} {{.State}}", "${topic} ${topic:-x} {{.State}}"),
        (
            r#"{"a": {sheet_num}, "topic": {topic: 5}}"#,
            r#"{"a": 7, "topic": {topic: 5}}"#,
        ),
        ("SEARCH_{sheet_num:02d}", "SEARCH_07"),
        ("{", "{"),
        ("{}", "{}"),
        ("{{", "{{"),
    ];
    for (text, expected) in table {
        assert_eq!(
            expand(text, &variables(), Place::Pattern).as_deref(),
            Ok(expected),
            "{text}"
        );
    }
}

#[test]
fn in_commands_values_are_quoted_by_their_place() {
    let quoted = r#"'it'\''s $(touch x) `y` "z" \'"#;
    let table = [
        ("test -f {workspace}/x", "test -f '/srv/my space'/x".to_owned()),
        (
            "FILE=\"{workspace}/x.md\"; wc \"$FILE\"",
            "FILE=\"/srv/my space/x.md\"; wc \"$FILE\"".to_owned(),
        ),
        ("echo '{workspace}'", "echo '/srv/my space'".to_owned()),
        ("echo {sheet_num} {topic}", "echo 7 plain".to_owned()),
        ("echo {name}", format!("echo {quoted}")),
        (
            "echo \"{name}\"",
            r#"echo "it's \$(touch x) \`y\` \"z\" \\""#.to_owned(),
        ),
        ("echo '{name}'", r#"echo 'it'\''s $(touch x) `y` "z" \'"#.to_owned()),
        (
            "echo \"$(cat {name})\" {name}",
            format!("echo \"$(cat {quoted})\" {quoted}"),
        ),
        ("echo \"a\\\"{workspace}\"", "echo \"a\\\"/srv/my space\"".to_owned()),
        (
            "awk '{print $1}' {{ workspace }}",
            "awk '{print $1}' '/srv/my space'".to_owned(),
        ),
        ("echo it\\'s {workspace}", "echo it\\'s '/srv/my space'".to_owned()),
        (
            "(cd {workspace} && ls) # don't\necho {workspace}",
            "(cd '/srv/my space' && ls) # don't\necho '/srv/my space'".to_owned(),
        ),
        (
            "echo $(( {sheet_num} + (1) )) {workspace}",
            "echo $(( 7 + (1) )) '/srv/my space'".to_owned(),
        ),
        (
            "echo ${X:-{sheet_num}} {workspace}",
            "echo ${X:-7} '/srv/my space'".to_owned(),
        ),
        (
            "echo `echo {sheet_num}` {workspace}",
            "echo `echo 7` '/srv/my space'".to_owned(),
        ),
        (
            "grep -c \"{{ domains[sheet_num] }}\" x#y {name}",
            format!("grep -c \"law\" x#y {quoted}"),
        ),
        (
            "docker inspect -f '{{.State.Status}}' {unknown}",
            "docker inspect -f '{{.State.Status}}' {unknown}".to_owned(),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(expand(text, &variables(), Place::Command), Ok(expected), "{text}");
    }
    for text in [
        "echo `echo {name}`",
        "echo $(( {name} ))",
        "echo \"${X:-{name}}\"",
        "true # {name}",
        "cat <<EOF\n{name}\nEOF",
        "echo \\{name}",
    ] {
        assert!(expand(text, &variables(), Place::Command).is_err(), "{text}");
    }
}

/// What the quoting promises, asked of the shell itself: no value is ever run or split.
#[test]
fn the_shell_reads_every_value_as_it_is() {
    let values = [
        "it's",
        "$(echo no)",
        "`echo no`",
        "a b",
        "\"",
        "\\",
        "$HOME",
        "",
        "~",
        "*",
        "-n",
        "a\nb",
        "!x",
        "\\'",
    ];
    let places = [
        "printf %s {value}",
        "printf %s \"{value}\"",
        "printf %s '{value}'",
        "printf %s \"$(printf %s {value})\"",
        "printf %s \"$(printf %s \"{value}\")\"",
        "x=\"{value}\"; printf %s \"$x\"",
        "(printf %s {value}) # it's\n",
    ];
    for value in values {
        let variables = BTreeMap::from([("value".to_owned(), Value::Text(value.to_owned()))]);
        for place in places {
            let command = expand(place, &variables, Place::Command).unwrap();
            let output = std::process::Command::new("/bin/sh")
                .arg("-c")
                .arg(&command)
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}");
            // `$(…)` takes trailing line feeds away; none of the values ends in one.
            assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{command}");
        }
    }
}
