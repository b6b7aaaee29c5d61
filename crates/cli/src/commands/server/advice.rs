//! Why a member did not start, as exit code and as what to try.

use std::path::Path;

use countersign::datadir::DataDirError;
use countersign::{
    BootstrapError, JoinError, KeysError, NodeError, ServeError, StartError, StoreReturnError, WayBack,
    advice_enrollment,
};
use countersign_core::trust::outcome::Refused;

use super::announce::quoted;
use crate::failure::{Exit, Failure, chain};

/// The failure for people.
pub(super) fn failure(error: &StartError) -> Failure {
    match error {
        StartError::Node(error) => of_node(error),
        StartError::Admin(error) => Failure::new(Exit::Unreachable, chain(error), advice_admin(error)),
        StartError::NoClientPort => Failure::usage(chain(error), "leave `--client-addr none` out"),
    }
}

fn advice_admin(error: &ServeError) -> String {
    match error {
        ServeError::Bind { .. } => IN_USE.to_owned(),
        ServeError::Https(_) => {
            "check --https-cert and --https-key (mode 0600, or 0440 of a group of this user), or leave \
                                 them out"
                .to_owned()
        }
        ServeError::DataDir(error) => data_dir(error),
        ServeError::Socket { .. } => "look at the log; the same command goes on where it stopped".to_owned(),
    }
}

/// What to do where an address is taken.
const IN_USE: &str = "stop what listens there, or choose another address with --cluster-addr, --client-addr or \
                      --https-addr (port 0 takes any that is free)";

fn of_node(error: &NodeError) -> Failure {
    let exit = match error {
        NodeError::Join(JoinError::Refused { .. })
        | NodeError::Return(StoreReturnError::Refused(_) | StoreReturnError::Evicted) => Exit::Refused,
        NodeError::DataDir(_)
        | NodeError::Keys(_)
        | NodeError::Files(_)
        | NodeError::Empty { .. }
        | NodeError::NoMemberFile { .. }
        | NodeError::StoreLost { .. }
        | NodeError::Return(_)
        | NodeError::PartLost { .. }
        | NodeError::JoinUnfinished { .. }
        | NodeError::BootstrapUnfinished { .. }
        | NodeError::Bind { .. }
        | NodeError::Quic(_)
        | NodeError::Bootstrap(_)
        | NodeError::Join(_)
        | NodeError::DataStore(_)
        | NodeError::Replica(_)
        | NodeError::Credential(_)
        | NodeError::Pem(_)
        | NodeError::Bundle(_)
        | NodeError::HostName { .. }
        | NodeError::Advertise { .. }
        | NodeError::Watchdog(_) => Exit::Unreachable,
    };
    let reason = match error {
        NodeError::Join(JoinError::Refused { skew_secs, .. }) if skew_secs.abs() > 60 => {
            let side = if *skew_secs > 0 { "ahead of" } else { "behind" };
            format!("{}; this host's clock is {} s {side} the cluster's", chain(error), skew_secs.abs())
        }
        NodeError::DataDir(_)
        | NodeError::Keys(_)
        | NodeError::Files(_)
        | NodeError::Empty { .. }
        | NodeError::NoMemberFile { .. }
        | NodeError::StoreLost { .. }
        | NodeError::Return(_)
        | NodeError::PartLost { .. }
        | NodeError::JoinUnfinished { .. }
        | NodeError::BootstrapUnfinished { .. }
        | NodeError::Bind { .. }
        | NodeError::Quic(_)
        | NodeError::Bootstrap(_)
        | NodeError::Join(_)
        | NodeError::DataStore(_)
        | NodeError::Replica(_)
        | NodeError::Credential(_)
        | NodeError::Pem(_)
        | NodeError::Bundle(_)
        | NodeError::HostName { .. }
        | NodeError::Advertise { .. }
        | NodeError::Watchdog(_) => chain(error),
    };
    Failure::new(exit, reason, advice(error))
}

