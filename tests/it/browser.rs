//! The page of operators in a real browser: it loads under its policy, shows what `/metrics` shows,
//! fits a phone, and finds its way back to a gateway that was started again.
//!
//! It needs Debian's packages `chromium` and `chromium-driver`. Where they are missing it says so and
//! passes, unless `SEGMENT_GATEWAY_NEEDS_BROWSER` is set.

use super::support::place::{Place, Process};
use super::support::wire::{ask, eventually, free, try_ask};
use super::support::{request, with};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::process::Command;

/// A session of the browser, by the WebDriver protocol (W3C).
struct Browser {
    driver: SocketAddr,
    session: String,
    /// Ended after the session.
    _process: Process,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// None where there is no browser.
    async fn open() -> Option<Self> {
        let driver = free();
        let process =
            Process::start(Command::new("chromedriver").arg(format!("--port={}", driver.port())))?;
        eventually("the driver listens", async || {
            let ask = Request::get("/status").header("host", driver.to_string());
            try_ask(driver, ask.body(Full::default()).unwrap())
                .await
                .is_some()
        })
        .await;
        let profile = tempfile::tempdir().unwrap();
        let options = json!({ "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": options,
        }}});
        let made = send(driver, "/session", &wanted).await;
        Some(Self {
            driver,
            session: made["sessionId"].as_str().unwrap().to_owned(),
            _process: process,
            _profile: profile,
        })
    }

    async fn send(&self, command: &str, what: &Value) -> Value {
        send(
            self.driver,
            &format!("/session/{}{command}", self.session),
            what,
        )
        .await
    }

    async fn run(&self, script: &str) -> Value {
        let script = json!({ "script": script, "args": [] });
        self.send("/execute/sync", &script).await
    }

    async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector('{selector}').textContent");
        self.run(&script)
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// What the console has said since it was last asked.
    async fn console(&self) -> Vec<String> {
        let log = self.send("/se/log", &json!({ "type": "browser" })).await;
        let lines = log.as_array().unwrap().iter();
        lines.map(|line| line["message"].to_string()).collect()
    }

    async fn close(self) {
        let end = Request::delete(format!("/session/{}", self.session));
        let end = end.header("host", self.driver.to_string());
        ask(self.driver, end.body(Full::default()).unwrap()).await;
    }
}

async fn send(driver: SocketAddr, path: &str, what: &Value) -> Value {
    let request = Request::post(path)
        .header("host", driver.to_string())
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(what.to_string())))
        .unwrap();
    let answer = ask(driver, request).await;
    let document: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer.status, 200, "{path}: {document}");
    document["value"].clone()
}

/// The number at the beginning of a text, without the commas of thousands.
fn number(text: &str) -> f64 {
    let digits = text.split(' ').next().unwrap_or_default().replace(',', "");
    digits.parse().unwrap_or(f64::NAN)
}

#[tokio::test]
async fn the_page_loads_tells_the_truth_and_comes_back() {
    let Some(browser) = Browser::open().await else {
        let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_BROWSER").is_some();
        assert!(
            !needed,
            "install Debian's packages chromium and chromium-driver"
        );
        eprintln!("skipped: there is no chromedriver");
        return;
    };
    let place = Place::new();
    let gateway = place.start(&[]).await;
    for n in 0..1200 {
        let target = format!("/users/user-{:05}", n % 3 + 1);
        ask(place.proxy, request(Method::GET, &target, "demo", "")).await;
    }
    let stored = with(
        request(Method::GET, "/labels", "demo", ""),
        "cache-control",
        "only-if-cached",
    );
    ask(place.proxy, stored).await;
    let url = json!({ "url": format!("http://{}/", place.admin) });
    browser.send("/url", &url).await;
    eventually("the page is ready", async || {
        browser.text("#state").await == "Ready"
    })
    .await;

    let requests = place.counted("segment_gateway_requests_total").await;
    assert!(requests >= 1201.0);
    let shown = browser.text("#figures li:nth-child(1) .more").await;
    assert_eq!(number(&shown), requests, "{shown}");
    let shown = browser.text("#figures li:nth-child(6) .more").await;
    let refused = place.counted("segment_gateway_rejections_total").await;
    assert_eq!((number(&shown), refused), (1.0, 1.0), "{shown}");
    let answered = place
        .counted("segment_gateway_upstream_requests_total")
        .await;
    let shown = browser.text("#results tr td:last-child").await;
    assert_eq!(number(&shown), answered, "{shown}");
    assert!(browser.text("#bars").await.contains("getUser"));
    assert!(browser.text("#refused").await.contains("504 not-cached"));
    assert_eq!(browser.console().await, Vec::<String>::new());

    for width in [1280, 768, 360] {
        let size = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": {
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false,
        }});
        browser.send("/goog/cdp/execute", &size).await;
        let script = "return document.documentElement.scrollWidth <= window.innerWidth";
        assert_eq!(browser.run(script).await, true, "{width} px");
    }
    // With the keyboard alone, the first stop is the way to what matters.
    let key = json!({ "actions": [{ "type": "key", "id": "k", "actions": [
        { "type": "keyDown", "value": "\u{e004}" }, { "type": "keyUp", "value": "\u{e004}" },
    ]}]});
    browser.send("/actions", &key).await;
    let focused = browser
        .run("return document.activeElement.textContent")
        .await;
    assert_eq!(focused, "Skip to the budgets");

    drop(gateway);
    eventually("the page misses it", async || {
        browser.text("#state").await.starts_with("Connection lost")
    })
    .await;
    let gateway = place.start(&[]).await;
    eventually("the page is back", async || {
        browser.text("#state").await == "Ready"
    })
    .await;
    let shown = browser.text("#figures li:nth-child(1) .more").await;
    assert_eq!(shown, "0 since start");
    let console = browser.console().await;
    assert!(
        console.iter().all(|line| line.contains("/live")),
        "{console:?}"
    );
    browser.close().await;
    drop(gateway);
}
