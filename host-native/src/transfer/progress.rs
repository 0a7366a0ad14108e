//! Shows on standard error how far a long command is: a bar on a terminal, elsewhere a line every few seconds.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// How many items pass before the clock is looked at.
const ITEMS_PER_LOOK: u64 = 64;

/// What the bar shows.
const WITH_TOTAL: &str = "{bar:30} {percent:>3} %  {bytes}/{total_bytes}  {msg}  {eta} left";
const WITHOUT_TOTAL: &str = "{spinner} {bytes}  {msg}";

/// See the module.
pub struct Progress {
    /// What is done, as in `imported`.
    verb: &'static str,
    /// There on a terminal.
    bar: Option<ProgressBar>,
    bytes_total: Option<u64>,
    started: Instant,
    next_line: Duration,
    items: u64,
}

impl Progress {
    /// Begins. `bytes_total` makes a percentage possible.
    pub fn start(verb: &'static str, bytes_total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| bar(bytes_total));
        Self {
            verb,
            bar,
            bytes_total,
            started: Instant::now(),
            next_line: LINE_INTERVAL,
            items: 0,
        }
    }

    /// Shows lines only: where items are written to the same terminal, a bar would get between them.
    pub fn without_bar(mut self) -> Self {
        self.bar = None;
        self
    }

    /// One more item has passed, and so many bytes of the whole.
    pub fn item(&mut self, bytes: u64) {
        self.items += 1;
        if !self.items.is_multiple_of(ITEMS_PER_LOOK) {
            return;
        }
        let elapsed = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(items_text(self.items, elapsed));
        } else if let Some(line) = self.line_due(bytes, elapsed) {
            eprintln!("{line}");
        }
    }

    /// The line to be written now, if it is time.
    fn line_due(&mut self, bytes: u64, elapsed: Duration) -> Option<String> {
        if elapsed < self.next_line {
            return None;
        }
        self.next_line = elapsed + LINE_INTERVAL;
        let percent = self
            .bytes_total
            .filter(|&total| 0 < total)
            .map_or(String::new(), |total| {
                format!(" ({} %)", bytes.min(total) * 100 / total)
            });
        let items = items_text(self.items, elapsed);
        Some(format!(
            "{} {items}, {}{percent}",
            self.verb,
            HumanBytes(bytes)
        ))
    }

    /// Writes a line for people without disturbing the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away, and tells what it came to.
    pub fn finish(self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.started.elapsed();
        eprintln!(
            "{} {}, {} in {:.1} s",
            self.verb,
            items_text(self.items, elapsed),
            HumanBytes(bytes),
            elapsed.as_secs_f64()
        );
    }
}

fn bar(bytes_total: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr();
    let (bar, template) = match bytes_total {
        Some(total) => (
            ProgressBar::with_draw_target(Some(total), target),
            WITH_TOTAL,
        ),
        None => (ProgressBar::with_draw_target(None, target), WITHOUT_TOTAL),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        // The templates are tried by a test; without one the bar looks plainer.
        Err(_) => bar,
    }
}

/// Such as `1,234 items (617/s)`.
fn items_text(items: u64, elapsed: Duration) -> String {
    let noun = if items == 1 { "item" } else { "items" };
    let count = HumanCount(items);
    let seconds = elapsed.as_secs_f64();
    if seconds < 1.0 {
        return format!("{count} {noun}");
    }
    // Nobody counts to where a double is not exact.
    let rate = HumanCount((items as f64 / seconds) as u64);
    format!("{count} {noun} ({rate}/s)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_every_few_seconds_with_percent_where_the_total_is_known() {
        let mut progress = Progress {
            verb: "imported",
            bar: None,
            bytes_total: Some(4 << 20),
            started: Instant::now(),
            next_line: LINE_INTERVAL,
            items: 12_000,
        };
        let at = |seconds| Duration::from_secs(seconds);
        assert_eq!(progress.line_due(1 << 20, at(4)), None);
        assert_eq!(
            progress.line_due(1 << 20, at(6)).as_deref(),
            Some("imported 12,000 items (2,000/s), 1.00 MiB (25 %)")
        );
        assert_eq!(progress.line_due(1 << 20, at(10)), None);
        progress.bytes_total = None;
        assert_eq!(
            progress.line_due(3 << 20, at(12)).as_deref(),
            Some("imported 12,000 items (1,000/s), 3.00 MiB")
        );
        assert_eq!(items_text(1, Duration::ZERO), "1 item");
    }

    #[test]
    fn the_bars_templates_are_ones() {
        for template in [WITH_TOTAL, WITHOUT_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
