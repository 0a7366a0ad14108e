//! Many writers on one counter, through all instances: each waits for its answer before it goes on.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use iii_stream::bench::caller::Caller;
use iii_stream::bench::load::{self, Load, LoadSample, Window};
use iii_stream::bench::stream_medium::STREAM;
use iii_stream::bench::wire::Wire;
use iii_stream::bench::worker_calls::Calls;
use iii_stream::bench::worker_wire::{WorkerSession, WorkerWire};
use serde_json::json;

use super::cluster::Cluster;

/// Connections, spread evenly over the instances, with one call in flight on each.
pub(super) const WRITERS: usize = 200;
const GROUP: &str = "counters";
const ITEM: &str = "visits";

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) load: LoadSample,
    /// CPU time of all instances and of Redis for each update.
    pub(crate) cpu_us: f64,
}

/// Connections that go to one instance after the other.
struct Spread(Vec<WorkerWire>);

impl Wire for Spread {
    type Session = WorkerSession;

    fn open(&self, connection: usize) -> io::Result<(TcpStream, WorkerSession)> {
        self.0[connection % self.0.len()].open(connection)
    }
}

/// Runs the load and sees that no update was lost.
pub(super) fn measure(cluster: &Cluster, window: Window) -> io::Result<Sample> {
    let calls = Arc::new(Calls::new("stream::update", r#""new_value":"#, 1, |_| {
        format!(
            r#""group_id":"{GROUP}","item_id":"{ITEM}","ops":[{{"type":"increment","path":"n","by":1}}]"#
        )
    }));
    let wires = cluster.instances.iter().map(|instance| WorkerWire {
        address: instance.workers,
        token: None,
        calls: Arc::clone(&calls),
    });
    let wire = Spread(wires.collect());
    let mut caller = Caller::at(cluster.instances[0].workers, None)?;
    let place = json!({ "stream_name": STREAM, "group_id": GROUP, "item_id": ITEM });
    let mut start = place.clone();
    start["data"] = json!({ "n": 0 });
    caller.run("stream::set", &start.to_string())?;

    let before = cluster.cpu()?;
    let load = Load {
        connections: WRITERS,
        depth: 1,
        rate: None,
        window,
    };
    let sample = load::run(&wire, &load, None)?;
    let cpu = cluster.cpu()? - before;
    if !sample.faults.is_clean() {
        return Err(io::Error::other(format!("{:?}", sample.faults)));
    }
    let found = caller.call("stream::get", &place.to_string())?;
    if found["n"].as_u64() != Some(sample.acknowledged) {
        return Err(io::Error::other(format!(
            "{} updates were acknowledged, the counter says {found}",
            sample.acknowledged
        )));
    }
    Ok(Sample {
        load: sample,
        cpu_us: cpu.as_secs_f64() * 1e6 / sample.acknowledged as f64,
    })
}
