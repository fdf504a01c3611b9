//! What other daemons and users send as JSON: calls, answers, requests.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use symvirt_host::api::error::Problem;
use symvirt_host::api::model::{GangInfo, HostInfo, OperationInfo, VmInfo};
use symvirt_host::operation::effects::{HostCall, HostError, HostReply};
use symvirt_host::operation::{OperationId, Plan, Request};
use symvirt_host::retry::Wish;

/// The body of a request or an answer; whatever it is, one that can be understood can be said again.
pub fn check(body: &[u8]) {
    said_again::<HostCall>(body);
    said_again::<Result<HostReply, HostError>>(body);
    said_again::<Request>(body);
    said_again::<Plan>(body);
    said_again::<Wish>(body);
    said_again::<Problem>(body);
    said_again::<HostInfo>(body);
    said_again::<GangInfo>(body);
    said_again::<VmInfo>(body);
    said_again::<OperationInfo>(body);
    said_again::<OperationId>(body);
}

/// Panics if a value that was understood is not understood again as the same.
pub fn said_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(json) {
        let again = serde_json::to_string(&value).expect("plain data");
        match serde_json::from_str::<T>(&again) {
            Ok(same) => assert_eq!(same, value),
            Err(error) => panic!("{value:?}: {error} in {again}"),
        }
    }
}
