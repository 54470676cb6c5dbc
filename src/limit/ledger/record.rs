//! Pure. The format of the ledger: records of one size, each numbered and with a checksum.
//!
//! ```text
//! head | record 0 | record 1 | … | end
//! head:    "SGL4" | key check (16) | boot (16) | … | checksum (8)
//! record:  kind (1) | flags (1) | names (1) | 0 | number (4) | attempt (8) | … | checksum (8)
//! ```
//!
//! An attempt has one record when it is sent and another when it has ended. Its intents follow the
//! first: the things on which each of its writes acts. Records are written over the end, with a
//! new end behind them. A file without its end was cut. What is behind the end does not count: it
//! was written by a process that was killed before it acted on it.
//!
//! Order keys are keyed hashes; no name and no token is in the file.
//!
//! Numbers are big-endian. Times are whole milliseconds, and instants count from the boot of the
//! machine. Unused bytes are zero. A change of the layout needs another magic: a gateway believes
//! nothing of a file with a magic that it does not know.
//!
//! A file is believed as a whole or not at all. One record that is damaged, missing or out of order
//! leaves in doubt what was sent, so nothing of the file is used. What the attempts still mean is
//! decided in `replay.rs`; reading and writing the file is up to `file.rs`.

use super::entry::{AccountId, Charge, Intent, KnownEffect, NAME, Name};
use crate::credential::Credential;
use crate::limit::evidence::InForce;
use crate::route::policy::Rate;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Bytes of a record, and of the head of the file.
pub(super) const RECORD: usize = 128;
/// Names the format and its version.
const MAGIC: &[u8; 4] = b"SGL4";
/// Where the checksum is.
const SUM: usize = RECORD - 8;
/// Where the names are in the two kinds of records that have names.
const FIRST_NAMES: std::ops::Range<usize> = 64..112;
const MORE_NAMES: std::ops::Range<usize> = 16..112;

// The kinds of records. An attempt begins with SENT and ends with ENDED. INTENT belongs to the
// attempt that it names, and NAMES continues the names of the intent before it. END is the end of
// the file and belongs to no attempt.
const SENT: u8 = 1;
const ENDED: u8 = 2;
const INTENT: u8 = 3;
const NAMES: u8 = 4;
const END: u8 = 5;

/// The knowledge of an effect, by its number in a record.
///
/// The order is that of [`KnownEffect`], whose discriminants are written.
const EFFECTS: [KnownEffect; 3] = [KnownEffect::None, KnownEffect::Final, KnownEffect::Late];

/// Flags of an intent: the write may change anything; it may act on anything of its credential; it
/// is a durable write.
const EVERYTHING: u8 = 1;
const ALL_LANES: u8 = 2;
const DURABLE: u8 = 4;

/// An attempt as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttemptRecord {
    /// Grows with every attempt. A new process continues above the largest that is kept.
    pub(super) number: u64,
    /// When it was sent, or ended, since the boot of the machine.
    pub(super) at: Duration,
    /// The budget, and how long the slot stays occupied.
    pub(super) charge: Charge,
    /// Whether it has ended. Until then its slot is occupied, however old it is.
    pub(super) ended: bool,
    /// The knowledge of its effect; [`KnownEffect::Late`] while it is in flight.
    pub(super) effect: KnownEffect,
    /// The writes that the attempt carries. Empty for a read, and when the end of an attempt is
    /// appended, because the file has its intents already.
    pub(super) intents: Vec<Intent<Duration>>,
}

/// The conditions under which a ledger is believed, and how much of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Derived from the key of the credential hashes.
    pub(super) key_check: [u8; 16],
    /// The boot of the machine. Times of another boot cannot be compared with the present.
    pub(super) boot: [u8; 16],
}

impl Head {
    /// Returns the head with its checksum.
    pub(super) fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4..20].copy_from_slice(&self.key_check);
        bytes[20..36].copy_from_slice(&self.boot);
        seal(&mut bytes);
        bytes
    }
}

/// Appends the end of a file, behind so many records.
pub(super) fn encode_end(records: u64, out: &mut Vec<u8>) {
    let mut bytes = [0; RECORD];
    bytes[0] = END;
    RecordWriter {
        number: records,
        out,
    }
    .put(bytes, 0);
}

