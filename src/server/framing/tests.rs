use super::*;
use proptest::prelude::*;

fn is_ambiguous(bytes: &[u8], size: usize) -> bool {
    let mut framing = Framing::default();
    for part in bytes.chunks(size.max(1)) {
        framing.feed(part);
    }
    framing.ambiguous()
}

#[test]
fn both_fields_in_one_head_are_found_however_the_bytes_come() {
    let cases: &[(&str, bool)] = &[
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\nTRANSFER-ENCODING: chunked\nx: y\ncontent-length: 3\n\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            false,
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nx-content-length: 1\r\ncontent-length-x: 1\r\n\
             transfer-encoding: b\r\n",
            false,
        ),
        // In a body, in a chunk, in an extension and in a trailer nothing is a field.
        (
            "POST / HTTP/1.1\r\nContent-Length: 47\r\n\r\n\
             content-length: 1\r\ntransfer-encoding: chunked\r\n\
             POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
             2F;x=\"y\"\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n\
             0\r\ncontent-length: 1\r\n\r\n\
             POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
        // What comes behind a body is looked at again.
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\n\
             POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            true,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\n\
             POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            true,
        ),
        (
            "POST http://a:1/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n\
             POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        ("", false),
    ];
    for (bytes, expected) in cases {
        for size in 1..=bytes.len().max(1) {
            let found = is_ambiguous(bytes.as_bytes(), size);
            assert_eq!(found, *expected, "{bytes:?} by {size}");
        }
    }
}

/// All that matters for what comes next.
fn state(framing: &Framing) -> (Place, &[u8], Option<u64>, bool, bool) {
    let name = &framing.name[..framing.kept];
    (
        framing.place,
        name,
        framing.length,
        framing.encoding,
        framing.ambiguous,
    )
}

/// A request with this body, in one of the two framings.
fn request(body: &[u8], chunk: Option<usize>) -> Vec<u8> {
    let mut bytes = b"POST /invites HTTP/1.1\r\nHost: a\r\n".to_vec();
    let Some(chunk) = chunk else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
        return bytes;
    };
    bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
    for part in body.chunks(chunk) {
        bytes.extend(format!("{:x};a=b\r\n", part.len()).bytes());
        bytes.extend(part);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\nx-trailer: content-length\r\n\r\n");
    bytes
}

proptest! {
    #[test]
    fn looking_at_whole_heads_at_once_finds_the_same(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "GET / HTTP/1.1", "Host: a", "", "", "Content-Length: 1", "connection: close",
                "transfer-encoding: chunked", "Transfer-Encoding: x", "te: trailers", "content-l",
                " transfer-encoding: folded", "\r", "tx", "1", "0",
            ]),
            0..12,
        ),
        ends in prop::collection::vec(prop::sample::select(vec!["\r\n", "\n"]), 12),
        cuts in prop::collection::vec(0usize..100, 0..4),
    ) {
        let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| (*cut).min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let (mut whole, mut by_parts) = (Framing::default(), Framing::default());
        for cut in cuts.windows(2) {
            let part = &text.as_bytes()[cut[0]..cut[1]];
            whole.feed(part);
            by_parts.feed_parts(part);
            prop_assert_eq!(state(&whole), state(&by_parts), "{:?}", text);
        }
    }

    #[test]
    fn no_body_makes_a_later_request_ambiguous(
        bodies in prop::collection::vec(
            (
                prop::collection::vec(
                    prop::sample::select(vec![
                        "content-length: 3\r\n", "Transfer-Encoding: chunked\r\n", "\r\n", "\n", "0",
                        "POST / HTTP/1.1\r\n", "x", ":", "\r",
                    ]),
                    0..8,
                ),
                prop::option::of(1usize..50),
            ),
            0..5,
        ),
        size in 1usize..200,
    ) {
        let mut bytes = Vec::new();
        for (body, chunk) in &bodies {
            bytes.extend(request(body.concat().as_bytes(), *chunk));
        }
        prop_assert!(!is_ambiguous(&bytes, size));
        // The place is not lost: what is ambiguous behind all of them is found.
        bytes.extend(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n");
        prop_assert!(is_ambiguous(&bytes, size));
    }
}

#[test]
fn what_lies_between_the_fields_may_be_of_any_length() {
    let filler = "x: ".to_owned() + &"y".repeat(100_000);
    let head = format!("P\r\ncontent-length: 1\r\n{filler}\r\ntransfer-encoding: chunked\r\n");
    assert!(is_ambiguous(head.as_bytes(), head.len()));
}
