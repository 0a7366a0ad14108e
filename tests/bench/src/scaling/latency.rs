//! One event at a time: from a writer at one instance to a subscriber at another, beside Redis' own publish and
//! subscribe, and the same with a relay on each side that only passes on.

use std::io;

use iii_stream::bench::fanout::{self, Pace, Plan, Sample};
use iii_stream::bench::load::Window;
use iii_stream::bench::medium::Medium;
use iii_stream::bench::stream_medium::{Spread, StreamMedium};

use super::cluster::Cluster;
use super::relay;
use crate::redis_medium::RedisMedium;

/// Bytes of an event's frame.
const FRAME_BYTES: usize = 393;

/// The same load on both.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) across: Sample,
    /// On the same Redis.
    pub(crate) bare: Sample,
    /// The same, with a relay before Redis and one behind it: as many ways as by two instances.
    pub(crate) relayed: Sample,
}

pub(super) fn measure(cluster: &Cluster, window: Window) -> io::Result<Pair> {
    let redis = cluster.redis.address;
    let bare = RedisMedium {
        subscribers: redis,
        publishers: redis,
        frame_bytes: FRAME_BYTES,
    };
    let relayed = RedisMedium {
        subscribers: relay::start(redis)?,
        publishers: relay::start(redis)?,
        frame_bytes: FRAME_BYTES,
    };
    let across = StreamMedium::new(&cluster.across(), FRAME_BYTES, Spread::One)?;
    Ok(Pair {
        bare: one(&bare, window)?,
        across: one(&across, window)?,
        relayed: one(&relayed, window)?,
    })
}

fn one(medium: &impl Medium, window: Window) -> io::Result<Sample> {
    let plan = Plan {
        subscribers: 1,
        stuck: 0,
        idle: 0,
        pace: Pace::Window(1),
        window,
        fill: 0,
    };
    let sample = fanout::run(medium, &plan, None)?;
    if sample.faults.is_clean() && sample.ended.is_empty() {
        return Ok(sample);
    }
    let ended = sample.ended.first().map_or("", String::as_str);
    Err(io::Error::other(format!("{:?} {ended}", sample.faults)))
}
