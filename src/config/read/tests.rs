use super::*;
use proptest::prelude::*;
use std::time::Duration;

#[test]
fn lines_are_counted_from_one() {
    let document = Document::parse("f", "a = 1\r\n# é\n\n[s]\nb = [\n 1,\n 'x']\n").unwrap();
    let mut findings = Findings::default();
    let environment = Environment::default();
    Section::root(Some(&document), &environment, &mut findings, |root| {
        root.key("a", &mut None::<Duration>);
        root.section("s", |section| section.key("b", &mut Vec::<u32>::new()));
    });
    let places: Vec<_> = findings
        .problems
        .iter()
        .map(|p| p.place.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(places, ["f:1", "f:5"]);
}

#[test]
fn syntax_errors_have_a_line() {
    for (text, line) in [
        ("a = \n", 1),
        ("a = 1\nb = 'x\n", 2),
        ("a=1\na=2\n", 2),
        ("\n\n]", 3),
    ] {
        let problem = Document::parse("f", text).err().unwrap();
        assert_eq!(
            problem.place,
            Some(Place::Line("f".into(), line)),
            "{text:?}: {problem}"
        );
        assert!(!problem.to_string().contains('\n'));
    }
}

#[test]
fn deep_documents_are_errors() {
    let deep = format!("a = {}", "[".repeat(100_000));
    assert!(Document::parse("f", &deep).is_err());
}

#[test]
fn variables_name_keys() {
    let pairs = [
        ("SEGMENT_GATEWAY__A__B_C", "1"),
        ("SEGMENT_GATEWAY__A__B_C", "2"),
        ("SEGMENT_GATEWAY_A__B_C", "3"),
        ("PATH", "4"),
        ("SEGMENT_GATEWAY__a__b", "5"),
    ];
    let pairs = pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let environment = Environment::new(pairs);
    assert_eq!(environment.values["a.b_c"].1, "2");
    assert_eq!(environment.values["a.b"].1, "5");
    assert_eq!(environment.values.len(), 2);
    assert_eq!(variable("a.b_c"), "SEGMENT_GATEWAY__A__B_C");
}

proptest! {
    #[test]
    fn no_document_panics(text in "([a-c.\\[\\]={}'\"#1 \n]|\\PC){0,40}") {
        let environment = Environment::default();
        let mut findings = Findings::default();
        if let Ok(document) = Document::parse("f", &text) {
            Section::root(Some(&document), &environment, &mut findings, |root| {
                root.key("a", &mut String::new());
                root.section("b", |section| section.within("c", &mut 1u32, 1..=2));
            });
            for problem in findings.problems {
                prop_assert!(!problem.to_string().contains('\n'), "{}", problem);
            }
        }
    }
}
