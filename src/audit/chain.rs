//! Pure. The chain of the audit log: each line names the one before it, and is signed.
//!
//! ```text
//! {"seq":7,"time":"2026-01-02T03:04:05.678Z","kind":"write",…,"prev":"<mac of 6>","mac":"…"}
//! ```
//!
//! `mac` is the HMAC-SHA256 (RFC 2104) of everything before `,"mac":`, under the key of the log.
//! Without the key nobody can change a line, or add one. A line that was removed is missed by its
//! number. Only the removal of the newest lines leaves a sound chain; that is found by whoever
//! knows a later head, as the ordinary log has it.

use hmac::{Hmac, KeyInit, Mac as _};
use serde_json::{Map, Value};
use sha2::Sha256;
use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

/// The key that signs the lines. `Debug` does not show it.
#[derive(Clone)]
pub struct AuditKey(Hmac<Sha256>);

impl AuditKey {
    /// Returns a key of these bytes, which must be secret and random.
    pub fn new(bytes: &[u8; 32]) -> Self {
        // A key of 32 bytes fits the block of SHA-256 and is used as it is (RFC 2104, section 2).
        let mut block = hmac::digest::common::Key::<Hmac<Sha256>>::default();
        block[..32].copy_from_slice(bytes);
        Self(Hmac::new(&block))
    }

    fn sign(&self, bytes: &[u8]) -> LineMac {
        let mut keyed = self.0.clone();
        keyed.update(bytes);
        LineMac(keyed.finalize().into_bytes().into())
    }

    /// Returns what stands for a name that must not be readable. The same name has the same.
    pub fn pseudonym(&self, name: &str) -> String {
        // Apart from the signatures of lines, which begin with a brace.
        let whole = self.sign(format!("subject:{name}").as_bytes()).to_string();
        whole.chars().take(PSEUDONYM).collect()
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey")
    }
}

/// The signature of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineMac([u8; 32]);

impl fmt::Display for LineMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for LineMac {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = text.as_bytes();
        let is_digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.iter().all(is_digit) {
            return Err(());
        }
        let mut mac = [0; 32];
        for (byte, two) in mac.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let two = std::str::from_utf8(two).map_err(|_| ())?;
            *byte = u8::from_str_radix(two, 16).map_err(|_| ())?;
        }
        Ok(Self(mac))
    }
}

/// The newest line of a chain: its number and its signature. The default is before the first line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// The number of the line; the first one has 1.
    pub seq: u64,
    /// The signature of the line.
    pub mac: LineMac,
}

impl fmt::Display for ChainHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.mac)
    }
}

impl FromStr for ChainHead {
    type Err = String;

    /// Reads `SEQ:MAC`.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (seq, mac) = text.split_once(':')?;
            Some(Self {
                seq: seq.parse().ok()?,
                mac: mac.parse().ok()?,
            })
        };
        let expected = "expected SEQ:MAC, as the log has it after `audit log head`";
        read().ok_or_else(|| expected.to_owned())
    }
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// It is no line of an audit log.
    NotARecord,
    /// Its signature is not that of its content under this key.
    Changed,
    /// Lines are missing before it; these are the first and the last number.
    Missing(u64, u64),
    /// A line with its number, or a higher one, came before it.
    OutOfOrder(u64),
    /// It has the right number, and follows another line than the one before it.
    Foreign,
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => f.write_str("this is not a record of an audit log"),
            Self::Changed => f.write_str("the record was changed, or the key is another one"),
            Self::Missing(one, other) if one == other => write!(f, "record {one} is missing"),
            Self::Missing(first, last) => write!(f, "records {first} to {last} are missing"),
            Self::OutOfOrder(seq) => write!(f, "record {seq} is repeated or out of order"),
            Self::Foreign => f.write_str("the record does not follow the one before it"),
        }
    }
}

/// The length of a pseudonym, in hexadecimal digits: enough that no two names share one.
const PSEUDONYM: usize = 32;
const MAC: &str = ",\"mac\":\"";

