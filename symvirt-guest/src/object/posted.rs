//! Receives that are posted and not complete, in the order of posting: what a switch cancels on
//! the old worker and posts again, in order, on the new one.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::Mutex;

use super::lock;
use super::request::Request;

/// A doubly linked list through the requests' own links. Guarded as the pool is.
pub struct Posted {
    shared: bool,
    guard: Mutex<()>,
    ends: UnsafeCell<Ends>,
}

struct Ends {
    first: *mut Request,
    last: *mut Request,
}

impl Posted {
    pub fn new(shared: bool) -> Posted {
        let ends = Ends {
            first: ptr::null_mut(),
            last: ptr::null_mut(),
        };
        Posted {
            shared,
            guard: Mutex::new(()),
            ends: UnsafeCell::new(ends),
        }
    }

    #[inline(always)]
    fn with<R>(&self, body: impl FnOnce(&mut Ends) -> R) -> R {
        if self.shared {
            return self.with_lock(body);
        }
        // SAFETY: only one thread at a time may use an unshared worker, and the helper touches it
        // under the closed gate alone.
        body(unsafe { &mut *self.ends.get() })
    }

    #[cold]
    #[inline(never)]
    fn with_lock<R>(&self, body: impl FnOnce(&mut Ends) -> R) -> R {
        let _held = lock(&self.guard);
        // SAFETY: exclusive by the lock.
        body(unsafe { &mut *self.ends.get() })
    }

    /// Adds a receive at the end, before it is posted: so the order here is the order there.
    #[inline(always)]
    pub fn push(&self, request: *mut Request) {
        self.with(|ends| {
            // SAFETY: the request and the last of the list are live, and exclusively ours here.
            unsafe {
                (*request).next = ptr::null_mut();
                (*request).previous = ends.last;
                if ends.last.is_null() {
                    ends.first = request;
                } else {
                    (*ends.last).next = request;
                }
            }
            ends.last = request;
        });
    }

    /// Removes a receive that has completed or was refused.
    #[inline(always)]
    pub fn remove(&self, request: *mut Request) {
        self.with(|ends| {
            // SAFETY: the request is on the list; its neighbours are live.
            unsafe {
                let (previous, next) = ((*request).previous, (*request).next);
                if previous.is_null() {
                    ends.first = next;
                } else {
                    (*previous).next = next;
                }
                if next.is_null() {
                    ends.last = previous;
                } else {
                    (*next).previous = previous;
                }
            }
        });
    }

    /// All of them, in order.
    pub fn snapshot(&self) -> Vec<*mut Request> {
        self.with(|ends| {
            let mut all = Vec::new();
            let mut request = ends.first;
            while !request.is_null() {
                all.push(request);
                // SAFETY: members of the list are live.
                request = unsafe { (*request).next };
            }
            all
        })
    }
}
