//! `iii-stream check`: reads a configuration and shows what it comes to.

use std::path::Path;

use iii_stream_core::Grants;

use super::Failure;
use crate::config::{AdminConfig, Config, StoreConfig};

pub(super) fn run(path: Option<&Path>) -> Result<(), Failure> {
    let config = match path {
        Some(path) => Config::read(path)?,
        None => Config::bare(),
    };
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
    let auth = &config.auth;
    println!(
        "auth         {}",
        match &auth.function_id {
            Some(function_id) => function_id,
            None if auth.default_grants == Grants::read_only() => "none: everybody may read",
            None => "none: everybody may do what default_grants say",
        }
    );
    match &config.store {
        StoreConfig::Memory => println!("store        memory only"),
        StoreConfig::File(file) => println!("store        {}", file.dir.display()),
        StoreConfig::Custom { name } => {
            println!("store        functions of workers: {name}::set and so on");
        }
        StoreConfig::NotBuiltIn { name } => {
            println!("store        {name} (not built in yet: a start is refused)");
        }
    }
    match config.store {
        StoreConfig::NotBuiltIn { .. } => {
            println!("valid, but this version cannot start with its store");
        }
        StoreConfig::Memory | StoreConfig::File(_) | StoreConfig::Custom { .. } => println!("ok"),
    }
    Ok(())
}
