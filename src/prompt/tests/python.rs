//! What Jinja2 templates do in Python, one behaviour at a time, as Jinja2 3.1.6 gave it: they do the same here.
//!
//! What is otherwise, and not mended: `random` and `wordwrap` are not there, nor `varargs` in macros; `pprint` of a list
//! takes a line for each item; a macro's `arguments` are a list.

use super::super::template::{RenderFault, with_template};
use super::*;

const VARIABLES: &str = r###"
name: behaviours
workspace: /w
sheet: {size: 1, total_items: 3}
validations: [{type: file_exists, path: "{sheet_num}.md"}]
prompt:
  template: x
  engine: jinja
  variables:
    text: "Hello, World"
    spaced: "  two words \n"
    path: src/a b.rs
    lines: "one\ntwo\n\nthree"
    n: 7
    neg: -3
    f: 2.5
    whole: 3.0
    big: 12345678901234567
    tiny: 1.0e-7
    huge: 1.0e+22
    "yes": true
    "no": false
    nothing: null
    empty: ""
    list: [3, 1, 2]
    names: [b, A, c]
    mixed: [1, null, true, "a'b", 1.0, 'q"d', "n\n"]
    nested: [[1, 2], [3]]
    map: {2: b, 1: a}
    words: {one: x, two: ["y", 1]}
    people: [{name: Ann, age: 30, team: x}, {name: Bob, age: 25, team: "y"}, {name: Cyd, age: 30, team: x}]
    html: "<a & 'b'>"
    none_list: [null, 1]
    uni: straße é
    emptylist: []
    emptymap: {}
"###;

fn rendered(plan: &Plan, template: &str) -> Result<String, template::RenderError> {
    let mut plan = plan.clone();
    plan.prompt.template = template.to_owned();
    let variables = variables(&plan, &plan.sheets[1]);
    with_template(&plan.prompt, TemplateEngine::Jinja, |template| {
        template.render(&variables)
    })
    .and_then(|text| text)
}

fn same_as_in_python(table: &[(&str, &str)]) {
    let plan = plan_of(VARIABLES);
    for (template, expected) in table {
        let got = rendered(&plan, template);
        assert_eq!(got.as_deref(), Ok(*expected), "{template}");
    }
}

#[test]
fn values_are_printed_as_in_python() {
    same_as_in_python(&[
        ("{{ yes }} {{ no }} {{ nothing }}", "True False None"),
        (
            "{{ n }} {{ neg }} {{ f }} {{ whole }} {{ big }} {{ tiny }} {{ huge }}",
            "7 -3 2.5 3.0 12345678901234567 1e-07 1e+22",
        ),
        (
            "{{ list }} {{ names }} {{ mixed }} {{ nested }}",
            "[3, 1, 2] ['b', 'A', 'c'] [1, None, True, \"a'b\", 1.0, 'q\"d', 'n\\n'] [[1, 2], [3]]",
        ),
        (
            "{{ map }} {{ words }} {{ emptylist }} {{ emptymap }}",
            "{2: 'b', 1: 'a'} {'one': 'x', 'two': ['y', 1]} [] {}",
        ),
        ("{{ (1, 'a') }} {{ (1,) }} {{ () }}", "(1, 'a') (1,) ()"),
        (
            "{{ 1.0 }} {{ 1e3 }} {{ 0.1 + 0.2 }} {{ 10 / 2 }} {{ 7 / 2 }}",
            "1.0 1000.0 0.30000000000000004 5.0 3.5",
        ),
        (
            "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }}",
            "3 -4 1 2 1024 0.5",
        ),
        ("{{ 'a' ~ true ~ 1 ~ none ~ 1.0 }}", "aTrue1None1.0"),
        (
            "{{ 'ab' * 3 }} {{ [1] * 2 }} {{ [1] + [2] }} {{ 'a' + 'b' }}",
            "ababab [1, 1] [1, 2] ab",
        ),
        ("{{ yes + 1 }} {{ true == 1 }} {{ 1 == 1.0 }}", "2 True True"),
        (
            "{{ 'é' }} {{ uni }} {{ ['é\\n\\t\\\\'] }}",
            "é straße é ['é\\n\\t\\\\']",
        ),
        ("{{ \"it's\" }} {{ [\"it's\"] }} {{ ['\"'] }}", "it's [\"it's\"] ['\"']"),
        (
            "{{ map.items() | list }} {{ map.keys() | list }} {{ map.values() | list }}",
            "[(2, 'b'), (1, 'a')] [2, 1] ['b', 'a']",
        ),
        ("{{ people[0] }}", "{'name': 'Ann', 'age': 30, 'team': 'x'}"),
        (
            "{{ range(3) | list }} {{ range(1, 10, 3) | list }} {{ range(3, 0, -1) | list }}",
            "[0, 1, 2] [1, 4, 7] [3, 2, 1]",
        ),
        ("{{ {'a': 1, 'b': [true, none]} }}", "{'a': 1, 'b': [True, None]}"),
        ("{{ 1_000 }} {{ 1000000 * 1000000 }}", "1000 1000000000000"),
        ("{{ 1 if yes }}|{{ 'x' if no }}", "1|"),
        (
            "{{ 1 < 2 < 3 }} {{ 1 != 2 }} {{ not yes }} {{ yes and n }} {{ no or 'x' }} {{ nothing or 0 }} {{ '' and 1 }}",
            "True True False 7 x 0 ",
        ),
        (
            "{{ 'a' in names }} {{ 'A' in names }} {{ 1 in map }} {{ 'ell' in text }} {{ 'z' not in text }}",
            "False True True True True",
        ),
        (
            "{{ 1000000.0 }} {{ 1e15 }} {{ 1e16 }} {{ 123456789.123 }} {{ 100000000000000000000 }}",
            "1000000.0 1000000000000000.0 1e+16 123456789.123 100000000000000000000",
        ),
    ]);
}

