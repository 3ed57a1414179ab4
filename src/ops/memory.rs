//! A bound on the bytes that the process holds of something, shared by all who hold any.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// So many bytes may be held at a time. One holder is always let in, however much it asks for: a bound that is smaller
/// than the smallest thing would stop everything for ever.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    held: Mutex<u64>,
    freed: Notify,
    waiting: AtomicU64,
}

impl MemoryBudget {
    /// A bound of `limit` bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, held: Mutex::new(0), freed: Notify::new(), waiting: AtomicU64::new(0) })
    }

    /// How many bytes are held.
    pub fn held(&self) -> u64 {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait to be let in.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` fit. Cancelling the call takes nothing.
    pub async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        if let Some(reservation) = self.try_reserve(bytes) {
            return reservation;
        }
        let _waiting = Waiting::begin(&self.waiting);
        loop {
            // Registered before looking, so that what is freed in between wakes it.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            freed.await;
        }
    }

    fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held > 0 && *held + bytes > self.limit {
            return None;
        }
        *held += bytes;
        Some(Reservation { budget: self.clone(), bytes })
    }

    fn change(&self, from: u64, to: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(*held >= from, "more is given back than is held");
        *held = *held - from + to;
        drop(held);
        if to < from {
            self.freed.notify_waiters();
        }
    }
}

struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicU64) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a [`MemoryBudget`] that are held until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Reservation {
    /// Holds `bytes` from now on, even beyond the bound: what is there can't be refused.
    pub fn resize(&mut self, bytes: u64) {
        self.budget.change(self.bytes, bytes);
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.change(self.bytes, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_fit_waits_until_bytes_are_given_back() {
        let budget = MemoryBudget::new(10);
        let first = budget.reserve(8).await;
        let release = async {
            while budget.waiting() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(budget.held(), 8);
            drop(first);
        };
        let (second, ()) = tokio::join!(budget.reserve(3), release);
        assert_eq!((budget.held(), budget.waiting()), (3, 0));
        drop(second);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn one_holder_is_always_let_in() {
        let budget = MemoryBudget::new(10);
        let mut large = budget.reserve(100).await;
        large.resize(5);
        assert_eq!(budget.held(), 5);
        assert!(budget.try_reserve(6).is_none());
        assert!(budget.try_reserve(5).is_some());
    }
}
