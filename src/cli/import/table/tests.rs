use super::super::row::ImportKind;
use super::*;
use csv::WriterBuilder;
use proptest::prelude::*;

fn rules(kind: ImportKind) -> ImportRules {
    ImportRules {
        kind,
        group: None,
        delimiter: b',',
    }
}

fn invites(text: impl AsRef<[u8]>) -> Result<Vec<ImportRow>, Vec<String>> {
    read_table(text.as_ref(), &rules(ImportKind::Invites))
}

fn members(text: impl AsRef<[u8]>) -> Result<Vec<ImportRow>, Vec<String>> {
    read_table(text.as_ref(), &rules(ImportKind::Members))
}

/// The lines and addresses of rows.
fn places(rows: &[ImportRow]) -> Vec<(usize, &str)> {
    rows.iter().map(|row| (row.line, &*row.email)).collect()
}

#[test]
fn files_of_all_programs_are_read_alike() {
    let expected = [(2, "a@b.example"), (4, "c@d.example")];
    for text in [
        "email,role\na@b.example,\n\nc@d.example,r\n",
        "email,role\r\na@b.example,\r\n\r\nc@d.example,r\r\n",
        "email,role\ra@b.example,\r\rc@d.example,r",
        "\u{feff}email,role\r\na@b.example,\r\n,\r\nc@d.example,r\r\n,,\r\n",
        "\"email\",\"role\"\n\"a@b.example\",\"\"\n\n\"c@d.example\",\"r\"",
        " Email , ROLE\n a@b.example ,\n\n c@d.example , r ",
    ] {
        let rows = invites(text).unwrap();
        assert_eq!(places(&rows), expected, "{text:?}");
        assert_eq!(rows[0], ImportRow::invite(2, "a@b.example", Vec::new()));
        assert!(rows[1].body.contains(r#""roleId":"r""#), "{text:?}");
    }
}

#[test]
fn a_quoted_field_may_have_several_lines() {
    let text = "email,role,resources\na@b.example,r,\"SOURCE:1\r\nSOURCE:2\"\nc@d.example,,\n";
    let rows = invites(text).unwrap();
    assert_eq!(places(&rows), [(2, "a@b.example"), (4, "c@d.example")]);
    assert!(rows[0].body.contains(r#"{"id":"2","type":"SOURCE"}"#));
}

#[test]
fn every_mistake_has_its_line_and_what_is_expected() {
    for (text, expected) in [
        ("", &["the file is empty"][..]),
        ("\u{feff}\r\n", &["the file is empty"]),
        ("email\n", &["the file has no rows"]),
        ("email\n\n,\n", &["the file has no rows"]),
        (
            "\nmail\n",
            &[
                "line 2: unknown column \"mail\"",
                "line 2: there is no column email",
            ],
        ),
        (
            "email,role\na@b.example\n",
            &["line 2: 1 columns; the first line has 2"],
        ),
        (
            "email\na@b.example,\"x\"\n",
            &["line 2: 2 columns; the first line has 1"],
        ),
        (
            "email\r\na@b.example\r\nx\r\nA@B.example\r\n",
            &[
                "line 3: \"x\" is not an email address",
                "line 4: \"A@B.example\" is on line 2 too",
            ],
        ),
        (
            "email,role,resources\na@b.example,,SOURCE:1\nb@b.example,A role,\nc@b.example,r,s1\n",
            &[
                "line 2: resources without role",
                "line 3: \"A role\" is not the id of a role",
                "line 4: \"s1\" is not a resource",
            ],
        ),
        (
            "email\n\"a@b.example\nc@d.example\n",
            &["line 2: \"a@b.example\\nc@d.example\" is not"],
        ),
    ] {
        let found = invites(text).unwrap_err();
        assert_eq!(found.len(), expected.len(), "{text:?}: {found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.starts_with(part), "{text:?}: {found}");
        }
    }
}

#[test]
fn a_member_is_one_of_a_group_of_the_row_or_of_all() {
    let text = "group,email\ng1,a@b.example\ng2,a@b.example\ng1,A@b.example\n,c@d.example\n";
    let found = members(text).unwrap_err();
    assert_eq!(
        found,
        [
            "line 4: \"A@b.example\" is on line 2 too with the group \"g1\"",
            "line 5: \"\" is not the id of a group, which has no spaces; GET /groups lists the ids",
        ]
    );
    let rows = members("group,email\ng1,a@b.example\ng2,a@b.example\n").unwrap();
    assert_eq!(rows[1].path(), "/groups/g2/users");
    let of_all = ImportRules {
        group: Some("g3".into()),
        ..rules(ImportKind::Members)
    };
    let rows = read_table(b"email\na@b.example\n", &of_all).unwrap();
    assert_eq!(rows[0].path(), "/groups/g3/users");
}

#[test]
fn another_delimiter_is_read_if_it_is_named_and_else_recognised() {
    let text = "email;role\na@b.example;r\n";
    let named = ImportRules {
        delimiter: b';',
        ..rules(ImportKind::Invites)
    };
    assert_eq!(read_table(text.as_bytes(), &named).unwrap().len(), 1);
    assert!(invites(text).unwrap_err()[0].contains("say --delimiter ';'"));
}

#[test]
fn another_encoding_is_named() {
    let latin = b"email\na@b.example\nj\xfcrgen@b.example\n";
    let found = invites(latin).unwrap_err();
    assert_eq!(
        found,
        ["line 3: the file is not in UTF-8; save it as \"CSV UTF-8\""]
    );
    for mark in [b"\xff\xfe", b"\xfe\xff"] {
        let found = invites(mark).unwrap_err();
        assert!(found[0].contains("UTF-16"), "{found:?}");
    }
}

#[test]
fn what_is_too_much_is_refused() {
    let row = |n: usize| format!("p{n}@b.example\n");
    let most: String = (0..MOST_ROWS).map(row).collect();
    assert_eq!(invites(format!("email\n{most}")).unwrap().len(), MOST_ROWS);
    let found = invites(format!("email\n{most}{}", row(MOST_ROWS))).unwrap_err();
    assert_eq!(
        found,
        ["line 100002: more than 100000 rows; split the file"]
    );
    let unclosed = format!("email\na@b.example\n\"{}", "x\n".repeat(MOST_ROW_BYTES));
    let found = invites(unclosed).unwrap_err();
    assert_eq!(
        found,
        ["line 3: the row is larger than 64 KiB; is a quote not closed?"]
    );
    let wrong = "x\n".repeat(MOST_SHOWN + 7);
    let found = invites(format!("email\n{wrong}")).unwrap_err();
    assert_eq!(found.len(), MOST_SHOWN + 1);
    assert_eq!(found[MOST_SHOWN], "… and 7 more");
}

proptest! {
    /// Whatever a writer of CSV makes of right rows is read as those rows, on their lines.
    #[test]
    fn what_was_written_is_read(
        people in prop::collection::btree_set("[a-z]{1,8}", 1..30),
        windows in any::<bool>(),
        always_quoted in any::<bool>(),
    ) {
        let mut writer = WriterBuilder::new();
        if windows {
            writer.terminator(csv::Terminator::CRLF);
        }
        if always_quoted {
            writer.quote_style(csv::QuoteStyle::Always);
        }
        let mut writer = writer.from_writer(Vec::new());
        writer.write_record(["email"]).unwrap();
        for person in &people {
            writer.write_record([format!("{person}@b.example")]).unwrap();
        }
        let rows = invites(writer.into_inner().unwrap()).unwrap();
        let expected = people.iter().enumerate();
        for (row, (n, person)) in rows.iter().zip(expected) {
            prop_assert_eq!(row.line, n + 2);
            prop_assert_eq!(&row.email, &format!("{person}@b.example"));
        }
        prop_assert_eq!(rows.len(), people.len());
    }

    #[test]
    fn any_bytes_are_rows_or_mistakes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = invites([b"email\n", &*bytes].concat());
        let _ = members(&bytes);
    }
}
