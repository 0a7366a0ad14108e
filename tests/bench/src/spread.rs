//! Repeated measurements of one number, told as their median, lowest and highest.

/// Median, lowest and highest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of at least one value; the median of an even number is the lower one of the middle two.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        Self {
            median: sorted[last / 2],
            low: sorted[0],
            high: sorted[last],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_five() {
        let spread = Spread::of([3.0, 9.0, 1.0, 2.0, 8.0]);
        assert_eq!((spread.median, spread.low, spread.high), (3.0, 1.0, 9.0));
    }
}