impl AttemptRecord {
    /// Appends its records, of which the first has this number.
    pub(super) fn encode(&self, number: u64, out: &mut Vec<u8>) {
        let mut writer = RecordWriter { number, out };
        let mut bytes = [0; RECORD];
        bytes[0] = if self.ended { ENDED } else { SENT };
        bytes[1] = self.effect as u8;
        let Charge {
            account,
            hold,
            rate: InForce { rate, is_learned },
        } = self.charge;
        // The places are those that `replay` reads.
        bytes[16..32].copy_from_slice(&account);
        bytes[32..40].copy_from_slice(&millis(self.at).to_be_bytes());
        bytes[40..48].copy_from_slice(&millis(hold).to_be_bytes());
        bytes[48..52].copy_from_slice(&rate.limit.to_be_bytes());
        bytes[52..60].copy_from_slice(&millis(rate.window).to_be_bytes());
        bytes[60] = is_learned.into();
        writer.put(bytes, self.number);
        for intent in &self.intents {
            intent.encode(self.number, &mut writer);
        }
    }
}

impl Intent<Duration> {
    /// Appends the record of an intent, and as many of further names as it takes.
    fn encode(&self, attempt: u64, writer: &mut RecordWriter<'_>) {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let mut bytes = [0; RECORD];
        bytes[0] = INTENT;
        bytes[1] = flag(self.everything, EVERYTHING)
            | flag(self.names.is_none(), ALL_LANES)
            | flag(self.write.is_some(), DURABLE);
        bytes[16..32].copy_from_slice(self.credential.bytes());
        bytes[32..48].copy_from_slice(&self.write.unwrap_or_default());
        bytes[48..56].copy_from_slice(&self.operation);
        bytes[56..64].copy_from_slice(&millis(self.first).to_be_bytes());
        let names = self.names.as_deref().unwrap_or_default();
        let (first, rest) = names.split_at(names.len().min(FIRST_NAMES.len() / NAME));
        put_names(&mut bytes, FIRST_NAMES, first);
        writer.put(bytes, attempt);
        for names in rest.chunks(MORE_NAMES.len() / NAME) {
            let mut bytes = [0; RECORD];
            bytes[0] = NAMES;
            put_names(&mut bytes, MORE_NAMES, names);
            writer.put(bytes, attempt);
        }
    }

    /// Reads an intent, with the names of its first record only.
    fn decode(record: &[u8]) -> Option<Self> {
        let flags = *record.get(1)?;
        let names = get_names(record, FIRST_NAMES)?;
        Some(Self {
            credential: Credential::from_bytes(record.get(16..32)?.try_into().ok()?),
            operation: record.get(48..56)?.try_into().ok()?,
            everything: flags & EVERYTHING != 0,
            write: match flags & DURABLE {
                0 => None,
                _ => Some(record.get(32..48)?.try_into().ok()?),
            },
            first: Duration::from_millis(number(record, 56)?),
            names: (flags & ALL_LANES == 0).then_some(names),
        })
    }
}

/// Numbers records and seals them.
struct RecordWriter<'o> {
    /// The number of the next record: its place in the file.
    number: u64,
    out: &'o mut Vec<u8>,
}

impl RecordWriter<'_> {
    /// Appends a record of this attempt.
    fn put(&mut self, mut bytes: [u8; RECORD], attempt: u64) {
        bytes[4..8].copy_from_slice(&short(self.number));
        bytes[8..16].copy_from_slice(&attempt.to_be_bytes());
        seal(&mut bytes);
        self.out.extend_from_slice(&bytes);
        self.number += 1;
    }
}

/// Returns the attempts of a file in the order of their numbers, or why the file cannot be
/// believed. The reason is for the log.
///
/// The checks go from general to particular, so that the reason is the one that an operator can act
/// on: a changed key or a restarted machine is not reported as damage.
pub(super) fn parse(bytes: &[u8], expected: Head) -> Result<Vec<AttemptRecord>, &'static str> {
    let damaged = "the ledger is damaged";
    let (head, rest) = bytes
        .split_at_checked(RECORD)
        .ok_or("the ledger is cut short")?;
    if head[..4] != MAGIC[..] {
        return Err("this is not a ledger, or one of another version");
    }
    if !is_sealed(head) {
        return Err(damaged);
    }
    if head[4..20] != expected.key_check {
        return Err("the ledger was written under another key for credential hashes");
    }
    if head[20..36] != expected.boot {
        return Err("the ledger was written before this machine was started, or on another one");
    }
    let mut attempts = BTreeMap::new();
    // The rate of a budget is that of the last record about it. With several attempts in flight,
    // that need not be a record of the last attempt.
    let mut rates = HashMap::new();
    for (at, record) in (0..).zip(rest.chunks_exact(RECORD)) {
        // The number finds a record that is whole but in the wrong place.
        if !is_sealed(record) || record[4..8] != short(at) {
            return Err(damaged);
        }
        if record[0] == END {
            return Ok(with_rates(attempts.into_values().collect(), &rates));
        }
        replay(record, &mut attempts).ok_or(damaged)?;
        if let Some(attempt) = number(record, 8).and_then(|number| attempts.get(&number)) {
            rates.insert(attempt.charge.account, attempt.charge.rate);
        }
    }
    Err("the ledger is cut short")
}

