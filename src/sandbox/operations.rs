//! Pure. The operations of the API as the sandbox knows them. The table is its own, so that a
//! mistake in the gateway's route table is detected.
//!
//! `operations.txt` has one operation per line: name, method, path template, status of success,
//! documented limit and its unit (`-` if none is documented), and `paged` if its response comes in
//! pages.
//!
//! The statuses are those of the vendor's SDKs, whose response models have them in their names
//! (TypeScript 47.0.0 on npm, later ones in the SDKs' own documents). Early releases describe every
//! success as 200; the latest one that has an operation counts.

use std::sync::LazyLock;
use std::time::Duration;

use http::StatusCode;
use percent_encoding::percent_decode_str;

/// One operation of the API.
pub(super) struct ApiOperation {
    /// The name in the API's reference, such as `getUser`.
    pub(super) name: &'static str,
    /// The method in capitals.
    pub(super) method: &'static str,
    /// The path template, such as `/users/{userId}`.
    pub(super) template: &'static str,
    /// The status of a success. Only `echo` may return another, on request.
    pub(super) success: StatusCode,
    /// The documented limit and its period.
    pub(super) limit: Option<(u32, Duration)>,
    /// Whether its response comes in pages.
    pub(super) paged: bool,
    segments: Vec<Segment>,
}

/// One segment of a template. The order puts literals before parameters.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(&'static str),
    Parameter(&'static str),
}

/// All operations, in the order in which a path is compared with them.
pub(super) static OPERATIONS: LazyLock<Vec<ApiOperation>> =
    LazyLock::new(|| parse(include_str!("operations.txt")));

/// The decoded values of a template's parameters, from left to right.
pub(super) type PathValues = Vec<String>;

/// Returns the number of the operation that a request means, and the values of its parameters. Of
/// several matching templates, the one whose first differing segment is a literal wins. HEAD
/// matches the GET.
pub(super) fn find(method: &str, path: &str) -> Option<(usize, PathValues)> {
    let method = if method == "HEAD" { "GET" } else { method };
    let parts = split(path)?;
    OPERATIONS
        .iter()
        .enumerate()
        .find_map(|(number, operation)| {
            let fits = operation.method == method && operation.segments.len() == parts.len();
            let params = if fits {
                capture(&operation.segments, &parts)?
            } else {
                return None;
            };
            Some((number, params))
        })
}

impl ApiOperation {
    /// Returns the last literal segment of the template: the plural name of the resource.
    pub(super) fn noun(&self) -> &'static str {
        self.segments
            .iter()
            .rev()
            .find_map(|segment| match segment {
                Segment::Literal(text) => Some(*text),
                Segment::Parameter(_) => None,
            })
            .unwrap_or("workspace")
    }

    /// Returns whether the path names one resource of a collection rather than the collection.
    pub(super) fn names_one(&self) -> bool {
        matches!(self.segments.last(), Some(Segment::Parameter(_)))
    }

    /// Returns whether some operation creates what this one names.
    pub(super) fn is_creatable(&self) -> bool {
        let parent = self
            .template
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent);
        OPERATIONS
            .iter()
            .any(|other| other.method == "POST" && other.template == parent)
    }
}

fn parse(table: &'static str) -> Vec<ApiOperation> {
    let mut operations: Vec<ApiOperation> = table.lines().filter_map(parse_line).collect();
    operations.sort_by(|a, b| a.segments.cmp(&b.segments));
    operations
}

fn parse_line(line: &'static str) -> Option<ApiOperation> {
    let mut words = line.split_ascii_whitespace();
    let (name, method, template) = (words.next()?, words.next()?, words.next()?);
    let success = words.next()?.parse().ok()?;
    let (limit, per, paged) = (words.next()?, words.next()?, words.next()?);
    let per = match per {
        "day" => Duration::from_secs(86_400),
        _ => Duration::from_secs(60),
    };
    let segment = |part: &'static str| match part
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
    {
        Some(parameter) => Segment::Parameter(parameter),
        None => Segment::Literal(part),
    };
    Some(ApiOperation {
        name,
        method,
        template,
        success,
        limit: limit.parse().ok().map(|limit| (limit, per)),
        paged: paged == "paged",
        segments: split(template)?.into_iter().map(segment).collect(),
    })
}