#[test]
fn maps_are_asked_as_in_python() {
    same_as_in_python(&[
        ("{% for k, v in map.items() %}{{ k }}={{ v }};{% endfor %}", "2=b;1=a;"),
        ("{% for k in map %}{{ k }},{% endfor %}", "2,1,"),
        ("{% for k in words.keys() %}{{ k }},{% endfor %}", "one,two,"),
        ("{% for v in map.values() %}{{ v }},{% endfor %}", "b,a,"),
        (
            "{{ map.get(1) }} {{ map.get(9) }} {{ map.get(9, 'x') }} {{ map[2] }}",
            "a None x b",
        ),
        (
            "{{ words.one }} {{ words['two'][0] }} {{ words.get('two')[1] }}",
            "x y 1",
        ),
        (
            "{{ map | length }} {{ words | list }} {{ map | dictsort }}",
            "2 ['one', 'two'] [(1, 'a'), (2, 'b')]",
        ),
        ("{% for k, v in words | dictsort %}{{ k }}{% endfor %}", "onetwo"),
        ("{% for k, v in words | items %}{{ k }}{% endfor %}", "onetwo"),
        ("{{ dict(a=1, b='x') }}", "{'a': 1, 'b': 'x'}"),
        ("{{ dict(a=1).items() | list }}", "[('a', 1)]"),
        ("{% set d = {'k': 'v'} %}{{ d.k }}{{ d['k'] }}", "vv"),
        ("{{ 1 in map }} {{ 'one' in words }} {{ 9 in map }}", "True True False"),
        ("{{ words.items() | length }}", "2"),
        ("{% for k, v in words.items() | sort %}{{ k }}{% endfor %}", "onetwo"),
        ("{{ map.copy() }}", "{2: 'b', 1: 'a'}"),
    ]);
}

#[test]
fn slices() {
    same_as_in_python(&[
        (
            "{{ text[:5] }} {{ text[-5:] }} {{ text[1:3] }} {{ text[::2] }} {{ text[::-1] }} {{ text[7:100] }}",
            "Hello World el Hlo ol dlroW ,olleH World",
        ),
        (
            "{{ list[:2] }} {{ list[-1] }} {{ list[::-1] }} {{ list[1:] }}",
            "[3, 1] 2 [2, 1, 3] [1, 2]",
        ),
        ("{{ text[0] }} {{ text[-1] }} {{ list[0] }}", "H d 3"),
        ("{{ text[:0] }}|{{ text[100:] }}|{{ text[5:2] }}", "||"),
        ("{{ 'straße'[4:6] }}", "ße"),
        ("{{ text[n:] }} {{ text[:-n] }}", "World Hello"),
        ("{{ (1,2,3)[:2] }}", "(1, 2)"),
        ("{{ list[-2:] }} {{ names[0:2] | join }}", "[1, 2] bA"),
    ]);
}

