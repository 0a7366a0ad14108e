//! What a process has cost so far, from /proc.

use std::io;
use std::time::Duration;

/// Linux reports process times to user space in ticks of 10 ms on every architecture we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// utime and stime, counted from the field after the command name (proc_pid_stat(5), fields 14 and 15).
const OWN: [usize; 2] = [11, 12];
/// The same and cutime and cstime, those of children that have ended (fields 16 and 17).
const OWN_AND_CHILDREN: [usize; 4] = [11, 12, 13, 14];
/// user, nice, system, irq, softirq and steal in the first line of /proc/stat; processes are charged for the
/// interrupts that come while they run.
const MACHINE: [usize; 6] = [1, 2, 3, 6, 7, 8];

/// User and system time of all threads of the process, and of the processes that it has started and that run.
pub fn cpu(pid: u32) -> io::Result<Duration> {
    let mut sum = process(&pid.to_string(), &OWN)?;
    for child in children(pid) {
        // It may have ended meanwhile.
        sum += process(&child.to_string(), &OWN).unwrap_or_default();
    }
    Ok(sum)
}

/// User and system time of all threads of this process alone.
pub fn own_cpu() -> io::Result<Duration> {
    process("self", &OWN)
}

/// Processes that it has started and that run, as nginx has workers.
fn children(pid: u32) -> Vec<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// The same of this process and all its children that have ended.
pub fn cpu_of_bench_and_children() -> io::Result<Duration> {
    process("self", &OWN_AND_CHILDREN)
}

/// What all processes have taken, and what the host of a virtual machine has kept for others.
pub fn cpu_of_machine() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let first = stat.lines().next().unwrap_or_default();
    sum(first, &MACHINE).ok_or_else(|| io::Error::other("no times in /proc/stat"))
}

/// Resident memory in bytes, of the processes that [`cpu`] counts.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let of_children = children(pid)
        .into_iter()
        .map(|child| rss_of(child).unwrap_or_default());
    Ok(rss_of(pid)? + of_children.sum::<u64>())
}

fn rss_of(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::other(format!("no VmRSS in /proc/{pid}/status")))
}

fn process(pid: &str, fields: &[usize]) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    after_name(&stat)
        .and_then(|stat| sum(stat, fields))
        .ok_or_else(|| io::Error::other(format!("no times in /proc/{pid}/stat")))
}

/// The command name may contain anything but ends at the last parenthesis.
fn after_name(stat: &str) -> Option<&str> {
    stat.rsplit_once(')').map(|(_, rest)| rest)
}

fn sum(line: &str, fields: &[usize]) -> Option<Duration> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ticks = |field: &usize| words.get(*field)?.parse::<f64>().ok();
    let ticks = fields.iter().map(ticks).sum::<Option<f64>>()?;
    Some(Duration::from_secs_f64(ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_an_odd_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 200 100 20 0 1 0 9";
        let times = |fields| after_name(stat).and_then(|stat| sum(stat, fields));
        assert_eq!(times(&OWN), Some(Duration::from_secs(2)));
        assert_eq!(times(&OWN_AND_CHILDREN), Some(Duration::from_secs(5)));
    }
}
