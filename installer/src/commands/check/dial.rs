//! Opening TCP connections, many at a time, each with a deadline.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Probes at the same time.
const AT_ONCE: usize = 32;

/// What became of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    /// Somebody accepted it.
    Open,
    /// The host there answered that nobody listens: it can be reached.
    Refused,
    /// Nobody answered, or somebody on the way said that it cannot be reached.
    Lost(String),
}

impl Dial {
    /// Fine if anything at that address answered.
    pub(super) fn reached(self) -> Result<(), String> {
        match self {
            Self::Open | Self::Refused => Ok(()),
            Self::Lost(reason) => Err(reason),
        }
    }

    /// Fine if somebody listens there.
    pub(super) fn open(self) -> Result<(), String> {
        match self {
            Self::Open => Ok(()),
            Self::Refused => Err("connection refused".to_owned()),
            Self::Lost(reason) => Err(reason),
        }
    }
}

/// Opens a connection and closes it.
pub(super) fn dial(address: SocketAddr, timeout: Duration) -> Dial {
    match TcpStream::connect_timeout(&address, timeout) {
        Ok(_) => Dial::Open,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Dial::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => {
                Dial::Lost(format!("no answer in {} s", timeout.as_secs_f32()))
            }
            ErrorKind::HostUnreachable => Dial::Lost("no route to host".to_owned()),
            ErrorKind::NetworkUnreachable => Dial::Lost("network is unreachable".to_owned()),
            _ => Dial::Lost(error.to_string()),
        },
    }
}

/// Does something for every item, a bounded number at a time, and keeps the order.
pub(super) fn for_all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, R)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(index) else { return };
                    let result = work(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const SOON: Duration = Duration::from_millis(500);

    #[test]
    fn a_listener_a_closed_port_and_silence_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(dial(address, SOON), Dial::Open);
        drop(listener);
        assert_eq!(dial(address, SOON), Dial::Refused);
        assert!(Dial::Refused.reached().is_ok() && Dial::Refused.open().is_err());
        // Nobody is reached by TCP at a broadcast address.
        let nowhere = dial("255.255.255.255:9".parse().unwrap(), SOON);
        assert!(matches!(&nowhere, Dial::Lost(_)), "{nowhere:?}");
    }

    #[test]
    fn many_are_done_at_once_in_order() {
        let items: Vec<u64> = (0..200).collect();
        let start = std::time::Instant::now();
        let results = for_all(&items, |item| {
            std::thread::sleep(Duration::from_millis(10));
            item * 2
        });
        assert_eq!(results, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
        assert!(for_all(&[] as &[u8], |_| ()).is_empty());
    }
}
