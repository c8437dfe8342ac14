//! The connections to the guests that run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_bus::Result;
use banger_model::VmId;

use crate::core::AgentAddress;
use crate::guest::{Agent, ClientKey, Endpoint, Gone};

/// One agent per VM, as long as it has the same address.
#[derive(Default)]
pub(super) struct Agents(Mutex<HashMap<VmId, (Endpoint, Arc<Agent>)>>);

impl Agents {
    /// The agent of a VM; a new one after each start of it.
    pub(super) fn get(&self, id: VmId, address: AgentAddress, key: &ClientKey) -> Result<Arc<Agent>> {
        let endpoint = Endpoint {
            address: address.socket,
            host_key: address.host_key,
        };
        let mut agents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, agent)) = agents.get(&id)
            && *known == endpoint
        {
            return Ok(agent.clone());
        }
        let agent = Agent::new(&endpoint, key.private().clone())?;
        agents.insert(id, (endpoint, agent.clone()));
        Ok(agent)
    }

    /// Forgets the connections to a guest, and ends what waits on them.
    pub(super) fn hang_up(&self, id: VmId, why: Gone) {
        let forgotten = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some((_, agent)) = forgotten {
            agent.hang_up(why);
        }
    }
}
