//! `symvirt migrate`, `switch`, `status`, `watch`, `cancel` and `release`.

use super::arguments::{Migrate, Switch};
use super::patience::{again, may_return, was_cut};
use super::vms::show;
use super::{CliError, Daemon, Exit, say, table, watch};
use crate::api::error::Problem;
use crate::api::model::{OperationInfo, Released};
use crate::config::VmName;
use crate::operation::{Limits, OperationId, Request, RequestId};
use crate::retry::RetryInfo;

pub(super) async fn migrate(
    daemon: &Daemon,
    arguments: Migrate,
    json: bool,
) -> Result<Exit, CliError> {
    let limits = arguments.bounds.limits();
    let request = Request::Migrate {
        gang: arguments.gang,
        to: arguments.to,
        mode: arguments.mode.into(),
        limits,
    };
    start(daemon, request, arguments.detach, json).await
}

pub(super) async fn switch(
    daemon: &Daemon,
    arguments: Switch,
    json: bool,
) -> Result<Exit, CliError> {
    let limits = Limits {
        switch_s: arguments.bounds.switch_timeout,
        ..Limits::default()
    };
    let request = Request::Switch {
        gang: arguments.gang,
        to: arguments.to.into(),
        mode: arguments.mode.into(),
        limits,
    };
    start(daemon, request, arguments.detach, json).await
}

async fn start(
    daemon: &Daemon,
    request: Request,
    detach: bool,
    json: bool,
) -> Result<Exit, CliError> {
    let operation = begin(daemon, &request).await?;
    if detach {
        show(json, &operation, |operation| {
            say(format_args!("{}", operation.id))
        });
        return Ok(Exit::Done);
    }
    watch::follow(daemon, operation, json).await
}

/// Begins an operation once, also if the daemon ends before it has answered: the next one, asked by
/// the same id, knows what has begun.
async fn begin(daemon: &Daemon, request: &Request) -> Result<OperationInfo, CliError> {
    let id = RequestId::random().map_err(CliError::Random)?;
    let path = format!("/v1/operations?request_id={id}");
    let ask = || daemon.post(&path, request);
    match ask().await {
        Err(error) if was_cut(&error) => match again(ask).await {
            Err(error) if may_return(&error) => Err(CliError::Unanswered(Box::new(error))),
            answer => answer,
        },
        answer => answer,
    }
}

pub(super) async fn status(
    daemon: &Daemon,
    operation: Option<OperationId>,
    json: bool,
) -> Result<Exit, CliError> {
    if let Some(id) = operation {
        let operation: OperationInfo = daemon.get(&format!("/v1/operations/{id}")).await?;
        show(json, &operation, |operation| {
            say(table::operation(operation).trim_end())
        });
        return Ok(Exit::Done);
    }
    let operations: Vec<OperationInfo> = daemon.get("/v1/operations").await?;
    if !json {
        for retry in daemon.get::<Vec<RetryInfo>>("/v1/retries").await? {
            say(format_args!(
                "{} ended degraded, and goes on: {} is moved onto its HCAs as soon as that is \
                 possible; {} ({} attempts). `symvirt cancel {0}` gives it up",
                retry.wish.operation, retry.wish.gang, retry.waiting, retry.attempts
            ));
        }
    }
    show(json, &operations, |operations| {
        say(format_args!(
            "{:<10} {:<16} {:<36} REASON",
            "OPERATION", "PHASE", "REQUEST"
        ));
        for operation in operations {
            say(format_args!(
                "{:<10} {:<16} {:<36} {}",
                operation.id.as_str(),
                operation.phase,
                operation.request.to_string(),
                operation.reason.as_deref().unwrap_or("-")
            ));
        }
    });
    Ok(Exit::Done)
}

pub(super) async fn watch(
    daemon: &Daemon,
    operation: Option<OperationId>,
    json: bool,
) -> Result<Exit, CliError> {
    let operation = match operation {
        Some(id) => daemon.get(&format!("/v1/operations/{id}")).await?,
        None => {
            let all: Vec<OperationInfo> = daemon.get("/v1/operations").await?;
            all.into_iter().next_back().ok_or_else(|| {
                let hint = "`symvirt migrate GANG --to HOST` starts one";
                CliError::Refused(Problem::new("unknown-operation", "no operation yet", hint))
            })?
        }
    };
    watch::follow(daemon, operation, json).await
}

pub(super) async fn cancel(
    daemon: &Daemon,
    operation: &OperationId,
    json: bool,
) -> Result<Exit, CliError> {
    let retries: Vec<RetryInfo> = daemon.get("/v1/retries").await?;
    if let Some(retry) = retries.iter().find(|it| it.wish.operation == *operation) {
        daemon
            .delete::<()>(&format!("/v1/retries/{operation}"))
            .await?;
        show(json, retry, |retry| {
            say(format_args!(
                "{operation} is not retried any more; {} stays on fallback",
                retry.wish.gang
            ));
        });
        return Ok(Exit::Done);
    }
    let operation: OperationInfo = daemon
        .delete(&format!("/v1/operations/{operation}"))
        .await?;
    show(json, &operation, |operation| {
        say(format_args!(
            "{} is being undone; `symvirt watch {0}` follows it",
            operation.id
        ));
    });
    Ok(Exit::Done)
}

pub(super) async fn release(
    daemon: &Daemon,
    operation: &OperationId,
    coordinator_is_gone: bool,
    json: bool,
) -> Result<Exit, CliError> {
    let path = format!("/v1/reservations/{operation}?coordinator_is_gone={coordinator_is_gone}");
    let released: Released = daemon.delete(&path).await?;
    show(json, &released, |released| {
        say(format_args!(
            "{operation} has nothing reserved here any more"
        ));
        let say_of = |what: &str, vms: &[VmName]| {
            if !vms.is_empty() {
                let names: Vec<_> = vms.iter().map(VmName::as_str).collect();
                say(format_args!("{what} {}", names.join(" ")));
            }
        };
        say_of("ended, they waited in vain:", &released.ended);
        say_of("not touched, they have arrived:", &released.kept);
    });
    Ok(Exit::Done)
}
