//! The domain under which this Kubernetes serves names. Every pod is told it in its `/etc/resolv.conf`.

/// The part that follows the name of a Service in full: `.svc.cluster.local` mostly; `.svc` where the operator runs in no pod.
pub fn suffix(resolv_conf: &str) -> String {
    let mut searched = resolv_conf.lines().rev().filter_map(|line| line.trim().strip_prefix("search"));
    let searched = searched.next().unwrap_or_default();
    let domain = searched.split_whitespace().find(|domain| domain.starts_with("svc.") && is_domain(domain));
    format!(".{}", domain.map_or("svc", |domain| domain.trim_end_matches('.')))
}

fn is_domain(text: &str) -> bool {
    text.chars().all(|char| char.is_ascii_alphanumeric() || char == '.' || char == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_is_what_pods_search_for_services() {
        let pod = "nameserver 10.96.0.10\nsearch zue-system.svc.example.org svc.example.org example.org host.lan\noptions ndots:5\n";
        assert_eq!(suffix(pod), ".svc.example.org");
        assert_eq!(suffix("search  svc.cluster.local.\n"), ".svc.cluster.local");
        assert_eq!(suffix("search a.svc.old svc.old\nsearch lan\n"), ".svc", "the last line counts");
        for none in ["", "nameserver 1.1.1.1", "search lan", "search svc./:1"] {
            assert_eq!(suffix(none), ".svc", "{none}");
        }
    }
}
