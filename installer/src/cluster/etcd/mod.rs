//! etcd's membership: who belongs to it, who answers, and the few changes of it.
//!
//! [`Door`] is one call after another of the bundled `etcdctl` at one member, with a client certificate of this host;
//! [`Members`] is what such a member says of all, with the arithmetic of majorities; [`change`] is what commands do with it
//! and [`table`] what `installer status` shows. Formats and messages are those of etcd 3.4 to 3.6 (recorded from 3.4.23).

mod answers;
pub mod change;
mod door;
mod members;
#[cfg(test)]
pub(crate) mod simulated;
mod table;
#[cfg(test)]
mod tests;

pub use answers::{Health, Outcome, Status};
pub use change::{Left, leave, remove_member, replace_member, update_address};
pub use door::{CLIENT_PORT, Door, PEER_PORT, client_url, listening, peer_url, reach};
pub use members::{Member, Members, named, quorum};
pub use table::{Row, table};