/// Returns the segments of a path: none for `/`, and `None` if one of several is empty.
fn split(path: &str) -> Option<Vec<&str>> {
    let rest = path.strip_prefix('/')?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    let parts: Vec<&str> = rest.split('/').collect();
    if parts.iter().any(|part| part.is_empty()) {
        None
    } else {
        Some(parts)
    }
}

/// Returns the values of the parameters, or `None` if a literal differs or a value is not UTF-8.
fn capture(segments: &[Segment], parts: &[&str]) -> Option<PathValues> {
    let mut params = PathValues::new();
    for (segment, part) in segments.iter().zip(parts) {
        match segment {
            Segment::Literal(text) if text == part => {}
            Segment::Literal(_) => return None,
            Segment::Parameter(_) => {
                params.push(percent_decode_str(part).decode_utf8().ok()?.into_owned())
            }
        }
    }
    Some(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        // A line that lacks a part is no operation.
        assert_eq!(
            OPERATIONS.len(),
            include_str!("operations.txt").lines().count()
        );
        assert_eq!(OPERATIONS.len(), 201);
        assert!(OPERATIONS.iter().all(|o| o.success.is_success()));
        assert_eq!(OPERATIONS.iter().filter(|o| o.limit.is_some()).count(), 67);
        let daily = Some((120, Duration::from_secs(86_400)));
        assert_eq!(OPERATIONS.iter().filter(|o| o.limit == daily).count(), 1);
        let listed = OPERATIONS.iter().find(|o| o.name == "listUsers").unwrap();
        assert!(listed.paged && listed.limit.is_none());
    }

    #[test]
    fn every_template_finds_itself() {
        for (number, operation) in OPERATIONS.iter().enumerate() {
            let (found, params) = find(operation.method, operation.template).unwrap();
            assert_eq!(found, number, "{}", operation.name);
            assert_eq!(params.len(), operation.template.matches('{').count());
        }
    }

    #[test]
    fn paths_mean_what_the_reference_says() {
        type Expected = Option<(&'static str, &'static [&'static str])>;
        let table: [(&str, &str, Expected); 12] = [
            ("GET", "/", Some(("getWorkspace", &[]))),
            ("GET", "/users/u%201", Some(("getUser", &["u 1"]))),
            ("HEAD", "/users/u1", Some(("getUser", &["u1"]))),
            ("DELETE", "/users", Some(("deleteUsers", &[]))),
            (
                "DELETE",
                "/group/g/users",
                Some(("removeUsersFromUserGroup", &["g"])),
            ),
            (
                "POST",
                "/groups/g/users",
                Some(("addUsersToUserGroup", &["g"])),
            ),
            // A literal beats a parameter.
            (
                "POST",
                "/spaces/s/audiences/previews",
                Some(("createAudiencePreview", &["s"])),
            ),
            (
                "GET",
                "/regulations/sources/x",
                Some(("listRegulationsFromSource", &["x"])),
            ),
            ("GET", "/users/", None),
            ("GET", "//users", None),
            ("PATCH", "/users", None),
            ("GET", "/users/%FF", None),
        ];
        for (method, path, expected) in table {
            let found = find(method, path);
            let found = found
                .as_ref()
                .map(|(n, params)| (OPERATIONS[*n].name, params.clone()));
            let expected =
                expected.map(|(n, params)| (n, params.iter().map(|p| (*p).to_owned()).collect()));
            assert_eq!(found, expected, "{method} {path}");
        }
    }

    #[test]
    fn nouns_and_what_can_be_created() {
        let by = |name: &str| OPERATIONS.iter().find(|o| o.name == name).unwrap();
        assert_eq!(by("getReverseEtlModel").noun(), "reverse-etl-models");
        assert_eq!(by("getWorkspace").noun(), "workspace");
        assert!(by("getSource").is_creatable() && by("getSource").names_one());
        assert!(!by("getSourceMetadata").is_creatable());
    }
}
