//! Hits that are more, or less, than the stored answer as it is: 304, and decoded.

use crate::load::{self, Expect, GZIP, Load, OK, Question, Run};
use crate::machine::Cores;
use crate::servers::Servers;
use crate::upstream::{self, Answer, Upstream};
use crate::{Failure, grouped, median};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// What the bench `hit` asks for.
const USER: &str = "/users/user-00001";
const USER_BYTES: usize = 2_253;
/// A larger one, whose answer is not compressed, and one whose answer is.
const PLAIN: &str = "/users/user-00002";
const COMPRESSED: &str = "/users/user-00003";
const LARGE_BYTES: usize = 8 * 1024;
const NOT_MODIFIED: &[u8] = b"HTTP/1.1 304 Not Modified\r\n";

const CONNECTIONS: usize = 64;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Hit,
    NotModified,
    LargePlain,
    AsStored,
    Decoded,
}

impl Kind {
    /// In this order, because the hit shows the tag of the 304.
    const ALL: [Self; 5] = [
        Self::Hit,
        Self::NotModified,
        Self::LargePlain,
        Self::AsStored,
        Self::Decoded,
    ];
}

/// The bodies of the larger answer.
struct Bodies {
    plain: Vec<u8>,
    compressed: Vec<u8>,
}

impl Bodies {
    fn new() -> std::io::Result<Self> {
        let plain = permissions(LARGE_BYTES);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&plain)?;
        Ok(Self {
            compressed: encoder.finish()?,
            plain,
        })
    }

    fn question(&self, kind: Kind, tag: &str) -> Question {
        let if_none_match = format!("{GZIP}if-none-match: {tag}\r\n");
        let (path, fields, status, body) = match kind {
            Kind::Hit => (USER, GZIP, OK, upstream::user(USER_BYTES)),
            Kind::NotModified => (USER, &*if_none_match, NOT_MODIFIED, Vec::new()),
            Kind::LargePlain => (PLAIN, GZIP, OK, self.plain.clone()),
            Kind::AsStored => (COMPRESSED, GZIP, OK, self.compressed.clone()),
            Kind::Decoded => (COMPRESSED, "", OK, self.plain.clone()),
        };
        Question {
            request: load::request("GET", path, fields),
            status,
            body,
            expect: Expect::Hit,
        }
    }

    fn name(&self, kind: Kind) -> String {
        let user = grouped(USER_BYTES);
        let plain = grouped(self.plain.len());
        let compressed = grouped(self.compressed.len());
        match kind {
            Kind::Hit => format!("a plain hit, {user} B"),
            Kind::NotModified => "304: its tag is that of the reader".to_owned(),
            Kind::LargePlain => format!("stored plain, {plain} B"),
            Kind::AsStored => format!("stored gzip, {compressed} B, as it is"),
            Kind::Decoded => format!("the same, decoded to {plain} B"),
        }
    }
}

pub(crate) fn measure(quick: bool, (cores, gateway): (&Cores, &Path)) -> Result<(), Failure> {
    let (rounds, warm_up, measured) = if quick {
        (1, Duration::from_millis(200), Duration::from_millis(600))
    } else {
        (5, Duration::from_millis(500), Duration::from_secs(3))
    };
    let bodies = Bodies::new()?;
    let (plain, compressed) = (bodies.plain.clone(), bodies.compressed.clone());
    let upstream = Upstream::start(move |path| match path {
        PLAIN => Answer::plain(plain.clone()),
        COMPRESSED => Answer {
            fields: "content-encoding: gzip\r\n",
            body: compressed.clone(),
        },
        _ => Answer::plain(upstream::user(USER_BYTES)),
    })?;
    let servers = Servers {
        cores,
        gateway,
        upstream: upstream.address(),
    };
    let mut all = Vec::new();
    for round in 0..rounds {
        all.push(one_round(
            round,
            (warm_up, measured),
            (&servers, &upstream),
            &bodies,
        )?);
    }
    println!(
        "\nhits: {CONNECTIONS} connections, {rounds} rounds of {:.1} s each; medians\n\
         {:<44} {:>10} {:>10} {:>18}  {:>8}  of a plain hit in single rounds",
        measured.as_secs_f64(),
        "",
        "requests/s",
        "of plain",
        "µs of its core",
        "p99 µs",
    );
    for kind in Kind::ALL {
        row(&bodies.name(kind), kind, &all);
    }
    let runs = all.iter().flatten().map(|(_, run)| run);
    for doubt in load::doubts(runs) {
        println!("{doubt}");
    }
    Ok(())
}

