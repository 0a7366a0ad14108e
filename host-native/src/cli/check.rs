//! `iii-stream check`: reads a configuration and shows what it comes to.

use iii_stream_core::Grants;

use crate::config::{AdminConfig, Config, StoreConfig};

pub(super) fn run(config: &Config) {
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    println!(
        "workers      {}:{}",
        config.workers.host, config.workers.port
    );
    println!(
        "subscribers  {}:{}",
        config.subscribers.host, config.subscribers.port
    );
    println!(
        "admin        {}:{}{}",
        config.admin.host,
        config.admin.port.unwrap_or(AdminConfig::PORT),
        // Somebody else on this machine may have the default port.
        config.admin.port.map_or(", if it is free", |_| "")
    );
    let auth = match &config.auth.function_id {
        Some(function_id) => function_id.as_str(),
        None if config.auth.default_grants == Grants::read_only() => "none: everybody may read",
        None if config.auth.default_grants == Grants::everything() => {
            "none: everybody may call everything"
        }
        None => "none: everybody may do what `default_grants` says",
    };
    println!("auth         {auth}");
    match &config.store {
        StoreConfig::Memory => println!("store        memory only"),
        StoreConfig::File(file) => println!("store        {}", file.dir.display()),
        StoreConfig::Redis(redis) => println!("store        {}", redis.nodes),
        StoreConfig::Custom { name } => {
            println!("store        functions of workers: {name}::set and so on");
        }
        StoreConfig::NotBuiltIn { name } => {
            println!("store        {name} (not built in: a start is refused)");
        }
    }
    match &config.store {
        StoreConfig::NotBuiltIn { .. } => {
            println!("valid, but this version cannot start with its store");
        }
        StoreConfig::Memory
        | StoreConfig::File(_)
        | StoreConfig::Redis(_)
        | StoreConfig::Custom { .. } => println!("ok"),
    }
}
