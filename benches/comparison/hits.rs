//! Cache hits, beside a bare hyper server that answers the same bytes with the same headers: what
//! the gateway costs is the difference.
//!
//! The stored answer comes from one fetch before the warm-up and lives for 60 s, which outlasts a
//! round. The upstream counts its requests: one by each gateway.

use super::load::{self, Expect, Load, Run};
use super::machine::Cores;
use super::report::{self, Bound, Goal};
use super::servers::{Server, Servers};
use super::upstream::{self, Answer, Upstream};
use super::{
    BODY_BYTES, CONNECTIONS, Contender, Failure, GATEWAY, Options, Round, bare, closed_loop,
    question,
};

const PATH: &str = "/users/user-00001";
/// No part of any key, and unknown to the fast path, which leaves the request to the layers.
const TRACE: &str = "x-trace-id: 1\r\n";

const GOALS: [Goal; 2] = [
    Goal {
        of: Contender::Gateway,
        to: Contender::BareServer,
        figure: Run::per_second,
        what: "requests per second",
        bound: Bound::AtLeast(0.92),
    },
    Goal {
        of: Contender::GatewayLongWay,
        to: Contender::Gateway,
        figure: Run::micros_of_core,
        what: "processor time per request",
        bound: Bound::AtMost(1.3),
    },
];

pub(crate) fn measure(options: &Options, cores: &Cores) -> Result<(), Failure> {
    let upstream = Upstream::start(|_| Answer::plain(upstream::user(BODY_BYTES)))?;
    let servers = Servers {
        cores,
        gateway: &options.gateway,
        upstream: upstream.address(),
    };
    let mut sample = Vec::new();
    let rounds = (0..options.rounds)
        .map(|round| one_round(round, options, servers, &upstream, &mut sample))
        .collect::<Result<Vec<Round>, Failure>>()?;
    report::table("cache hit", Contender::BareServer, &rounds);
    GOALS.iter().for_each(|goal| report::verdict(goal, &rounds));
    let runs = rounds.iter().flatten().map(|(_, run)| run);
    load::doubts(runs)
        .iter()
        .for_each(|doubt| println!("{doubt}"));
    Ok(())
}

/// One run of each: new processes, their warm-up, their measurement in turn.
fn one_round(
    round: usize,
    options: &Options,
    servers: Servers<'_>,
    upstream: &Upstream,
    sample: &mut Vec<u8>,
) -> Result<Round, Failure> {
    let logs_all = [&GATEWAY[..], &[("SEGMENT_GATEWAY__LOG__ACCESS", "all")]].concat();
    let gateway = servers.gateway(&GATEWAY)?;
    let gateway_logs_all = servers.gateway(&logs_all)?;
    let mut loads = Vec::new();
    let mut warm = |contender: Contender,
                    server: &Server,
                    fields: &str,
                    fetches|
     -> Result<Vec<u8>, Failure> {
        let asked_before = upstream.asked();
        let request = load::request("GET", PATH, &[load::GZIP, fields].concat());
        let mut load = Load::connect(server, CONNECTIONS, question(request, Expect::Hit))?;
        // At most one fetch; all that follow are hits.
        load.fetch()?;
        let warmed = load.run(options.warm_up)?;
        let asked = upstream.asked() - asked_before;
        if asked != fetches {
            let name = contender.name();
            return Err(format!("{name}: {asked} fetches instead of {fetches}").into());
        }
        loads.push((contender, load));
        Ok(warmed.sample)
    };
    let answer = warm(Contender::Gateway, &gateway, "", 1)?;
    if sample.is_empty() {
        report::answer(&answer);
        *sample = answer;
    }
    let bare_server = bare::server(servers.cores, servers.cores.server, sample)?;
    warm(Contender::GatewayLongWay, &gateway, TRACE, 0)?;
    warm(Contender::BareServer, &bare_server, "", 0)?;
    warm(Contender::GatewayLogsAll, &gateway_logs_all, "", 1)?;
    let asked_before = upstream.asked();
    let runs = closed_loop(round, options, loads)?;
    if upstream.asked() != asked_before {
        return Err("the upstream was asked while all should have been hits".into());
    }
    Ok(runs)
}