/// The runs of one round.
type Round = Vec<(Kind, Run)>;

fn row(name: &str, kind: Kind, all: &[Round]) {
    let figures = |of: Kind, figure: fn(&Run) -> f64| -> Vec<f64> {
        let runs = all.iter().flatten().filter(|(kind, _)| *kind == of);
        runs.map(|(_, run)| figure(run)).collect()
    };
    let own = figures(kind, Run::per_second);
    let plain = figures(Kind::Hit, Run::per_second);
    let ratios: Vec<f64> = own.iter().zip(plain).map(|(own, hit)| own / hit).collect();
    let texts: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect();
    println!(
        "  {name:<42} {:>10.0} {:>10.3} {:>18.1}  {:>8.0}  {}",
        median(own),
        median(ratios),
        median(figures(kind, Run::micros_of_core)),
        median(figures(kind, |run| run.micros(99))),
        texts.join(" "),
    );
}

/// One run of each against a new process: their warm-up, and their measurement in turn.
fn one_round(
    round: usize,
    (warm_up, measured): (Duration, Duration),
    (servers, upstream): (&Servers<'_>, &Upstream),
    bodies: &Bodies,
) -> Result<Round, Failure> {
    let asked_before = upstream.asked();
    let server = servers.gateway(&[])?;
    let mut tag = String::new();
    let mut loads = Vec::new();
    for kind in Kind::ALL {
        let mut load = Load::connect(&server, CONNECTIONS, bodies.question(kind, &tag))?;
        load.fetch()?;
        let warmed = load.run(warm_up)?;
        if kind == Kind::Hit {
            tag = tag_of(&warmed.sample)?;
        }
        loads.push(load);
    }
    let runs = load::interleave(round, loads.len(), measured, |at| {
        loads[at].run(load::SLICE)
    })?;
    // One for each path.
    let asked = upstream.asked() - asked_before;
    if asked != 3 {
        return Err(format!("the upstream was asked {asked} times instead of 3").into());
    }
    Ok(Kind::ALL.into_iter().zip(runs).collect())
}

/// The tag of an answer.
fn tag_of(answer: &[u8]) -> Result<String, Failure> {
    let text = String::from_utf8_lossy(answer);
    let tag = text.lines().find_map(|line| line.strip_prefix("etag: "));
    Ok(tag.ok_or("the answer has no tag")?.to_owned())
}

/// A user in the API's form with permissions whose ids are as random as the API's, so that it can
/// be compressed about as well as what the API says.
fn permissions(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut id = move || -> String { (0..22).map(|_| random.alphanumeric()).collect() };
    let start = r#"{"data":{"user":{"id":"user-00001","name":"A. User","email":"user@example.com","permissions":["#;
    let end = r#"]}}}"#;
    let roles = ["Source Admin", "Workspace Member", "Tracking Plan Admin"];
    let kinds = ["SOURCE", "WORKSPACE", "SPACE"];
    let mut permissions: Vec<String> = Vec::new();
    let mut length = start.len() + end.len();
    for n in 0.. {
        let (role, kind) = (roles[n % roles.len()], kinds[n % kinds.len()]);
        let permission = format!(
            r#"{{"roleId":"{}","roleName":"{role}","resources":[{{"id":"{}","type":"{kind}","labels":[]}}]}}"#,
            id(),
            id(),
        );
        length += permission.len() + 1;
        if length > bytes {
            break;
        }
        permissions.push(permission);
    }
    [start, &permissions.join(","), end].concat().into_bytes()
}
