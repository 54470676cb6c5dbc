//! The lines of the log on their way to standard error.
//!
//! A line is appended to a buffer, and a thread writes the buffer: at once if it wrote nothing
//! recently, otherwise together with the lines of the next [`PAUSE`]. A line that is urgent ends
//! the pause. So a request pays for no system call, and does not wait for whoever reads the log.
//!
//! Invariants:
//! - Lines are written whole, in the order in which they were appended.
//! - Appending never waits for the reader of the log. While [`MOST_WAITING`] bytes wait, further
//!   lines are dropped and counted, and the count is reported with the next lines that are written.
//!
//! Lines are neither formatted nor filtered here. What is still in the buffer when the process is
//! killed is lost, so whoever ends the process calls [`LogOutput::flush`].

use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The longest time that a line waits for others.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// As many waiting bytes end the pause.
const ENOUGH: usize = 64 * 1024;
/// The most bytes that wait while the reader of the log is slow: seconds of full load.
const MOST_WAITING: usize = 4 * 1024 * 1024;

/// The output of the log. Cheap to clone.
#[derive(Clone)]
pub(super) struct LogOutput {
    shared: Arc<Shared>,
}

struct Shared {
    /// The time between one writing and the next.
    pause: Duration,
    waiting: Mutex<WaitingLines>,
    /// Wakes the writing thread.
    arrived: Condvar,
    /// Wakes those who wait for their lines.
    written: Condvar,
    /// The lines dropped since the start.
    dropped: AtomicU64,
}

/// The lines that wait for the writing thread, and how far it has come.
#[derive(Default)]
struct WaitingLines {
    bytes: Vec<u8>,
    /// Whether the thread waits for the next line, whatever it is.
    idle: bool,
    /// Whether some line must not wait for others.
    urgent: bool,
    /// The bytes appended, and those of them written, since the start.
    appended: u64,
    written: u64,
    /// The dropped lines that are not reported yet.
    unreported: u64,
}

impl WaitingLines {
    /// Returns whether the lines are to be written without a pause.
    fn hurry(&self) -> bool {
        self.urgent || self.bytes.len() >= ENOUGH
    }
}

