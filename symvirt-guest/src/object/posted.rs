//! Receives that are posted and not complete, in the order of posting: what a switch cancels on
//! the old worker and posts again, in order, on the new one.

use std::ptr;

use super::request::Request;

/// A ring through the requests' own links. Its ends meet in a request of its own, so that nothing
/// has to be decided where a receive is added or removed: 10 instructions a message. Changed only
/// by the thread whose turn it is with the worker, or under the closed gate.
pub struct Posted {
    ends: *mut Request,
}

impl Posted {
    pub fn new() -> Posted {
        let ends = Box::into_raw(Box::new(Request::blank(ptr::null())));
        // SAFETY: made just now.
        unsafe {
            (*ends).next = ends;
            (*ends).previous = ends;
        }
        Posted { ends }
    }

    /// Adds a receive at the end, before it is posted: so the order here is the order there.
    #[inline(always)]
    pub fn push(&self, request: *mut Request) {
        // SAFETY: the request and the last of the ring are live; the thread is alone with them.
        unsafe {
            let ends = self.ends;
            let last = (*ends).previous;
            (*request).previous = last;
            (*request).next = ends;
            (*last).next = request;
            (*ends).previous = request;
        }
    }

    /// Removes a receive that has completed or was refused.
    #[inline(always)]
    pub fn remove(&self, request: *mut Request) {
        // SAFETY: the request is on the ring; its neighbours are live. As above.
        unsafe {
            let (previous, next) = ((*request).previous, (*request).next);
            (*previous).next = next;
            (*next).previous = previous;
        }
    }

    /// All of them, in order.
    pub fn snapshot(&self) -> Vec<*mut Request> {
        let mut all = Vec::new();
        // SAFETY: members of the ring are live.
        let mut request = unsafe { (*self.ends).next };
        while request != self.ends {
            all.push(request);
            // SAFETY: as above.
            request = unsafe { (*request).next };
        }
        all
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        // SAFETY: made by `new`; the worker ends, and with it every posted receive.
        drop(unsafe { Box::from_raw(self.ends) });
    }
}
