//! What our user must be allowed at a server: asked for at the start, because a refusal in the middle of a script names no command.

use uuid::Uuid;

use super::RedisClient;
use super::error::{CallError, RedisStartError};
use super::script::Script;
use super::slot::Slot;

static TRY: Script = Script::new(include_str!("permissions.lua"));

/// For what keys are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// For groups, and for what servers tell each other.
    Groups,
    /// For what servers tell each other.
    Servers,
    /// For items in hashes.
    Items,
}

impl RedisClient {
    /// Whether our user may run what is needed on keys and channels with a prefix. A server that cannot be asked now is not
    /// judged.
    ///
    /// Errors: [`RedisStartError::Forbidden`].
    pub async fn check_permissions(
        &self,
        prefix: &str,
        key_use: KeyUse,
    ) -> Result<(), RedisStartError> {
        // Any plain name may be somebody's: beside an engine, `state:` is followed by a scope that workers chose.
        let key = format!("{prefix}permissions:{}", Uuid::new_v4().simple());
        let slot = Slot::of(key.as_bytes());
        let publish = match key_use {
            KeyUse::Items => "",
            _ if self.is_cluster() => "SPUBLISH",
            _ => "PUBLISH",
        };
        let all = if key_use == KeyUse::Groups { "1" } else { "0" };
        let args = [key.as_bytes(), publish.as_bytes(), all.as_bytes()];
        let what = match self.script(slot, &TRY, &[key.as_bytes()], &args).await {
            Ok(refused) => {
                let refused: Vec<String> = redis::from_redis_value(refused).unwrap_or_default();
                let mut commands = refused.chunks_exact(2);
                let Some([_, said]) = commands.clone().next() else {
                    return Ok(());
                };
                let names: Vec<_> = commands.by_ref().map(|one| one[0].as_str()).collect();
                format!("{} ({})", names.join(", "), said.trim_end())
            }
            Err(CallError::Refused(error)) => {
                let details = error.detail().unwrap_or_default();
                format!("scripts ({} {details})", error.code().unwrap_or_default())
            }
            // Whoever needs it next waits for it, and tells.
            Err(CallError::Unavailable { .. } | CallError::Unknown { .. }) => return Ok(()),
        };
        Err(RedisStartError::Forbidden {
            node: self.topology.name_of(slot),
            prefix: prefix.to_owned(),
            what,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::metrics::Metrics;
    use crate::redis_client::test_server::{TestServer, is_installed};

    /// Calls `found` with each command that scripts below `folder` run.
    fn commands_of_scripts(folder: &Path, found: &mut impl FnMut(&str)) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                commands_of_scripts(&path, found);
            } else if path.extension().is_some_and(|end| end == "lua") {
                let text = std::fs::read_to_string(&path).expect("a script");
                for call in ["redis.call('", "redis.pcall('"] {
                    for after in text.split(call).skip(1) {
                        found(after.split('\'').next().expect("a name"));
                    }
                }
            }
        }
    }

    #[test]
    fn each_command_of_each_script_is_tried() {
        let mut commands = BTreeSet::new();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        commands_of_scripts(&sources, &mut |name| {
            commands.insert(name.to_owned());
        });
        assert!(commands.len() > 15, "{commands:?}");
        // How to publish is an argument.
        commands.remove("PUBLISH");
        for name in commands {
            let is_tried = TRY.text().contains(&format!("{{'{name}'"));
            assert!(is_tried, "{name} is used and not tried");
        }
    }

    #[tokio::test]
    async fn what_is_forbidden_is_named_with_what_to_do() {
        if !is_installed() {
            return;
        }
        let server = TestServer::start();
        let said = async |rules: &str, key_use| {
            let mut rule = vec!["ACL", "SETUSER", "ann", "reset", "on", ">pw"];
            rule.extend(rules.split(' '));
            assert_eq!(server.ask(&rule), "+OK\r\n");
            let mut options = server.options();
            options.nodes = vec![server.url().replace("//", "//ann:pw@")];
            let connected = RedisClient::connect(options, Metrics::default().into()).await;
            let client = connected.expect("the user may connect");
            let checked = client.check_permissions("p:", key_use).await;
            checked.map_err(|error| error.to_string())
        };
        assert_eq!(said("~p:* &p:* +@all", KeyUse::Groups).await, Ok(()));
        let documented = "~p:* &p:* +@all -@admin -@dangerous +info";
        assert_eq!(said(documented, KeyUse::Groups).await, Ok(()));
        let plain = "~p:* &p:* +@all -@stream -@sortedset";
        assert_eq!(said(plain, KeyUse::Servers).await, Ok(()));
        let mute = "~p:* +@all -publish";
        assert_eq!(said(mute, KeyUse::Items).await, Ok(()));
        for (rules, what) in [
            ("~p:* &p:* +@all -xadd -zrange", "XADD, ZRANGE ("),
            ("~p:* &p:* +@all -evalsha -script", "scripts (NOPERM"),
            ("~q:* &p:* +@all", "scripts (NOPERM"),
            ("~p:* resetchannels +@all", "PUBLISH ("),
        ] {
            let error = said(rules, KeyUse::Groups).await.expect_err(rules);
            assert!(
                error.contains(what) && error.contains("~p:* &p:*"),
                "{rules}: {error}"
            );
        }
        assert_eq!(server.ask(&["DBSIZE"]), ":0\r\n");
    }

    #[tokio::test]
    async fn trying_touches_nobodys_key() {
        if !is_installed() {
            return;
        }
        let server = TestServer::start();
        // A scope of an engine's state.
        server.ask(&["HSET", "state:permissions", "a", "kept", "b", "kept"]);
        let client = RedisClient::connect(server.options(), Metrics::default().into()).await;
        let client = client.expect("a client");
        let checked = client.check_permissions("state:", KeyUse::Items).await;
        assert_eq!(checked.map_err(|error| error.to_string()), Ok(()));
        assert_eq!(server.ask(&["HLEN", "state:permissions"]), ":2\r\n");
        assert_eq!(server.ask(&["DBSIZE"]), ":1\r\n");
    }
}
