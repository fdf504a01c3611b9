//! The guests of a bed: under its daemons, or without them.

use std::path::{Path, PathBuf};

use symvirt_host::config::VmSpec;
use symvirt_host::vm::command_line::Start;
use tokio::runtime::Runtime;

use super::bare::Bare;
use super::guest::{Guest, GuestId, SpecOptions};
use super::host::Host;
use super::{GANG, Lab, LabError, template};
use crate::command;

impl Lab {
    pub(super) fn populate(&mut self, say: &dyn Fn(&str)) -> Result<(), LabError> {
        let run = self.ledger.directory().to_owned();
        let templates = self.templates(say)?;
        let mut start = self.hosts[0].symvirt();
        start.args(["vm", "start"]);
        for (id, template) in self.ids().zip(templates) {
            let options = SpecOptions {
                gang: GANG.into(),
                hca: usize::from(id.0) <= self.stock.plan.hosts[0].hcas,
                template: Some(template),
            };
            start.arg(self.write_spec(id, &run, &options)?);
            self.guests.push(self.guest(id, &run));
        }
        self.ledger
            .making(|| command::output(&mut start).map_err(LabError::from))?;
        for guest in &self.guests {
            guest.wait_until_up()?;
        }
        say(&format!("{} guests are up", self.guests.len()));
        Ok(())
    }

    fn ids(&self) -> impl Iterator<Item = GuestId> + use<> {
        (1..=self.stock.plan.guests).map(GuestId)
    }

    /// A guest that is, or will be, on the first host's Ethernet.
    fn guest(&self, id: GuestId, directory: &Path) -> Guest {
        Guest::new(id, &self.hosts[0].namespace, &self.stock.image, directory)
    }

    /// Starts the guests without HCAs and without the daemons, which know nothing of them.
    /// `runtime` serves their monitors.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn start_bare(
        &self,
        runtime: &Runtime,
        say: &dyn Fn(&str),
    ) -> Result<(Vec<Guest>, Vec<Bare>), LabError> {
        let own = self.ledger.directory().join("bare");
        let (namespace, mut guests, mut vms) = (&self.hosts[0].namespace, Vec::new(), Vec::new());
        for (id, template) in self.ids().zip(self.templates(say)?) {
            let directory = own.join(id.name());
            let spec = self.bare_spec(id)?;
            let vm = Bare::restore(&self.ledger, namespace, directory, &spec, &template);
            vms.push(runtime.block_on(vm)?);
            guests.push(self.guest(id, &own));
        }
        for guest in &guests {
            guest.wait_until_up()?;
        }
        Ok((guests, vms))
    }

    /// Starts a QEMU on `host` that waits for `vm`.
    ///
    /// # Errors
    /// [`LabError`].
    pub async fn await_bare(&self, vm: &Bare, host: &Host) -> Result<Bare, LabError> {
        let name = format!("{}-on-{}", vm.spec.name, host.name);
        let directory = self.ledger.directory().join("bare").join(name);
        let waiting = Start::Waiting;
        Bare::start(&self.ledger, &host.namespace, directory, &vm.spec, waiting).await
    }

    fn write_spec(
        &self,
        id: GuestId,
        directory: &Path,
        options: &SpecOptions,
    ) -> Result<PathBuf, LabError> {
        let path = directory.join(format!("{}.toml", id.name()));
        let text = id.spec(&self.stock.image, &self.stock.disk, options);
        std::fs::write(&path, text).map_err(|source| LabError::File {
            what: "write",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// The specification of a guest without HCA, which boots.
    fn bare_spec(&self, id: GuestId) -> Result<VmSpec, LabError> {
        let own = self.ledger.directory().join("templates");
        std::fs::create_dir_all(&own).map_err(|source| LabError::File {
            what: "make",
            path: own.clone(),
            source,
        })?;
        let options = SpecOptions {
            gang: GANG.into(),
            hca: false,
            template: None,
        };
        let path = self.write_spec(id, &own, &options)?;
        VmSpec::load(&path).map_err(|error| LabError::Bare {
            vm: id.name(),
            reason: error.to_string(),
        })
    }

    /// The guests' templates; made if this build has none yet.
    fn templates(&self, say: &dyn Fn(&str)) -> Result<Vec<PathBuf>, LabError> {
        let own = self.ledger.directory().join("templates");
        let orders = self.ids().map(|id| {
            Ok(template::Order {
                spec: self.bare_spec(id)?,
                guest: self.guest(id, &own),
            })
        });
        let orders = orders.collect::<Result<Vec<_>, LabError>>()?;
        let namespace = &self.hosts[0].namespace;
        template::ensure(&self.stock.directory, &self.ledger, namespace, &orders, say)
    }
}
