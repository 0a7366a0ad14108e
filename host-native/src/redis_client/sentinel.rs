//! Asks sentinels which server is the master now.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::address::{Address, Login};
use super::dial::{DialError, ServerKind, dial};

/// Time for one sentinel: of several, some may be gone.
const SENTINEL_TIME_MAX: Duration = Duration::from_secs(1);

/// The sentinels of one master.
pub(super) struct Sentinels {
    /// The one that answered last stands first.
    addresses: Mutex<Vec<Address>>,
    login: Login,
    /// What the sentinels call the master.
    master: String,
}

impl Sentinels {
    pub(super) fn new(addresses: Vec<Address>, login: &Login, master: &str) -> Self {
        Self {
            addresses: Mutex::new(addresses),
            // Sentinels have no databases.
            login: Login {
                database: 0,
                ..login.clone()
            },
            master: master.to_owned(),
        }
    }

    /// Where the master is, by the first sentinel that knows.
    pub(super) async fn find_master(&self) -> Result<Address, DialError> {
        let addresses = self.addresses.lock().clone();
        let mut problems = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            match self.ask(address).await {
                Ok(master) => {
                    let mut addresses = self.addresses.lock();
                    if addresses.get(index) == Some(address) {
                        addresses[..=index].rotate_right(1);
                    }
                    return Ok(master);
                }
                Err(why) => problems.push(format!("sentinel {address}: {why}")),
            }
        }
        Err(DialError::Unreachable(problems.join("; ").into()))
    }

    async fn ask(&self, address: &Address) -> Result<Address, Arc<str>> {
        let mut dialed = match dial(address, &self.login, SENTINEL_TIME_MAX).await {
            // Sentinels often have no users where their masters have some.
            Err(DialError::Refused(_)) if self.login != Login::default() => {
                dial(address, &Login::default(), SENTINEL_TIME_MAX).await
            }
            dialed => dialed,
        }
        .map_err(|error| error.why().clone())?;
        if dialed.kind != ServerKind::Sentinel {
            return Err(
                "it is no sentinel; name the sentinels in `redis_url`, or leave out the mode"
                    .into(),
            );
        }
        let mut question = redis::cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.master);
        let asked = tokio::time::timeout(SENTINEL_TIME_MAX, dialed.ask(&question)).await;
        let answer = asked
            .map_err(|_| Arc::from("no answer"))?
            .map_err(|error| error.why().clone())?;
        let answer = answer
            .extract_error()
            .map_err(|error| Arc::from(error.to_string()))?;
        let master: Option<(String, u16)> =
            redis::from_redis_value(answer).map_err(|error| Arc::from(error.to_string()))?;
        let (host, port) = master.ok_or_else(|| {
            Arc::from(format!(
                "it knows no master called `{}` (sentinel_master)",
                self.master
            ))
        })?;
        Ok(Address::new(&host, port))
    }
}
