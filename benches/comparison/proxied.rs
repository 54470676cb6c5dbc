//! Requests that are passed through to the upstream, beside other proxies: a read that is not
//! cached, a small write, and reads that are sent at fixed instants.

use super::load::{self, Expect, Load, Question, Run};
use super::machine::Cores;
use super::open_loop::{self, OpenLoop};
use super::report::{self, Bound, Goal};
use super::servers::{Server, Servers};
use super::{
    BODY_BYTES, CONNECTIONS, Contender, Failure, GATEWAY, Options, Round, bare, closed_loop, peers,
    question, upstream,
};
use segment_gateway::clock::Clock;
use std::time::Duration;

/// Not cached.
const PATH: &str = "/sources";
const POSTED: &str = r#"{"name":"x"}"#;
/// The part of the rate at which nginx is full that is sent at fixed instants.
const LOAD: f64 = 0.5;
/// A server that answers less than this part of what it is sent in a slice cannot keep up.
const KEEPS_UP: f64 = 0.97;

const READ: Goal = Goal {
    of: Contender::Gateway,
    to: Contender::Nginx,
    figure: Run::micros_of_core,
    what: "processor time per request",
    bound: Bound::AtMost(2.0),
};
const WRITE: Goal = Goal {
    bound: Bound::AtMost(2.5),
    ..READ
};
const LATENCY: Goal = Goal {
    figure: |run| run.micros(99),
    what: "p99",
    bound: Bound::AtMost(1.0),
    ..READ
};

/// What all rounds showed.
#[derive(Default)]
struct Rounds {
    reads: Vec<Round>,
    writes: Vec<Round>,
    at_fixed_instants: Vec<Round>,
    /// Requests per second at fixed instants, in each round.
    rates: Vec<f64>,
}

pub(crate) fn measure(options: &Options, cores: &Cores) -> Result<(), Failure> {
    let upstream = bare::server(cores, cores.load, &answer())?;
    let servers = Servers {
        cores,
        gateway: &options.gateway,
        upstream: upstream.address,
    };
    let mut rounds = Rounds::default();
    for round in 0..options.rounds {
        rounds.measure(round, options, servers)?;
    }
    report::table("pass-through GET", Contender::Nginx, &rounds.reads);
    report::verdict(&READ, &rounds.reads);
    report::table("POST through the queue", Contender::Nginx, &rounds.writes);
    report::verdict(&WRITE, &rounds.writes);
    rounds.report_fixed_instants();
    Ok(())
}

/// What the upstream answers: a user, with the fields that the API adds.
fn answer() -> Vec<u8> {
    let now = Clock::system().wall();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/vnd.segment.v1+json\r\n\
         x-ratelimit-consumed: 1\r\nx-ratelimit-remaining: 999999\r\n\
         x-ratelimit-reset: {}\r\ndate: {}\r\n\r\n",
        httpdate::fmt_http_date(now + Duration::from_secs(60)),
        httpdate::fmt_http_date(now),
    );
    [head.into_bytes(), upstream::user(BODY_BYTES)].concat()
}

/// A small write.
fn write() -> Vec<u8> {
    let fields = format!(
        "content-type: application/json\r\ncontent-length: {}\r\n",
        POSTED.len()
    );
    let head = load::request("POST", PATH, &fields);
    [&head, POSTED.as_bytes()].concat()
}

impl Rounds {
    /// Measures all in new processes.
    fn measure(
        &mut self,
        round: usize,
        options: &Options,
        servers: Servers<'_>,
    ) -> Result<(), Failure> {
        let Servers {
            cores, upstream, ..
        } = servers;
        let contenders = [
            (Contender::Gateway, Some(servers.gateway(&GATEWAY)?)),
            (Contender::Nginx, peers::nginx(cores, upstream)?),
            (Contender::Haproxy, peers::haproxy(cores, upstream)?),
            (Contender::BareProxy, Some(bare::proxy(cores, upstream)?)),
        ];
        let contenders: Vec<(Contender, Server)> = contenders
            .into_iter()
            .filter_map(|(contender, server)| {
                if server.is_none() && round == 0 {
                    println!("{} is not installed", contender.name());
                }
                Some((contender, server?))
            })
            .collect();
        let get = question(load::request("GET", PATH, ""), Expect::Anything);
        let post = question(write(), Expect::Anything);
        let full = |question: &Question| {
            let warmed = contenders.iter().map(|(contender, server)| {
                let mut load = Load::connect(server, CONNECTIONS, question.clone())?;
                load.run(options.warm_up)?;
                Ok((*contender, load))
            });
            closed_loop(round, options, warmed.collect::<Result<_, Failure>>()?)
        };
        let reads = full(&get)?;
        self.writes.push(full(&post)?);
        if let Some((_, nginx)) = reads.iter().find(|(of, _)| *of == Contender::Nginx) {
            let rate = LOAD * 1e6 / nginx.micros_of_core();
            let interval = Duration::from_secs_f64(1.0 / rate);
            let mut loads = contenders
                .iter()
                .map(|(_, server)| OpenLoop::connect(server, get.clone()))
                .collect::<Result<Vec<_>, _>>()?;
            let runs = load::interleave(round, loads.len(), options.measured, |at| {
                loads[at].run(interval)
            })?;
            let names = contenders.iter().map(|(contender, _)| *contender);
            self.at_fixed_instants.push(names.zip(runs).collect());
            self.rates.push(rate);
        }
        self.reads.push(reads);
        Ok(())
    }

    fn report_fixed_instants(&self) {
        if self.rates.is_empty() {
            println!("\nGET at fixed instants: nginx is not installed");
            return;
        }
        let rate = report::median(self.rates.clone());
        let title = format!(
            "GET at fixed instants: {rate:.0} per second, {:.0} % of what fills nginx, in slices of \
             {:.1} s; latencies from the instant at which a request is due",
            LOAD * 100.0,
            open_loop::SLICE.as_secs_f64(),
        );
        report::table(&title, Contender::Nginx, &self.at_fixed_instants);
        let (gateway, nginx) = (
            self.kept_up(Contender::Gateway),
            self.kept_up(Contender::Nginx),
        );
        let percent = |part: f64| part * 100.0;
        if nginx < KEEPS_UP {
            println!(
                "p99 cannot be compared: something else uses the machine, and nginx itself answers \
                 {:.0} % of what it is sent (the gateway: {:.0} %)",
                percent(nginx),
                percent(gateway),
            );
        } else if gateway < KEEPS_UP {
            println!(
                "p99 cannot be compared: the gateway cannot keep up, it answers {:.0} % of what it \
                 is sent; the goal is NOT met",
                percent(gateway)
            );
        } else {
            report::verdict(&LATENCY, &self.at_fixed_instants);
        }
    }

    /// The part of what it was sent at fixed instants that a contender answered in time.
    fn kept_up(&self, contender: Contender) -> f64 {
        let rounds = self.at_fixed_instants.iter().zip(&self.rates);
        let parts = rounds.filter_map(|(round, rate)| {
            let (_, run) = round.iter().find(|(of, _)| *of == contender)?;
            Some(run.per_second() / rate)
        });
        report::median(parts.collect())
    }
}