#[test]
fn methods_of_texts() {
    same_as_in_python(&[
        (
            "{{ text.upper() }} {{ text.lower() }} {{ text.title() }} {{ text.capitalize() }} {{ text.swapcase() }}",
            "HELLO, WORLD hello, world Hello, World Hello, world hELLO, wORLD",
        ),
        (
            "[{{ spaced.strip() }}] [{{ spaced.lstrip() }}] [{{ spaced.rstrip() }}] [{{ 'xxaxx'.strip('x') }}]",
            "[two words] [two words \n] [  two words] [a]",
        ),
        (
            "{{ text.split(', ') }} {{ spaced.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }}",
            "['Hello', 'World'] ['two', 'words'] ['a', 'b', '', 'c'] ['a', 'b,c']",
        ),
        (
            "{{ text.replace('l', 'L') }} {{ text.replace('l', 'L', 1) }}",
            "HeLLo, WorLd HeLlo, World",
        ),
        (
            "{{ text.startswith('Hell') }} {{ text.endswith(('x', 'd')) }} {{ text.startswith('x') }}",
            "True True False",
        ),
        ("{{ ', '.join(names) }} {{ '-'.join(['1', '2']) }}", "b, A, c 1-2"),
        (
            "{{ 'a {} b {}'.format(1, 'x') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{x:>5}|{y:05.1f}'.format(x='a', y=2.55) }} {{ '{:02d}'.format(3) }} {{ '{:,}'.format(1234567) }}",
            "a 1 b x aba     a|002.5 03 1,234,567",
        ),
        (
            "{{ lines.splitlines() }} {{ lines.splitlines() | length }}",
            "['one', 'two', '', 'three'] 4",
        ),
        (
            "{{ text.find('World') }} {{ text.find('x') }} {{ text.rfind('o') }} {{ text.count('l') }} {{ text.index('W') }}",
            "7 -1 8 3 7",
        ),
        (
            "{{ '42'.isdigit() }} {{ 'x'.isdigit() }} {{ 'Ab'.isalpha() }} {{ 'AB'.isupper() }} {{ 'ab'.islower() }} {{ ' '.isspace() }} {{ 'a1'.isalnum() }}",
            "True False True True True True True",
        ),
        (
            "{{ '7'.zfill(3) }} {{ '-7'.zfill(4) }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3) }}| {{ 'a'.center(5, '*') }}",
            "007 -007 a  |   a| **a**",
        ),
        (
            "{{ 'a/b/c'.rsplit('/', 1) }} {{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }}",
            "['a/b', 'c'] ('a', '=', 'b=c') ('a=b', '=', 'c')",
        ),
        (
            "{{ 'test_x'.removeprefix('test_') }} {{ 'a.md'.removesuffix('.md') }}",
            "x a",
        ),
        ("{{ path.split('/')[-1].split('.')[0] }}", "a b"),
        ("{{ 'a\\tb'.expandtabs(4) }}", "a   b"),
        ("{{ text.lower().replace(' ', '-').strip(',') }}", "hello,-world"),
        (
            "{{ 'Hello World'.title() }} {{ \"it's a dog's\".title() }} {{ 'hELLO'.capitalize() }}",
            "Hello World It'S A Dog'S Hello",
        ),
        ("{{ 'ß'.upper() }} ", "SS "),
    ]);
}

