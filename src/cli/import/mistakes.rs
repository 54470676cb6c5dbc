//! Pure. The mistakes of a file: all are counted, and the first ones are kept.

/// The most mistakes that are shown.
pub(super) const MOST_SHOWN: usize = 20;

/// The mistakes of a file. The first ones are kept, the others counted.
#[derive(Default)]
pub(super) struct Mistakes {
    shown: Vec<String>,
    more: usize,
}

impl Mistakes {
    pub(super) fn add(&mut self, line: usize, text: &str) {
        if self.shown.len() < MOST_SHOWN {
            self.shown.push(format!("line {line}: {text}"));
        } else {
            self.more += 1;
        }
    }

    /// Returns one line for each mistake that is shown, and one for the others.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.shown.push(format!("… and {} more", self.more));
        }
        self.shown
    }
}