impl LogOutput {
    /// Starts the thread that writes to `to`, with a pause after each writing. It calls `report`
    /// with the number of lines dropped, once lines are written again.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(
        to: impl Write + Send + 'static,
        pause: Duration,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let output = Self {
            shared: Arc::new(Shared {
                pause,
                waiting: Mutex::default(),
                arrived: Condvar::new(),
                written: Condvar::new(),
                dropped: AtomicU64::default(),
            }),
        };
        let shared = output.shared.clone();
        // A thread rather than a task: it blocks while the reader of the log is slow, and outlives
        // the runtime.
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_all(to, report))?;
        Ok(output)
    }

    /// Appends a whole line. Never waits for it to be written; drops it if too many bytes wait.
    pub(super) fn append(&self, line: &[u8], urgent: bool) {
        let mut waiting = self.shared.waiting.lock();
        if waiting.bytes.len() + line.len() > MOST_WAITING {
            waiting.unreported += 1;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes.extend_from_slice(line);
        waiting.appended += line.len() as u64;
        waiting.urgent |= urgent;
        let wakes = waiting.idle || waiting.hurry();
        drop(waiting);
        if wakes {
            self.shared.arrived.notify_one();
        }
    }

    /// Waits until all lines so far are written, but not longer than `within`.
    pub(super) fn flush(&self, within: Duration) {
        let mut waiting = self.shared.waiting.lock();
        let so_far = waiting.appended;
        waiting.urgent = true;
        self.shared.arrived.notify_one();
        let is_pending = |waiting: &mut WaitingLines| waiting.written < so_far;
        let written = &self.shared.written;
        written.wait_while_for(&mut waiting, is_pending, within);
    }

    /// Returns the number of lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// Writes lines as they come, for as long as the process lives.
    fn write_all(&self, mut to: impl Write, report: impl Fn(u64)) {
        let mut batch = Vec::new();
        let mut waiting = self.waiting.lock();
        loop {
            waiting.idle = true;
            let nothing = |waiting: &mut WaitingLines| waiting.bytes.is_empty();
            self.arrived.wait_while(&mut waiting, nothing);
            waiting.idle = false;
            waiting.urgent = false;
            std::mem::swap(&mut waiting.bytes, &mut batch);
            // Unlocked meanwhile, so that others can append.
            drop(waiting);
            let is_written = write_whole(&mut to, &batch, self.pause).is_ok();
            waiting = self.waiting.lock();
            waiting.written += batch.len() as u64;
            if !is_written {
                // Part of them may be written. Which one is unknown, so all of them count.
                let lost = batch.iter().filter(|byte| **byte == b'\n').count() as u64;
                waiting.unreported += lost;
                self.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            self.written.notify_all();
            batch.clear();
            // A burst does not keep its memory.
            batch.shrink_to(ENOUGH);
            if is_written && waiting.unreported > 0 {
                let lost = std::mem::take(&mut waiting.unreported);
                // The report is a line of its own, so it is appended here.
                drop(waiting);
                report(lost);
                waiting = self.waiting.lock();
            }
            let is_early = |waiting: &mut WaitingLines| !waiting.hurry();
            self.arrived
                .wait_while_for(&mut waiting, is_early, self.pause);
        }
    }
}

/// Writes all lines. A terminal or pipe that another program has made non-blocking takes them as
/// far as it has room; the rest follows after a pause, so that no line is torn.
#[expect(
    clippy::disallowed_methods,
    reason = "the thread of the log, which has nothing else to do"
)]
fn write_whole(to: &mut impl Write, mut lines: &[u8], pause: Duration) -> io::Result<()> {
    while !lines.is_empty() {
        // Not `write_all`, which would not say how much is written when it fails.
        match to.write(lines) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => lines = lines.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(pause),
            Err(error) => return Err(error),
        }
    }
    to.flush()
}

impl<'a> MakeWriter<'a> for LogOutput {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter {
            output: self,
            urgent: false,
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter {
            output: self,
            urgent: *meta.level() <= Level::WARN,
        }
    }
}