#[test]
fn filters_take_arguments_by_place_and_by_name() {
    same_as_in_python(&[
        (
            "{{ missing | default('x') }} {{ nothing | default('x') }} {{ nothing | default('x', true) }} {{ empty | default('e', true) }} {{ missing | d(1) }} {{ empty | default('e', boolean=true) }}",
            "x None x e 1 e",
        ),
        (
            "{{ list | join }} {{ list | join(', ') }} {{ people | join(', ', attribute='name') }} {{ people | join(', ', 'name') }}",
            "312 3, 1, 2 Ann, Bob, Cyd Ann, Bob, Cyd",
        ),
        (
            "{{ text | replace('l', 'L') }} {{ text | replace('l', 'L', 1) }}",
            "HeLLo, WorLd HeLlo, World",
        ),
        (
            "{{ 2.567 | round }} {{ 2.567 | round(1) }} {{ 2.567 | round(1, 'floor') }} {{ 2.1 | round(method='ceil') }} {{ 2.5 | round }} {{ 3.5 | round }} {{ 7 | round }} {{ 1234 | round(-2) }}",
            "3.0 2.6 2.5 3.0 2.0 4.0 7 1200",
        ),
        ("{{ lines | indent }}", "one\n    two\n\n    three"),
        ("{{ lines | indent(2) }}", "one\n  two\n\n  three"),
        ("{{ lines | indent(2, true) }}", "  one\n  two\n\n  three"),
        (
            "{{ lines | indent(2, first=true, blank=true) }}",
            "  one\n  two\n  \n  three",
        ),
        ("{{ lines | indent('> ') }}", "one\n> two\n\n> three"),
        ("{{ lines | indent(width=3) }}", "one\n   two\n\n   three"),
        (
            "{{ ('word ' * 80) | truncate }}",
            "word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word word...",
        ),
        (
            "{{ 'foo bar baz qux' | truncate(9) }}|{{ 'foo bar baz qux' | truncate(9, True) }}|{{ 'foo bar baz qux' | truncate(11) }}|{{ 'foo bar baz qux' | truncate(11, False, '...', 0) }}|{{ 'foo bar baz qux' | truncate(9, true, '…') }}|{{ 'foo bar' | truncate(length=5, killwords=true, end='') }}",
            "foo...|foo ba...|foo bar baz qux|foo bar...|foo bar …|foo bar",
        ),
        (
            "{{ text | upper }} {{ text | lower }} {{ text | title }} {{ 'hello wORLD' | capitalize }}",
            "HELLO, WORLD hello, world Hello, World Hello world",
        ),
        ("{{ \"it's a-b dog's\" | title }}", "It's A-B Dog's"),
        ("[{{ spaced | trim }}] [{{ 'xax' | trim('x') }}]", "[two words] [a]"),
        ("{{ text | length }} {{ list | count }}", "12 3"),
        (
            "{{ list | first }} {{ list | last }} {{ list | min }} {{ list | max }} {{ list | sum }} {{ people | sum('age') }} {{ people | sum(attribute='age', start=10) }}",
            "3 2 1 3 6 85 95",
        ),
        (
            "{{ list | sort }} {{ list | sort(reverse=true) }} {{ names | sort }} {{ names | sort(case_sensitive=true) }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ list | sort(true) }}",
            "[1, 2, 3] [3, 2, 1] ['A', 'b', 'c'] ['A', 'b', 'c'] ['Bob', 'Ann', 'Cyd'] [3, 2, 1]",
        ),
        (
            "{{ list | reverse | list }} {{ text | reverse }}",
            "[2, 1, 3] dlroW ,olleH",
        ),
        ("{{ [1, 2, 1, 'a', 'A'] | unique | list }}", "[1, 2, 'a']"),
        (
            "{{ people | map(attribute='name') | join(',') }} {{ names | map('upper') | list }} {{ ['1', '2'] | map('int') | sum }} {{ names | map('replace', 'b', 'B') | list }}",
            "Ann,Bob,Cyd ['B', 'A', 'C'] 3 ['B', 'A', 'c']",
        ),
        (
            "{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | list }} {{ people | selectattr('team', '==', 'x') | list | length }} {{ people | rejectattr('age', 'gt', 26) | list | length }}",
            "['Ann', 'Cyd'] 2 1",
        ),
        (
            "{{ [0, 1, '', 'a', none] | select | list }} {{ list | select('odd') | list }} {{ list | reject('odd') | list }} {{ list | select('gt', 1) | list }} {{ list | select('>', 1) | list }}",
            "[1, 'a'] [3, 1] [2] [3, 2] [3, 2]",
        ),
        (
            "{{ people | groupby('team') | map(attribute='grouper') | list }}",
            "['x', 'y']",
        ),
        (
            "{% for team, members in people | groupby('team') %}{{ team }}:{{ members | length }};{% endfor %}",
            "x:2;y:1;",
        ),
        (
            "{% for g in people | groupby('age') %}{{ g.grouper }}={{ g.list | map(attribute='name') | join('+') }};{% endfor %}",
            "25=Bob;30=Ann+Cyd;",
        ),
        (
            "{{ [1,2,3,4,5] | batch(2) | list }} {{ [1,2,3] | batch(2, 0) | list }} {{ [1,2,3,4,5] | slice(2) | list }} {{ [1,2,3,4,5] | slice(2, 0) | list }}",
            "[[1, 2], [3, 4], [5]] [[1, 2], [3, 0]] [[1, 2, 3], [4, 5]] [[1, 2, 3], [4, 5, 0]]",
        ),
        (
            "{{ '42' | int }} {{ 'x' | int }} {{ 'x' | int(7) }} {{ '2.9' | int }} {{ 2.9 | int }} {{ '0x1f' | int(base=16) }} {{ '1.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.5) }} {{ true | int }}",
            "42 0 7 2 2 31 1.5 0.0 1.5 1",
        ),
        ("{{ -3 | abs }} {{ neg | abs }} {{ -2.5 | abs }}", "3 3 2.5"),
        (
            "{{ n | string }} {{ yes | string }} {{ nothing | string | length }} {{ list | string }}",
            "7 True 4 [3, 1, 2]",
        ),
        (
            "{{ '%s has %d of %.1f' | format('a', 3, 2.25) }} {{ '%03d|%-4s|%5s|%x|%%' | format(7, 'a', 'b', 255) }} {{ '%(a)s' | format(a=1) }}",
            "a has 3 of 2.2 007|a   |    b|ff|% 1",
        ),
        ("{{ 'abc' | list }} {{ map | list }}", "['a', 'b', 'c'] [2, 1]"),
        (
            "{{ words | tojson }} {{ text | tojson }} {{ [1, none, true, 1.5] | tojson }}",
            "{\"one\": \"x\", \"two\": [\"y\", 1]} \"Hello, World\" [1, null, true, 1.5]",
        ),
        (
            "{{ words | tojson(indent=2) }}",
            "{\n  \"one\": \"x\",\n  \"two\": [\n    \"y\",\n    1\n  ]\n}",
        ),
        ("{{ text | wordcount }}", "2"),
        ("{{ 'a' | center(5) }}|", "  a  |"),
        (
            "{{ html | e }} {{ html | escape }} {{ html | safe }}",
            "&lt;a &amp; &#39;b&#39;&gt; &lt;a &amp; &#39;b&#39;&gt; <a & 'b'>",
        ),
        ("{{ 'a b&c/d' | urlencode }}", "a%20b%26c/d"),
        ("{{ '<b>x</b>  y' | striptags }}", "x y"),
        (
            "{{ 1024 | filesizeformat }} {{ 1500000 | filesizeformat }} {{ 1024 | filesizeformat(true) }}",
            "1.0 kB 1.5 MB 1.0 KiB",
        ),
        (
            "{{ names | map('length') | list }} {{ nested | map('sum') | list }} {{ nested | map('first') | list }}",
            "[1, 1, 1] [3, 3] [1, 3]",
        ),
        ("{{ people | map(attribute='nick', default='?') | join }}", "???"),
        (
            "{{ map | dictsort(false, 'value') }} {{ map | dictsort(reverse=true) }} {{ map | dictsort(by='value') }}",
            "[(1, 'a'), (2, 'b')] [(2, 'b'), (1, 'a')] [(1, 'a'), (2, 'b')]",
        ),
        ("{{ list | tojson | length }}", "9"),
        (
            "{{ 10 | round(2) }} {{ 10.0 | round(2) }} {{ 0.5 | round }} {{ 1.005 | round(2) }}",
            "10 10.0 0.0 1.0",
        ),
        ("{{ 'a\nb' | replace('\n', ' ') }}", "a b"),
        ("{{ ['a', 'b'] | join('\n') }}", "a\nb"),
    ]);
}

