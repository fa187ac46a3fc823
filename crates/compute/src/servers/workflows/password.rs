//! Setting a new root password in a running server.

use std::sync::Arc;

use async_trait::async_trait;
use kernel::error::Code;
use kernel::operations::{self, Context, Fault, FaultKind, Outcome, Step, Workflow, WorkflowKind};
use kernel::secrets::Sealed;
use serde::{Deserialize, Serialize};

use super::guest::Guest;
use crate::hosts::Hosts;

/// The workflow.
pub const KIND: WorkflowKind = WorkflowKind { name: "password", first_step: "set_password" };
/// The purpose that the password is sealed for.
pub const PASSWORD: &str = "root-password";

/// Data kept between steps: the password, until the operation ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Data {
    /// Sealed for [`PASSWORD`].
    pub password: Sealed,
}

impl operations::Data for Data {
    fn sealed(&mut self) -> Vec<(&'static str, &mut Sealed)> {
        vec![(PASSWORD, &mut self.password)]
    }
}

/// The steps.
pub fn workflow(hosts: &Arc<Hosts>) -> Workflow<Data> {
    let hosts = || Arc::clone(hosts);
    Workflow { kind: KIND, steps: vec![Box::new(SetNewPassword { hosts: hosts() })] }
}

/// Sets the password. Setting it again has the same effect; if the guest is not changed, it keeps its old password.
#[derive(Debug)]
struct SetNewPassword {
    hosts: Arc<Hosts>,
}

#[async_trait]
impl Step<Data> for SetNewPassword {
    fn name(&self) -> &'static str {
        "set_password"
    }

    async fn run(&self, ctx: &Context<'_>, data: &mut Data) -> Result<Outcome, Fault> {
        let guest = Guest::load(&self.hosts, ctx).await?;
        let password = ctx.core.sealer.open_text(PASSWORD, &data.password)?;
        guest.driver.set_password(&guest.at, &password).await.map_err(|error| match error {
            hypervisor::Error::Conflict(_) => Fault {
                detail: Some(error.to_string()),
                ..Fault::new(FaultKind::Fail, Code::Conflict, "The server is not running; start it first.")
            },
            hypervisor::Error::Unsupported(_) => Fault {
                detail: Some(error.to_string()),
                ..Fault::new(
                    FaultKind::Fail,
                    Code::Invalid,
                    "We have no access to this server to set its password: a container must accept our management key \
                     over SSH, a virtual machine's guest agent must run. Set it from inside, or reinstall the server.",
                )
            },
            other => other.into(),
        })?;
        Ok(Outcome::Done)
    }
}
