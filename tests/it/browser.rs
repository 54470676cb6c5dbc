//! The page of operators in a real browser: it loads under its policy, shows what `/metrics` shows,
//! fits a phone, can be read and used by everybody, gives nobody a right, and finds its way back to
//! a gateway that was started again.
//!
//! It needs Debian's packages `chromium` and `chromium-driver`. Where they are missing it says so and
//! passes, unless `SEGMENT_GATEWAY_NEEDS_BROWSER` is set.

use super::support::place::{Place, Process};
use super::support::program::Program;
use super::support::wire::{ask, eventually, free, try_ask};
use super::support::{request, with};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, Request};
use http_body_util::Full;
use segment_gateway::credential::Hasher;
use segment_gateway::state;
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

    /// Shows the page at an address.
    async fn visit(&self, url: &str) {
        self.send("/url", &json!({ "url": url })).await;
    }

    /// A command of the DevTools protocol.
    async fn command(&self, name: &str, parameters: Value) {
        let command = json!({ "cmd": name, "params": parameters });
        self.send("/goog/cdp/execute", &command).await;
    }

    async fn resize(&self, width: u32) {
        let size =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.command("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Presses keys, one after the other.
    async fn press(&self, keys: &str) {
        let each = keys.chars().flat_map(|key| {
            ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() }))
        });
        let each: Vec<Value> = each.collect();
        let keys = json!({ "actions": [{ "type": "key", "id": "k", "actions": each }] });
        self.send("/actions", &keys).await;
    }

    /// The number of elements.
    async fn count(&self, selector: &str) -> u64 {
        let script = format!("return document.querySelectorAll('{selector}').length");
        self.run(&script).await.as_u64().unwrap()
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

/// A browser, or a word about there being none.
async fn browser() -> Option<Browser> {
    let browser = Browser::open().await;
    if browser.is_none() {
        let needed = std::env::var_os("SEGMENT_GATEWAY_NEEDS_BROWSER").is_some();
        assert!(
            !needed,
            "install Debian's packages chromium and chromium-driver"
        );
        eprintln!("skipped: there is no chromedriver");
    }
    browser
}

const REQUESTS: &str = "#levels dd:nth-of-type(1)";
const UPSTREAM: &str = "#levels dd:nth-of-type(2)";
const REJECTED: &str = "#levels dd:nth-of-type(5)";
/// Keys, as WebDriver names them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";
const LEFT: &str = "\u{e012}";

#[tokio::test]
async fn the_page_loads_tells_the_truth_and_comes_back() {
    let Some(browser) = browser().await else {
        return;
    };
    let place = Place::new();
    let gateway = place.start(&[]).await;
    for n in 0..1200 {
        let target = format!("/users/user-{:05}", n % 3 + 1);
        ask(place.proxy, request(Method::GET, &target, "demo", "")).await;
    }
    let stored = || {
        with(
            request(Method::GET, "/labels", "demo", ""),
            "cache-control",
            "only-if-cached",
        )
    };
    ask(place.proxy, stored()).await;
    browser.visit(&format!("http://{}/", place.admin)).await;
    eventually("the page is ready", async || {
        browser.text("#state").await == "Ready"
    })
    .await;

    let requests = place.counted("segment_gateway_requests_total").await;
    assert!(requests >= 1201.0);
    assert_eq!(number(&browser.text(REQUESTS).await), requests);
    let refused = place.counted("segment_gateway_rejections_total").await;
    assert_eq!((number(&browser.text(REJECTED).await), refused), (1.0, 1.0));
    let answered = place
        .counted("segment_gateway_upstream_requests_total")
        .await;
    assert_eq!(number(&browser.text(UPSTREAM).await), answered);
    assert!(browser.text("#rows").await.contains("getUser"));
    assert!(browser.text("#rejected").await.contains("504 not-cached"));
    // The charts have a past although nobody had looked.
    eventually("the charts are there", async || {
        browser.count(".plot path.f0[d^=M]").await > 0
    })
    .await;
    assert_eq!(browser.console().await, Vec::<String>::new());

    // It is not green while callers are rejected.
    for _ in 0..20 {
        ask(place.proxy, stored()).await;
    }
    eventually("the page says so", async || {
        browser.text("#state").await == "Ready, see below"
    })
    .await;
    assert_eq!(browser.count("#state.warn").await, 1);

    // With the keyboard alone, the first stop is the way to what matters.
    browser.press(TAB).await;
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
    assert_eq!(browser.text(REQUESTS).await, "0");
    let console = browser.console().await;
    assert!(
        console.iter().all(|line| line.contains("/live")),
        "{console:?}"
    );
    browser.close().await;
    drop(gateway);
}

/// Text whose contrast with what is behind it is less than WCAG 2.2 asks for (1.4.3, AA), and text
/// that cannot be seen whole.
const UNREADABLE: &str = r"
    const parse = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
    const light = (c) => { const p = c.slice(0, 3).map((v) => v / 255).map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * p[0] + .7152 * p[1] + .0722 * p[2]; };
    const ground = (node) => { for (let at = node; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255, 1]; };
    const found = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let seen = 0;
    while (walk.nextNode()) {
      const node = walk.currentNode.parentElement, style = getComputedStyle(node);
      if (!walk.currentNode.textContent.trim() || !node.checkVisibility() || node.closest('script, style, .skip')) continue;
      seen += 1;
      const [a, b] = [light(parse(style.color)), light(ground(node))].sort((x, y) => y - x);
      const size = parseFloat(style.fontSize), least = size >= 24 || size >= 18.66 && style.fontWeight >= 700 ? 3 : 4.5;
      if ((a + .05) / (b + .05) < least) found.push(walk.currentNode.textContent + ' ' + style.color);
    }
    return [seen > 200, found];";

#[tokio::test]
async fn forty_budgets_are_seen_filtered_and_read_by_everybody() {
    let Some(browser) = browser().await else {
        return;
    };
    let place = Place::new();
    let gateway = place.start(&["--latency", "1ms"]).await;
    let read = async |tokens: std::ops::Range<usize>| {
        for n in tokens {
            let target = if n % 2 == 0 {
                "/labels"
            } else {
                "/users/user-00001"
            };
            ask(
                place.proxy,
                request(Method::GET, target, &format!("token-{n}"), ""),
            )
            .await;
        }
    };
    read(0..40).await;
    browser.visit(&format!("http://{}/", place.admin)).await;
    eventually("twenty rows", async || {
        browser.count("#rows tr").await == 20
    })
    .await;
    assert_eq!(browser.text("#all").await, "Show all 40");
    assert!(browser.text("#found").await.contains("All is well"));
    assert!(browser.text("#found").await.contains("40 budgets in use"));

    // Keys: all rows, then those that a filter finds, then the past.
    browser.press("a").await;
    assert_eq!(browser.count("#rows tr").await, 40);
    browser.press("/").await;
    browser.press("LISTlab").await;
    assert_eq!(browser.count("#rows tr").await, 20);
    assert!(!browser.text("#rows").await.contains("getUser"));
    browser.press("x").await;
    assert_eq!(browser.count("#rows tr").await, 0);
    assert!(browser.text("#no-rows").await.contains("No budget"));
    browser.press(ESCAPE).await;
    assert_eq!(browser.count("#rows tr").await, 40);
    eventually("there are two samples", async || {
        browser
            .run("return Number(document.getElementById('moment').max) >= 2")
            .await
            == true
    })
    .await;
    browser
        .run("document.getElementById('moment').focus()")
        .await;
    browser.press(LEFT).await;
    assert!(browser.text("#moment-text").await.ends_with(" ago"));

    // Everybody can read it.
    for theme in ["light", "dark"] {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": theme }] });
        browser.command("Emulation.setEmulatedMedia", media).await;
        for width in [1280, 390] {
            browser.resize(width).await;
            let unreadable = browser.run(UNREADABLE).await;
            assert_eq!(unreadable, json!([true, []]), "{theme}, {width} px");
        }
    }
    for width in [1920, 1280, 768, 390, 320] {
        browser.resize(width).await;
        let script = "return document.documentElement.scrollWidth <= window.innerWidth";
        assert_eq!(browser.run(script).await, true, "{width} px");
    }
    // A card of two lines on a phone, a line elsewhere.
    for (width, most) in [(1280, 30), (390, 50)] {
        browser.resize(width).await;
        let script = "return Math.max(...[...document.querySelectorAll('#rows tr')].map((row) => row.offsetHeight))";
        let height = browser.run(script).await.as_f64().unwrap();
        assert!(height <= f64::from(most), "{width} px: {height}");
    }
    // Elements have the roles and names that a screen reader needs.
    let nameless = r"return [...document.querySelectorAll('button, input, svg, [role=meter], progress')]
        .filter((node) => node.checkVisibility() && !(node.ariaLabel || node.getAttribute('aria-labelledby')
            || node.textContent.trim() || node.labels && node.labels.length)).map((node) => node.outerHTML)";
    assert_eq!(browser.run(nameless).await, json!([]));

    // More than a stream has: those left out are counted, and the filter finds them.
    browser.resize(1280).await;
    read(40..230).await;
    eventually("30 are left out", async || {
        browser
            .text("#left-out")
            .await
            .starts_with("30 more budgets")
    })
    .await;
    let status: Value = serde_json::from_str(&place.page("/status").await.unwrap()).unwrap();
    let listed = status["budgets"].as_array().unwrap();
    let found = place.page("/status?filter=listLabels").await.unwrap();
    let found: Value = serde_json::from_str(&found).unwrap();
    let mut found = found["budgets"].as_array().unwrap().iter();
    let is_listed = |one: &&Value| {
        listed
            .iter()
            .any(|other| other["credential"] == one["credential"])
    };
    let left_out = found
        .find(|one| !is_listed(one))
        .expect("one that is left out");
    let hash = left_out["credential"].as_str().unwrap().to_owned();
    browser.press("/").await;
    browser.press(&hash).await;
    eventually("the filter finds it", async || {
        browser.count("#rows tr").await == 1 && browser.text("#rows").await.contains(&hash)
    })
    .await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
    drop(gateway);
}

const OLD_TOKEN: &str = "the-token-of-operators";
const NEW_TOKEN: &str = "another-token-of-operators";

/// The page has the rights of its reader: none without a token, and none any more with an old one.
#[tokio::test]
async fn a_reader_cancels_what_the_gateway_lets_that_reader_cancel() {
    let Some(browser) = browser().await else {
        return;
    };
    let configuration = "[state]\ndirectory = \"state\"\n[admin]\ntoken_file = \"token\"\n";
    let running = Program::with_file(configuration, ("token", OLD_TOKEN)).await;
    let command = async |method: Method, path: &str, token: &str| {
        let command = Request::builder().method(method).uri(path);
        let command = command.header("host", running.admin.to_string());
        let command = command.header("authorization", format!("Bearer {token}"));
        let command = command.header("x-gateway-admin", "1");
        ask(running.admin, command.body(Full::default()).unwrap()).await
    };
    let pause = "/writes/pause?operation=replacePermissionsForUser";
    assert_eq!(command(Method::POST, pause, OLD_TOKEN).await.status, 200);
    let mut ids = Vec::new();
    for n in 1..=3 {
        let target = format!("/users/user-{n:05}/permissions");
        let put = request(Method::PUT, &target, "demo", r#"{"permissions":[]}"#);
        let put = with(put, "x-gateway-caller", "<img id=chosen>");
        let accepted = ask(running.proxy, with(put, "prefer", "respond-async")).await;
        assert_eq!(accepted.status, 202);
        ids.push(
            accepted.json()["data"]["write"]["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let state = async |id: &str, token: &str| {
        let shown = command(Method::GET, &format!("/writes/{id}"), token).await;
        shown.json()["state"].as_str().unwrap().to_owned()
    };
    let admin = running.admin;
    browser
        .visit(&format!("http://operator:{OLD_TOKEN}@{admin}/"))
        .await;
    eventually("three writes", async || {
        browser.count("#pending li").await == 3
    })
    .await;
    assert!(
        browser
            .text("#paused")
            .await
            .contains("replacePermissionsForUser")
    );
    assert!(browser.text("#found").await.contains("paused"));
    assert_eq!(browser.count("#chosen").await, 0);

    // Twice, by the keyboard: the first time asks.
    let focus = |id: &str| {
        format!("document.querySelector('#pending button[aria-label$=\"{id}\"]').focus()")
    };
    browser.run(&focus(&ids[0])).await;
    browser.press(ENTER).await;
    assert_eq!(state(&ids[0], OLD_TOKEN).await, "queued");
    browser.press(ENTER).await;
    eventually("it says so", async || {
        browser.text("#writes-said").await == format!("Cancelled {}.", ids[0])
    })
    .await;
    assert_eq!(state(&ids[0], OLD_TOKEN).await, "cancelled");
    eventually("it is gone", async || {
        browser.count("#pending li").await == 2
    })
    .await;

    // The token is changed. The page, which is still open, may do nothing more.
    std::fs::write(running.file("token"), NEW_TOKEN).unwrap();
    running.signal("-HUP");
    eventually("the new token counts", async || {
        command(Method::GET, "/status", NEW_TOKEN).await.status == 200
    })
    .await;
    browser.run(&focus(&ids[1])).await;
    browser.press(ENTER).await;
    browser.press(ENTER).await;
    eventually("it was not done", async || {
        browser
            .text("#writes-said")
            .await
            .starts_with("Not done (4")
    })
    .await;
    assert_eq!(state(&ids[1], NEW_TOKEN).await, "queued");
    browser.close().await;
}

const SECRET: &str = "sixteen bytes or more of a secret";

/// A token that has a name is shown by name and hash. However long the name is, the table keeps its
/// place and the hash can be read.
#[tokio::test]
async fn a_token_is_shown_by_its_name_and_its_hash() {
    let Some(browser) = browser().await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, SECRET).unwrap();
    let hasher = Hasher::new(&state::key_file(&key).unwrap());
    let hash = |token: &str| {
        let bearer = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer)]);
        hasher.credential(&headers).to_string()
    };
    let hashes = ["one", "two", "three"].map(hash);
    let longest = "n".repeat(32);
    let configuration = format!(
        "[credentials]\nkey_file = 'key'\nnames = {{ terraform = '{}', {longest} = '{}' }}\n",
        hashes[0], hashes[1]
    );
    let running = Program::with_file(&configuration, ("key", SECRET)).await;
    for token in ["one", "two", "three"] {
        let read = request(Method::GET, "/users/user-00001", token, "");
        assert_eq!(ask(running.proxy, read).await.status, 200);
    }
    browser.visit(&format!("http://{}/", running.admin)).await;
    eventually("three rows", async || browser.count("#rows tr").await == 3).await;
    let rows = browser.text("#rows").await;
    for part in hashes
        .iter()
        .map(String::as_str)
        .chain(["terraform", &longest])
    {
        assert!(rows.contains(part), "{part} in {rows}");
    }
    assert_eq!(browser.count("#rows .c-who b:not([hidden])").await, 2);
    for width in [1280, 390] {
        browser.resize(width).await;
        let script = "const right = document.getElementById('budgets').getBoundingClientRect().right; \
            return [...document.querySelectorAll('#budgets td')].every((cell) => cell.getBoundingClientRect().right <= right)";
        assert_eq!(browser.run(script).await, true, "{width} px");
    }
    browser.resize(1280).await;
    let whole = "return [...document.querySelectorAll('.c-who span')].every((hash) => hash.scrollWidth <= hash.clientWidth)";
    assert_eq!(browser.run(whole).await, true);
    browser.press("/").await;
    browser.press("terra").await;
    eventually("the filter finds the name", async || {
        browser.count("#rows tr").await == 1 && browser.text("#rows").await.contains(&hashes[0])
    })
    .await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}
