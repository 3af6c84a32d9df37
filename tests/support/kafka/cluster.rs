//! Three brokers, so that one may die: three replicas of everything, two of which must have what is acknowledged.
//!
//! [`Broker`]'s methods for topics and records serve a cluster, too. Brokers are numbered 1 to 3, as Kafka names them.

use std::ops::Deref;
use std::process::Output;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use super::node::Node;
use super::settings::{Listener, Settings, free_ports};
use super::{ANSWER_WITHIN, Broker, START_WITHIN};
use crate::support::proxy::Proxy;

/// Brokers of a cluster.
pub const NODES: usize = 3;

/// Little memory, few threads, and a dead broker is missed soon.
const SMALL: &str = "num.network.threads=1
num.io.threads=2
background.threads=1
num.recovery.threads.per.data.dir=1
log.cleaner.dedupe.buffer.size=2097152
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=5000
";

pub struct Brokers {
    broker: Broker,
    nodes: Vec<Node>,
    /// The proxy's listener for each node, where there is one.
    proxied: Vec<u16>,
}

impl Deref for Brokers {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}

/// Where the replicas of a partition are, by broker number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    pub leader: i32,
    pub in_sync: Vec<i32>,
}

impl Brokers {
    /// Returns when all three answer. Behind a proxy each has one more listener that is reached through it alone,
    /// [`proxied_addresses`](Self::proxied_addresses): the proxy's links 0 to 2.
    pub fn start(mut proxy: Option<&mut Proxy>) -> Result<Self, String> {
        let ports: [u16; 3 * NODES] = free_ports()?;
        let (plain, rest) = ports.split_at(NODES);
        let (controllers, behind) = rest.split_at(NODES);
        let mut proxied = Vec::new();
        if let Some(proxy) = &mut proxy {
            for port in behind {
                proxied.push(proxy.forward_to(*port).map_err(|error| error.to_string())?);
            }
        }
        let settings = |index: usize| {
            let mut listeners = vec![Listener::new("PLAINTEXT", "PLAINTEXT", plain[index])];
            listeners.extend(proxied.get(index).map(|front| Listener {
                advertised: *front,
                ..Listener::new("PROXIED", "PLAINTEXT", behind[index])
            }));
            Settings {
                id: index + 1,
                listeners,
                controllers: controllers.to_vec(),
                more: SMALL.to_owned(),
            }
        };
        let nodes = std::thread::scope(|scope| {
            let formatted: Vec<_> = (0..NODES)
                .map(|index| {
                    let settings = settings(index);
                    scope.spawn(move || {
                        let dir = TempDir::new().map_err(|error| error.to_string())?;
                        let node = Node::format(dir, "256m", &settings, &[])?;
                        node.launch();
                        Ok(node)
                    })
                })
                .collect();
            let joined = formatted.into_iter().map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err("starting a broker panicked".into()))
            });
            joined.collect::<Result<Vec<Node>, String>>()
        })?;
        let brokers = Self {
            broker: Broker {
                bootstrap: addresses(plain),
                own: None,
            },
            nodes,
            proxied,
        };
        brokers.wait_for_brokers(NODES);
        Ok(brokers)
    }

    /// `host:port` of all brokers through the proxy. Panics without one.
    pub fn proxied_addresses(&self) -> String {
        assert!(!self.proxied.is_empty(), "a cluster behind a proxy");
        addresses(&self.proxied)
    }

    /// `kill -9`.
    pub fn kill_one(&self, number: i32) {
        self.node(number).kill();
    }

    /// Starts a broker again and returns when it has been taken back; its replicas follow, see
    /// [`wait_until_in_sync`](Self::wait_until_in_sync).
    pub fn start_again(&self, number: i32) {
        self.node(number).launch();
        let running = self.nodes.iter().filter(|node| node.is_running()).count();
        self.wait_for_brokers(running);
    }

    /// Where the replicas of each partition of a topic are; none while that is not known.
    pub fn replicas(&self, topic: &str) -> Option<Vec<Replicas>> {
        let client: BaseConsumer = self.broker.client().create().expect("a client");
        let metadata = client.fetch_metadata(Some(topic), ANSWER_WITHIN).ok()?;
        let topic = metadata.topics().first()?;
        let mut partitions: Vec<_> = topic.partitions().iter().collect();
        partitions.sort_by_key(|partition| partition.id());
        let replicas = partitions.into_iter().map(|partition| Replicas {
            leader: partition.leader(),
            in_sync: partition.isr().to_vec(),
        });
        Some(replicas.collect()).filter(|all: &Vec<Replicas>| !all.is_empty())
    }

    /// Returns when every replica of a topic is in sync.
    pub fn wait_until_in_sync(&self, topic: &str) {
        self.wait_for(topic, |all| all.iter().all(|r| r.in_sync.len() == NODES));
    }

    /// Makes a broker the leader of a partition; returns when it is.
    pub fn move_leader(&self, topic: &str, partition: u32, to: i32) {
        // The first replica is the preferred one, which an election then makes the leader.
        let others = (1..=NODES as i32).filter(|number| *number != to);
        let replicas: Vec<String> = std::iter::once(to)
            .chain(others)
            .map(|n| n.to_string())
            .collect();
        let wanted = format!("{{\"topic\":\"{topic}\",\"partition\":{partition}");
        let plan = format!(
            "{{\"version\":1,\"partitions\":[{wanted},\"replicas\":[{}]}}]}}",
            replicas.join(",")
        );
        let dir = TempDir::new().expect("a temporary folder");
        let file = dir.path().join("plan.json");
        std::fs::write(&file, plan).expect("the folder is ours");
        let file = file.display().to_string();
        self.tool(
            "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
            &["--execute", "--reassignment-json-file", &file],
        );
        let partition_number = partition.to_string();
        self.tool(
            "org.apache.kafka.tools.LeaderElectionCommand",
            &[
                "--election-type",
                "preferred",
                "--topic",
                topic,
                "--partition",
                &partition_number,
            ],
        );
        self.wait_for(topic, |all| all[partition as usize].leader == to);
    }

    /// The broker that coordinates the transactions of an id.
    pub fn transaction_coordinator(&self, transactional_id: &str) -> i32 {
        // As Kafka finds it: Java's hash of the text, without its sign.
        let hash = transactional_id.encode_utf16().fold(0i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(i32::from(unit))
        });
        let all = self.wait_for("__transaction_state", |all| {
            all.iter().all(|r| r.leader > 0)
        });
        let partition = (hash & i32::MAX) as usize % all.len();
        all[partition].leader
    }

    /// Runs one of Kafka's tools against the cluster. Panics if it fails.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Output {
        let servers = ["--bootstrap-server", self.broker.cluster_address()];
        self.nodes[0].tool(class, &[&servers, arguments].concat())
    }

    fn wait_for(&self, topic: &str, done: impl Fn(&[Replicas]) -> bool) -> Vec<Replicas> {
        let until = Instant::now() + START_WITHIN;
        loop {
            let found = self.replicas(topic);
            match found {
                Some(all) if done(&all) => return all,
                _ => assert!(Instant::now() < until, "topic {topic}: {found:?}"),
            }
            pause();
        }
    }

    fn wait_for_brokers(&self, count: usize) {
        let client: BaseConsumer = self.broker.client().create().expect("a client");
        let until = Instant::now() + START_WITHIN;
        let known = || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(2));
            metadata.map_or(0, |metadata| metadata.brokers().len())
        };
        while known() != count {
            let logs: Vec<String> = self.nodes.iter().map(Node::log_end).collect();
            assert!(
                Instant::now() < until,
                "{} of {count} brokers answer\n{}",
                known(),
                logs.join("\n")
            );
            pause();
        }
    }

    fn node(&self, number: i32) -> &Node {
        &self.nodes[number as usize - 1]
    }
}

fn addresses(ports: &[u16]) -> String {
    let all: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    all.join(",")
}

/// Between two questions: brokers have better to do than to answer them.
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