/// Takes one line. The layer that formats lines writes each of them in one piece.
pub(super) struct LineWriter<'a> {
    output: &'a LogOutput,
    urgent: bool,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.output.append(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

    /// Long enough never to end a test that passes.
    const FOREVER: Duration = Duration::from_secs(60);

    /// A standard error that takes nothing until it is told to.
    struct Pipe {
        /// Says that the thread has begun to write, and waits until it may.
        begun: Sender<()>,
        go: Receiver<io::Result<()>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.begun.send(());
            // Without a test that controls it any more, it takes everything.
            self.go.recv().unwrap_or(Ok(()))?;
            self.taken.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Controlled {
        output: LogOutput,
        begun: Receiver<()>,
        go: SyncSender<io::Result<()>>,
        taken: Arc<Mutex<Vec<u8>>>,
        reported: Receiver<u64>,
    }

    fn controlled(pause: Duration) -> Controlled {
        let (begun_to, begun) = channel();
        let (go, go_from) = sync_channel(100);
        let (report, reported) = channel();
        let taken = Arc::default();
        let pipe = Pipe {
            begun: begun_to,
            go: go_from,
            taken: Arc::clone(&taken),
        };
        let output = LogOutput::start(pipe, pause, move |lost| {
            report.send(lost).unwrap_or_default()
        });
        Controlled {
            output: output.unwrap(),
            begun,
            go,
            taken,
            reported,
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_stalls_nobody_and_the_lost_lines_are_reported() {
        let log = controlled(Duration::ZERO);
        log.output.append(b"first\n", false);
        // The thread holds the first line from now on.
        log.begun.recv_timeout(FOREVER).unwrap();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..10 {
            log.output.append(&line, false);
        }
        let kept = MOST_WAITING / line.len();
        assert_eq!(log.output.dropped(), 10 - kept as u64);
        assert!(log.output.shared.waiting.lock().bytes.len() <= MOST_WAITING);
        // Stopping gives up on such a reader.
        log.output.flush(Duration::ZERO);
        assert!(log.taken.lock().is_empty());
        log.go.send(Ok(())).unwrap();
        assert_eq!(log.reported.recv_timeout(FOREVER), Ok(10 - kept as u64));
        // There is room again as soon as the thread has taken what waited.
        log.begun.recv_timeout(FOREVER).unwrap();
        log.output.append(b"last\n", false);
        drop(log.go);
        log.output.flush(FOREVER);
        let taken = log.taken.lock();
        assert!(taken.starts_with(b"first\nxx") && taken.ends_with(b"xxlast\n"));
        assert_eq!(taken.len(), 6 + kept * line.len() + 5);
    }

    /// Takes a few bytes, then none, in turn.
    struct NonBlocking {
        taken: Vec<u8>,
        has_room: bool,
    }

    impl Write for NonBlocking {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.has_room = !self.has_room;
            if !self.has_room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let few = bytes.len().min(3);
            self.taken.extend_from_slice(&bytes[..few]);
            Ok(few)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_pipe_that_does_not_block_tears_no_line() {
        let mut pipe = NonBlocking {
            taken: Vec::new(),
            has_room: false,
        };
        let lines = b"one line\nand another\n";
        assert!(write_whole(&mut pipe, lines, Duration::ZERO).is_ok());
        assert_eq!(pipe.taken, lines);
    }

    #[test]
    fn lines_that_cannot_be_written_count_as_dropped() {
        let log = controlled(Duration::ZERO);
        log.go.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        log.output.append(b"one\ntwo\n", false);
        log.output.flush(FOREVER);
        assert_eq!(log.output.dropped(), 2);
        assert!(log.reported.try_recv().is_err(), "nobody would read it");
        log.go.send(Ok(())).unwrap();
        log.output.append(b"three\n", true);
        assert_eq!(log.reported.recv_timeout(FOREVER), Ok(2));
        assert_eq!(&**log.taken.lock(), b"three\n");
    }

    #[test]
    fn a_line_soon_after_another_waits_for_the_end_of_the_pause_or_for_an_urgent_one() {
        for (pause, urgent) in [(FOREVER, true), (Duration::from_millis(1), false)] {
            let log = controlled(pause);
            let write = || {
                log.begun.recv_timeout(FOREVER / 2).unwrap();
                log.go.send(Ok(())).unwrap();
            };
            log.output.append(b"first\n", false);
            write();
            log.output.append(b"second\n", urgent);
            write();
            // A pause of the other kind would not end here within the time of the test.
            log.output.append(b"third\n", false);
            drop(log.go);
            log.output.flush(FOREVER);
            assert_eq!(&**log.taken.lock(), b"first\nsecond\nthird\n");
        }
    }

    #[test]
    fn lines_of_all_threads_are_written_whole_and_in_order() {
        let log = controlled(Duration::ZERO);
        let each = 500;
        let log_all = |thread: usize| {
            for n in 0..each {
                let line = format!("{thread} {n}\n");
                log.output.append(line.as_bytes(), n % 7 == 0);
            }
        };
        // The reader takes lines as fast as it can.
        drop(log.go);
        thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || log_all(thread));
            }
        });
        log.output.flush(FOREVER);
        let text = String::from_utf8(log.taken.lock().clone()).unwrap();
        for thread in 0..4 {
            let of_thread = format!("{thread} ");
            let numbers = text
                .lines()
                .filter_map(|line| line.strip_prefix(&of_thread));
            let numbers: Vec<usize> = numbers.map(|n| n.parse().unwrap()).collect();
            assert_eq!(numbers, (0..each).collect::<Vec<_>>());
        }
        assert_eq!(text.lines().count(), 4 * each);
    }
}
