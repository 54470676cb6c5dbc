//! How long connections serve.

use super::*;

/// Answers every request on every connection; reports on which connection each arrived.
fn serve_all(mut far: Far) -> mpsc::UnboundedReceiver<usize> {
    let (report, reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(mut stream) = far.0.recv().await {
            number += 1;
            let (report, number) = (report.clone(), number);
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_some() {
                    report.send(number).unwrap();
                    stream.write_all(OK.as_bytes()).await.unwrap();
                }
            });
        }
    });
    reports
}

async fn connections(gaps: impl IntoIterator<Item = u64>) -> Vec<usize> {
    let (client, far) = plain();
    let mut reports = serve_all(far);
    let mut seen = Vec::new();
    for gap in gaps {
        tokio::time::sleep(Duration::from_secs(gap)).await;
        assert_eq!(text(answered(client.send(get("/x")).await)).await, "ok");
        seen.push(reports.recv().await.unwrap());
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_used_again_for_its_idle_time_only() {
    assert_eq!(connections([0, 49, 51, 1]).await, [1, 1, 2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_connection_is_renewed_at_the_end_of_its_life() {
    // One request every 21 s, at 0, 21, … 294 s, is fifteen for each life of 300 s.
    let seen = connections(std::iter::once(0).chain(std::iter::repeat_n(21, 44))).await;
    let expected: Vec<usize> = (0..45).map(|request| request / 15 + 1).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn the_watch_over_a_connection_ends_with_it() {
    let (client, mut far) = plain();
    let before = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    for _ in 0..10 {
        let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let (attempt, _) = tokio::join!(client.send(get("/x")), serve_one(&mut far, answer));
        answered(attempt);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert!(after <= before + 1, "{after} tasks are left of {before}");
}
