//! Owners of shares: a host, and one of its connections. Scarce room is shared among hosts, then among the connections of a host, so
//! opening more connections gains nothing. A client with a proven identity has one share, wherever it connects from.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use tonic::Request;

use crate::server::caller::Caller;

/// The holder of a share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Host {
    /// All that comes from an address, or a network of IPv6.
    Address(IpAddr),
    /// A client that has shown who it is; a number for its name that nobody outside can work out.
    Named(u64),
}

/// A connection of a host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Owner {
    pub(crate) host: Host,
    /// Names the connection; never used before in this process.
    pub(crate) connection: u64,
}

impl Owner {
    pub(crate) fn new(address: IpAddr, connection: u64) -> Self {
        Self { host: Host::Address(host(address)), connection }
    }

    /// The same connection, of a client of that name.
    pub(crate) fn named(self, name: &str) -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        Self { host: Host::Named(KEY.hash_one(name)), ..self }
    }

    /// The owner of a request. Requests of unknown origin share one owner.
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let unknown = || Self::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        let of_call = request.extensions().get::<Self>().copied();
        of_call.or_else(|| Caller::of(request).map(|caller| caller.owner)).unwrap_or_else(unknown)
    }
}

/// One host has all addresses of its network of IPv6.
pub(crate) fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A connection of a host, for tests.
    pub(crate) fn owner(host: u8, connection: u64) -> Owner {
        Owner::new(Ipv4Addr::new(10, 0, 0, host).into(), connection)
    }

    #[test]
    fn a_client_that_shows_who_it_is_has_one_share_wherever_it_comes_from() {
        let (here, there) = (owner(1, 1), owner(2, 2));
        assert_eq!(here.named("shop").host, there.named("shop").host);
        assert_ne!(here.named("shop").host, here.named("till").host);
        assert_eq!(here.named("shop").connection, here.connection);
    }

    #[test]
    fn all_addresses_of_a_network_of_ipv6_are_one_host_and_one_of_ipv4_is_one_however_it_is_written() {
        let host = |text: &str| host(text.parse().unwrap());
        assert_eq!(host("2001:db8:1:2::1"), host("2001:db8:1:2:ffff::9"));
        assert_ne!(host("2001:db8:1:2::1"), host("2001:db8:1:3::1"));
        assert_eq!(host("::ffff:10.0.0.1"), host("10.0.0.1"));
        assert_ne!(host("10.0.0.1"), host("10.0.0.2"));
    }
}
