//! The same work on many items by several threads; results come in the order of the items.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Applies `work` to every item with up to `threads` threads, beginning with the first item.
pub fn map<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        Some((at, items.get(at)?))
    };
    drain(threads, items.len(), take, work)
}

/// The same with items that `next` hands out together with their places among `count` results, which come in that order.
pub fn drain<T, R: Send>(
    threads: usize,
    count: usize,
    next: impl Fn() -> Option<(usize, T)> + Sync,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let results = Mutex::new(Vec::with_capacity(count));
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                while let Some((at, item)) = next() {
                    let result = work(item);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
