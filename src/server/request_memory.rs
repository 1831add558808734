//! Memory of requests that are being read or wait to be handled, for all connections together (`queued.max.request.bytes`).
//!
//! A connection covers what it holds and the room of its next read before it reads, so that a size prefix alone costs nothing.
//! Whoever lacks bytes waits, first come first served. Frames that are half read could then wait for each other for ever:
//! one connection at a time may overdraw, that is, read its frame to the end uncounted. The next may when that one is handled, or
//! is closed because no more of it came. So all requests together hold the bound and one frame more, besides the bytes that
//! each connection has free.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The bytes that are left, shared by the connections.
#[derive(Debug)]
pub struct RequestMemory {
    bytes: Semaphore,
    /// Taken by the connection that reads beyond the bound.
    overdraft: Semaphore,
}

impl RequestMemory {
    pub fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)),
            overdraft: Semaphore::new(1),
        })
    }
}

/// What one connection has taken; given back when it goes.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<RequestMemory>,
    bytes: usize,
    is_overdrawn: bool,
}

impl Charge {
    pub fn new(memory: Arc<RequestMemory>) -> Self {
        Self {
            memory,
            bytes: 0,
            is_overdrawn: false,
        }
    }

    /// Gives back what is above `bytes`, or takes what is missing, if it is there. Nothing shared is touched while it stays the same.
    pub fn cover(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes {
            self.memory.bytes.add_permits(self.bytes - bytes);
            self.bytes = bytes;
        }
        if bytes == self.bytes {
            if std::mem::take(&mut self.is_overdrawn) {
                self.memory.overdraft.add_permits(1);
            }
            return true;
        }
        if self.is_overdrawn {
            return true;
        }
        let Ok(permit) = self.memory.bytes.try_acquire_many(self.missing(bytes)) else {
            return false;
        };
        permit.forget();
        self.bytes = bytes;
        true
    }

    /// Waits until `bytes` are covered, or this connection may overdraw.
    pub async fn wait(&mut self, bytes: usize) {
        tokio::select! {
            biased;
            Ok(permit) = self.memory.bytes.acquire_many(self.missing(bytes)) => {
                permit.forget();
                self.bytes = bytes;
            }
            Ok(permit) = self.memory.overdraft.acquire() => {
                permit.forget();
                self.is_overdrawn = true;
            }
            // Neither is ever closed.
            else => {}
        }
    }

    /// A connection grows by one read at a time; what no counter could tell is left to the overdraft.
    fn missing(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.saturating_sub(self.bytes)).unwrap_or(u32::MAX)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.cover(0);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    /// Polls a wait once: whether it is over.
    async fn is_let_go_on(charge: &mut Charge, bytes: usize) -> bool {
        let mut wait = std::pin::pin!(charge.wait(bytes));
        std::future::poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn one_connection_at_a_time_overdraws_and_all_is_given_back() {
        let memory = RequestMemory::new(100);
        let charge = || Charge::new(Arc::clone(&memory));
        let (mut first, mut second, mut third) = (charge(), charge(), charge());
        assert!(first.cover(60) && second.cover(40) && third.cover(0));
        assert!(!first.cover(70) && !second.cover(50) && !third.cover(1));
        assert!(is_let_go_on(&mut first, 70).await);
        assert!(first.cover(1000), "to the end of its frame");
        assert!(!is_let_go_on(&mut second, 50).await);
        assert!(first.cover(60), "its frame is handled");
        assert!(is_let_go_on(&mut second, 50).await);
        assert!(!is_let_go_on(&mut third, 1).await);
        drop(second);
        assert!(is_let_go_on(&mut third, 1).await && !third.is_overdrawn);
        drop((first, third));
        assert_eq!(memory.bytes.available_permits(), 100);
        assert_eq!(memory.overdraft.available_permits(), 1);
    }
}
