//! Reads what an iii engine keeps in Redis. Only reads, in pieces that hold Redis up no longer than other commands do.
//!
//! One hash per group, `stream:<stream>:<group>`, and one per scope of the state, `state:<scope>`: field by item or key, with
//! the value as JSON text. The engine keeps no index, so all keys of the database are looked through with `SCAN`. Hashes have
//! no order, so items come in any.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use iii_stream_core::Json;
use redis::{Client, Cmd, Connection, RedisError, RedisResult};

use super::entry::{Entry, ITEM_BYTES_MAX, ItemSource, Origin, Place, SourceError};
use super::naming::{Naming, Split, named};

/// What addresses of a Redis begin with.
const SCHEMES: [&str; 3] = ["redis://", "rediss://", "valkey://"];

const STREAM_PREFIX: &str = "stream:";
const STATE_PREFIX: &str = "state:";

/// How many keys Redis looks at for one answer.
const SCAN_KEYS: usize = 1_000;

/// How many fields of a hash are asked for first.
const PIECE_FIELDS_START: usize = 64;

/// Most fields of a hash that are asked for at a time.
const PIECE_FIELDS_MAX: usize = 1_000;

/// How many bytes a piece of a hash is meant to have; one larger item makes it larger.
const PIECE_BYTES: usize = 4 << 20;

/// How long connecting may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Why a Redis cannot be taken for one of an engine.
#[derive(Debug, thiserror::Error)]
pub enum RedisEngineError {
    /// The address is none.
    #[error("`{address}` is no address of a Redis: write redis://HOST:PORT/DATABASE ({error})")]
    Address {
        /// What stands before the host, where a password may be, and nothing more.
        address: String,
        /// What is wrong with it.
        error: RedisError,
    },
    /// It cannot be reached, or does not answer.
    #[error("cannot read the Redis at {name}: {error}")]
    Unreachable {
        /// Where it is, without user and password.
        name: Arc<str>,
        /// What happened.
        error: RedisError,
    },
    /// There is nothing of an engine in it.
    #[error(
        "the Redis at {name} holds nothing of an iii engine: no hash `stream:<stream>:<group>` and none `state:<scope>`. The database stands at the end of the address, as in redis://localhost:6379/1"
    )]
    Nothing {
        /// Where it is, without user and password.
        name: Arc<str>,
    },
}

/// The hashes of an engine in a Redis, before any is read.
#[derive(Debug)]
pub struct RedisEngine {
    client: Client,
    name: Arc<str>,
    hashes: Vec<Hash>,
    /// What people should know before, in lines.
    pub notes: Vec<String>,
    /// Keys that can be split into stream and group in more than one way, with what they were taken for.
    pub ambiguous: Vec<String>,
}

#[derive(Clone, Debug)]
struct Hash {
    key: Vec<u8>,
    /// The key, for people.
    name: Arc<str>,
    /// Whose items it holds, or why nobody knows.
    owner: Result<Owner, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    Group { stream: Arc<str>, group: Arc<str> },
    Scope(Arc<str>),
}

/// Whether something is the address of a Redis and not a path.
pub fn is_address(text: &str) -> bool {
    SCHEMES.iter().any(|scheme| text.starts_with(scheme))
}

impl RedisEngine {
    /// Looks for an engine's keys.
    ///
    /// Errors: [`RedisEngineError`].
    pub fn open(address: &str, naming: &Naming) -> Result<Self, RedisEngineError> {
        let client = Client::open(address).map_err(|error| RedisEngineError::Address {
            address: without_password(address),
            error,
        })?;
        let about = client.get_connection_info();
        let (at, database) = (about.addr(), about.redis_settings().db());
        let name: Arc<str> = format!("redis://{at}/{database}").into();
        let found = connect(&client).and_then(|mut redis| find_hashes(&mut redis));
        let Found { mut keys, others } = found.map_err(|error| RedisEngineError::Unreachable {
            name: name.clone(),
            error,
        })?;
        if keys.is_empty() {
            return Err(RedisEngineError::Nothing { name });
        }
        keys.sort_unstable();
        // A key may be told twice while others come and go.
        keys.dedup();
        let mut engine = Self {
            client,
            name,
            hashes: Vec::with_capacity(keys.len()),
            notes: Vec::new(),
            ambiguous: Vec::new(),
        };
        keys.into_iter().for_each(|key| engine.add(key, naming));
        engine.tell_before(others);
        Ok(engine)
    }

