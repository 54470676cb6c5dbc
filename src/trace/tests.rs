use super::*;
use http::HeaderMap;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn fields(parents: &[&str], state: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for parent in parents {
        headers.append("traceparent", parent.parse().unwrap());
    }
    if !state.is_empty() {
        headers.insert("tracestate", state.parse().unwrap());
    }
    headers
}

fn resumed(headers: &HeaderMap) -> Option<Trail> {
    resume(headers, (Clock::system().now(), SystemTime::UNIX_EPOCH))
}

#[test]
fn what_is_below_has_the_same_time() {
    let trail = resumed(&fields(&[GOOD], "")).unwrap();
    let (anchor, wall) = trail.anchor;
    let second = Duration::from_secs(1);
    let below = trail.below();
    assert_eq!(below.wall(anchor), wall);
    assert_eq!(below.wall(anchor + second), wall + second);
    assert_eq!(trail.wall(anchor - second), wall - second);
}

/// W3C Trace Context, section 3.2.2: what is malformed is as if it were not there.
#[test]
fn a_traceparent_that_is_none_is_not_taken_up() {
    for (parents, fit) in [
        (&[GOOD][..], true),
        (
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"],
            true,
        ),
        (&[], false),
        (&[GOOD, GOOD], false),
        (&[""], false),
        (&["00-1-2-01"], false),
        (
            &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"],
            false,
        ),
        (
            &["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            true,
        ),
        (
            &["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x"],
            true,
        ),
        (
            &["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x"],
            false,
        ),
        (
            &["00-00000000000000000000000000000000-b7ad6b7169203331-01"],
            false,
        ),
        (
            &["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"],
            false,
        ),
        (
            &["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"],
            false,
        ),
        (
            &["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
            false,
        ),
    ] {
        let found = trace_id(&fields(parents, ""));
        assert_eq!(found.is_some(), fit, "{parents:?}");
    }
}

#[test]
fn a_place_below_is_in_the_same_trace_and_is_sent_to_the_next_hop() {
    let kept = resumed(&fields(&[GOOD], "a=b,c=d")).unwrap();
    let below = kept.below();
    assert_eq!(below.trace_id(), kept.trace_id());
    assert_eq!(below.parent, kept.context.span_id());
    assert!(below.parent_is_remote);
    assert!(!below.below().parent_is_remote);
    let mut headers = fields(&["x", "y"], "");
    below.put_into(&mut headers);
    let written = headers.get_all("traceparent").iter().collect::<Vec<_>>();
    assert_eq!(written.len(), 1);
    let own = format!(
        "00-0af7651916cd43dd8448eb211c80319c-{}-01",
        below.context.span_id()
    );
    assert_eq!(written[0], own.as_str());
    assert_eq!(headers["tracestate"], "a=b,c=d");
    let mut plain = HeaderMap::new();
    resumed(&fields(&[GOOD], "")).unwrap().put_into(&mut plain);
    assert!(
        !plain.contains_key("tracestate"),
        "none is not an empty one"
    );
}

/// Section 3.3.1: several lines are one list.
#[test]
fn lines_of_a_tracestate_are_one_list() {
    let mut headers = fields(&[GOOD], "a=b");
    headers.append("tracestate", "c=d".parse().unwrap());
    resumed(&headers).unwrap().below().put_into(&mut headers);
    let states: Vec<_> = headers.get_all("tracestate").iter().collect();
    assert_eq!(states, ["a=b,c=d"]);
}

#[test]
fn whoever_does_not_trace_is_not_gone_on_for() {
    let quiet = GOOD.replace("-01", "-00");
    assert!(resumed(&fields(&[&quiet], "")).is_none());
    assert!(resumed(&HeaderMap::new()).is_none());
}
