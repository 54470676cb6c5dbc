//! How long connections serve.

use super::*;

/// Answers every request on every connection; reports on which connection each arrived.
fn serve_all(far: Far) -> mpsc::UnboundedReceiver<usize> {
    serve_all_with(far, OK.to_owned())
}

fn serve_all_with(mut far: Far, answer: String) -> mpsc::UnboundedReceiver<usize> {
    let (report, reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(mut stream) = far.0.recv().await {
            number += 1;
            let (report, number, answer) = (report.clone(), number, answer.clone());
            tokio::spawn(async move {
                while read_head(&mut stream).await.is_some() {
                    report.send(number).unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
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

/// On which connection each request arrived, each so many milliseconds after the one before, where
/// each answer has these fields.
async fn connections_with(fields: &str, gaps: impl IntoIterator<Item = u64>) -> Vec<usize> {
    let (client, far) = plain();
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 2\r\n\r\nok");
    let mut reports = serve_all_with(far, answer);
    let mut seen = Vec::new();
    for gap in gaps {
        tokio::time::sleep(Duration::from_millis(gap)).await;
        assert_eq!(text(answered(client.send(get("/x")).await)).await, "ok");
        seen.push(reports.recv().await.unwrap());
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_retired_before_the_api_closes_it() {
    let five = "keep-alive: timeout=5\r\n";
    // Each use begins its time anew.
    assert_eq!(
        connections_with(five, [0, 3_999, 3_999, 4_001, 3_999]).await,
        [1, 1, 1, 2, 2]
    );
    let none = "keep-alive: timeout=0\r\n";
    assert_eq!(connections_with(none, [0, 1, 1]).await, [1, 2, 3]);
    // Longer than the client keeps it by itself.
    let long = "keep-alive: timeout=600\r\n";
    assert_eq!(connections_with(long, [0, 49_000, 51_000]).await, [1, 1, 2]);
    assert_eq!(connections_with("", [0, 49_000, 51_000]).await, [1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_in_use_is_not_retired_for_being_idle() {
    let (client, mut far) = plain();
    let answer = "HTTP/1.1 200 OK\r\nkeep-alive: timeout=5\r\ncontent-length: 2\r\n\r\nok";
    let (attempt, (_, mut stream)) =
        tokio::join!(client.send(get("/1")), serve_one(&mut far, answer));
    assert_eq!(text(answered(attempt)).await, "ok");
    for path in ["/2", "/3"] {
        // The answer takes longer than the connection may be idle.
        let server = async {
            read_head(&mut stream).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (attempt, ()) = tokio::join!(client.send(get(path)), server);
        assert_eq!(text(answered(attempt)).await, "ok");
    }
    assert_eq!(far.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_is_asked_for_and_given() {
    let (client, far) = plain();
    let mut reports = serve_all(far);
    for (fresh, connection) in [(false, 1), (false, 1), (true, 2), (false, 1), (true, 3)] {
        let mut request = get("/x");
        if fresh {
            request.extensions_mut().insert(NewConnection);
        }
        assert_eq!(text(answered(client.send(request).await)).await, "ok");
        assert_eq!(reports.recv().await, Some(connection));
    }
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
