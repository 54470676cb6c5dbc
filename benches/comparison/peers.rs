//! nginx and HAProxy as reverse proxies to one upstream: one worker on the servers' core, kept-alive
//! connections on both sides, no log. Both are Debian's packages; either may be absent.

use super::Failure;
use super::machine::Cores;
use super::servers::{Server, free_port};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Starts nginx, if it is installed. Without a master process, so that the process that is started
/// is the worker: it is what is measured and killed.
pub(crate) fn nginx(cores: &Cores, upstream: SocketAddr) -> Result<Option<Server>, Failure> {
    let address = free_port()?;
    let settings = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr;
         events {{ worker_connections 1024; }}
         http {{
             access_log off;
             keepalive_requests 1000000000;
             client_body_temp_path body;
             proxy_temp_path proxy;
             fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi;
             scgi_temp_path scgi;
             upstream api {{
                 server {upstream};
                 keepalive 64;
                 keepalive_requests 1000000000;
             }}
             server {{
                 listen {address} backlog=1024;
                 location / {{
                     proxy_pass http://api;
                     proxy_http_version 1.1;
                     proxy_set_header Connection \"\";
                 }}
             }}
         }}\n"
    );
    start(cores, "nginx", &settings, address, |folder, file| {
        [
            "-p".into(),
            folder.display().to_string(),
            "-e".into(),
            "stderr".into(),
            "-c".into(),
            file.display().to_string(),
        ]
        .to_vec()
    })
}

/// Starts HAProxy in the foreground, if it is installed.
pub(crate) fn haproxy(cores: &Cores, upstream: SocketAddr) -> Result<Option<Server>, Failure> {
    let address = free_port()?;
    let settings = format!(
        "global
             nbthread 1
             maxconn 1024
         defaults
             mode http
             timeout connect 5s
             timeout client 60s
             timeout server 60s
             http-reuse always
         frontend callers
             bind {address}
             default_backend api
         backend api
             server api {upstream}\n"
    );
    start(cores, "haproxy", &settings, address, |_, file| {
        ["-db".into(), "-f".into(), file.display().to_string()].to_vec()
    })
}

/// Starts a program with its settings in a file in its folder.
fn start(
    cores: &Cores,
    program: &str,
    settings: &str,
    address: SocketAddr,
    arguments: impl Fn(&Path, &Path) -> Vec<String>,
) -> Result<Option<Server>, Failure> {
    let Some(path) = installed(program) else {
        return Ok(None);
    };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("settings");
    std::fs::write(&file, settings)?;
    let mut command = cores.command(cores.server, &path);
    command.args(arguments(folder.path(), &file));
    Server::start(command, folder, address).map(Some)
}

/// Where a program is, also among those of the administrator.
fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders
        .map(|folder| folder.join(program))
        .find(|program| program.is_file())
}
