//! How many connections or requests there are, in all and of one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A limit with its name, a metric's label.
pub(crate) type Limit = (&'static str, usize);

/// Counts what is let in and refuses what is beyond the limits.
#[derive(Debug)]
pub(crate) struct Admissions {
    state: Mutex<State>,
    all_max: Limit,
    per_peer_max: Limit,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    by_peer: HashMap<IpAddr, usize>,
}

/// A connection or request that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    admissions: Arc<Admissions>,
    peer: IpAddr,
}

impl Admissions {
    pub(crate) fn new(all_max: Limit, per_peer_max: Limit) -> Arc<Admissions> {
        Arc::new(Admissions { state: Mutex::default(), all_max, per_peer_max })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection or request in.
    ///
    /// # Errors
    /// The name of the limit when there are too many.
    pub(crate) fn admit(
        self: &Arc<Admissions>,
        address: IpAddr,
    ) -> Result<Admission, &'static str> {
        let peer = peer(address);
        let mut state = self.state();
        if state.all >= self.all_max.1 {
            return Err(self.all_max.0);
        }
        let own = state.by_peer.entry(peer).or_default();
        if *own >= self.per_peer_max.1 {
            return Err(self.per_peer_max.0);
        }
        *own += 1;
        state.all += 1;
        Ok(Admission { admissions: Arc::clone(self), peer })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut state = self.admissions.state();
        state.all -= 1;
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
        let admissions = Admissions::new(("all", 3), ("per_peer", 2));
        let admit = |address: &str| admissions.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert_eq!(admit("10.0.0.1").unwrap_err(), "per_peer");
        let _third = admit("2001:db8::1").unwrap();
        assert_eq!(admit("10.0.0.2").unwrap_err(), "all");
        drop(first);
        let _fourth = admit("2001:db8::2").unwrap();
        assert_eq!(admit("10.0.0.2").unwrap_err(), "all");
        drop(_third);
        let _fifth = admit("2001:db8::3").unwrap();
        assert_eq!(admissions.state().by_peer.len(), 2);
    }
}
