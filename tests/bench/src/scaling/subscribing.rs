//! Groups with one subscriber each that come and go: what each costs where there are few, and where there are many.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use iii_stream::bench::crowd::Crowd;
use iii_stream::bench::stream_medium::{Spread, StreamMedium};
use iii_stream::bench::wire::{PATIENCE, connect};

use super::cluster::Cluster;

pub(super) const FEW: usize = 10;
pub(super) const MANY: usize = 10_000;
/// The few come and go as often as it takes for as many in all.
const FEW_TIMES: usize = 200;

/// What a subscription cost that came and went, with its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// CPU time of the instances and of Redis.
    pub(crate) cpu_us: f64,
    /// From the first connect to when all were gone.
    pub(crate) wall_us: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) few: Sample,
    pub(crate) many: Sample,
}

pub(super) fn measure(cluster: &Cluster) -> io::Result<Pair> {
    Ok(Pair {
        few: come_and_go(cluster, FEW, FEW_TIMES)?,
        many: come_and_go(cluster, MANY, 1)?,
    })
}

fn come_and_go(cluster: &Cluster, groups: usize, times: usize) -> io::Result<Sample> {
    let instance = &cluster.instances[0];
    let target = instance.target();
    let (cpu, start) = (cluster.cpu()?, Instant::now());
    for _ in 0..times {
        // A medium's groups are nobody else's.
        let medium = StreamMedium::new(&target, 393, Spread::Alone(0))?;
        Crowd::new(&medium)?.join(groups, true, 0)?;
    }
    until_gone(instance.admin)?;
    let subscriptions = (groups * times) as f64;
    let per = |time: Duration| time.as_secs_f64() * 1e6 / subscriptions;
    Ok(Sample {
        cpu_us: per(cluster.cpu()? - cpu),
        wall_us: per(start.elapsed()),
    })
}

/// Waits until the server has no subscription left.
fn until_gone(admin: SocketAddr) -> io::Result<()> {
    const PAUSE: Duration = Duration::from_millis(50);
    let started = Instant::now();
    loop {
        let mut stream = connect(admin)?;
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer
            .lines()
            .any(|line| line == "iii_stream_subscriptions 0")
        {
            return Ok(());
        }
        if PATIENCE < started.elapsed() {
            return Err(io::Error::other(
                "subscriptions stay although nobody is there",
            ));
        }
        std::thread::sleep(PAUSE);
    }
}
