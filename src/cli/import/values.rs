//! Pure. The values that a field of an import may have: addresses, ids and resources.
//!
//! Promises that what is rejected here could not be right. What passes may still be wrong: only the
//! API knows which roles, groups and resources exist.

use serde_json::{Value, json};

/// The longest address, in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const LONGEST_ADDRESS: usize = 254;
/// The longest part before the `@`, in bytes (RFC 5321, section 4.5.3.1.1).
const LONGEST_LOCAL: usize = 64;
/// The longest label of a domain, in bytes (RFC 1035, section 2.3.4).
const LONGEST_LABEL: usize = 63;
/// The longest id, in characters.
const LONGEST_ID: usize = 255;
/// The most resources of one permission.
const MOST_RESOURCES: usize = 100;
/// The most characters of a value that a message shows.
const SHOWN: usize = 60;

/// The types of resources that a permission can apply to.
const RESOURCE_TYPES: [&str; 5] = ["FUNCTION", "SOURCE", "SPACE", "WAREHOUSE", "WORKSPACE"];

/// The characters that an address has only within quotes, which no directory uses.
const SPECIAL: &[char] = &['"', '(', ')', ',', ':', ';', '<', '>', '@', '[', '\\', ']'];

/// Returns whether a text is an email address with a full domain. Letters of all scripts are
/// permitted (RFC 6531).
pub(super) fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let is_special = |c: char| c.is_whitespace() || c.is_control() || SPECIAL.contains(&c);
    text.len() <= LONGEST_ADDRESS
        && (1..=LONGEST_LOCAL).contains(&local.len())
        && !local.contains(is_special)
        && local.split('.').all(|part| !part.is_empty())
        && domain.contains('.')
        && domain.split('.').all(is_label)
}

/// Returns whether a text is one label of a domain.
fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.chars().all(|c| c.is_alphanumeric() || c == '-')
}

/// Returns whether a text can be an id of the API: of a role, a group or a resource.
pub(super) fn is_id(text: &str) -> bool {
    (1..=LONGEST_ID).contains(&text.chars().count())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Reads a list of resources such as `SOURCE:s1 WAREHOUSE:w2`, as the API has them. Spaces, commas
/// and semicolons separate them.
///
/// # Errors
/// The first element that is none, and what is expected.
pub(super) fn resources(text: &str) -> Result<Vec<Value>, String> {
    let separators = |c: char| c.is_whitespace() || matches!(c, ',' | ';');
    let mut found = Vec::new();
    for element in text.split(separators).filter(|one| !one.is_empty()) {
        let (kind, id) = element.split_once(':').unwrap_or((element, ""));
        let kind = kind.to_ascii_uppercase();
        if !RESOURCE_TYPES.contains(&kind.as_str()) || !is_id(id) {
            return Err(format!(
                "{} is not a resource; expected TYPE:ID, with one of the types {}",
                quoted(element),
                RESOURCE_TYPES.join(", ")
            ));
        }
        if found.len() == MOST_RESOURCES {
            return Err(format!("more than {MOST_RESOURCES} resources for one role"));
        }
        found.push(json!({ "id": id, "type": kind }));
    }
    Ok(found)
}

/// Returns a value in quotes for a message: cut, and with control characters escaped.
pub(super) fn quoted(value: &str) -> String {
    let mut shown: String = value.chars().take(SHOWN).collect();
    if shown.len() < value.len() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_mail_can_be_sent_to() {
        for address in [
            "a@b.example",
            "first.last+tag@mail.example.com",
            "o'brien_%-x@a-b.co",
            "jürgen@exämple.de",
            "A@B.C",
        ] {
            assert!(is_address(address), "{address}");
        }
        let long_local = format!("{}@b.example", "a".repeat(65));
        let long = format!("a@{}.example", "b.".repeat(130));
        let label = format!("a@{}.example", "b".repeat(64));
        for wrong in [
            "",
            "a",
            "@",
            "a@",
            "@b.example",
            "a@b",
            "a b@c.example",
            "a@@b.example",
            "a@b..example",
            ".a@b.example",
            "a.@b.example",
            "a..b@c.example",
            "a@-b.example",
            "a@b-.example",
            "a@b.example.",
            "a@b.ex ample",
            "<a@b.example>",
            "\"a\"@b.example",
            "a,b@c.example",
            "a@b.example\nc@d.example",
            "a@b_c.example",
            &long_local,
            &long,
            &label,
        ] {
            assert!(!is_address(wrong), "{wrong}");
        }
    }

    #[test]
    fn an_id_has_no_spaces() {
        assert!(is_id("source-admin") && is_id("é") && is_id(&"i".repeat(255)));
        for wrong in ["", "Source Admin", "a\tb", "a\u{0}", &"i".repeat(256)] {
            assert!(!is_id(wrong), "{wrong}");
        }
    }

    #[test]
    fn resources_are_types_with_ids() {
        let one = |kind: &str, id: &str| json!({ "id": id, "type": kind });
        let expected = vec![one("SOURCE", "s1"), one("WORKSPACE", "w:2")];
        for text in ["SOURCE:s1 WORKSPACE:w:2", "source:s1;, workspace:w:2;"] {
            assert_eq!(resources(text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(resources(" "), Ok(Vec::new()));
        for wrong in ["s1", "SOURCE:", ":s1", "SOURCES:s1", "SOURCE s1"] {
            let error = resources(wrong).unwrap_err();
            assert!(error.contains("expected TYPE:ID"), "{error}");
        }
        let many = "SOURCE:s ".repeat(101);
        assert_eq!(
            resources(&many).unwrap_err(),
            "more than 100 resources for one role"
        );
        assert!(resources(&"SOURCE:s ".repeat(100)).is_ok());
    }

    #[test]
    fn a_message_shows_little_of_a_value_and_no_control_character() {
        assert_eq!(quoted("a\nb"), "\"a\\nb\"");
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
    }
}
