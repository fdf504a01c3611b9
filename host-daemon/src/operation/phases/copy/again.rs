//! A copy that ended before the point of no return, and both hosts' reasons for it.
//!
//! The source sees a closed connection where the destination's QEMU knows why it closed it. Links
//! fail for a moment and QEMUs are killed by mistake, so every operation has a second copy, to
//! QEMUs that are started anew; what fails twice will fail again.

use std::time::Duration;

use tokio::time::timeout;

use crate::config::VmName;
use crate::operation::effects::{HostCall, HostReply};
use crate::operation::phases::{Crew, Trouble};

/// For the destination to say what it saw.
const ACCOUNT: Duration = Duration::from_secs(5);

impl Crew {
    /// All VMs run, and are copied from the beginning.
    pub(super) async fn second_copy(
        &self,
        vm: Option<VmName>,
        reason: String,
    ) -> Result<(), Trouble> {
        let first = self.with_account(vm, reason).await;
        if let Err(why) = self.still_worth_it() {
            return Err(Trouble::Failed(format!("{why}; {first}")));
        }
        self.note(format!("the VMs were copied anew: {first}"));
        self.doing(format!("{first}; the VMs run, to be copied anew"));
        if let Err(then) = self.copy_anew().await {
            return Err(Trouble::Failed(format!("{first}; begun anew: {then}")));
        }
        match self.copy_to_the_end().await {
            Err(Trouble::CopyEnded { vm, reason }) => {
                let second = self.with_account(vm, reason).await;
                Err(Trouble::Failed(format!(
                    "{second}; the first time: {first}"
                )))
            }
            ended => ended,
        }
    }

    /// The source's reason for the end of a copy, and the destination's.
    async fn with_account(&self, vm: Option<VmName>, reason: String) -> String {
        match vm {
            Some(vm) => match self.account(&vm).await {
                Some(said) => format!("{reason}; at the destination: {said}"),
                None => reason,
            },
            None => reason,
        }
    }

    /// What the destination's QEMU says of the end of its stream, if it says anything.
    pub(in crate::operation::phases) async fn account(&self, vm: &VmName) -> Option<String> {
        let call = HostCall::Account { vm: vm.clone() };
        match timeout(ACCOUNT, self.destination.call(call)).await {
            Ok(Ok(HostReply::Account { said })) => Some(said).filter(|said| !said.is_empty()),
            Ok(Ok(_)) | Err(_) => None,
            Ok(Err(error)) => Some(crate::api::error::chain(&error)),
        }
    }
}
