//! Names and addresses, as settings and other nodes give them.

/// The length of a node's name, and of a host's: that of a Kubernetes object.
const NAME_BYTES_MAX: usize = 253;

/// Tells whether it is as long as a name may be, and has nothing that would break a line or a word.
pub fn is_word(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Tells whether it is `host:port`.
pub fn is_address(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let is_ipv6 = host.starts_with('[') && host.ends_with(']');
        let host_fits = !host.is_empty()
            && is_word(host)
            && !host.contains(['/', '@', '?', '#'])
            && (is_ipv6 || !host.contains(':'));
        host_fits && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
}
