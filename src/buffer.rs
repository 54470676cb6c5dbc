//! Memory for message bodies. Large ones do not come from the allocator.
//!
//! An allocator may keep freed memory: after a peak of responses of some MiB each, most of the peak
//! stayed resident. So a large body has pages of its own, an anonymous mapping, which the system
//! gets back with the last reader. A small body comes from the allocator. If the system gives no
//! pages, the allocator does.

use bytes::{Bytes, BytesMut};
use memmap2::MmapMut;

/// The length in bytes from which a body has pages of its own.
const LARGE: usize = 64 * 1024;

/// A body that is being collected.
#[derive(Debug)]
pub struct Buffer {
    expected: usize,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Small(BytesMut),
    Large(Pages),
}

/// A mapping of which the first `length` bytes are in use. Pages never written to take no memory.
#[derive(Debug)]
struct Pages {
    map: MmapMut,
    length: usize,
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        self.map.get(..self.length).unwrap_or_default()
    }
}

impl Pages {
    /// Maps pages, or returns `None` if the system gives none.
    fn new(capacity: usize) -> Option<Self> {
        let map = MmapMut::map_anon(capacity).ok()?;
        Some(Self { map, length: 0 })
    }

    /// Appends bytes, and returns whether there was room.
    fn push(&mut self, data: &[u8]) -> bool {
        let end = self.length + data.len();
        let Some(room) = self.map.get_mut(self.length..end) else {
            return false;
        };
        room.copy_from_slice(data);
        self.length = end;
        true
    }
}

impl Buffer {
    /// Creates an empty buffer for a body of about `expected` bytes.
    pub fn new(expected: usize) -> Self {
        // A large body starts empty, and gets pages once 64 KiB of it have arrived.
        let first = if expected < LARGE { expected } else { 0 };
        Self {
            expected,
            memory: Memory::Small(BytesMut::with_capacity(first)),
        }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Returns whether the buffer is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> &[u8] {
        match &self.memory {
            Memory::Small(bytes) => bytes,
            Memory::Large(pages) => pages.as_ref(),
        }
    }

    /// Appends bytes.
    pub fn push(&mut self, data: &[u8]) {
        if let Memory::Large(pages) = &mut self.memory
            && pages.push(data)
        {
            return;
        }
        let needed = self.len() + data.len();
        if needed >= LARGE {
            // Growth by doubling copies each byte a bounded number of times.
            let capacity = self.expected.max(needed.next_power_of_two());
            if let Some(mut pages) = Pages::new(capacity)
                && pages.push(self.bytes())
                && pages.push(data)
            {
                self.memory = Memory::Large(pages);
                return;
            }
        }
        let mut bytes = match &mut self.memory {
            Memory::Small(bytes) => std::mem::take(bytes),
            Memory::Large(pages) => BytesMut::from(pages.as_ref()),
        };
        bytes.extend_from_slice(data);
        self.memory = Memory::Small(bytes);
    }

    /// Returns the whole body, to be shared.
    pub fn freeze(self) -> Bytes {
        match self.memory {
            Memory::Small(bytes) => bytes.freeze(),
            Memory::Large(pages) => Bytes::from_owner(pages),
        }
    }
}

/// Returns a copy that takes no more memory than necessary.
pub fn copy(bytes: &[u8]) -> Bytes {
    if bytes.len() < LARGE {
        return Bytes::copy_from_slice(bytes);
    }
    let mut buffer = Buffer::new(bytes.len());
    buffer.push(bytes);
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_is_what_came_whatever_was_expected() {
        let all: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ 7).collect();
        let gathered = |expected: usize, length: usize, piece: usize| {
            let mut buffer = Buffer::new(expected);
            for data in all[..length].chunks(piece) {
                buffer.push(data);
            }
            let is_large = matches!(buffer.memory, Memory::Large(_));
            assert_eq!(is_large, length >= LARGE, "{expected} {length} {piece}");
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.freeze(), all[..length]);
        };
        for expected in [0, 1, LARGE, 200_000, 300_000, 1 << 20] {
            for length in [0, 1, LARGE - 1, LARGE, LARGE + 1, 200_000, 300_000] {
                for piece in [1_000, 70_000, 300_000] {
                    gathered(expected, length, piece);
                }
            }
        }
        assert_eq!(copy(&all), all);
        assert_eq!(copy(&all[..9]), all[..9]);
    }

    /// The fault: gigabytes that were freed stayed resident.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_dropped_is_not_resident() {
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages = text.split(' ').nth(1).unwrap();
            pages.parse::<usize>().unwrap() * 4_096
        };
        const BODY: usize = 4 << 20;
        let before = resident();
        let piece = [1; 16 * 1024];
        let bodies: Vec<Bytes> = (0..64)
            .map(|_| {
                let mut buffer = Buffer::new(BODY);
                while buffer.len() < BODY {
                    buffer.push(&piece);
                }
                buffer.freeze()
            })
            .collect();
        assert!(resident() > before + 32 * BODY);
        // One of them goes on: those around it do not stay for its sake.
        let last = bodies[31].clone();
        drop(bodies);
        assert!(resident() < before + 32 * BODY);
        assert_eq!(last.len(), BODY);
    }
}
