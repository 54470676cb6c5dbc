use super::*;
use crate::clock::Clock;
use proptest::prelude::*;

const A: CredentialHash = [1; 16];
const B: CredentialHash = [2; 16];

#[test]
fn examples() {
    use Refused::{Operation, Workspace};
    let start = Clock::system().now();
    let mut rule = Unauthorized::new(8);
    let table = [
        // seconds, credential, refused, doubted
        (0, A, Operation(1), Doubt::Operation(1)),
        (1, A, Operation(1), Doubt::Operation(1)),
        (2, B, Operation(2), Doubt::Operation(2)),
        (11, A, Operation(2), Doubt::Credential),
        (12, A, Operation(2), Doubt::Operation(2)),
        (12, B, Workspace(9), Doubt::Credential),
        (23, A, Operation(3), Doubt::Operation(3)),
        (23, A, Operation(4), Doubt::Credential),
    ];
    for (row, (seconds, credential, refused, expected)) in table.into_iter().enumerate() {
        // At 12 s the refusal of operation 1 at 1 s is 11 s old.
        let now = start + Duration::from_secs(seconds);
        assert_eq!(rule.note(credential, refused, now), expected, "row {row}");
    }
}

#[test]
fn beyond_its_bound_it_doubts_the_newcomer() {
    let now = Clock::system().now();
    let mut rule = Unauthorized::new(1);
    assert_eq!(
        rule.note(A, Refused::Operation(1), now),
        Doubt::Operation(1)
    );
    assert_eq!(rule.note(B, Refused::Operation(1), now), Doubt::Credential);
    assert_eq!(rule.len(), 1);
    let later = now + 2 * WINDOW;
    assert_eq!(
        rule.note(B, Refused::Operation(1), later),
        Doubt::Operation(1)
    );
    assert_eq!(rule.len(), 1);
}

proptest! {
    #[test]
    fn it_agrees_with_the_list_of_all_refusals(
        steps in prop::collection::vec((0u64..8, 0u8..3, 0u32..3, prop::bool::weighted(0.1)), 0..60),
    ) {
        let mut now = Clock::system().now();
        let mut rule = Unauthorized::new(3);
        let mut all: Vec<(u8, u32, Instant)> = Vec::new();
        for (seconds, who, operation, workspace) in steps {
            now += Duration::from_secs(seconds);
            let refused = if workspace {
                Refused::Workspace(operation)
            } else {
                Refused::Operation(operation)
            };
            let second = all.iter().any(|(w, o, at)| {
                *w == who && *o != operation && now.duration_since(*at) <= WINDOW
            });
            all.push((who, operation, now));
            let expected = if workspace || second {
                Doubt::Credential
            } else {
                Doubt::Operation(operation)
            };
            prop_assert_eq!(rule.note([who; 16], refused, now), expected);
            prop_assert!(rule.len() <= 3 && rule.order.len() == rule.len());
        }
    }
}
