//! Templates that would take for ever, fill the memory or overflow the stack end with an error.

use super::super::plain::Weight;
use super::super::template::{RenderFault, with_template};
use super::*;
use crate::job::plan::TemplateEngine;

fn templated(template: &str) -> Plan {
    let mut plan = plan_of(JOB);
    plan.prompt.template = template.to_owned();
    plan
}

fn fault(engine: TemplateEngine, template: &str) -> RenderFault {
    let mut plan = templated(template);
    let many = Value::List((0..2000).map(Value::Int).collect());
    plan.prompt.variables = BTreeMap::from([
        ("many".to_owned(), many),
        ("s".to_owned(), Value::Text("x".repeat(1000))),
    ]);
    let variables = variables(&plan, &plan.sheets[0]);
    with_template(&plan.prompt, engine, |template| {
        template.render(&variables).map(|text| text.len())
    })
    .and_then(|length| length)
    .expect_err("it rendered")
    .kind
}

#[test]
fn loops_end() {
    let nested = "{% for a in many %}{% for b in many %}{% for c in many %}{% endfor %}{% endfor %}{% endfor %}";
    assert_eq!(fault(TemplateEngine::Jinja, nested), RenderFault::Limit);
    assert_eq!(fault(TemplateEngine::Tera, nested), RenderFault::Limit);
    let ranges = "{% for a in range(end=1000) %}{% for b in range(end=1000) %}{% endfor %}{% endfor %}";
    assert_eq!(fault(TemplateEngine::Tera, ranges), RenderFault::Other);
    assert_eq!(
        fault(
            TemplateEngine::Tera,
            "{% for a in range(end=1000000000000) %}{% endfor %}"
        ),
        RenderFault::Other
    );
    assert_eq!(
        fault(TemplateEngine::Jinja, "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        RenderFault::Other
    );
}

#[test]
fn output_is_bounded() {
    let much = "{% for a in many %}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{{ s }}{% endfor %}";
    assert_eq!(fault(TemplateEngine::Jinja, much), RenderFault::Limit);
    assert_eq!(fault(TemplateEngine::Tera, much), RenderFault::Limit);
}

/// What the guard lets through fits the stack, also in an unoptimised build.
#[test]
fn deep_chains_do_not_overflow_the_stack() {
    let chains = [
        format!("{{{{ {}1 }}}}", "1+".repeat(16_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(8_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(32_000)),
        format!("{{{{ s{} }}}}", ".a".repeat(16_000)),
        format!("{{{{ s{} }}}}", "|e".repeat(16_000)),
        format!("{{{{ s{} }}}}", "[0]".repeat(10_000)),
        format!("{{{{ {}1{} }}}}", "(".repeat(16_000), ")".repeat(16_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(16_000), "]".repeat(16_000)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(2_000)),
        format!("{}{}", "{% if 1 %}".repeat(5_000), "{% endif %}".repeat(5_000)),
        format!("{{{{ 1 {} }}}}", "if 1 else 1 ".repeat(2_000)),
    ];
    for template in chains {
        for engine in [TemplateEngine::Jinja, TemplateEngine::Tera] {
            let plan = templated(&template);
            let variables = variables(&plan, &plan.sheets[0]);
            // An error or a text, but an answer.
            let _answer = with_template(&plan.prompt, engine, |template| template.render(&variables).is_ok());
        }
    }
}

/// As deep as a template may be that is rendered on the thread that asks for it, with less stack than any has.
#[test]
fn shallow_templates_fit_an_ordinary_stack() {
    let nested = |tag: &str| {
        let (open, close) = (
            "{% if 1 %}{% for a in s %}".repeat(8),
            "{% endfor %}{% endif %}".repeat(8),
        );
        let elifs = "{% elif 0 %}".repeat(32);
        format!("{open}{tag}{close}{{% if 0 %}}{elifs}{{% endif %}}")
    };
    let tags = [
        format!("{{{{ {}1{} }}}}", "(".repeat(24), ")".repeat(24)),
        format!("{{{{ {}1 }}}}", "not ".repeat(49)),
        format!("{{{{ {}1 }}}}", "-".repeat(49)),
        format!("{{{{ {}1 }}}}", "1+".repeat(24)),
        format!("{{{{ s{} }}}}", "|lower".repeat(24)),
        format!("{{{{ s{} }}}}", ".a".repeat(24)),
        format!("{{{{ 1 {} }}}}", "if 1 else 1 ".repeat(12)),
    ];
    for tag in tags {
        for engine in [TemplateEngine::Jinja, TemplateEngine::Tera] {
            let plan = templated(&nested(&tag));
            let weight = Weight::of(&plan.prompt, engine).expect("it is plain");
            assert!(weight.is_shallow(), "{tag}");
            let render = move || {
                let variables = variables(&plan, &plan.sheets[0]);
                let _answer = with_template(&plan.prompt, engine, |template| template.render(&variables).is_ok());
            };
            let thread = std::thread::Builder::new().stack_size(1024 * 1024);
            thread.spawn(render).unwrap().join().unwrap();
        }
    }
    for deeper in [
        format!("{{{{ {}1 }}}}", "-".repeat(50)),
        format!("{}{}", "{% if 1 %}".repeat(17), "{% endif %}".repeat(17)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(33)),
    ] {
        let plan = templated(&deeper);
        assert!(!Weight::of(&plan.prompt, TemplateEngine::Jinja).unwrap().is_shallow());
    }
}

#[test]
fn expressions_in_paths_are_bounded() {
    let variables = BTreeMap::new();
    for hostile in [
        ".a".repeat(499),
        "-".repeat(999),
        "not ".repeat(249),
        "1+".repeat(499),
        "(".repeat(999),
        "x".repeat(1001),
    ] {
        // On an ordinary thread: an error, but an answer.
        let _answer = expression(&hostile, &variables);
    }
    assert_eq!(expression("1 + 1", &variables).as_deref(), Ok("2"));
    assert!(
        expression("x".repeat(1001).as_str(), &variables)
            .unwrap_err()
            .message
            .contains("longer than 1000 bytes")
    );
}
