//! Completions that came while a helper drove the worker. Application callbacks never run on a
//! helper: the application finds them at its next `ucp_worker_progress`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lock;
use super::request::{self, Request};

#[derive(Default)]
pub struct Deferred {
    count: AtomicUsize,
    queue: Mutex<Vec<*mut Request>>,
}

impl Deferred {
    pub fn push(&self, request: *mut Request) {
        let mut queue = lock(&self.queue);
        queue.push(request);
        self.count.store(queue.len(), Ordering::Release);
    }

    /// Whether nothing is waiting.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Delivers what is waiting, in order of completion; returns how many.
    pub fn deliver(&self) -> u32 {
        if self.is_empty() {
            return 0;
        }
        let waiting = {
            let mut queue = lock(&self.queue);
            self.count.store(0, Ordering::Release);
            std::mem::take(&mut *queue)
        };
        for &request in &waiting {
            // SAFETY: each has fired and was queued once; we are on an application thread. A worker
            // outlives its requests.
            unsafe { request::deliver(request, (*request).kind, (*(*request).worker).shared) };
        }
        waiting.len() as u32
    }
}
