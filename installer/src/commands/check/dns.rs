//! One DNS question over UDP: the address of a name (RFC 1035). No resolver of the host is asked, no configuration read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

const ADDRESS: u16 = 1;
const INTERNET: u16 = 1;
/// Tries; UDP may lose one.
const TRIES: u32 = 2;

/// Asks a server for the IPv4 addresses of a name.
pub(super) fn ask(server: IpAddr, name: &str, timeout: Duration) -> Result<Vec<Ipv4Addr>, String> {
    let server = SocketAddr::new(server, 53);
    let failed = |error: std::io::Error| format!("asking {server}: {error}");
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.set_read_timeout(Some((timeout / TRIES).max(Duration::from_millis(100)))).map_err(failed)?;
    let id = std::process::id().to_be_bytes();
    let id = [id[2], id[3]];
    let question = question(id, name)?;
    let mut reason = String::new();
    for _ in 0..TRIES {
        socket.send(&question).map_err(failed)?;
        let mut answer = [0; 1500];
        match socket.recv(&mut answer) {
            Ok(length) => return read(id, &answer[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                reason = format!("no answer from {server} in {} s", timeout.as_secs_f32());
            }
            Err(error) => reason = failed(error),
        }
    }
    Err(reason)
}

fn question(id: [u8; 2], name: &str) -> Result<Vec<u8>, String> {
    // Header: one question, recursion desired.
    let mut bytes = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length));
        bytes.push(length.ok_or_else(|| format!("`{name}` is not a DNS name"))?);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&ADDRESS.to_be_bytes());
    bytes.extend_from_slice(&INTERNET.to_be_bytes());
    Ok(bytes)
}

fn read(id: [u8; 2], bytes: &[u8]) -> Result<Vec<Ipv4Addr>, String> {
    parse(id, bytes).ok_or_else(|| "the answer is not a DNS answer to the question".to_owned())?
}

/// `None` for what is no answer; `Some(Err)` for what the server says is wrong.
fn parse(id: [u8; 2], bytes: &[u8]) -> Option<Result<Vec<Ipv4Addr>, String>> {
    let number = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let flags = number(2)?;
    if bytes.get(..2)? != id || flags & 0x8000 == 0 {
        return None;
    }
    match flags & 0xf {
        0 => {}
        3 => return Some(Err("the server does not know the name (NXDOMAIN)".to_owned())),
        code => return Some(Err(format!("the server answers with error code {code}"))),
    }
    let (questions, answers) = (number(4)?, number(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(bytes, at)? + 4;
    }
    let mut found = Vec::new();
    for _ in 0..answers {
        at = skip_name(bytes, at)?;
        let (kind, class, length) = (number(at)?, number(at + 2)?, usize::from(number(at + 8)?));
        let data = bytes.get(at + 10..at + 10 + length)?;
        if let (ADDRESS, INTERNET, Ok(octets)) = (kind, class, <[u8; 4]>::try_from(data)) {
            found.push(octets.into());
        }
        at += 10 + length;
    }
    Some(if found.is_empty() { Err("the answer has no address".to_owned()) } else { Ok(found) })
}

/// The place after a name; a compressed one ends with its pointer (RFC 1035 §4.1.4).
fn skip_name(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "kubernetes.default.svc.cluster.local";

    /// As CoreDNS answers: the question again, then one record whose name is a pointer.
    fn answer(id: [u8; 2], flags: u16, address: &[u8]) -> Vec<u8> {
        let mut bytes = question(id, NAME).unwrap();
        bytes[2..4].copy_from_slice(&flags.to_be_bytes());
        bytes[7] = 1;
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, u8::try_from(address.len()).unwrap()]);
        bytes.extend_from_slice(address);
        bytes
    }

    #[test]
    fn an_answer_is_read_and_a_wrong_one_refused() {
        let id = [7, 9];
        assert_eq!(read(id, &answer(id, 0x8580, &[10, 96, 0, 1])), Ok(vec![Ipv4Addr::new(10, 96, 0, 1)]));
        assert!(read(id, &answer(id, 0x8583, &[10, 96, 0, 1])).unwrap_err().contains("NXDOMAIN"));
        assert!(read(id, &answer(id, 0x8582, &[10, 96, 0, 1])).unwrap_err().contains("error code 2"));
        assert!(read(id, &answer(id, 0x8580, &[0; 16])).unwrap_err().contains("no address"));
        for wrong in [answer([7, 8], 0x8580, &[1, 2, 3, 4]), answer(id, 0x0100, &[1, 2, 3, 4])] {
            assert!(read(id, &wrong).unwrap_err().contains("not a DNS answer"));
        }
        let whole = answer(id, 0x8580, &[10, 96, 0, 1]);
        for length in 0..whole.len() {
            assert!(read(id, &whole[..length]).is_err(), "{length}");
        }
        assert!(question(id, "a..b").is_err());
    }

    #[test]
    fn a_silent_server_is_no_answer() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        drop(silent);
        let error = ask("127.0.0.1".parse().unwrap(), NAME, Duration::from_millis(200)).unwrap_err();
        assert!(error.contains("127.0.0.1:53"), "{error}");
    }
}
