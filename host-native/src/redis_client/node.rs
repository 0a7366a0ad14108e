//! One server, or one master wherever its sentinels say that it is: keeps its command connection alive, and knows its clock, its role and the identity of its data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use redis::Value;
use tokio::sync::{Notify, watch};

use super::address::{Address, Login};
use super::backoff::Backoff;
use super::connection::Connection;
use super::dial::{self, DialError, as_text};
use super::options::{CHECK_PERIOD, SETTINGS_PERIOD, SILENCE_MAX};
use super::report::{Down, NodeReport};
use super::safety;
use super::sentinel::Sentinels;
use super::server_clock::{ServerClock, whole_ms};
use crate::clock;
use crate::metrics::Metrics;

/// Whether a server is there.
#[derive(Clone)]
pub(super) enum Link {
    Up(Arc<Connection>),
    Down {
        since_ms: u64,
        why: Arc<str>,
        is_refused: bool,
    },
}

/// What a server says about itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) version: String,
    pub(super) is_master: bool,
    /// Of a replica, where its master is: `host:port`.
    pub(super) master: Arc<str>,
    pub(super) replication_id: Arc<str>,
    pub(super) replicas: u64,
    pub(super) unsafe_settings: Vec<String>,
}

/// One server.
pub(super) struct Node {
    address: RwLock<(Address, Arc<str>)>,
    sentinels: Option<Sentinels>,
    /// A replica is as good as none. In a cluster the slots tell who is a master.
    must_be_master: bool,
    login: Login,
    connect_time_max: Duration,
    /// Told of each loss.
    lost: Arc<Notify>,
    link: watch::Sender<Link>,
    facts: RwLock<Facts>,
    clock: ServerClock,
    check_now: Notify,
    stop: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl Node {
    /// A server, which is not connected to before [`Node::keep`] runs.
    pub(super) fn new(
        address: Address,
        sentinels: Option<Sentinels>,
        must_be_master: bool,
        login: Login,
        connect_time_max: Duration,
        lost: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let name = address.to_string().into();
        Arc::new(Self {
            address: RwLock::new((address, name)),
            sentinels,
            must_be_master,
            login,
            connect_time_max,
            lost,
            link: watch::Sender::new(Link::Down {
                since_ms: clock::unix_ms(),
                why: "not connected yet".into(),
                is_refused: false,
            }),
            facts: RwLock::default(),
            clock: ServerClock::default(),
            check_now: Notify::new(),
            stop: watch::Sender::new(false),
            metrics,
        })
    }

    /// Where it is; with sentinels, where the master was found last.
    pub(super) fn address(&self) -> Address {
        self.address.read().0.clone()
    }

    /// Its address as it is shown.
    pub(super) fn name(&self) -> Arc<str> {
        self.address.read().1.clone()
    }

    pub(super) fn link(&self) -> Link {
        self.link.borrow().clone()
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts.read().clone()
    }

    pub(super) fn replication_id(&self) -> Arc<str> {
        self.facts.read().replication_id.clone()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(super) fn earliest_ms(&self) -> u64 {
        self.clock.earliest_ms()
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// What can be said about it right now.
    pub(super) fn report(&self) -> NodeReport {
        let facts = self.facts.read().clone();
        let down = match self.link() {
            Link::Up(_) => None,
            Link::Down { since_ms, why, .. } => Some(Down {
                since_ms,
                why: why.to_string(),
            }),
        };
        NodeReport {
            address: self.name().to_string(),
            down,
            is_master: facts.is_master,
            replicas: facts.replicas,
            version: facts.version,
            unsafe_settings: facts.unsafe_settings,
        }
    }

    /// Asks it soon for its role and the identity of its data.
    pub(super) fn check_soon(&self) {
        self.check_now.notify_one();
    }

    /// Ends [`Node::keep`].
    pub(super) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Ends the connection for good.
    pub(super) fn close(&self, why: &str) {
        self.stop();
        if let Link::Up(connection) = self.link() {
            connection.close(why);
        }
        self.lost(why.into(), false);
    }

    /// The connection, if there is one by `deadline`; else why not.
    pub(super) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Arc<str>> {
        let (mut link, mut stop) = (self.link.subscribe(), self.stop.subscribe());
        let up = async {
            let up = link.wait_for(|link| matches!(link, Link::Up(_))).await;
            match up.as_deref() {
                Ok(Link::Up(connection)) => Some(connection.clone()),
                _ => None,
            }
        };
        let up = async {
            tokio::select! {
                // A connection that is there is found also when the deadline is now.
                biased;
                up = up => up,
                _ = stop.wait_for(|stop| *stop) => None,
            }
        };
        if let Ok(Some(connection)) = tokio::time::timeout_at(deadline.into(), up).await {
            return Ok(connection);
        }
        match self.link() {
            Link::Up(connection) => Ok(connection),
            Link::Down { why, .. } => Err(why),
        }
    }

    /// Waits until the server is connected, or refuses us.
    pub(super) async fn settled(&self, deadline: Instant) -> Link {
        let mut link = self.link.subscribe();
        let settled = link.wait_for(|link| {
            matches!(
                link,
                Link::Up(_)
                    | Link::Down {
                        is_refused: true,
                        ..
                    }
            )
        });
        let waited = tokio::time::timeout_at(deadline.into(), settled).await;
        if let Ok(Ok(link)) = waited {
            return link.clone();
        }
        self.link()
    }

    /// Connects, asks for signs of life, connects again; until [`Node::stop`].
    pub(super) async fn keep(self: Arc<Self>) {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = self.connect_again_and_again() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.lost("the client is closed".into(), false);
    }

    async fn connect_again_and_again(&self) {
        let mut backoff = Backoff::default();
        loop {
            match self.connect().await {
                Ok(connection) => {
                    backoff = Backoff::default();
                    self.link.send_replace(Link::Up(connection.clone()));
                    tracing::info!(redis = %self.name(), version = self.facts().version, "connected to Redis");
                    self.watch(&connection).await;
                    let why = connection.closed();
                    let why = why.unwrap_or_else(|| "it is not the master any more".into());
                    tracing::warn!(redis = %self.name(), why = %why, "connection to Redis lost");
                    self.metrics.redis_reconnects.inc();
                    self.lost(why, false);
                }
                Err(error) => {
                    let is_refused = matches!(error, DialError::Refused(_));
                    self.lost(error.why().clone(), is_refused);
                }
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn connect(&self) -> Result<Arc<Connection>, DialError> {
        if let Some(sentinels) = &self.sentinels {
            let master = sentinels.find_master().await?;
            let name = master.to_string().into();
            *self.address.write() = (master, name);
        }
        let dialed = dial::dial(&self.address(), &self.login, self.connect_time_max).await?;
        self.facts.write().version.clone_from(&dialed.version);
        let connection = Arc::new(Connection::new(dialed));
        // Nobody may write before the identity of the data is known.
        self.check(&connection, self.connect_time_max).await?;
        if self.is_demoted() {
            let why = match self.sentinels {
                Some(_) => "the sentinels call it the master, but it is a replica".to_owned(),
                None => format!(
                    "it is a replica of {} and takes no writes; name the master in `redis_url`, or the sentinels with `mode: sentinel`",
                    self.facts.read().master
                ),
            };
            return Err(DialError::Unreachable(why.into()));
        }
        self.check_safety(&connection, self.connect_time_max).await;
        Ok(connection)
    }

    /// Asks for signs of life until the connection is closed.
    async fn watch(&self, connection: &Connection) {
        let mut settings_read = Instant::now();
        loop {
            tokio::select! {
                () = connection.until_closed() => return,
                () = tokio::time::sleep(CHECK_PERIOD) => {}
                () = self.check_now.notified() => {}
            }
            let is_due = settings_read.elapsed() >= SETTINGS_PERIOD;
            let settings = async {
                if is_due {
                    self.check_safety(connection, SILENCE_MAX).await;
                }
            };
            let (checked, ()) = tokio::join!(self.check(connection, SILENCE_MAX), settings);
            if is_due {
                settings_read = Instant::now();
            }
            if checked.is_err() && connection.silence_ms() >= whole_ms(SILENCE_MAX) {
                let silence = SILENCE_MAX.as_secs();
                connection.close(&format!("no sign of life for {silence} s"));
            }
            if self.is_demoted() {
                // Calls that are under way get their answers: it is still connected.
                return;
            }
        }
    }

    /// Reads the settings with which it may lose data, and tells of what is new.
    async fn check_safety(&self, connection: &Connection, time_max: Duration) {
        let question = safety::question().get_packed_command().into();
        let deadline = Instant::now() + time_max;
        let Ok(answers) = connection.send(question, 1, deadline).await else {
            return;
        };
        let replicas = self.facts.read().replicas;
        let Some(answer) = answers.first() else {
            return;
        };
        let found = safety::judge(answer, replicas);
        let before = std::mem::replace(&mut self.facts.write().unsafe_settings, found.clone());
        for problem in found.iter().filter(|problem| !before.contains(problem)) {
            tracing::warn!("Redis at {}: {problem}", self.name());
        }
    }

    /// Whether it is a replica where only a master will do: the sentinels, or the name server, may know another one.
    fn is_demoted(&self) -> bool {
        self.must_be_master && !self.facts.read().is_master
    }

    /// Reads clock, role and identity of the data.
    async fn check(&self, connection: &Connection, time_max: Duration) -> Result<(), DialError> {
        let mut questions = redis::Pipeline::new();
        questions.cmd("TIME").cmd("INFO").arg("replication");
        let asked = Instant::now();
        let answers = connection
            .send(questions.get_packed_pipeline().into(), 2, asked + time_max)
            .await
            .map_err(|_| DialError::Unreachable("no answer to the first question".into()))?;
        let [time, replication] = &answers[..] else {
            return Err(DialError::Refused("it answers too little".into()));
        };
        if let Value::ServerError(error) = replication {
            let why = format!("INFO must be allowed to us: {error}");
            return Err(DialError::Refused(why.into()));
        }
        self.clock.note(time, asked);
        let text = as_text(replication).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        };
        let mut facts = self.facts.write();
        facts.is_master = field("role") == Some("master");
        let part_of_master = |name| field(name).unwrap_or("?");
        facts.master = match facts.is_master {
            true => "".into(),
            false => {
                let host = part_of_master("master_host");
                format!("{host}:{}", part_of_master("master_port")).into()
            }
        };
        facts.replicas = field("connected_slaves")
            .and_then(|count| count.parse().ok())
            .unwrap_or(0);
        let replication_id = field("master_replid").unwrap_or_default();
        if *facts.replication_id != *replication_id {
            facts.replication_id = replication_id.into();
        }
        Ok(())
    }

    /// Notes that there is no connection; the time of the first loss stays.
    fn lost(&self, why: Arc<str>, is_refused: bool) {
        self.link.send_modify(|link| {
            let since_ms = match link {
                Link::Up(_) => clock::unix_ms(),
                Link::Down { since_ms, .. } => *since_ms,
            };
            *link = Link::Down {
                since_ms,
                why,
                is_refused,
            };
        });
        self.lost.notify_one();
    }
}
