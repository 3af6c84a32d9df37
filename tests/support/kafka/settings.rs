//! `server.properties` of a test's node: broker and controller in one process, small.

use std::net::TcpListener;
use std::path::Path;

/// Where a node takes connections.
#[derive(Debug, Clone)]
pub(super) struct Listener {
    pub(super) name: &'static str,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    /// Where clients are told to find it.
    pub(super) advertised: u16,
}

impl Listener {
    pub(super) fn new(name: &'static str, protocol: &'static str, port: u16) -> Self {
        Self {
            name,
            protocol,
            port,
            advertised: port,
        }
    }
}

/// What nodes differ in.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) id: usize,
    /// The first one is for the nodes among themselves.
    pub(super) listeners: Vec<Listener>,
    /// Controller ports of all nodes of the cluster, by id from 1.
    pub(super) controllers: Vec<u16>,
    /// More lines.
    pub(super) more: String,
}

impl Settings {
    /// The file's text. Nothing is deleted by age: tests write records as old as they like. Internal topics have as many replicas as there are nodes, up to three.
    pub(super) fn text(&self, dir: &Path) -> String {
        let nodes = self.controllers.len();
        let controller = self.controllers[self.id - 1];
        let join = |each: &dyn Fn(&Listener) -> String| {
            let all: Vec<String> = self.listeners.iter().map(each).collect();
            all.join(",")
        };
        let listeners = join(&|l| format!("{}://127.0.0.1:{}", l.name, l.port));
        let advertised = join(&|l| format!("{}://127.0.0.1:{}", l.name, l.advertised));
        let protocols = join(&|l| format!("{}:{}", l.name, l.protocol));
        let voters: Vec<String> = (1..)
            .zip(&self.controllers)
            .map(|(id, port)| format!("{id}@127.0.0.1:{port}"))
            .collect();
        format!(
            "process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={advertised}
listener.security.protocol.map={protocols},CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name={between}
log.dirs={dir}/data
log.retention.ms=-1
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
{more}",
            id = self.id,
            voters = voters.join(","),
            between = self.listeners[0].name,
            dir = dir.display(),
            replicas = nodes.min(3),
            in_sync = nodes.min(3).div_ceil(2),
            more = self.more,
        )
    }
}

/// Ports that nobody listened on a moment ago.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], String> {
    let told = |error: std::io::Error| format!("no free port: {error}");
    let mut sockets = Vec::with_capacity(N);
    for _ in 0..N {
        sockets.push(TcpListener::bind("127.0.0.1:0").map_err(told)?);
    }
    let mut ports = [0; N];
    for (port, socket) in ports.iter_mut().zip(&sockets) {
        *port = socket.local_addr().map_err(told)?.port();
    }
    Ok(ports)
}
