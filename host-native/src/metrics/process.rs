//! What the system says of this process, under the names that Prometheus clients give it. Linux only; elsewhere there is
//! nothing to read, and nothing is shown.

use std::fs;

use super::page::{Page, Total};

metrics! {
    /// What the system says of this process.
    #[derive(Debug, Default)]
    ProcessReadings {
        resident_memory_bytes: Option<u64> = "process_resident_memory_bytes", "resident memory";
        cpu_seconds: Option<Total> = "process_cpu_seconds_total", "CPU time, in user and system mode together";
        open_fds: Option<u64> = "process_open_fds", "open file descriptors";
        max_fds: Option<u64> = "process_max_fds", "most file descriptors that may be open";
    }
}

/// The kernel tells CPU time in hundredths of a second, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

impl ProcessReadings {
    /// Reads `/proc/self`.
    pub fn read() -> Self {
        let text = |name| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self {
            resident_memory_bytes: text("status").as_deref().and_then(resident_bytes),
            cpu_seconds: text("stat").as_deref().and_then(cpu_seconds).map(Total),
            open_fds: open_fds(),
            max_fds: text("limits").as_deref().and_then(max_fds),
        }
    }
}

/// Shape: `VmRSS:     1234 kB` on a line of its own.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// Shape: `PID (name) state …`; the times are the 14th and 15th field, and the name may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

fn open_fds() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Newer kernels tell the number as the size of the folder; older ones say 0.
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count() as u64),
        count => Some(count),
    }
}

/// Shape: `Max open files  SOFT  HARD  files` on a line of its own.
fn max_fds(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(
            resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    1234 kB\n"),
            Some(1_263_616)
        );
        let stat = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1_024));
        for nonsense in ["", "VmRSS: x kB", "Max open files unlimited", "1 (a) S 1"] {
            assert_eq!(resident_bytes(nonsense), None);
            assert_eq!(cpu_seconds(nonsense), None);
            assert_eq!(max_fds(nonsense), None);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_it() {
        let readings = ProcessReadings::read();
        assert!(
            readings
                .resident_memory_bytes
                .is_some_and(|bytes| 0 < bytes)
        );
        assert!(readings.cpu_seconds.is_some());
        assert!(readings.open_fds.is_some_and(|count| 2 < count));
        assert!(readings.max_fds.is_some());
    }
}
