//! Orders that are refused before anything is touched.

use anyhow::{Context, ensure};

use super::Bed;

/// Exit status of `symvirt` for an order that was refused.
const REFUSED: i32 = 3;

/// Unknown gang, unknown host, the host where the gang is already.
pub(super) fn orders_that_cannot_be_carried_out(bed: &Bed) -> anyhow::Result<()> {
    let before = bed.vms("a")?;
    for (words, named) in [
        (["migrate", "nobody", "--to", "b"], "nobody"),
        (["migrate", crate::lab::GANG, "--to", "nowhere"], "nowhere"),
        (["migrate", crate::lab::GANG, "--to", "a"], "a"),
    ] {
        let host = bed.lab.host("a").context("no host a")?;
        let output = host.symvirt().args(words).output().context("run symvirt")?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code() == Some(REFUSED),
            "{words:?}: {}, {said}",
            output.status
        );
        ensure!(
            said.contains(named),
            "{words:?}: the refusal does not name {named}: {said}"
        );
    }
    ensure!(bed.vms("a")? == before, "a refused order changed a VM");
    Ok(())
}
