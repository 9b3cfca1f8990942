//! The table of who may call what, and nothing that is not in it. Knows neither certificates nor tokens.

use std::fmt;
use std::sync::Arc;

use crate::tls::{Client, Rights};

/// The right that a method needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Need {
    /// Nothing.
    Open,
    /// Any right of a client.
    Any,
    Append,
    Read,
    Admin,
    /// To be a node.
    Peer,
    /// To be a controller.
    Control,
    /// To be a controller, or a node, which elects where no controller does.
    StandBy,
}

/// The right that a method needs, by its path; none where there is no such method.
pub(crate) fn need(path: &str) -> Option<Need> {
    Some(match path {
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => Need::Open,
        "/zue.v1.Log/Append" | "/zue.v1.Log/AppendStream" | "/zue.v1.Log/OpenProducer" => Need::Append,
        "/zue.v1.Log/Read" => Need::Read,
        // Who may only append has to find the leader, too.
        "/zue.v1.Log/Describe" => Need::Any,
        "/zue.v1.Log/Trim"
        | "/zue.v1.Log/SwitchOver"
        | "/zue.v1.Log/BackUp"
        | "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => Need::Admin,
        "/zue.v1.Replication/Follow" | "/zue.v1.Replication/Fetch" => Need::Peer,
        "/zue.v1.Control/Status" | "/zue.v1.Control/Watch" | "/zue.v1.Control/Seal" | "/zue.v1.Control/Appoint" => {
            Need::StandBy
        }
        "/zue.v1.Control/Learners" | "/zue.v1.Control/Handover" | "/zue.v1.Control/BackUp" => Need::Control,
        _ => return None,
    })
}

/// The caller, as far as rights go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Party {
    /// Anyone: no identity is asked for.
    Anybody,
    /// A caller without an identity.
    Nobody,
    Node,
    Controller,
    Client(Arc<Client>),
}

impl Party {
    /// The sender of a request: nobody that may do anything, unless the door says who.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or(Self::Nobody)
    }

    pub(crate) fn may(&self, need: Need) -> bool {
        let rights = match self {
            Self::Anybody => return true,
            Self::Nobody => return need == Need::Open,
            Self::Node => return matches!(need, Need::Open | Need::Peer | Need::StandBy),
            Self::Controller => return matches!(need, Need::Open | Need::Control | Need::StandBy),
            Self::Client(client) => client.rights,
        };
        match need {
            Need::Open => true,
            Need::Any => rights != Rights::default(),
            Need::Append => rights.append,
            Need::Read => rights.read,
            Need::Admin => rights.admin,
            Need::Peer | Need::Control | Need::StandBy => false,
        }
    }
}

/// The missing right, for people.
impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "nothing",
            Self::Any => "any of the rights append, read and admin",
            Self::Append => "the right append",
            Self::Read => "the right read",
            Self::Admin => "the right admin",
            Self::Peer => "to be a node",
            Self::Control => "to be a controller",
            Self::StandBy => "to be a controller or a node",
        })
    }
}

#[cfg(test)]
mod tests {
    use zue_proto::DESCRIPTORS;

    use super::*;

    /// The paths of all methods of all services that the two ports serve.
    fn methods() -> Vec<String> {
        let sets = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
        let mut paths = Vec::new();
        for set in sets {
            let set = <prost_types::FileDescriptorSet as prost::Message>::decode(set).unwrap();
            for file in set.file {
                for service in &file.service {
                    let method = |method: &prost_types::MethodDescriptorProto| {
                        format!("/{}.{}/{}", file.package(), service.name(), method.name())
                    };
                    paths.extend(service.method.iter().map(method));
                }
            }
        }
        paths
    }

    #[test]
    fn every_method_that_there_is_has_its_place_in_the_table_and_no_other_has() {
        let methods = methods();
        assert!(methods.len() >= 18, "{methods:?}");
        for path in &methods {
            assert!(need(path).is_some(), "{path} is in no table: nobody may call it");
        }
        for path in ["", "/", "/zue.v1.Log/Delete", "/zue.v1.Log/append", "/zue.v1.Log/Append/", "zue.v1.Log/Append"] {
            assert_eq!(need(path), None, "{path}");
        }
    }

    #[test]
    fn a_request_that_did_not_come_through_the_door_is_of_nobody() {
        let mut request = tonic::Request::new(());
        assert_eq!(Party::of(&request), Party::Nobody);
        request.extensions_mut().insert(Party::Anybody);
        assert_eq!(Party::of(&request), Party::Anybody);
    }

    #[test]
    fn each_party_may_call_what_it_is_for() {
        use Need::{Admin, Any, Append, Control, Open, Peer, Read, StandBy};
        let client = |append, read, admin| {
            Party::Client(Arc::new(Client { name: "shop".to_owned(), rights: Rights { append, read, admin } }))
        };
        let all = [Open, Any, Append, Read, Admin, Peer, Control, StandBy];
        for (party, may) in [
            (Party::Anybody, &all[..]),
            (Party::Nobody, &[Open]),
            (Party::Node, &[Open, Peer, StandBy]),
            (Party::Controller, &[Open, Control, StandBy]),
            (client(true, false, false), &[Open, Any, Append]),
            (client(false, true, false), &[Open, Any, Read]),
            (client(false, false, true), &[Open, Any, Admin]),
            (client(true, true, true), &[Open, Any, Append, Read, Admin]),
            (client(false, false, false), &[Open]),
        ] {
            assert_eq!(all.into_iter().filter(|need| party.may(*need)).collect::<Vec<_>>(), may, "{party:?}");
        }
    }
}
