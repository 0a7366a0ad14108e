//! The way to the first connection: which kind of installation it is, and what keeps us from using it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::address::{Address, Login, read_url};
use super::backoff::Backoff;
use super::cluster_slots::{Range, ask_slots};
use super::dial::{DialError, Dialed, ServerKind, dial};
use super::error::RedisStartError;
use super::node::{Link, Node};
use super::options::{RedisMode, RedisOptions};
use super::sentinel::Sentinels;
use super::server_clock::whole_ms;
use super::topology::Topology;
use crate::metrics::Metrics;

/// Oldest version that has what is used: RESP3, sharded pub/sub, errors of scripts with their code.
const MAJOR_VERSION_MIN: u32 = 7;

/// Connects to all servers that are needed.
pub(super) async fn start(
    options: &RedisOptions,
    metrics: Arc<Metrics>,
) -> Result<Arc<Topology>, RedisStartError> {
    let deadline = Instant::now() + options.connect_time_max;
    let (addresses, login) = addresses(options)?;
    let time_max = options.connect_time_max;
    let topology = match &options.mode {
        RedisMode::Sentinel { master } => {
            let first = addresses[0].clone();
            let sentinels = Sentinels::new(addresses, &login, master);
            Topology::one(&first, Some(sentinels), login, time_max, metrics)
        }
        mode => {
            let (address, dialed) = first_server(&addresses, &login, time_max, deadline).await?;
            let servers = addresses.len();
            match cluster_of(mode, &address, servers, dialed, time_max, deadline).await? {
                Some(ranges) => {
                    Topology::cluster(addresses, &ranges, &address, login, time_max, metrics)
                }
                None => Topology::one(&address, None, login, time_max, metrics),
            }
        }
    };
    for member in topology.members() {
        let link = member.node.settled(deadline).await;
        match check(&link, &member.node.name(), time_max) {
            // The rest of a cluster works without it.
            Err(error @ RedisStartError::Unreachable { .. }) if topology.is_cluster() => {
                tracing::warn!(%error, "a part of the cluster is missing");
            }
            checked => {
                checked?;
                check_version(&member.node)?;
            }
        }
    }
    Ok(topology)
}

fn addresses(options: &RedisOptions) -> Result<(Vec<Address>, Login), RedisStartError> {
    let mut read = Vec::new();
    for url in &options.nodes {
        read.push(read_url(url)?);
    }
    let Some(login) = read.first().map(|(_, login)| login.clone()) else {
        return Err(RedisStartError::Url {
            url: String::new(),
            problem: "it is empty; use redis://HOST:PORT".to_owned(),
        });
    };
    let addresses: Vec<_> = read.into_iter().map(|(address, _)| address).collect();
    if options.mode == RedisMode::Single && addresses.len() > 1 {
        let all: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        return Err(RedisStartError::Url {
            url: all.join(","),
            problem: "mode `single` takes one address; use mode `cluster`, `sentinel` or `auto`"
                .to_owned(),
        });
    }
    Ok((addresses, login))
}

/// The first server that answers, of several addresses, again and again until the deadline.
async fn first_server(
    addresses: &[Address],
    login: &Login,
    time_max: Duration,
    deadline: Instant,
) -> Result<(Address, Dialed), RedisStartError> {
    let mut backoff = Backoff::default();
    loop {
        let mut last = None;
        for address in addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            match dial(address, login, left).await {
                Ok(dialed) => return Ok((address.clone(), dialed)),
                Err(error) => last = Some((address, error)),
            }
        }
        let pause = backoff.next();
        if let Some((address, error)) = last {
            let node = address.to_string().into();
            if let DialError::Refused(why) = error {
                return Err(RedisStartError::Refused { node, why });
            }
            if Instant::now() + pause >= deadline {
                return Err(RedisStartError::Unreachable {
                    node,
                    time_max_ms: whole_ms(time_max),
                    why: error.why().clone(),
                });
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn check_version(node: &Node) -> Result<(), RedisStartError> {
    let version = node.facts().version;
    let major = version.split('.').next().unwrap_or_default();
    if major.parse().unwrap_or(0) < MAJOR_VERSION_MIN {
        let node = node.name();
        return Err(RedisStartError::TooOld { node, version });
    }
    Ok(())
}

/// The slots, where it is to be a cluster and is one.
async fn cluster_of(
    mode: &RedisMode,
    address: &Address,
    servers: usize,
    mut dialed: Dialed,
    time_max: Duration,
    deadline: Instant,
) -> Result<Option<Vec<Range>>, RedisStartError> {
    let node = || Arc::<str>::from(address.to_string());
    let refused = |why: &str| RedisStartError::Refused {
        node: node(),
        why: why.into(),
    };
    match (mode, dialed.kind) {
        (_, ServerKind::Sentinel) => {
            return Err(refused(
                "it is a sentinel; use mode `sentinel` and say the name of the master",
            ));
        }
        (RedisMode::Single, ServerKind::Cluster) => {
            return Err(refused(
                "it is part of a cluster; use mode `cluster` or `auto`",
            ));
        }
        (RedisMode::Cluster, ServerKind::Standalone) => {
            return Err(refused(
                "it is not part of a cluster; use mode `single` or `auto`",
            ));
        }
        // Which of them answers first must not decide where the data is.
        (_, ServerKind::Standalone) if servers > 1 => {
            return Err(refused(&format!(
                "it is not part of a cluster, and `redis_url` has {servers} addresses; name one server, or the sentinels with `mode: sentinel`"
            )));
        }
        (_, ServerKind::Standalone) => return Ok(None),
        (_, ServerKind::Cluster) => {}
    }
    let mut backoff = Backoff::default();
    loop {
        if let Some(ranges) = ask_slots(&mut dialed, address).await {
            return Ok(Some(ranges));
        }
        let pause = backoff.next();
        if Instant::now() + pause >= deadline {
            return Err(RedisStartError::Unreachable {
                node: node(),
                time_max_ms: whole_ms(time_max),
                why: "its cluster has no slots yet; create it with redis-cli --cluster create"
                    .into(),
            });
        }
        tokio::time::sleep(pause).await;
    }
}

fn check(link: &Link, name: &Arc<str>, time_max: Duration) -> Result<(), RedisStartError> {
    let node = name.clone();
    match link {
        Link::Up(_) => Ok(()),
        Link::Down {
            why,
            is_refused: true,
            ..
        } => Err(RedisStartError::Refused {
            node,
            why: why.clone(),
        }),
        Link::Down { why, .. } => Err(RedisStartError::Unreachable {
            node,
            time_max_ms: whole_ms(time_max),
            why: why.clone(),
        }),
    }
}
