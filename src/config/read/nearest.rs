//! Pure. Finds the word that was probably meant.

/// The characters that a word must have to be taken for the beginning of another.
const BEGINNING: usize = 3;

/// Returns the known word that is most likely meant: the fewest edits away, and at most half of its
/// length. A known word that begins with `word` is one edit away.
pub(in crate::config) fn nearest<'k>(
    word: &str,
    known: impl Iterator<Item = &'k str>,
) -> Option<&'k str> {
    let scored = known.map(|known| {
        let begins = word.len() >= BEGINNING && known.starts_with(word);
        (if begins { 1 } else { edits(word, known) }, known)
    });
    let (distance, known) = scored.min()?;
    (distance * 2 <= known.len()).then_some(known)
}

/// Returns the edit distance of two words (Levenshtein). Long words are cut: they resemble no key.
fn edits(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(64).collect();
    let right: Vec<char> = right.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_nearest_word_is_found() {
        for (word, expected) in [
            ("urll", Some("url")),
            ("ur", Some("url")),
            ("max_wiat", Some("max_wait")),
            ("body", Some("body_bytes")),
            ("listen", None),
            ("", None),
        ] {
            assert_eq!(
                nearest(word, ["url", "max_wait", "body_bytes"].into_iter()),
                expected,
                "{word}"
            );
        }
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }

    proptest! {
        #[test]
        fn edits_are_a_distance(a in "[ab]{0,6}", b in "[ab]{0,6}", c in "[ab]{0,6}") {
            prop_assert_eq!(edits(&a, &b), edits(&b, &a));
            prop_assert_eq!(edits(&a, &b) == 0, a == b);
            prop_assert!(edits(&a, &c) <= edits(&a, &b) + edits(&b, &c));
        }
    }
}
