//! Wakes connections once for everything that one turn of a task has put into their outboxes, instead of once per frame:
//! calls that came together then leave together. Knows no frames.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    /// Whom to wake at the end of this turn; `None` outside of one.
    static TO_WAKE: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// Wakes at the end of the present turn, or at once outside of one.
pub fn at_end_of_turn(waker: Waker) {
    let at_once = TO_WAKE.with_borrow_mut(|to_wake| match to_wake {
        Some(to_wake) => {
            to_wake.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = at_once {
        waker.wake();
    }
}

/// A future each of whose turns ends with waking those whom it has sent something.
pub struct Corked<F> {
    inner: Pin<Box<F>>,
}

/// Corks a future. Its turns must be short: whoever it sends something waits for their end.
pub fn corked<F: Future>(future: F) -> Corked<F> {
    Corked {
        inner: Box::pin(future),
    }
}

impl<F: Future> Future for Corked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        in_one_turn(|| self.inner.as_mut().poll(cx))
    }
}

/// Does something as one turn, for a thread that runs no tasks.
pub fn in_one_turn<T>(work: impl FnOnce() -> T) -> T {
    /// Uncorks, also when the turn panics.
    struct Uncork;
    impl Drop for Uncork {
        fn drop(&mut self) {
            let to_wake = TO_WAKE.with_borrow_mut(Option::take);
            to_wake.into_iter().flatten().for_each(Waker::wake);
        }
    }
    let is_within_another = TO_WAKE.with_borrow(Option::is_some);
    if is_within_another {
        // Its end is the end of this one too.
        return work();
    }
    TO_WAKE.with_borrow_mut(|to_wake| *to_wake = Some(Vec::new()));
    let _uncork = Uncork;
    work()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_at_the_end_of_a_turn_and_at_once_outside() {
        let counting = Arc::new(Counting::default());
        let count = || counting.0.load(Ordering::Relaxed);
        at_end_of_turn(Waker::from(counting.clone()));
        assert_eq!(count(), 1);
        let mut turn = corked(async {
            at_end_of_turn(Waker::from(counting.clone()));
            count()
        });
        let Poll::Ready(during) = Pin::new(&mut turn).poll(&mut Context::from_waker(Waker::noop()))
        else {
            panic!("the future is ready");
        };
        assert_eq!((during, count()), (1, 2));
        in_one_turn(|| {
            at_end_of_turn(Waker::from(counting.clone()));
            in_one_turn(|| at_end_of_turn(Waker::from(counting.clone())));
            assert_eq!(count(), 2, "a turn within a turn ends with it");
        });
        assert_eq!(count(), 4);
    }
}
