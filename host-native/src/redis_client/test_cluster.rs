//! Redis clusters of three masters for tests.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::test_server::{TestServer, free_port};
use super::{RedisClient, RedisMode, RedisOptions, Slot};
use crate::metrics::Metrics;

/// A cluster has to be there so soon after its start.
const START_MAX: Duration = Duration::from_secs(20);

/// Three masters, each with its third of the slots, and perhaps replicas.
pub(crate) struct TestCluster {
    pub(crate) servers: Vec<TestServer>,
}

impl TestCluster {
    /// A cluster with so many replicas for each master.
    pub(crate) fn start(replicas_per_master: usize) -> Self {
        let servers: Vec<_> = (0..3 * (1 + replicas_per_master))
            .map(|_| {
                let bus = free_port().to_string();
                TestServer::start_with(&[
                    "--cluster-enabled",
                    "yes",
                    "--cluster-port",
                    &bus,
                    "--cluster-node-timeout",
                    "500",
                    "--cluster-replica-validity-factor",
                    "0",
                ])
            })
            .collect();
        let created = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(
                servers
                    .iter()
                    .map(|server| format!("127.0.0.1:{}", server.port)),
            )
            .args(["--cluster-replicas", &replicas_per_master.to_string()])
            .arg("--cluster-yes")
            .stdout(Stdio::null())
            .status();
        assert!(created.expect("redis-cli runs").success());
        let cluster = Self { servers };
        cluster.wait_until(|server| {
            server
                .ask(&["CLUSTER", "INFO"])
                .contains("cluster_state:ok")
        });
        if replicas_per_master > 0 {
            cluster.wait_until(|server| {
                let replication = server.ask(&["INFO", "replication"]);
                replication.contains("state=online")
                    || replication.contains("master_link_status:up")
            });
        }
        cluster
    }

    fn wait_until(&self, is_so: impl Fn(&TestServer) -> bool) {
        let begin = Instant::now();
        while !self.servers.iter().all(&is_so) {
            assert!(begin.elapsed() < START_MAX, "the cluster is not there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Options that reach it.
    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions {
            nodes: self.servers.iter().map(TestServer::url).collect(),
            mode: RedisMode::Cluster,
            ..RedisOptions::default()
        }
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> Arc<RedisClient> {
        let connected = RedisClient::connect(self.options(), Metrics::default().into()).await;
        connected.expect("the cluster runs")
    }

    /// Which server is the master of a slot now.
    pub(crate) fn owner(&self, slot: Slot) -> usize {
        let number = slot.index().to_string();
        let begin = Instant::now();
        loop {
            let owner = self.servers.iter().position(|server| {
                // Only the master itself counts keys of its slots; all know whose they are.
                let nodes = server.ask(&["CLUSTER", "NODES"]);
                let me = nodes.lines().find(|line| line.contains("myself,master"));
                me.is_some_and(|line| has_slot(line, slot.index()))
            });
            if let Some(owner) = owner {
                return owner;
            }
            assert!(begin.elapsed() < START_MAX, "nobody has slot {number}");
        }
    }

    fn id(&self, server: usize) -> String {
        let answer = self.servers[server].ask(&["CLUSTER", "MYID"]);
        answer.lines().nth(1).expect("an id").to_owned()
    }

    /// Begins to move a slot: keys that are not there any more, or not yet, are asked for at the new server.
    pub(crate) fn begin_move(&self, slot: Slot, to: usize) {
        let from = self.owner(slot);
        let number = slot.index().to_string();
        self.done(
            to,
            &["CLUSTER", "SETSLOT", &number, "IMPORTING", &self.id(from)],
        );
        self.done(
            from,
            &["CLUSTER", "SETSLOT", &number, "MIGRATING", &self.id(to)],
        );
    }

    /// Moves some keys of a slot that is on the move.
    pub(crate) fn move_keys(&self, slot: Slot, to: usize, keys: &[&str]) {
        let port = self.servers[to].port.to_string();
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys);
        self.done(self.owner(slot), &migrate);
    }

    /// Moves the keys that are left, and then the slot.
    pub(crate) fn end_move(&self, slot: Slot, to: usize) {
        let from = self.owner(slot);
        let number = slot.index().to_string();
        loop {
            let keys = self.servers[from].ask(&["CLUSTER", "GETKEYSINSLOT", &number, "100"]);
            let keys: Vec<_> = keys.lines().skip(2).step_by(2).collect();
            if keys.is_empty() {
                break;
            }
            self.move_keys(slot, to, &keys);
        }
        let id = self.id(to);
        for server in [to, from] {
            self.done(server, &["CLUSTER", "SETSLOT", &number, "NODE", &id]);
        }
    }

    fn done(&self, server: usize, words: &[&str]) {
        let answer = self.servers[server].ask(words);
        assert!(answer.starts_with("+OK"), "{words:?}: {answer}");
    }
}

/// Whether a line of `CLUSTER NODES` has a slot: after eight words come slots and ranges of slots.
fn has_slot(line: &str, slot: usize) -> bool {
    line.split_ascii_whitespace().skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = first.parse::<usize>().ok().zip(last.parse::<usize>().ok());
        bounds.is_some_and(|(first, last)| (first..=last).contains(&slot))
    })
}