    fn add(&mut self, key: Vec<u8>, naming: &Naming) {
        let name = String::from_utf8_lossy(&key).into_owned();
        let owner = owner_of(&key, naming).map(|(owner, ambiguity)| {
            self.ambiguous
                .extend(ambiguity.map(|taken_for| format!("{name}: {taken_for}")));
            owner
        });
        self.hashes.push(Hash {
            key,
            name: name.into(),
            owner,
        });
    }

    fn tell_before(&mut self, others: usize) {
        if 0 < others {
            self.notes.push(format!(
                "{others} of the keys that begin with `stream:` or `state:` are not of an engine, because they are no hashes or have no group; they are left out"
            ));
        }
        let ambiguous = self.ambiguous.len();
        if 0 < ambiguous {
            self.notes.push(format!(
                "the engine joins the names of stream and group with a colon, and {ambiguous} of its keys can be split in more than one way: the first colon is taken, and all of them are told at the end. If a stream's name has a colon, give it with --stream-name"
            ));
        }
    }

    /// Reads the hashes one after the other, by key.
    pub fn items(&self) -> RedisItems {
        RedisItems {
            client: self.client.clone(),
            name: self.name.clone(),
            redis: None,
            hashes: self.hashes.iter().cloned().collect(),
            open: None,
            bytes_read: 0,
        }
    }
}

fn connect(client: &Client) -> RedisResult<Connection> {
    let redis = client.get_connection_with_timeout(CONNECT_TIME_MAX)?;
    redis.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    redis.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    Ok(redis)
}

struct Found {
    keys: Vec<Vec<u8>>,
    /// How many other keys look like an engine's.
    others: usize,
}

fn find_hashes(redis: &mut Connection) -> RedisResult<Found> {
    let mut found = Found {
        keys: Vec::new(),
        others: 0,
    };
    for prefix in [STREAM_PREFIX, STATE_PREFIX] {
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*"));
            scan.arg("COUNT").arg(SCAN_KEYS);
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(redis)?;
            found.sort_out(redis, keys)?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
    }
    Ok(found)
}

impl Found {
    fn sort_out(&mut self, redis: &mut Connection, keys: Vec<Vec<u8>>) -> RedisResult<()> {
        let mut types = redis::pipe();
        for key in &keys {
            types.cmd("TYPE").arg(key);
        }
        let types: Vec<String> = if keys.is_empty() {
            Vec::new()
        } else {
            types.query(redis)?
        };
        for (key, kind) in keys.into_iter().zip(types) {
            let has_group = |joined: &[u8]| joined.contains(&b':');
            let is_engines = match key.strip_prefix(STREAM_PREFIX.as_bytes()) {
                Some(joined) => has_group(joined),
                None => true,
            };
            match (&*kind, is_engines) {
                // It went while it was looked at.
                ("none", _) => {}
                ("hash", true) => self.keys.push(key),
                _ => self.others += 1,
            }
        }
        Ok(())
    }
}

/// Whose hash it is, and how its key was split if that can be done in more than one way.
fn owner_of(key: &[u8], naming: &Naming) -> Result<(Owner, Option<String>), String> {
    let key = std::str::from_utf8(key).map_err(|_| "the key is not UTF-8".to_owned())?;
    if let Some(scope) = key.strip_prefix(STATE_PREFIX) {
        named("the scope", scope)?;
        return Ok((Owner::Scope(scope.into()), None));
    }
    let joined = key.strip_prefix(STREAM_PREFIX).unwrap_or(key);
    let split = naming.split(joined).ok_or("the key has no group")?;
    let Split {
        stream,
        group,
        is_ambiguous,
    } = split?;
    let ambiguity = is_ambiguous.then(|| format!("taken as stream `{stream}`, group `{group}`"));
    Ok((Owner::Group { stream, group }, ambiguity))
}

/// An address that may be shown.
fn without_password(address: &str) -> String {
    match (address.find("://"), address.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}://…{}", &address[..scheme], &address[at..])
        }
        _ => address.to_owned(),
    }
}

/// The items of a [`RedisEngine`]. What cannot be read is told, and the next is read.
pub struct RedisItems {
    client: Client,
    name: Arc<str>,
    redis: Option<Connection>,
    hashes: VecDeque<Hash>,
    open: Option<OpenHash>,
    bytes_read: u64,
}

