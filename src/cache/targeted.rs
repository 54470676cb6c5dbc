//! Pure. `CDN-Cache-Control` (RFC 9213): directives for shared caches only.
//!
//! Promises that a readable field takes the place of `Cache-Control` and `Expires`, and that an
//! empty or malformed one counts as absent (section 2.2). The field is a Dictionary (RFC 9651): the
//! last of repeated members counts, and times are integers. A member of the wrong type is unclear
//! and never counts as a permission.

use super::control::CacheControl;
use http::header::{HeaderName, HeaderValue};
use sfv::visitor::{
    DictionaryVisitor, EntryVisitor, Ignored, InnerListVisitor, ItemVisitor, ParameterVisitor,
};
use sfv::{BareItemFromInput, KeyRef, Parser};
use std::convert::Infallible;
use std::time::Duration;

/// The name of the field.
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// Parses the field. `None` if it is absent, empty or malformed.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Option<CacheControl> {
    let members = dictionary(values).filter(|members| !members.is_empty())?;
    let mut found = CacheControl::default();
    for (name, value) in last_of_each(&members) {
        found.read_member(name, value);
    }
    Some(found)
}

/// The members of a Dictionary (RFC 9651, section 3.2) in order, including repeated ones. `None` if
/// it is malformed.
pub fn dictionary<'a>(
    values: impl IntoIterator<Item = &'a HeaderValue>,
) -> Option<Vec<(String, MemberValue)>> {
    let lines: Vec<&[u8]> = values.into_iter().map(HeaderValue::as_bytes).collect();
    let field = lines.join(&b", "[..]);
    let mut members = Vec::new();
    let parser = Parser::new(&field);
    let parsed = parser.parse_dictionary_with_visitor(Members(&mut members));
    parsed.ok().map(|()| members)
}

/// Keeps the last of repeated members.
fn last_of_each(members: &[(String, MemberValue)]) -> impl Iterator<Item = (&str, MemberValue)> {
    let numbered = members.iter().enumerate();
    let last = numbered.filter(|(index, (name, _))| {
        let mut later = members.iter().skip(index + 1);
        !later.any(|(other, _)| other == name)
    });
    last.map(|(_, (name, value))| (name.as_str(), *value))
}

/// The value of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberValue {
    /// A Boolean.
    Flag(bool),
    /// An Integer.
    Number(i64),
    /// Anything else.
    Other,
}

impl CacheControl {
    fn read_member(&mut self, name: &str, value: MemberValue) {
        // `no-store=?0` switches the directive off. Any other value, such as a list of fields,
        // leaves it on.
        if value == MemberValue::Flag(false) || self.set_flag(name.as_bytes()) {
            return;
        }
        let seconds = match value {
            MemberValue::Number(number) => u64::try_from(number).ok().map(Duration::from_secs),
            MemberValue::Flag(_) | MemberValue::Other => None,
        };
        self.set_time(name.as_bytes(), Some(seconds));
    }
}

/// Collects the members of a dictionary in order.
struct Members<'m>(&'m mut Vec<(String, MemberValue)>);

impl<'de> DictionaryVisitor<'de> for Members<'_> {
    type Out = ();
    type Error = Infallible;

    fn entry(&mut self, key: &'de KeyRef) -> Result<impl EntryVisitor<'de>, Infallible> {
        self.0.push((key.as_str().to_owned(), MemberValue::Other));
        Ok(Member(self.0.last_mut().map(|(_, value)| value)))
    }

    fn finish(self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Reads the value of one member. Parameters have no meaning here.
struct Member<'m>(Option<&'m mut MemberValue>);

impl<'de> EntryVisitor<'de> for Member<'_> {
    type Error = Infallible;

    fn item(self) -> Result<impl ItemVisitor<'de>, Infallible> {
        Ok(self)
    }

    fn inner_list(self) -> Result<impl InnerListVisitor<'de>, Infallible> {
        Ok(Ignored)
    }
}

impl<'de> ItemVisitor<'de> for Member<'_> {
    type Out = ();
    type Error = Infallible;

    fn bare_item(
        self,
        item: BareItemFromInput<'de>,
    ) -> Result<impl ParameterVisitor<'de, Out = ()>, Infallible> {
        if let Some(value) = self.0 {
            *value = match (item.as_boolean(), item.as_integer()) {
                (Some(flag), _) => MemberValue::Flag(flag),
                (_, Some(number)) => MemberValue::Number(number.into()),
                _ => MemberValue::Other,
            };
        }
        Ok(Ignored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &[&str]) -> Option<CacheControl> {
        let values: Vec<_> = lines
            .iter()
            .map(|line| HeaderValue::from_str(line).unwrap())
            .collect();
        parse(&values)
    }

    #[test]
    fn a_dictionary_is_read_like_cache_control() {
        let found = parsed(&["max-age=60, must-revalidate", "stale-if-error=5;x=1"]).unwrap();
        assert_eq!(found.max_age, Some(Duration::from_secs(60)));
        assert_eq!(found.stale_if_error, Some(Duration::from_secs(5)));
        assert!(found.must_revalidate && !found.no_store);
        assert!(parsed(&["no-store"]).unwrap().no_store);
        assert!(parsed(&["no-cache=\"a\""]).unwrap().no_cache);
        assert!(!parsed(&["no-store=?0, max-age=1"]).unwrap().no_store);
    }

    #[test]
    fn the_last_of_repeated_members_counts() {
        let found = parsed(&["max-age=60, x, max-age=10"]).unwrap();
        assert_eq!(found.max_age, Some(Duration::from_secs(10)));
    }

    #[test]
    fn what_is_not_a_number_of_seconds_is_no_time_at_all() {
        for value in [
            "max-age=\"60\"",
            "max-age=-1",
            "max-age=1.5",
            "max-age",
            "max-age=(1)",
        ] {
            assert_eq!(
                parsed(&[value]).unwrap().max_age,
                Some(Duration::ZERO),
                "{value}"
            );
        }
    }

    #[test]
    fn an_empty_or_malformed_field_counts_as_absent() {
        for field in [
            "",
            "  ",
            "max-age=",
            "Max-Age=60",
            "max-age=60,",
            "max-age=60; ,",
            "=,",
        ] {
            assert_eq!(parsed(&[field]), None, "{field:?}");
        }
        assert_eq!(parsed(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_field_is_too_strange(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                let _ = parse([&value]);
            }
        }
    }
}
