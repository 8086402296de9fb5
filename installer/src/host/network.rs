//! Whether something listens at an address: a TCP connection that is opened and closed again.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Host;

impl Host {
    /// For each of these addresses, whether a TCP connection is accepted within `deadline`; all are asked at once. A process
    /// that hangs still counts: its kernel answers.
    pub fn listening(&self, addresses: &[SocketAddr], deadline: Duration) -> Vec<bool> {
        if let Some(fake) = self.script() {
            return addresses.iter().map(|address| fake.listens(*address)).collect();
        }
        std::thread::scope(|scope| {
            let asked: Vec<_> = addresses
                .iter()
                .map(|address| scope.spawn(move || TcpStream::connect_timeout(address, deadline).is_ok()))
                .collect();
            asked.into_iter().map(|thread| thread.join().unwrap_or(false)).collect()
        })
    }
}