/// Gives each attempt the rate that its budget has.
fn with_rates(
    mut attempts: Vec<AttemptRecord>,
    rates: &HashMap<AccountId, InForce>,
) -> Vec<AttemptRecord> {
    for attempt in &mut attempts {
        if let Some(rate) = rates.get(&attempt.charge.account) {
            attempt.charge.rate = *rate;
        }
    }
    attempts
}

/// Applies a record to its attempt. `None` if it makes no sense.
///
/// A record of an attempt replaces the one before and inherits its intents. An attempt that had no
/// effect loses them: its writes were not carried out by it.
fn replay(record: &[u8], attempts: &mut BTreeMap<u64, AttemptRecord>) -> Option<()> {
    let attempt = number(record, 8)?;
    let known = attempts.get_mut(&attempt);
    match *record.first()? {
        kind @ (SENT | ENDED) => {
            let effect = *EFFECTS.get(usize::from(*record.get(1)?))?;
            let known = known.filter(|_| effect != KnownEffect::None);
            let intents = known.map(|known| std::mem::take(&mut known.intents));
            let rate = Rate {
                limit: u32::from_be_bytes(record.get(48..52)?.try_into().ok()?),
                window: Duration::from_millis(number(record, 52)?),
            };
            let recorded = AttemptRecord {
                number: attempt,
                at: Duration::from_millis(number(record, 32)?),
                charge: Charge {
                    account: record.get(16..32)?.try_into().ok()?,
                    hold: Duration::from_millis(number(record, 40)?),
                    rate: InForce {
                        rate,
                        is_learned: *record.get(60)? == 1,
                    },
                },
                ended: kind == ENDED,
                effect,
                intents: intents.unwrap_or_default(),
            };
            attempts.insert(attempt, recorded);
        }
        INTENT => known?.intents.push(Intent::decode(record)?),
        NAMES => {
            let names = get_names(record, MORE_NAMES)?;
            let intent = known?.intents.last_mut()?;
            intent.names.as_mut()?.extend(names);
        }
        _ => return None,
    }
    Some(())
}

/// Writes the number of names, and the names. The caller passes no more than there is room for.
fn put_names(bytes: &mut [u8; RECORD], place: std::ops::Range<usize>, names: &[Name]) {
    bytes[2] = u8::try_from(names.len()).unwrap_or(u8::MAX);
    for (to, name) in bytes[place].chunks_exact_mut(NAME).zip(names) {
        to.copy_from_slice(name);
    }
}

/// Reads the names of a record. A number above the room for them reads as many as there are.
fn get_names(record: &[u8], place: std::ops::Range<usize>) -> Option<Vec<Name>> {
    let names = record.get(place)?.chunks_exact(NAME);
    let count = usize::from(*record.get(2)?);
    let names = names.take(count).map(|name| name.try_into().ok());
    names.collect()
}

/// Returns the number at this place.
fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// The number of a record. A file is rewritten long before it has 2³² of them.
fn short(number: u64) -> [u8; 4] {
    let bytes = number.to_be_bytes();
    [bytes[4], bytes[5], bytes[6], bytes[7]]
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The checksum of a record: it finds damage, not an attacker, who could as well delete the file.
/// Each step can be undone, so a change of one word is always found.
fn checksum(bytes: &[u8]) -> [u8; 8] {
    let (words, _) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_be_bytes(*word));
    // Rotated, because a product passes a difference on to higher bits only.
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        (hash.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    hash.to_be_bytes()
}

/// Sets the checksum of a record that is otherwise complete.
fn seal(bytes: &mut [u8; RECORD]) {
    let sum = checksum(&bytes[..SUM]);
    bytes[SUM..].copy_from_slice(&sum);
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.len() == RECORD && checksum(&bytes[..SUM]) == bytes[SUM..]
}
