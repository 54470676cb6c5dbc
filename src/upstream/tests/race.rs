//! The keep-alive race: the upstream closes an idle connection in the moment in which a request
//! goes out on it. Whatever the order of events, it arrives at most once, and one that arrived is
//! never called not sent.

use std::collections::HashMap;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_arrives_at_most_once_and_not_sent_means_never() {
    let mut ends: HashMap<&str, usize> = HashMap::new();
    for close_after in 0..12 {
        for send_after in 0..12 {
            let (attempt, arrivals) = one_race(close_after, send_after).await;
            let end = match attempt {
                Attempt::Answered(_) => "answered",
                Attempt::NotSent(NotSent::ClosedBeforeSending) => {
                    "attempt failed: request not sent"
                }
                Attempt::Unknown(Unknown::StaleConnection) => "unknown",
                other => panic!("{other:?}"),
            };
            assert!(
                arrivals <= 1,
                "{arrivals} arrivals ({close_after}, {send_after})"
            );
            match end {
                "answered" => assert_eq!(arrivals, 1),
                "attempt failed: request not sent" => {
                    assert_eq!(arrivals, 0, "({close_after}, {send_after})")
                }
                _ => {}
            }
            *ends.entry(end).or_default() += 1;
        }
    }
    // The orders are varied enough to meet all three ends; else this test shows nothing.
    assert_eq!(ends.len(), 3, "{ends:?}");
}

async fn one_race(close_after: usize, send_after: usize) -> (Attempt, usize) {
    let (client, mut far) = plain();
    let (attempt, (_, mut first)) =
        tokio::join!(client.send(get("/first")), serve_one(&mut far, OK));
    text(answered(attempt)).await;
    let sending = async {
        for _ in 0..send_after {
            tokio::task::yield_now().await;
        }
        client.send(get("/second")).await
    };
    let serving = async {
        for _ in 0..close_after {
            tokio::task::yield_now().await;
        }
        let mut arrivals = 0;
        first.shutdown().await.unwrap();
        // What had been written before the client saw the end has arrived.
        if read_head(&mut first).await.is_some() {
            arrivals += 1;
        }
        drop(first);
        // It may also come on a new connection; a client that has given up opens none.
        while let Ok(Some(mut next)) =
            tokio::time::timeout(Duration::from_secs(9), far.0.recv()).await
        {
            if read_head(&mut next).await.is_some() {
                arrivals += 1;
                let _ = next.write_all(OK.as_bytes()).await;
            }
        }
        arrivals
    };
    tokio::join!(sending, serving)
}
