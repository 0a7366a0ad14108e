//! How the seconds asked for are divided into rounds, windows and warm-ups.

use iii_stream::bench::load::Window;

const ROUNDS_MAX: u32 = 5;
const WINDOW_SECONDS_MIN: f64 = 0.2;
/// A window of one call at a time needs fewer seconds than a loaded one for as steady a median.
const SINGLE_SHARE: f64 = 0.5;

/// One benchmark's division of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Plan {
    /// Interleaved rounds, an odd number, at most five.
    pub(crate) rounds: u32,
    /// The window of a loaded measurement.
    pub(crate) load: Window,
    /// The window of a measurement of one call at a time.
    pub(crate) single: Window,
}

impl Plan {
    /// Divides `seconds` of each load: five rounds if they are long enough, else three or one.
    pub(crate) fn new(seconds: f64) -> Self {
        let rounds = [ROUNDS_MAX, 3]
            .into_iter()
            .find(|rounds| WINDOW_SECONDS_MIN <= seconds / f64::from(*rounds))
            .unwrap_or(1);
        let load = seconds / f64::from(rounds);
        Self {
            rounds,
            load: Window::of_seconds(load),
            single: Window::of_seconds(load * SINGLE_SHARE),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rounds_shrink_before_windows_become_meaningless() {
        assert_eq!(Plan::new(10.0).rounds, 5);
        assert_eq!(Plan::new(10.0).load.measured, Duration::from_secs(2));
        assert_eq!(Plan::new(0.7).rounds, 3);
        assert_eq!(Plan::new(0.3).rounds, 1);
    }
}
