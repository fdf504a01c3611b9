//! What stands in the way of moving a process, and which setting mends it.

use std::fmt;

use serde::Serialize;

use super::facts::Facts;

/// See the module.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// What cannot be moved, and why.
    pub what: String,
    /// What to set, or to do.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.mend)
    }
}

/// Sends everything of Open MPI through UCX, on any transport and device.
const PML: &str = "set OMPI_MCA_pml=ucx OMPI_MCA_pml_ucx_tls=any OMPI_MCA_pml_ucx_devices=any \
                   (5.x: OMPI_MCA_opal_common_ucx_tls and _devices), as `symvirt-guest exec` does \
                   where nothing else is set";
const BTL: &str = "set OMPI_MCA_btl=^uct,openib,ofi";

/// Of a process that has settled. `without_hca`: the gang's present transports need none.
pub fn of(facts: &Facts, joined: bool, without_hca: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |what: String, mend: &str| {
        findings.push(Finding {
            what,
            mend: mend.to_owned(),
        });
    };
    let program = &facts.program;
    let has = |component: &str| facts.components.contains(component);
    if !facts.preloaded {
        find(
            format!("{program}: libsymvirt.so is not in the process"),
            "start it by `symvirt-guest exec`, in every guest; a program with static libraries or \
             set-user-id cannot be preloaded",
        );
    }
    for (component, way) in [("pml_ob1", "pml/ob1"), ("pml_cm", "pml/cm")] {
        if has(component) && !has("pml_ucx") {
            let by = ways(facts);
            find(
                format!("{program}: Open MPI sends by {way}{by}, past UCX"),
                PML,
            );
        }
    }
    for component in ["btl_uct", "btl_openib", "btl_ofi"] {
        if has(component) {
            let btl = component.replace('_', "/");
            find(
                format!("{program}: Open MPI's {btl} opens the HCA beside UCX"),
                BTL,
            );
        }
    }
    // MPICH may have both; one that has joined has chosen UCX.
    if has("mtl_ofi") || (facts.fabrics.contains("libfabric") && !joined) {
        let ofi = "libfabric is in the process, which opens the HCA beside UCX";
        let mend = if facts.components.is_empty() {
            "use an MPICH that is built with ch4:ucx"
        } else {
            "set OMPI_MCA_pml=ucx OMPI_MCA_mtl=^ofi OMPI_MCA_btl=^uct,openib,ofi"
        };
        find(format!("{program}: {ofi}"), mend);
    }
    // An Open MPI whose components are built in is linked with all of them (Debian's 5.0): what has
    // joined has chosen UCX, unless it is seen to send otherwise.
    let chosen_ucx = joined && !has("pml_cm");
    let others = facts.fabrics.iter().filter(|name| *name != "libfabric");
    for fabric in others.filter(|_| !chosen_ucx) {
        find(
            format!("{program}: {fabric} is in the process, which opens the HCA beside UCX"),
            PML,
        );
    }
    if joined && (has("osc_rdma") || has("osc_pt2pt")) && !has("osc_ucx") {
        find(
            format!("{program}: Open MPI's windows do not go through UCX"),
            "set OMPI_MCA_osc=ucx",
        );
    }
    let chosen_otherwise = has("pml_ob1") || has("pml_cm");
    if facts.is_mpi() && facts.preloaded && !joined && !chosen_otherwise {
        let set = facts.setting("OMPI_MCA_pml");
        let set = set.map_or_else(String::new, |pml| format!(" (OMPI_MCA_pml={pml})"));
        find(
            format!("{program}: MPI has made no UCX context{set}"),
            "it may still start; otherwise let MPI send through UCX: pml ucx of Open MPI, ch4:ucx \
             of MPICH, which ranks of one machine leave for MPICH's own shared memory unless \
             MPIR_CVAR_NOLOCAL=1",
        );
    }
    if facts.verbs_descriptors > 0 && (!joined || without_hca) {
        let count = facts.verbs_descriptors;
        find(
            format!(
                "{program}: holds an HCA open by {count} verbs descriptors that are not UCX's own"
            ),
            "let what opens it take part in switches (symvirt.h, docs/participants.md), or close \
             it before the HCA is unplugged",
        );
    }
    findings
}