#[test]
fn statements() {
    same_as_in_python(&[
        (
            "{% macro hi(name, greeting='Hi') %}{{ greeting }} {{ name }}!{% endmacro %}{{ hi('a') }} {{ hi('b', greeting='Yo') }} {{ hi(name='c') }}",
            "Hi a! Yo b! Hi c!",
        ),
        (
            "{% macro outer() %}[{{ caller() }}]{% endmacro %}{% call outer() %}in{% endcall %}",
            "[in]",
        ),
        (
            "{% macro rows(items) %}{% for i in items %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) rows([1, 2]) %}<{{ i }}>{% endcall %}",
            "<1><2>",
        ),
        (
            "{% set x = 1 %}{% for i in list %}{% set x = i %}{% endfor %}{{ x }}",
            "1",
        ),
        (
            "{% set ns = namespace(total=0) %}{% for i in list %}{% set ns.total = ns.total + i %}{% endfor %}{{ ns.total }}",
            "6",
        ),
        ("{% set a, b = 1, 2 %}{{ a }}{{ b }}", "12"),
        ("{% set block %}text {{ n }}{% endset %}[{{ block }}]", "[text 7]"),
        ("{% set block | upper %}text{% endset %}{{ block }}", "TEXT"),
        ("{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}", "3"),
        ("{% filter upper %}a {{ text }}{% endfilter %}", "A HELLO, WORLD"),
        (
            "{% if n > 5 and n < 10 %}a{% elif n == 1 %}b{% else %}c{% endif %}",
            "a",
        ),
        (
            "{% if nothing is none %}1{% endif %}{% if missing is not defined %}2{% endif %}{% if missing is undefined %}3{% endif %}{% if n is odd %}4{% endif %}{% if 4 is even %}5{% endif %}{% if n is divisibleby 7 %}6{% endif %}{% if text is string %}7{% endif %}{% if n is number %}8{% endif %}{% if map is mapping %}9{% endif %}{% if list is iterable %}a{% endif %}{% if list is sequence %}b{% endif %}{% if yes is true %}c{% endif %}{% if n is integer %}d{% endif %}{% if f is float %}e{% endif %}{% if yes is boolean %}f{% endif %}{% if 'A' is upper %}g{% endif %}{% if n is eq 7 %}h{% endif %}{% if n is in list %}i{% endif %}{% if n is ge(7) %}j{% endif %}{% if n is sameas n %}k{% endif %}{% if 1 is not none %}l{% endif %}",
            "123456789abcdefghjkl",
        ),
        ("{% for i in [] %}x{% else %}none{% endfor %}", "none"),
        (
            "{% for i in list if i > 1 %}{{ i }}{{ loop.index }},{% endfor %}",
            "31,22,",
        ),
        ("{% raw %}{{ n }}{% endraw %}", "{{ n }}"),
        ("{# c #}a{# multi\nline #}b", "ab"),
        (
            "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
            "123",
        ),
        (
            "{% for i in range(3) %}{% for j in range(2) %}{{ loop.index }}{% endfor %}{{ loop.index0 }} {% endfor %}",
            "120 121 122 ",
        ),
        (
            "{% for i in [1,[2,[3]]] recursive %}{% if i is iterable %}({{ loop(i) }}){% else %}{{ i }}{% endif %}{% endfor %}",
            "1(2(3))",
        ),
        (
            "{{ joiner is defined }} {% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}",
            "True aba",
        ),
        (
            "{% set sep = joiner(', ') %}{% for i in list %}{{ sep() }}{{ i }}{% endfor %}",
            "3, 1, 2",
        ),
        ("{% block b %}x{% endblock %}", "x"),
        ("{{ [1,2][5] is defined }} {{ words.nope is defined }}", "False False"),
        ("{{ text is defined and text | length > 3 }}", "True"),
        ("{% set x = none %}{% if x %}a{% else %}b{% endif %}", "b"),
        (
            "{% if [] %}a{% endif %}{% if {} %}b{% endif %}{% if '' %}c{% endif %}{% if 0 %}d{% endif %}{% if 0.0 %}e{% endif %}{% if ' ' %}f{% endif %}",
            "f",
        ),
    ]);
}

