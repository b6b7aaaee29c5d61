//! Nodes in network namespaces of their own, on a wire that can be cut. Each has a second link to this process, which
//! stays: a client still reaches a node that its peers do not.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A bridge, and a namespace for each node. Taken down in the end.
pub struct Wires {
    id: String,
    net: u32,
    nodes: Vec<u8>,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Wires {
    /// Wires for nodes 1 to `n`; none, with the reason printed, where this machine forbids namespaces.
    pub fn lay(n: u8) -> Option<Self> {
        let number = std::process::id().wrapping_mul(4).wrapping_add(NUMBER.fetch_add(1, Ordering::Relaxed));
        let wires = Self { id: format!("{:x}", number % 0xff_ffff), net: number % 200, nodes: (1..=n).collect() };
        match wires.lay_all() {
            Ok(()) => Some(wires),
            Err(why) => {
                println!("skipped: {why}");
                assert!(std::env::var_os("CI").is_none() || !rustix::process::geteuid().is_root(), "{why}");
                None
            }
        }
    }

    fn lay_all(&self) -> Result<(), String> {
        let bridge = format!("cs{}b", self.id);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("link set {bridge} up"))?;
        for node in &self.nodes {
            let space = self.namespace(*node);
            ip(&format!("netns add {space}"))?;
            ip(&format!("-n {space} link set lo up"))?;
            let wire = self.wire(*node);
            ip(&format!("link add {wire} type veth peer name eth0 netns {space}"))?;
            ip(&format!("link set {wire} master {bridge} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth0", self.address(*node)))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            let aside = format!("cs{}c{node}", self.id);
            ip(&format!("link add {aside} type veth peer name eth1 netns {space}"))?;
            ip(&format!("addr add 10.{}.{node}.254/24 dev {aside}", self.net + 40))?;
            ip(&format!("link set {aside} up"))?;
            ip(&format!("-n {space} addr add {}/24 dev eth1", self.aside(*node)))?;
            ip(&format!("-n {space} link set eth1 up"))?;
        }
        Ok(())
    }

    pub fn namespace(&self, node: u8) -> String {
        format!("cs{}n{node}", self.id)
    }

    /// Has every node resolve these names to these addresses, from its next start on.
    pub fn names(&self, names: &[(&str, String)]) {
        let lines: Vec<String> = names.iter().map(|(name, address)| format!("{address} {name}\n")).collect();
        for node in &self.nodes {
            // `ip netns exec` puts what is here in the place of what is in /etc.
            let etc = format!("/etc/netns/{}", self.namespace(*node));
            std::fs::create_dir_all(&etc).unwrap();
            std::fs::write(format!("{etc}/hosts"), format!("127.0.0.1 localhost\n{}", lines.concat())).unwrap();
        }
    }

    fn wire(&self, node: u8) -> String {
        format!("cs{}w{node}", self.id)
    }

    /// Where its peers reach a node.
    pub fn address(&self, node: u8) -> String {
        format!("10.{}.0.{node}", self.net + 40)
    }

    /// Where this process reaches it, whatever is cut.
    pub fn aside(&self, node: u8) -> String {
        format!("10.{}.{node}.1", self.net + 40)
    }

    /// Cuts a node off from its peers.
    pub fn cut(&self, node: u8) {
        ip(&format!("link set {} down", self.wire(node))).unwrap();
    }

    /// Puts it back.
    pub fn mend(&self, node: u8) {
        ip(&format!("link set {} up", self.wire(node))).unwrap();
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        for node in &self.nodes {
            let _ = ip(&format!("netns del {}", self.namespace(*node)));
            let _ = std::fs::remove_dir_all(format!("/etc/netns/{}", self.namespace(*node)));
            let _ = ip(&format!("link del {}", self.wire(*node)));
        }
        let _ = ip(&format!("link del cs{}b", self.id));
    }
}
