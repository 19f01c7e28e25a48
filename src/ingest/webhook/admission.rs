//! How many connections there are, in all and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts connections and refuses those beyond the limits.
#[derive(Debug)]
pub(crate) struct Admissions {
    state: Mutex<State>,
    connections_max: usize,
    per_peer_max: usize,
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A connection that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    peer: IpAddr,
}

impl Admissions {
    pub(crate) fn new(connections_max: usize, per_peer_max: usize) -> Arc<Admissions> {
        Arc::new(Admissions { state: Mutex::default(), connections_max, per_peer_max })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// The reason, a metric's label, when there are too many.
    pub(crate) fn admit(
        self: &Arc<Admissions>,
        address: IpAddr,
    ) -> Result<Admission, &'static str> {
        let peer = peer(address);
        let mut state = self.state();
        if state.connections >= self.connections_max {
            return Err("connections_max");
        }
        let own = state.by_peer.entry(peer).or_default();
        if *own >= self.per_peer_max {
            return Err("connections_per_peer_max");
        }
        *own += 1;
        state.connections += 1;
        Ok(Admission { admissions: Arc::clone(self), peer })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.admissions.state();
        state.connections -= 1;
        if let Some(own) = state.by_peer.get_mut(&self.peer) {
            *own -= 1;
            if *own == 0 {
                state.by_peer.remove(&self.peer);
            }
        }
    }
}

/// Who counts as one: an IPv4 address, or the /64 of an IPv6 address, which belongs to one host.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_those_beyond_the_limits() {
        let admissions = Admissions::new(3, 2);
        let admit = |address: &str| admissions.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert_eq!(admit("10.0.0.1").unwrap_err(), "connections_per_peer_max");
        let _third = admit("2001:db8::1").unwrap();
        assert_eq!(admit("10.0.0.2").unwrap_err(), "connections_max");
        drop(first);
        let _fourth = admit("2001:db8::2").unwrap();
        assert_eq!(admit("10.0.0.2").unwrap_err(), "connections_max");
        drop(_third);
        let _fifth = admit("2001:db8::3").unwrap();
        assert_eq!(admissions.state().by_peer.len(), 2);
    }
}