#[test]
fn the_loop_tells_of_itself() {
    same_as_in_python(&[
        (
            "{% for i in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
            "1032TrueFalse3;2121FalseFalse3;3210FalseTrue3;",
        ),
        ("{% for i in list %}{{ loop.cycle('a', 'b') }}{% endfor %}", "aba"),
        (
            "{% for i in list %}{{ loop.previtem | default('-') }}{{ loop.nextitem | default('-') }} {% endfor %}",
            "-1 32 1- ",
        ),
        (
            "{% for i in [1,1,2] %}{{ loop.changed(i) }} {% endfor %}",
            "True False True ",
        ),
        (
            "{% for i in list %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
            "101010",
        ),
        (
            "{% for i in list %}{{ i }}{{ ',' if not loop.last }}{% endfor %}",
            "3,1,2",
        ),
        (
            "{% for i in list %}{% if not loop.first %}, {% endif %}{{ i }}{% endfor %}",
            "3, 1, 2",
        ),
        (
            "{% for k, v in map.items() %}{{ loop.index }}:{{ k }} {% endfor %}",
            "1:2 2:1 ",
        ),
    ]);
}

#[test]
fn line_feeds_stay_where_they_are() {
    same_as_in_python(&[
        ("a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n\nb\n\nc\n"),
        ("a\n{%- if yes -%}\nb\n{%- endif -%}\nc\n", "abc\n"),
        ("a \n {{- n -}} \n b", "a7b"),
        (
            "{% for i in list %}\n- {{ i }}\n{% endfor %}\n",
            "\n- 3\n\n- 1\n\n- 2\n\n",
        ),
        ("{% for i in list -%}\n- {{ i }}\n{% endfor -%}\n", "- 3\n- 1\n- 2\n"),
        ("x\n\n", "x\n\n"),
        ("x", "x"),
        ("\n{{ n }}\n", "\n7\n"),
        ("  {# c #}\nb", "  \nb"),
        ("  {#- c -#}\nb", "b"),
        ("{%+ if yes %}a{% endif %}", "a"),
        ("{% set x = 1 %}\nb\n", "\nb\n"),
        ("{{ 'a\n' }}\n", "a\n\n"),
        ("\t{{ n }}\t\n", "\t7\t\n"),
        ("{% raw -%}\n x {%- endraw %}", "x"),
    ]);
}

