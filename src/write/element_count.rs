//! Pure. Whether a request may name several elements, so that a part of it may take effect although
//! the API refuses the whole.
//!
//! It does not know the API: two values of any list are two elements. What cannot be read counts as
//! several, because too many cached answers given up cost less than one that is stale.

/// Whether a request with this query and this body may name more than one element.
pub fn may_be_several(query: Option<&str>, body: &[u8]) -> bool {
    let query = query.unwrap_or_default();
    let body = body.trim_ascii();
    // The API takes the parameters of some requests from either.
    let in_both = !query.is_empty() && !body.is_empty();
    in_both || may_list(query) || (!body.is_empty() && has_list(body))
}

/// A second pair, or a value that may itself be a list.
fn may_list(query: &str) -> bool {
    query.contains(['&', ';', ',']) || query.to_ascii_lowercase().contains("%2c")
}

/// Whether an array in this JSON text has more than one element. Only the commas in arrays are
/// looked for; what is no object or array, or does not end as it begins, is taken for a list.
fn has_list(text: &[u8]) -> bool {
    let mut open = Vec::new();
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' if !open.is_empty() => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => open.push(*byte),
            b'}' if open.pop() != Some(b'{') => return true,
            b']' if open.pop() != Some(b'[') => return true,
            b',' if open.last() == Some(&b'[') => return true,
            // Outside of the one value there is nothing.
            _ if open.is_empty() && !matches!(byte, b'}' | b']') => return true,
            _ => {}
        }
    }
    in_string || !open.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element_or_several() {
        for (query, body, several) in [
            ("", "", false),
            ("", r#"{"permissions":[]}"#, false),
            (
                "",
                r#" {"permissions":[{"roleId":"1","resources":[]}]} "#,
                false,
            ),
            (
                "",
                r#"{"name":"a,b","enabled":true,"labels":["[a,b]"]}"#,
                false,
            ),
            ("", r#"{"name":"a\",[\"","b":[1]}"#, false),
            ("", r#"{"invites":[{"email":"a"},{"email":"b"}]}"#, true),
            ("", r#"{"a":{"b":[["x"],["y"]]}}"#, true),
            ("", "[1]", false),
            ("", "[1,2]", true),
            // What is not plainly one.
            ("", "a=1", true),
            ("", "1", true),
            ("", "\"a\"", true),
            ("", "{} x", true),
            ("", r#"{"a":[1}"#, true),
            ("", r#"{"a":["#, true),
            ("", r#"{"a":""#, true),
            ("", "}", true),
            ("userIds.0=u", "", false),
            ("userIds.0=u&userIds.1=v", "", true),
            ("userIds=u,v", "", true),
            ("userIds=u%2Cv", "", true),
            ("userIds=u;userIds=v", "", true),
            ("userIds.0=u", "{}", true),
            ("", "\r\n", false),
        ] {
            let found = may_be_several(Some(query), body.as_bytes());
            assert_eq!(found, several, "{query:?} {body}");
        }
        assert!(!may_be_several(None, b""));
    }
}
