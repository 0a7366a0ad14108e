//! What a start that is open to its own machine means for what is not configured. Knows no files.

use iii_stream_core::Grants;

use super::file::StreamEntry;
use super::is_loopback;

/// Hosts that pages of this machine have. What a browser says of a page elsewhere matches none of them: after the colon of an
/// origin come only digits.
const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

impl StreamEntry {
    /// Opens what is not configured, for clients of this machine alone.
    ///
    /// Errors: what is configured that does not go with it.
    pub(super) fn open(&mut self) -> Result<(), String> {
        if let Some(function_id) = &self.auth_function {
            return Err(format!("`auth_function: {function_id}`"));
        }
        let host = self.host.get_or_insert_with(|| "127.0.0.1".to_owned());
        if !is_loopback(host) {
            return Err(format!("`host: {host}`"));
        }
        self.default_grants.get_or_insert_with(Grants::everything);
        // Pages of other sites are shown on this machine too.
        self.allowed_origins.get_or_insert_with(|| {
            let origins = HOSTS.iter().flat_map(|host| {
                ["http", "https"]
                    .map(|scheme| [format!("{scheme}://{host}"), format!("{scheme}://{host}:*")])
            });
            origins.flatten().collect()
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use iii_stream_core::{Grants, Pattern};

    use crate::config::{Config, ConfigError};

    fn open(keys: &str) -> Result<Config, ConfigError> {
        let text = format!("- name: iii-stream\n  config: {{ {keys} }}\n");
        Config::from_entries_open(&text, Path::new("stream.yaml"), |_| None)
    }

    #[test]
    fn what_is_not_configured_is_open_to_this_machine() {
        for config in [open(""), Config::read_open(None)] {
            let config = config.expect("a configuration");
            assert!(
                config.is_open && config.warnings.is_empty(),
                "{:?}",
                config.warnings
            );
            assert_eq!(config.subscribers.host, "127.0.0.1");
            assert_eq!(config.auth.default_grants, Grants::everything());
            let patterns: Vec<_> = config
                .auth
                .allowed_origins
                .iter()
                .map(|origin| Pattern::new(origin))
                .collect();
            let allows = |origin: &str| patterns.iter().any(|pattern| pattern.matches(origin));
            for origin in [
                "http://localhost",
                "http://localhost:5173",
                "https://127.0.0.1:8443",
                "http://[::1]:3000",
            ] {
                assert!(allows(origin), "{origin}");
            }
            for origin in [
                "null",
                "http://localhost.evil.example",
                "https://evil.example",
                "http://evil.example:8080",
                "http://127.0.0.10",
            ] {
                assert!(!allows(origin), "{origin}");
            }
        }
    }

    #[test]
    fn what_is_configured_counts() {
        let config =
            open("host: \"::1\", default_grants: [], allowed_origins: [\"https://app.example\"]");
        let config = config.expect("a configuration");
        assert_eq!(config.subscribers.host, "::1");
        assert_eq!(config.auth.default_grants, Grants::default());
        assert_eq!(config.auth.allowed_origins, ["https://app.example"]);
    }

    #[test]
    fn what_others_can_reach_or_a_function_decides_is_not_opened() {
        for (keys, what) in [
            ("auth_function: my::auth", "`auth_function: my::auth`"),
            ("host: 0.0.0.0", "`host: 0.0.0.0`"),
            ("host: example.org", "`host: example.org`"),
        ] {
            let error = open(keys).expect_err(keys).to_string();
            assert!(
                error.contains(what) && error.starts_with("--open"),
                "{error}"
            );
        }
    }
}