/// Returns the line that follows `head`, with its line break, and the new head.
pub(super) fn line(
    key: &AuditKey,
    head: &ChainHead,
    (time, kind, fields): (SystemTime, &str, &Map<String, Value>),
) -> (String, ChainHead) {
    let seq = head.seq + 1;
    let time = humantime::format_rfc3339_millis(time);
    let mut line = format!("{{\"seq\":{seq},\"time\":\"{time}\",\"kind\":\"{kind}\"");
    for (name, value) in fields {
        // As JSON writes both: no byte of a value can end it.
        line.push(',');
        line.push_str(&Value::from(name.as_str()).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    }
    line.push_str(&format!(",\"prev\":\"{}\"", head.mac));
    let mac = key.sign(line.as_bytes());
    line.push_str(MAC);
    line.push_str(&format!("{mac}\"}}\n"));
    (line, ChainHead { seq, mac })
}

/// Checks a line without its line break. `before` is the line before it, if that is known. Returns
/// the new head.
///
/// # Errors
/// With what is wrong with it.
pub fn check(
    key: &AuditKey,
    line: &[u8],
    before: Option<&ChainHead>,
) -> Result<ChainHead, ChainFault> {
    let text = std::str::from_utf8(line).map_err(|_| ChainFault::NotARecord)?;
    let (signed, mac) = text.rsplit_once(MAC).ok_or(ChainFault::NotARecord)?;
    let mac = mac.strip_suffix("\"}").ok_or(ChainFault::NotARecord)?;
    let mac: LineMac = mac.parse().map_err(|()| ChainFault::NotARecord)?;
    if key.sign(signed.as_bytes()) != mac {
        return Err(ChainFault::Changed);
    }
    let document: Value = serde_json::from_str(text).map_err(|_| ChainFault::NotARecord)?;
    let seq = document["seq"].as_u64().ok_or(ChainFault::NotARecord)?;
    let prev = document["prev"].as_str().and_then(|prev| prev.parse().ok());
    let head = ChainHead { seq, mac };
    // What comes before the first line of all is known.
    let first = (seq == 1).then(ChainHead::default);
    let Some(before) = before.or(first.as_ref()) else {
        return Ok(head);
    };
    match before.seq + 1 {
        expected if seq > expected => Err(ChainFault::Missing(expected, seq - 1)),
        expected if seq < expected => Err(ChainFault::OutOfOrder(seq)),
        _ if prev != Some(before.mac) => Err(ChainFault::Foreign),
        _ => Ok(head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use std::time::UNIX_EPOCH;

    fn key(n: u8) -> AuditKey {
        AuditKey::new(&[n; 32])
    }

    /// So many lines, each with its line break.
    fn lines(count: u64) -> Vec<String> {
        let mut head = ChainHead::default();
        let lines = (0..count).map(|n| {
            let fields = json!({ "n": n, "text": "a \"quoted\"\n,\"mac\":\"line" });
            let event = (UNIX_EPOCH, "write", fields.as_object().unwrap());
            let (line, next) = line(&key(1), &head, event);
            head = next;
            line
        });
        lines.collect()
    }

    /// Checks lines in turn: how many are sound, and what is wrong with the next one.
    fn checked(lines: &[String]) -> (usize, Option<ChainFault>) {
        let mut head = None;
        for (at, line) in lines.iter().enumerate() {
            match check(&key(1), line.trim_end().as_bytes(), head.as_ref()) {
                Ok(next) => head = Some(next),
                Err(fault) => return (at, Some(fault)),
            }
        }
        (lines.len(), None)
    }

    #[test]
    fn a_line_is_json_and_follows_the_one_before() {
        let lines = lines(3);
        assert_eq!(checked(&lines), (3, None));
        assert_eq!(checked(&lines[1..]), (2, None), "older ones may be gone");
        let document: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(document["seq"], 2);
        assert_eq!(document["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(document["text"], "a \"quoted\"\n,\"mac\":\"line");
        assert_eq!(lines[1].matches('\n').count(), 1);
        let other = check(&key(2), lines[0].trim_end().as_bytes(), None);
        assert_eq!(other, Err(ChainFault::Changed), "another key");
    }

    #[test]
    fn a_line_of_another_chain_is_found() {
        let mut mixed = lines(2);
        let fields = Map::new();
        let (first, head) = line(
            &key(1),
            &ChainHead::default(),
            (UNIX_EPOCH, "stop", &fields),
        );
        let (second, _) = line(&key(1), &head, (UNIX_EPOCH, "stop", &fields));
        mixed[1] = second;
        assert_eq!(checked(&mixed), (1, Some(ChainFault::Foreign)));
        assert_eq!(checked(&[first]), (1, None));
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = ChainHead {
            seq: 7,
            mac: key(1).sign(b"x"),
        };
        assert_eq!(head.to_string().parse(), Ok(head));
        for bad in [
            "",
            "7",
            "7:",
            ":00",
            "x:00",
            &head.to_string().to_uppercase(),
        ] {
            assert!(bad.parse::<ChainHead>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pseudonym_is_one_for_each_name_and_key() {
        let of = |n, name| key(n).pseudonym(name);
        assert_eq!(of(1, "user:a"), of(1, "user:a"));
        assert_ne!(of(1, "user:a"), of(1, "user:b"));
        assert_ne!(of(1, "user:a"), of(2, "user:a"));
    }

    proptest! {
        /// A changed byte, and a line that is removed, repeated or moved, are found where they are.
        #[test]
        fn whatever_is_done_to_the_lines_is_found_where_it_was_done(
            count in 2_usize..8, at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(),
            to in any::<u8>(), what in 0..5,
        ) {
            let whole = lines(count as u64);
            let at = at.index(count);
            let mut lines = whole.clone();
            let found = match what {
                0 => {
                    let mut bytes = lines[at].trim_end().as_bytes().to_vec();
                    let byte = byte.index(bytes.len());
                    prop_assume!(bytes[byte] != to && to != b'\n');
                    bytes[byte] = to;
                    let before: Option<ChainHead> = None;
                    prop_assert!(check(&key(1), &bytes, before.as_ref()).is_err());
                    return Ok(());
                }
                1 => {
                    // The last line is missed by whoever knows the head.
                    prop_assume!(at > 0 && at + 1 < count);
                    lines.remove(at);
                    let seq = at as u64 + 1;
                    (at, Some(ChainFault::Missing(seq, seq)))
                }
                2 => {
                    lines.insert(at, whole[at].clone());
                    (at + 1, Some(ChainFault::OutOfOrder(at as u64 + 1)))
                }
                3 => {
                    prop_assume!(at > 0 && at + 1 < count);
                    lines.swap(at, at + 1);
                    let seq = at as u64 + 1;
                    (at, Some(ChainFault::Missing(seq, seq)))
                }
                _ => {
                    let cut = 1 + byte.index(whole[at].len() - 2);
                    lines[at].truncate(cut);
                    let (sound, fault) = checked(&lines);
                    prop_assert!(sound == at && fault.is_some());
                    return Ok(());
                }
            };
            prop_assert_eq!(checked(&lines), found);
        }
    }
}
