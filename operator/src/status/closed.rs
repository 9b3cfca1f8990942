//! The condition that says who gets in: whether only those who show who they are, and if not, what that waits for.

use super::fact::{Fact, fact};
use super::workload::Workload;
use crate::cluster::Cluster;
use crate::crd::security::TlsMode;
use crate::identities::plan::NodeTls;

/// The condition `Closed`; none before the mode is settled.
pub(super) fn closed(cluster: &Cluster, workload: &Workload) -> Option<Fact> {
    let mode = workload.tls_mode?;
    let type_ = "Closed";
    let wished = cluster.spec.tls.mode.filter(|wished| *wished != mode);
    if let Some(wished) = wished {
        let waits = waits_for(cluster, mode, &workload.news.shown);
        let message =
            format!("tls.mode goes from {} to {}{waits}; {}", mode.name(), wished.name(), who_gets_in(cluster, mode));
        return Some(fact(type_, mode == TlsMode::Required, "Moving", message));
    }
    Some(fact(type_, mode == TlsMode::Required, mode.name(), who_gets_in(cluster, mode)))
}

fn who_gets_in(cluster: &Cluster, mode: TlsMode) -> String {
    let everybody = match mode {
        TlsMode::Required => return "every client needs a certificate or a token".to_owned(),
        TlsMode::Permissive => "a client without a certificate may do everything",
        TlsMode::Off => "everybody may do everything",
    };
    match cluster.spec.access.len() {
        0 => everybody.to_owned(),
        listed => format!("{everybody}, whatever the {listed} entries of spec.access say"),
    }
}

/// The replicas that do not run in a mode that others are to leave, and why.
fn waits_for(cluster: &Cluster, mode: TlsMode, shown: &[Option<NodeTls>]) -> String {
    let why = |shown: Option<&Option<NodeTls>>| match shown {
        None | Some(None) => Some("does not answer".to_owned()),
        Some(Some(shown)) if shown.has_problem => Some("refuses the newest certificates".to_owned()),
        Some(Some(shown)) if shown.mode != mode => Some(format!("still runs with {}", shown.mode.name())),
        Some(Some(_)) => None,
    };
    let pods = cluster.pods();
    let late = pods.iter().enumerate().filter_map(|(ordinal, pod)| Some(format!("{pod} {}", why(shown.get(ordinal))?)));
    let late: Vec<String> = late.collect();
    if late.is_empty() { String::new() } else { format!(", and waits: {}", late.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::super::workload::TaskNews;
    use super::*;
    use crate::cluster::tests::cluster;

    fn said(spec: &str, mode: TlsMode, shown: Vec<Option<NodeTls>>) -> (bool, &'static str, String) {
        let news = TaskNews { shown, ..TaskNews::default() };
        let workload = Workload { tls_mode: Some(mode), news, ..Workload::default() };
        let Fact { type_, holds, reason, message } = closed(&cluster(spec), &workload).unwrap();
        assert_eq!(type_, "Closed");
        (holds, reason, message)
    }

    fn runs(mode: TlsMode) -> NodeTls {
        let unsaid = String::new;
        NodeTls { mode, peers: unsaid(), clients: unsaid(), certificate: unsaid(), has_problem: false }
    }

    #[test]
    fn a_cluster_says_whether_strangers_get_in_and_that_a_list_of_clients_keeps_nobody_out() {
        use TlsMode::{Off, Permissive, Required};
        assert_eq!(closed(&cluster("{}"), &Workload::default()), None, "nothing is settled");
        let closed = "every client needs a certificate or a token".to_owned();
        assert_eq!(said("{}", Required, vec![]), (true, "Required", closed));
        assert_eq!(said("{}", Off, vec![]), (false, "Off", "everybody may do everything".to_owned()));
        let listed = said("access: [{name: shop, rights: [read]}]", Permissive, vec![]);
        let open = "a client without a certificate may do everything, whatever the 1 entries of spec.access say";
        assert_eq!(listed, (false, "Permissive", open.to_owned()));
    }

    #[test]
    fn a_move_that_does_not_end_names_the_replicas_that_it_waits_for() {
        use TlsMode::{Off, Permissive};
        let refuses = NodeTls { has_problem: true, ..runs(Permissive) };
        let (holds, reason, message) =
            said("tls: {mode: Required}", Permissive, vec![Some(runs(Off)), None, Some(refuses)]);
        assert_eq!((holds, reason), (false, "Moving"));
        let waits = "tls.mode goes from Permissive to Required, and waits: orders-0 still runs with Off, orders-1 does not answer, \
                     orders-2 refuses the newest certificates; a client without a certificate may do everything";
        assert_eq!(message, waits);
        let (.., message) = said("tls: {mode: Required}", Permissive, vec![Some(runs(Permissive)); 3]);
        assert!(message.starts_with("tls.mode goes from Permissive to Required; "), "{message}");
    }
}
