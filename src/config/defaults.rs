//! Pure. What holds without a configuration. `config/segment-gateway.toml` says the same in words.

use super::*;
use std::net::Ipv4Addr;

impl Default for Config {
    fn default() -> Self {
        let rates = Defaults::default();
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            mode: Mode::Enforce,
            listen: loopback(8080),
            admin: Admin {
                listen: loopback(8081),
                public: false,
                open: false,
                token_file: None,
                hosts: Vec::new(),
            },
            upstream: Upstream::default(),
            routes: Routes {
                file: None,
                undocumented_reads: rates.reads,
                undocumented_writes: rates.writes,
            },
            budget: Budget {
                guard: Duration::from_millis(250),
                late_arrival: Duration::from_secs(60),
                unknown_slots: 1,
                writes_at_once: 4,
                reads_at_once: 8,
            },
            state: State {
                directory: Some("segment-gateway-state".into()),
            },
            journal: journal(),
            credentials: Credentials { key_file: None },
            cache: Cache {
                bytes: Size::mib(256),
                largest_body: Size::mib(4),
                fetches: 256,
                marks: 100_000,
                settling: Duration::from_secs(2),
            },
            write: Write {
                max_wait: Duration::from_secs(150),
            },
            read: Read {
                max_wait: Duration::from_secs(30),
            },
            wait: Wait {
                cap: Duration::from_secs(600),
                caller_timeout: None,
            },
            queue: Queue {
                per_budget: 1000,
                total: 10_000,
                bytes: Size::mib(64),
            },
            callers: Callers::default(),
            server: Server::default(),
            shutdown: Shutdown {
                drain: Duration::from_secs(25),
            },
            log: Log {
                format: LogFormat::Text,
                level: LogLevel::Info,
                access: LogAccess::Upstream,
            },
            tracing: Tracing {
                otlp_endpoint: None,
                ca_file: None,
                sample_percent: 100,
                service_name: "segment-gateway".to_owned(),
            },
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            url: "https://api.segmentapis.com".to_owned(),
            allow_plain_http: false,
            ca_file: None,
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(30),
            idle_body_timeout: Duration::from_secs(30),
            total_timeout: Duration::from_secs(120),
            connection_lifetime: Duration::from_secs(300),
            connection_idle: Duration::from_secs(50),
            http2: true,
        }
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            rate: Rate {
                limit: 100,
                window: Duration::from_secs(1),
            },
            burst: 1000,
            tracked: 10_000,
            trust_header_from: None,
        }
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            connections: 4096,
            header_bytes: Size::kib(32),
            body_bytes: Size::mib(1),
            bodies_bytes: Size::mib(256),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            response_timeout: Duration::from_secs(300),
        }
    }
}

fn journal() -> Journal {
    Journal {
        key_file: None,
        keep: Duration::from_secs(86_400),
        writes: 100_000,
        bytes: Size::mib(1024),
        ended_writes: 200_000,
        ended_bytes: Size::mib(1024),
        workspaces: true,
    }
}