fn advice(error: &NodeError) -> String {
    match error {
        NodeError::DataDir(error) | NodeError::Keys(KeysError::DataDir(error)) => data_dir(error),
        NodeError::StoreLost { data, way, .. } | NodeError::PartLost { data, way, .. } => way_back(data, *way),
        NodeError::Return(error) => of_return(error),
        NodeError::NoMemberFile { .. } => format!("put member.json back; if it is lost, {JOIN_AGAIN}"),
        NodeError::Empty { .. } => "add --bootstrap to make a cluster, or --join-token and --join-addr".to_owned(),
        NodeError::JoinUnfinished { .. } => {
            "repeat the join with --join-token and --join-addr, or choose another directory with --data".to_owned()
        }
        NodeError::BootstrapUnfinished { .. } => {
            "repeat the start with --bootstrap, or join with another directory: --data".to_owned()
        }
        NodeError::Bind { .. } => IN_USE.to_owned(),
        NodeError::Advertise { .. } => "say where others reach this node with --advertise-addr HOST:PORT".to_owned(),
        NodeError::HostName { .. } => "give the node a name with --name".to_owned(),
        NodeError::Join(JoinError::DataDir(error) | JoinError::Keys(KeysError::DataDir(error))) => data_dir(error),
        NodeError::Bootstrap(BootstrapError::DataDir(error) | BootstrapError::Keys(KeysError::DataDir(error))) => {
            data_dir(error)
        }
        NodeError::Join(JoinError::Refused { why, .. }) => advice_enrollment(why).to_owned(),
        NodeError::Join(JoinError::Dial { source, .. }) => {
            let more = |id| format!("; `countersign explain {id}` there may tell more");
            let more = source.failure_id.map_or_else(String::new, more);
            format!("check --join-addr and that a member listens there{more}")
        }
        NodeError::Files(error)
        | NodeError::Join(JoinError::Files(error))
        | NodeError::Bootstrap(BootstrapError::Files(error)) => error.advice().to_owned(),
        NodeError::Bootstrap(BootstrapError::TwoAuthorities) => {
            "leave --ca out, or the --inter-broker-tls flags".to_owned()
        }
        NodeError::Bootstrap(_) => "correct it, and repeat the same command: it goes on where it stopped".to_owned(),
        NodeError::Keys(_)
        | NodeError::Quic(_)
        | NodeError::Join(_)
        | NodeError::DataStore(_)
        | NodeError::Replica(_)
        | NodeError::Credential(_)
        | NodeError::Pem(_)
        | NodeError::Bundle(_)
        | NodeError::Watchdog(_) => "look at the log; the same command goes on where it stopped".to_owned(),
    }
}

/// What a host does that can no longer show which member it was.
const JOIN_AGAIN: &str = "evict this node on a voter and join it as another: countersign server --join-token @FILE \
                         --join-addr HOST:PORT --data OTHER";

/// Why a member did not come back with a new store.
fn of_return(error: &StoreReturnError) -> String {
    match error {
        StoreReturnError::DataDir(error) | StoreReturnError::Keys(KeysError::DataDir(error)) => data_dir(error),
        StoreReturnError::Refused(Refused::Alive { .. }) => {
            "stop the other copy of this node, wait for the length of a lease, and repeat the command".to_owned()
        }
        StoreReturnError::Refused(Refused::NoQuorumOfOthers { .. }) => {
            "keep this directory as it is, and the remains of the other voters".to_owned()
        }
        StoreReturnError::Refused(Refused::AlreadyEvicted(_) | Refused::KeyRevoked) | StoreReturnError::Evicted => {
            "join with another directory: countersign server --join-token @FILE --join-addr HOST:PORT --data OTHER"
                .to_owned()
        }
        StoreReturnError::Refused(Refused::OtherStore { .. }) => JOIN_AGAIN.to_owned(),
        StoreReturnError::NotTaken(_) | StoreReturnError::Alone => {
            "start the other voters, or name one that is up: countersign server --return-as-learner --join-addr \
             HOST:PORT"
                .to_owned()
        }
        StoreReturnError::Keys(_)
        | StoreReturnError::Store(_)
        | StoreReturnError::Codec(_)
        | StoreReturnError::Refused(_) => "look at the log; the same command goes on where it stopped".to_owned(),
    }
}

/// How a member comes back that has lost a part of what it kept.
fn way_back(data: &Path, way: WayBack) -> String {
    match way {
        WayBack::ReturnAsLearner => format!("countersign server --return-as-learner --data {}", quoted(data)),
        WayBack::JoinAgain => format!("put it back; if it is lost, {JOIN_AGAIN}"),
        WayBack::OnlyVoter => format!(
            "put it back, and keep the rest of `{}`: it was the only voter, and recovering it is not in this version; \
             to make another cluster: countersign server --bootstrap --data OTHER",
            data.display()
        ),
    }
}

fn data_dir(error: &DataDirError) -> String {
    match error {
        DataDirError::InUse { .. } => "stop the other server, or choose another directory with --data".to_owned(),
        DataDirError::Foreign { .. } => "choose an empty directory with --data".to_owned(),
        DataDirError::Exposed { path, .. } => {
            format!("chmod go-rwx {} if no other user has read it; else {JOIN_AGAIN}", quoted(path))
        }
        DataDirError::Link { path } | DataDirError::Kind { path } => format!(
            "put the file or directory itself at {}, owned by this user; --data as a whole may be a link",
            quoted(path)
        ),
        DataDirError::Owner { path, .. } => {
            format!("run the server as that user, or chown {} to this one", quoted(path))
        }
        DataDirError::Damaged { .. } => {
            format!("put the file back; if it is lost, {JOIN_AGAIN}")
        }
        DataDirError::Layout { .. } => {
            "start it with the build that wrote it; this version reads no data of earlier builds".to_owned()
        }
        DataDirError::Io { .. } => {
            "check the disk and who owns the directory, or choose another with --data".to_owned()
        }
    }
}