/// Whatever is done with it, a name that is not defined ends the rendering and is told.
#[test]
fn undefined_names_are_told() {
    let plan = plan_of(VARIABLES);
    for template in [
        "{{ missing }}",
        "{{ missing.x }}",
        "{{ missing | upper }}",
        "{% for x in missing %}{% endfor %}",
        "{% if missing %}{% endif %}",
        "{{ missing ~ 'a' }}",
        "{{ missing + 1 }}",
        "{{ missing == 1 }}",
        "{{ missing | length }}",
        "{{ not missing }}",
        "{{ missing or 1 }}",
        "{{ 1 in missing }}",
    ] {
        let error = rendered(&plan, template).expect_err(template);
        assert_eq!(
            (error.kind, error.name.as_deref()),
            (RenderFault::Undefined, Some("missing")),
            "{template}: {error}"
        );
        assert_eq!(error.message, "`missing` is undefined", "{template}");
    }
    for (template, name) in [
        ("{{ words.nope }}", "words.nope"),
        ("{{ words['nope'] }}", "words['nope']"),
        ("{{ list[9] }}", "list[9]"),
        ("{{ text.nope }}", "text.nope"),
    ] {
        let error = rendered(&plan, template).expect_err(template);
        assert_eq!(
            (error.kind, error.name.as_deref()),
            (RenderFault::Undefined, Some(name))
        );
    }
    for wrong in [
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ text.nope() }}",
        "{{ text | nope }}",
        "{{ missing() }}",
    ] {
        assert!(rendered(&plan, wrong).is_err(), "{wrong}");
    }
}

