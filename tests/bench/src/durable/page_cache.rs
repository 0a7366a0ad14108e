//! Makes the system forget what it has read of files, so that a start finds a cold disk.

use std::io;
use std::path::Path;
use std::process::Command;

/// Forgets all files' contents but that of `binary`; false where that is not permitted.
pub(crate) fn forget(binary: &Path) -> io::Result<bool> {
    const EVERYTHING: &str = "3";
    // What is not written yet cannot be forgotten.
    Command::new("sync").status()?;
    let is_forgotten = std::fs::write("/proc/sys/vm/drop_caches", EVERYTHING).is_ok();
    // Loading the program is no part of what is measured.
    Command::new(binary).arg("--version").output()?;
    std::fs::read(binary)?;
    Ok(is_forgotten)
}
