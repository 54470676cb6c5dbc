use super::*;
use proptest::prelude::*;

#[test]
fn durations() {
    for (text, millis) in [
        ("250ms", Some(250)),
        ("30s", Some(30_000)),
        (" 5 m ", Some(300_000)),
        ("1h", Some(3_600_000)),
        ("1d", Some(86_400_000)),
        ("0s", Some(0)),
        ("365d", Some(365 * 86_400_000)),
        ("366d", None),
        ("30", None),
        ("", None),
        ("s", None),
        ("1.5s", None),
        ("-1s", None),
        ("+1s", None),
        ("1S", None),
        ("1min", None),
        ("1m30s", None),
        ("99999999999999999999s", None),
        ("18446744073709551615d", None),
    ] {
        assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("64 MiB", Some(64 << 20)),
        ("32KiB", Some(32 << 10)),
        ("1GiB", Some(1 << 30)),
        ("0 B", Some(0)),
        ("7", None),
        ("7 MB", None),
        ("7 mib", None),
        ("-1 B", None),
        ("18446744073709551615 GiB", None),
    ] {
        assert_eq!(size(text), bytes.map(Size), "{text}");
    }
}

#[test]
fn rates() {
    for (text, expected) in [
        ("60 per 1m", Some((60, 60))),
        ("120 per 1d", Some((120, 86_400))),
        ("100/s", Some((100, 1))),
        ("100 / m", Some((100, 60))),
        ("0 per 1m", None),
        ("1 per 0s", None),
        ("60", None),
        ("60 per", None),
        ("per 1m", None),
        ("60 per minute", None),
        ("60/minute", None),
        ("-1/s", None),
        ("1/2s", None),
        ("4294967296/s", None),
    ] {
        let expected = expected.map(|(limit, seconds)| Rate {
            limit,
            window: Duration::from_secs(seconds),
        });
        assert_eq!(rate(text), expected, "{text}");
    }
}

#[test]
fn mistakes_get_advice() {
    for (text, part) in [
        ("60", "bare number"),
        ("64 MB", "KiB"),
        ("1min", "`m`"),
        ("2 seconds", "`s`"),
    ] {
        assert!(advice(text).contains(part), "{text}");
    }
    assert_eq!(advice("soon"), "");
}

#[test]
fn quotes_are_short_and_on_one_line() {
    assert_eq!(quoted("a\nb\u{1b}"), "\"a\\u{a}b\\u{1b}\"");
    assert_eq!(quoted(&"x".repeat(500)).chars().count(), 63);
}

proptest! {
    #[test]
    fn what_is_shown_is_read(millis in 0u64..=31_536_000_000, bytes: usize, limit in 1u32..) {
        let time = Duration::from_millis(millis);
        prop_assert_eq!(duration(&show_duration(time)), Some(time));
        prop_assert_eq!(size(&Size(bytes).to_string()), Some(Size(bytes)));
        let given = Rate { limit, window: time.max(Duration::from_millis(1)) };
        prop_assert_eq!(rate(&show_rate(given)), Some(given));
    }

    #[test]
    fn round_values_are_read(count in 0u64..=365, unit in 0usize..5) {
        let text = format!("{count}{}", DURATIONS[unit].0);
        let time = duration(&text).unwrap();
        prop_assert_eq!(duration(&show_duration(time)), Some(time));
    }

    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = (duration(&text), size(&text), rate(&text), advice(&text), quoted(&text));
    }
}