/// Templates that take in themselves end in both engines.
#[test]
fn what_takes_in_itself_is_an_error() {
    let mut plan = plan_of(VARIABLES);
    plan.prompt.includes = BTreeMap::from([("again.j2".to_owned(), "x{% include \"again.j2\" %}".to_owned())]);
    plan.prompt.template = "{% include \"again.j2\" %}".to_owned();
    let variables = variables(&plan, &plan.sheets[0]);
    for engine in [TemplateEngine::Jinja, TemplateEngine::Tera] {
        let text = with_template(&plan.prompt, engine, |template| template.render(&variables)).and_then(|text| text);
        let error = text.expect_err("it rendered").to_string();
        assert!(
            error.contains("recursion") || error.contains("ircular"),
            "{engine:?}: {error}"
        );
    }
    // What is wrong in it is told with its own name and line.
    plan.prompt.includes = BTreeMap::from([("part.j2".to_owned(), "one\n{{ missing }}".to_owned())]);
    let error = rendered(&plan, "{% include 'part.j2' %}").expect_err("it rendered");
    assert_eq!(error.to_string(), "`missing` is undefined (part.j2, line 2)");
    assert_eq!(error.name.as_deref(), Some("missing"));
    // Not there when the job was read: no disk is asked later.
    plan.prompt.template = "{% include 'other.' ~ 'j2' %}".to_owned();
    let text = with_template(&plan.prompt, TemplateEngine::Jinja, |template| {
        template.render(&variables)
    });
    assert!(text.and_then(|text| text).is_err());
}

/// The same in the words of Tera 2, which prints as Rust does.
#[test]
fn tera_has_ways_of_its_own() {
    let plan = plan_of(VARIABLES);
    let tera = |template: &str| {
        let mut plan = plan.clone();
        plan.prompt.template = template.to_owned();
        let variables = variables(&plan, &plan.sheets[1]);
        with_template(&plan.prompt, TemplateEngine::Tera, |template| {
            template.render(&variables)
        })
        .and_then(|text| text)
    };
    let differs: Vec<_> = TERA
        .iter()
        .map(|(template, expected)| (template, tera(template), expected))
        .filter(|(_, got, expected)| got.as_deref() != Ok(**expected))
        .collect();
    assert!(differs.is_empty(), "{differs:#?}");
    for undefined in ["{{ missing }}", "{{ missing.x }}", "{{ words.nope }}"] {
        assert_eq!(
            tera(undefined).expect_err(undefined).kind,
            RenderFault::Undefined,
            "{undefined}"
        );
    }
    assert!(tera("{% for x in missing %}{% endfor %}").is_err());
}

const TERA: &[(&str, &str)] = &[
    (
        "{{ yes }} {{ no }} {{ n }} {{ neg }} {{ f }} {{ whole }}",
        "true false 7 -3 2.5 3.0",
    ),
    (
        "{{ list }} {{ names }} {{ emptylist }}",
        "[3, 1, 2] [\"b\", \"A\", \"c\"] []",
    ),
    ("{{ map[2] }} {{ words.one }} {{ words[\"two\"][0] }}", "b x y"),
    ("{% for k, v in map %}{{ k }}={{ v }};{% endfor %}", "2=b;1=a;"),
    (
        "{{ text[:5] }} {{ text[-5:] }} {{ list[::-1] }}",
        "Hello World [2, 1, 3]",
    ),
    (
        "{{ text | upper }} {{ text | replace(from=\"l\", to=\"L\") }} {{ names | join(sep=\", \") }}",
        "HELLO, WORLD HeLLo, WorLd b, A, c",
    ),
    (
        "{{ missing | default(value=\"x\") }} {{ list | first }} {{ list | length }}",
        "x 3 3",
    ),
    (
        "{% for i in list %}{{ loop.index }}{{ loop.first }}{{ loop.last }};{% endfor %}",
        "1truefalse;2falsefalse;3falsetrue;",
    ),
    (
        "{% set x = 1 %}{{ x + 1 }} {{ \"a\" ~ 1 }} {{ 7 // 2 }} {{ 7 / 2 }}",
        "2 a1 3 3.5",
    ),
    ("a\n{% if yes %}\nb\n{% endif %}\nc\n", "a\n\nb\n\nc\n"),
    ("a\n{%- if yes -%}\nb\n{%- endif -%}\nc\n", "abc\n"),
    (
        "{% if 1 in map and not no %}yes{% elif n == 7 %}seven{% else %}no{% endif %}",
        "yes",
    ),
];
