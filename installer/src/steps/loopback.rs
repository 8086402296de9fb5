//! Health endpoints without TLS, which exist on loopback only: kubelet 10248, kube-proxy 10256, etcd 2381.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::service::Readiness;

const TIMEOUT: Duration = Duration::from_secs(3);
/// A health answer is short; anything longer is cut.
const ANSWER_CAP: u64 = 16 << 10;

/// Ready when `GET path` on 127.0.0.1 answers 200.
pub fn healthy(port: u16, path: &str) -> Result<Readiness> {
    let mut socket = connect(port)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    socket.write_all(request.as_bytes()).with_context(|| format!("asking 127.0.0.1:{port}{path}"))?;
    let mut answer = Vec::new();
    socket.take(ANSWER_CAP).read_to_end(&mut answer).with_context(|| format!("asking 127.0.0.1:{port}{path}"))?;
    Ok(judge(&String::from_utf8_lossy(&answer), &format!("127.0.0.1:{port}{path}")))
}

/// Ready when something accepts connections on 127.0.0.1.
pub fn listens(port: u16) -> Result<Readiness> {
    connect(port).map(|_| Readiness::Ready)
}

fn connect(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    TcpStream::connect_timeout(&address, TIMEOUT).with_context(|| format!("nothing answers on {address}"))
}

fn judge(answer: &str, where_: &str) -> Readiness {
    let status = answer.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) == Some("200") {
        return Readiness::Ready;
    }
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default().lines().next().unwrap_or_default();
    Readiness::NotYet(format!("{where_} answers `{status}` {body}").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_200_is_healthy_and_the_body_is_the_reason() {
        assert_eq!(judge("HTTP/1.0 200 OK\r\n\r\nok", "x"), Readiness::Ready);
        let answer = "HTTP/1.0 500 Internal Server Error\r\nA: b\r\n\r\nsyncloop failed\nmore";
        let reason = "x answers `HTTP/1.0 500 Internal Server Error` syncloop failed";
        assert_eq!(judge(answer, "x"), Readiness::NotYet(reason.to_owned()));
        assert!(matches!(judge("", "x"), Readiness::NotYet(_)));
    }
}
