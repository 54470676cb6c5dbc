//! Hits while a scraper reads the metrics of many budgets: what one scrape delays.
//!
//! Everything of the gateway runs on one core here, also the thread that builds the page, so a hit
//! waits where it would run beside the scrape on a larger machine.

use super::load::{self, Expect, Load};
use super::machine::Cores;
use super::open_loop::{self, OpenLoop};
use super::servers::{Server, Servers, free_port};
use super::upstream::{self, Answer, Upstream};
use super::{BODY_BYTES, Failure, GATEWAY, Options, question, report};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATH: &str = "/users/user-00001";
/// A budget each: the default bound is 10,000.
const CREDENTIALS: usize = 9_900;
const INTERVAL: Duration = Duration::from_micros(500);
/// How much longer the slowest hit of a slice may take because of a scrape.
const GOAL: Duration = Duration::from_millis(1);
/// Slices with a scrape, and as many without, in each round of the bench.
const SLICES: usize = 6;
/// Far longer than a scrape takes.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn measure(options: &Options, cores: &Cores) -> Result<(), Failure> {
    let upstream = Upstream::start(|_| Answer::plain(upstream::user(BODY_BYTES)))?;
    let servers = Servers {
        cores,
        gateway: &options.gateway,
        upstream: upstream.address(),
    };
    let admin = free_port()?;
    let gateway = servers.gateway_with_admin(&GATEWAY, admin)?;
    open_budgets(&gateway)?;
    let hit = question(load::request("GET", PATH, ""), Expect::Hit);
    Load::connect(&gateway, 1, hit.clone())?.fetch()?;
    let mut hits = OpenLoop::connect(&gateway, hit)?;
    let (mut quiet, mut scraped) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..options.rounds * SLICES {
        quiet.push(hits.run(INTERVAL)?.micros(100));
        // Nothing reads the page before the slice is over, so that reading it costs the load
        // nothing. The kernel takes what the gateway sends meanwhile.
        let mut scrape = ask(admin)?;
        scraped.push(hits.run(INTERVAL)?.micros(100));
        bytes = read(&mut scrape)?;
    }
    let slices = quiet.len();
    let [quiet, scraped] = [quiet, scraped].map(report::median);
    let delay = scraped - quiet;
    let is_met = delay <= GOAL.as_secs_f64() * 1e6;
    println!(
        "\nhits at {:.0} per second while /metrics ({} budgets, {:.0} KB) is built: the slowest \
         hit of a slice of {:.1} s took {quiet:.0} µs without a scrape and {scraped:.0} µs with \
         one (medians of {slices} slices); the goal of at most {} µs more is {}",
        1.0 / INTERVAL.as_secs_f64(),
        CREDENTIALS,
        bytes as f64 / 1e3,
        open_loop::SLICE.as_secs_f64(),
        GOAL.as_micros(),
        if is_met { "met" } else { "NOT met" },
    );
    Ok(())
}

/// Reads once with each credential, which opens a budget for it.
fn open_budgets(gateway: &Server) -> Result<(), Failure> {
    let mut stream = load::connect(gateway.address)?;
    let mut reader = load::Reader::new(load::OK, upstream::user(BODY_BYTES));
    for number in 0..CREDENTIALS {
        let request = format!(
            "GET {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-{number}\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        reader.read(&mut stream, Expect::Anything)?;
    }
    Ok(())
}

/// Asks for the metrics.
fn ask(admin: SocketAddr) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    Ok(stream)
}

/// Reads the page to its end, and returns its length in bytes.
fn read(stream: &mut TcpStream) -> Result<usize, Failure> {
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    let counts = page.lines().filter_map(|line| {
        let line = line.strip_prefix("segment_gateway_budget_credentials{")?;
        line.rsplit(' ').next()?.parse::<usize>().ok()
    });
    if counts.sum::<usize>() < CREDENTIALS {
        return Err(format!("budgets are missing in the metrics:\n{page}").into());
    }
    Ok(page.len())
}