/// What a BTL- or MTL-based layer sends by.
fn ways(facts: &Facts) -> String {
    let of = |kind: &str| {
        let names = facts.components.iter();
        let names = names.filter_map(|name| name.strip_prefix(kind));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let names = [of("btl_"), of("mtl_")].concat();
    match names.is_empty() {
        true => String::new(),
        false => format!(" over {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(components: &[&str], fabrics: &[&str]) -> Facts {
        Facts {
            program: "app".to_owned(),
            mpi: Some("/lib/libmpi.so.40".into()),
            preloaded: true,
            components: components.iter().map(|name| (*name).to_owned()).collect(),
            fabrics: fabrics.iter().map(|name| (*name).to_owned()).collect(),
            ..Facts::default()
        }
    }

    fn said(facts: &Facts, joined: bool) -> Vec<String> {
        let findings = of(facts, joined, true);
        findings.iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_rank_that_sends_by_ucx_alone_can_be_moved() {
        let facts = process(&["pml_ucx", "osc_ucx"], &[]);
        assert_eq!(said(&facts, true), Vec::<String>::new());
    }

    #[test]
    fn each_way_around_ucx_is_named_with_the_setting_that_mends_it() {
        for (components, fabrics, words) in [
            (
                &["pml_ob1", "btl_tcp", "btl_self"][..],
                &[][..],
                ["pml/ob1 over self, tcp", "OMPI_MCA_pml=ucx"],
            ),
            (
                &["pml_cm", "mtl_ofi"],
                &[],
                ["pml/cm over ofi", "OMPI_MCA_pml=ucx"],
            ),
            (
                &["pml_ucx", "btl_uct"],
                &[],
                ["btl/uct", "OMPI_MCA_btl=^uct,openib,ofi"],
            ),
            (
                &["pml_ucx", "btl_openib"],
                &[],
                ["btl/openib", "OMPI_MCA_btl=^uct,openib,ofi"],
            ),
            (
                &["pml_ucx", "btl_ofi"],
                &["libfabric"],
                ["btl/ofi", "OMPI_MCA_btl=^uct,openib,ofi"],
            ),
            (
                &["pml_ucx", "mtl_ofi"],
                &["libfabric"],
                ["libfabric", "OMPI_MCA_mtl=^ofi"],
            ),
            (&["pml_cm"], &["libpsm2"], ["libpsm2", "OMPI_MCA_pml=ucx"]),
            (
                &["pml_ucx", "osc_rdma"],
                &[],
                ["windows", "OMPI_MCA_osc=ucx"],
            ),
        ] {
            let said = said(&process(components, fabrics), true);
            let named = said
                .iter()
                .any(|line| words.iter().all(|word| line.contains(word)));
            assert!(named, "{words:?}: {said:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_told() {
        let mut facts = process(&[], &[]);
        assert!(said(&facts, false)[0].contains("no UCX context"));
        facts.fabrics.insert("libfabric".to_owned());
        let ofi = said(&facts, false);
        assert!(
            ofi[0].contains("libfabric") && ofi[0].contains("ch4:ucx"),
            "{ofi:?}"
        );
        facts.fabrics.insert("libpsm2".to_owned());
        assert_eq!(said(&facts, true), Vec::<String>::new());
        facts.fabrics.clear();
        facts.settings = vec![("OMPI_MCA_pml".to_owned(), "ob1".to_owned())];
        assert!(said(&facts, false)[0].contains("(OMPI_MCA_pml=ob1)"));
        facts.preloaded = false;
        assert!(said(&facts, false)[0].contains("libsymvirt.so is not in the process"));
    }

    #[test]
    fn an_hca_held_open_is_told_where_ucx_has_no_use_for_it() {
        let mut facts = process(&["pml_ucx"], &[]);
        facts.verbs_descriptors = 2;
        assert!(said(&facts, true)[0].contains("2 verbs descriptors"));
        assert_eq!(of(&facts, true, false), []);
    }
}