/// A hash that is being read.
struct OpenHash {
    hash: Hash,
    owner: Owner,
    /// Where its next piece begins; `None` after the last.
    cursor: Option<u64>,
    piece: Piece,
    /// How many fields the next piece is to have.
    fields: usize,
}

impl ItemSource for RedisItems {
    fn next_item(&mut self) -> Result<Option<(Entry, Origin)>, SourceError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some(hash) = self.hashes.pop_front() else {
                    return Ok(None);
                };
                self.open = Some(OpenHash::new(hash)?);
                continue;
            };
            if let Some((field, text)) = open.piece.pop_front() {
                self.bytes_read += (field.len() + text.len()) as u64;
                return open.entry(&field, &text).map(Some);
            }
            match open.cursor {
                None => self.open = None,
                Some(cursor) => {
                    let mut ask = redis::cmd("HSCAN");
                    ask.arg(&open.hash.key).arg(cursor);
                    ask.arg("COUNT").arg(open.fields);
                    let answer = ask_anew(&self.client, &mut self.redis, &ask);
                    let (next, piece) = answer.map_err(|error| {
                        SourceError::Server(format!(
                            "cannot read the Redis at {}: {error}",
                            self.name
                        ))
                    })?;
                    open.take(next, piece);
                }
            }
        }
    }

    fn bytes_read(&self) -> u64 {
        self.bytes_read
    }
}

/// A field's name and text.
type Field = (Vec<u8>, Vec<u8>);

type Piece = VecDeque<Field>;

/// Asks, over a new connection if there is none.
fn ask_anew(
    client: &Client,
    redis: &mut Option<Connection>,
    ask: &Cmd,
) -> RedisResult<(u64, Piece)> {
    let redis = match redis {
        Some(redis) => redis,
        None => redis.insert(connect(client)?),
    };
    let (next, piece): (u64, Vec<Field>) = ask.query(redis)?;
    Ok((next, piece.into()))
}

impl OpenHash {
    fn new(hash: Hash) -> Result<Self, SourceError> {
        match hash.owner.clone() {
            Ok(owner) => Ok(Self {
                hash,
                owner,
                cursor: Some(0),
                piece: VecDeque::new(),
                fields: PIECE_FIELDS_START,
            }),
            Err(reason) => Err(SourceError::Damaged {
                origin: Origin::Named(hash.name),
                reason,
            }),
        }
    }

    /// Takes a piece, and makes the next one as large as pieces are meant to be.
    fn take(&mut self, next: u64, piece: Piece) {
        let bytes: usize = piece
            .iter()
            .map(|(field, text)| field.len() + text.len())
            .sum();
        if let Some(bytes_each) = bytes.checked_div(piece.len()) {
            self.fields = (PIECE_BYTES / bytes_each.max(1)).clamp(1, PIECE_FIELDS_MAX);
        }
        self.cursor = (next != 0).then_some(next);
        self.piece = piece;
    }

    fn entry(&self, field: &[u8], text: &[u8]) -> Result<(Entry, Origin), SourceError> {
        let origin = Origin::Named(self.hash.name.clone());
        let damaged = |reason: String| {
            let field = String::from_utf8_lossy(field);
            SourceError::Damaged {
                origin: origin.clone(),
                reason: format!("field `{field}`: {reason}"),
            }
        };
        let name =
            std::str::from_utf8(field).map_err(|_| damaged("its name is not UTF-8".into()))?;
        let value = value_of(text).map_err(damaged)?;
        let what = match &self.owner {
            Owner::Group { .. } => "an item's id",
            Owner::Scope(_) => "a key of the state",
        };
        named(what, name).map_err(damaged)?;
        let name = name.to_owned();
        let place = match &self.owner {
            Owner::Group { stream, group } => Place::Stream {
                stream: stream.clone(),
                group: group.clone(),
                item: name,
            },
            Owner::Scope(scope) => Place::State {
                scope: scope.clone(),
                key: name,
            },
        };
        let entry = Entry {
            place,
            value,
            ttl_ms: None,
            expires_ms: None,
        };
        Ok((entry, origin))
    }
}

fn value_of(text: &[u8]) -> Result<Json, String> {
    if ITEM_BYTES_MAX < text.len() {
        let bytes = text.len();
        return Err(format!(
            "its value has {bytes} bytes, allowed are {ITEM_BYTES_MAX}"
        ));
    }
    let text = std::str::from_utf8(text).map_err(|_| "its value is not UTF-8".to_owned())?;
    Json::from_text(text).map_err(|error| format!("its value cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
