//! What is asked of the engine: once, or again because the first answer was lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Mutex as Turn;

use super::Engine;
use crate::api::model::OperationInfo;
use crate::config::GangName;
use crate::operation::Denial;
use crate::operation::journal::Journal;
use crate::operation::plan::{OperationId, Request};
use crate::operation::request_id::RequestId;
use crate::operation::state::State;
use crate::operation::validate::{Denied, Validated};

/// Requests that are being answered: whoever asks the same again waits for the first answer.
#[derive(Default)]
pub(super) struct Turns(Mutex<BTreeMap<RequestId, Weak<Turn<()>>>>);

impl Turns {
    fn of(&self, id: &RequestId) -> Arc<Turn<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(id).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(id.clone(), Arc::downgrade(&turn));
        turn
    }
}

impl Engine {
    /// Validates a request and starts its operation. A request with the id of an earlier one, also
    /// of an earlier daemon's, is that one: what it began is shown, whatever has become of it.
    ///
    /// # Errors
    /// [`Denied`]; nothing was changed.
    pub async fn submit(
        self: &Arc<Self>,
        request: Request,
        asked: Option<RequestId>,
    ) -> Result<OperationInfo, Denied> {
        let Some(asked) = asked else {
            return self.start(request, None).await;
        };
        let turn = self.turns.of(&asked);
        let _turn = turn.lock().await;
        let begun = self.list().into_iter();
        let mut same = begun.filter(|info| info.plan.request_id.as_ref() == Some(&asked));
        match same.next() {
            None => self.start(request, Some(asked)).await,
            Some(info) if info.request == request => Ok(info),
            Some(info) => {
                let operation = info.id;
                Err(Denial::RequestIdReused { operation }.into())
            }
        }
    }

    async fn start(
        self: &Arc<Self>,
        request: Request,
        asked: Option<RequestId>,
    ) -> Result<OperationInfo, Denied> {
        let gang = request.gang().clone();
        self.see_it_is_known(&gang)?;
        let id = self.reserve(&gang)?;
        match self.begin(id, request, asked).await {
            Ok(info) => Ok(info),
            Err(denied) => {
                self.host.end_lease(&gang);
                Err(denied)
            }
        }
    }

    fn reserve(&self, gang: &GangName) -> Result<OperationId, Denial> {
        let mut table = self.table();
        let id = OperationId::nth(&self.config.host, table.last + 1);
        self.host.lease(gang, &id)?;
        table.last += 1;
        Ok(id)
    }

    async fn begin(
        self: &Arc<Self>,
        id: OperationId,
        request: Request,
        asked: Option<RequestId>,
    ) -> Result<OperationInfo, Denied> {
        let Validated {
            mut plan,
            gang,
            destination,
            notes,
        } = self.validate(id, request).await?;
        plan.request_id = asked;
        let journal = Journal::create(&self.directory, &plan, self.clock.now_ms());
        let journal = match journal {
            Ok(journal) => journal,
            Err(error) => {
                self.release_reservation(&plan, destination.as_ref()).await;
                return Err(Denied::Journal(error));
            }
        };
        let state = State::start(&plan);
        let crew = self.crew(plan, &state, destination, gang);
        notes.into_iter().for_each(|note| crew.note(note));
        Ok(self.launch(crew, journal, state))
    }
}
