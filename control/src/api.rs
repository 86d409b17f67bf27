// SPDX-License-Identifier: Apache-2.0
//! HTTP and JSON under `/v1/`: what is asked becomes a look at the [`View`] or a [`Command`] for the core.
//! `docs/api.md` is the manual.

mod qos;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Json, Path, Query, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use config::{Config, Diff, SaName};
use messages::List;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroize as _;

use crate::core::{ChangeOutcome, Changed, Command, Listing, Mode, Reply};
use crate::failure::{Failure, FailureKind};
use crate::history::History;
use crate::sas::NewSa;
use crate::view::{Dataplane, View};
pub use qos::{ColourBody, ColoursBody, DropsBody, QosRow, ShaperBody};
pub use rows::{
    ConfigurationBody, DataplaneBody, DropRow, NeighborRow, PolicyRow, PortRow, RouteRow, SaRow, StatusBody,
    TunnelRow, WorkerRow, WorkersBody,
};

/// The longest configuration that is taken.
const BODY_BYTES_MAX: usize = 128 << 20;
/// How long a replaced inbound SA stays, unless the request says otherwise.
const GRACE_SECONDS: u64 = 30;
const TOML: &str = "application/toml";
const JSON: &str = "application/json";

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// Name of the instance.
    pub instance: Arc<str>,
    /// What the core publishes.
    pub view: watch::Receiver<Arc<View>>,
    /// The way to the core.
    pub commands: mpsc::Sender<Command>,
    /// What happened lately.
    pub history: Arc<History>,
}

/// The answer to a comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiffBody {
    /// Whether they differ.
    pub different: bool,
    /// A line for each entry that differs.
    pub text: String,
    /// The same for programs.
    pub diff: Diff,
}

#[derive(Deserialize)]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct SinceNumber {
    #[serde(default)]
    since: u64,
}

#[derive(Deserialize)]
struct AllReasons {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceBody {
    sas: Vec<Value>,
    grace_seconds: Option<u64>,
}

/// The routes of the API.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/config", get(show_config).put(apply))
        .route("/v1/config/diff", post(compare))
        .route("/v1/sas", get(list_sas).post(add_sa))
        .route("/v1/sas/replace", post(replace_sas))
        .route("/v1/sas/{direction}/{spi}", delete(delete_sa))
        .route("/v1/tunnels", get(list_tunnels))
        .route("/v1/routes", get(list_routes))
        .route("/v1/policies", get(list_policies))
        .route("/v1/neighbors", get(list_neighbors))
        .route("/v1/ports", get(list_ports))
        .route("/v1/workers", get(list_workers))
        .route("/v1/drops", get(list_drops))
        .route("/v1/qos", get(list_qos))
        .route("/v1/events", get(list_events))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self.body())).into_response()
    }
}

impl IntoResponse for Changed {
    fn into_response(self) -> Response {
        let status = match self.outcome {
            ChangeOutcome::Pending => StatusCode::ACCEPTED,
            _ => StatusCode::OK,
        };
        (status, Json(self)).into_response()
    }
}

impl Api {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    fn dataplane(&self) -> Result<Arc<Dataplane>, Failure> {
        self.view().dataplane.clone().ok_or_else(Failure::unavailable)
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Failure> {
        let stopping = || Failure::new(FailureKind::Unavailable, "greyhound-control is stopping");
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    async fn list(&self, list: List) -> Result<Listing, Failure> {
        self.ask(|reply| Command::List(list, reply)).await
    }

    /// The list, or an empty one while the dataplane is away.
    async fn list_if_connected(&self, list: List) -> Result<Listing, Failure> {
        match self.list(list).await {
            Err(failure) if failure.kind == FailureKind::Unavailable => Ok(Listing::default()),
            other => other,
        }
    }
}

async fn status(State(api): State<Api>) -> Json<StatusBody> {
    Json(rows::status(&api.instance, &api.view()))
}

async fn show_config(State(api): State<Api>, headers: HeaderMap) -> Response {
    let view = api.view();
    if names(&headers, ACCEPT.as_str(), JSON) {
        return Json(&view.saved.config).into_response();
    }
    ([(CONTENT_TYPE, TOML)], view.saved.config.to_toml()).into_response()
}

async fn apply(
    State(api): State<Api>,
    query: Result<Query<DryRun>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Changed, Failure> {
    let mode = mode(query)?;
    let config = read_config(&headers, &body)?;
    api.ask(|reply| Command::Apply(Box::new(config), mode, reply)).await
}

async fn compare(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Result<Json<DiffBody>, Failure> {
    let wanted = read_config(&headers, &body)?;
    let diff = config::diff(&api.view().saved.config, &wanted);
    Ok(Json(DiffBody { different: !diff.is_empty(), text: diff.to_string(), diff }))
}

async fn list_sas(State(api): State<Api>) -> Result<Json<Vec<SaRow>>, Failure> {
    let listing = api.list_if_connected(List::Sas).await?;
    Ok(Json(rows::sas(&api.view(), &listing)))
}

async fn add_sa(
    State(api): State<Api>,
    query: Result<Query<DryRun>, QueryRejection>,
    body: Bytes,
) -> Result<Changed, Failure> {
    let mode = mode(query)?;
    let sa = NewSa::from_json(read_secret_json(body)?).map_err(unreadable)?;
    api.ask(|reply| Command::AddSa(sa, mode, reply)).await
}

async fn replace_sas(State(api): State<Api>, body: Bytes) -> Result<Changed, Failure> {
    let body: ReplaceBody = serde_json::from_value(read_secret_json(body)?).map_err(unreadable)?;
    let sas: Vec<NewSa> =
        body.sas.into_iter().map(NewSa::from_json).collect::<Result<_, _>>().map_err(unreadable)?;
    let grace = Duration::from_secs(body.grace_seconds.unwrap_or(GRACE_SECONDS));
    api.ask(|reply| Command::ReplaceSas(sas, grace, reply)).await
}

async fn delete_sa(
    State(api): State<Api>,
    Path((direction, spi)): Path<(String, String)>,
    query: Result<Query<DryRun>, QueryRejection>,
) -> Result<Changed, Failure> {
    let mode = mode(query)?;
    let name: SaName = format!("{direction} {spi}").parse().map_err(unreadable)?;
    api.ask(|reply| Command::DeleteSa(name, mode, reply)).await
}

async fn list_tunnels(State(api): State<Api>) -> Result<Json<Vec<TunnelRow>>, Failure> {
    let listing = api.list_if_connected(List::Tunnels).await?;
    Ok(Json(rows::tunnels(&api.view(), &listing)))
}

async fn list_routes(State(api): State<Api>) -> Json<Vec<RouteRow>> {
    Json(rows::routes(&api.view()))
}

async fn list_policies(State(api): State<Api>) -> Json<Vec<PolicyRow>> {
    Json(rows::policies(&api.view()))
}

async fn list_neighbors(State(api): State<Api>) -> Result<Json<Vec<NeighborRow>>, Failure> {
    let dataplane = api.dataplane()?;
    let listing = api.list(List::Neighbors).await?;
    Ok(Json(rows::neighbors(&dataplane, &listing)))
}

async fn list_ports(State(api): State<Api>) -> Result<Json<Vec<PortRow>>, Failure> {
    Ok(Json(rows::ports(&api.view(), &*api.dataplane()?)))
}

async fn list_workers(State(api): State<Api>) -> Result<Json<WorkersBody>, Failure> {
    Ok(Json(rows::workers(&*api.dataplane()?)))
}

async fn list_drops(
    State(api): State<Api>,
    query: Result<Query<AllReasons>, QueryRejection>,
) -> Result<Json<Vec<DropRow>>, Failure> {
    let Query(AllReasons { all }) = query.map_err(|error| unreadable(error.body_text()))?;
    Ok(Json(rows::drops(&*api.dataplane()?, all)))
}

async fn list_qos(State(api): State<Api>) -> Result<Json<Vec<QosRow>>, Failure> {
    let dataplane = api.dataplane()?;
    let listing = api.list(List::Qos).await?;
    Ok(Json(qos::rows(&api.view(), &dataplane, &listing)))
}

async fn list_events(
    State(api): State<Api>,
    query: Result<Query<SinceNumber>, QueryRejection>,
) -> Result<Response, Failure> {
    let Query(SinceNumber { since }) = query.map_err(|error| unreadable(error.body_text()))?;
    Ok(Json(api.history.since(since)).into_response())
}

async fn no_such_path() -> Failure {
    Failure::new(FailureKind::NotFound, "no such resource").with("docs/api.md lists what there is under /v1/")
}

async fn no_such_method() -> Response {
    let failure = Failure::new(FailureKind::Unreadable, "this resource does not take this method");
    (StatusCode::METHOD_NOT_ALLOWED, Json(failure.body())).into_response()
}

fn mode(query: Result<Query<DryRun>, QueryRejection>) -> Result<Mode, Failure> {
    let Query(DryRun { dry_run }) = query.map_err(|error| unreadable(error.body_text()))?;
    Ok(if dry_run { Mode::DryRun } else { Mode::Do })
}

fn names(headers: &HeaderMap, header: &str, media_type: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().starts_with(media_type))
}

fn read_config(headers: &HeaderMap, body: &[u8]) -> Result<Config, Failure> {
    if names(headers, CONTENT_TYPE.as_str(), JSON) {
        return serde_json::from_slice(body).map_err(unreadable);
    }
    let text = std::str::from_utf8(body).map_err(unreadable)?;
    Config::parse(text, "configuration").map_err(|error| Failure::invalid(error.sentences()))
}

/// A body that may carry keys: wiped where that can be done.
fn read_secret_json(body: Bytes) -> Result<Value, Failure> {
    let value = serde_json::from_slice(&body).map_err(unreadable);
    if let Ok(mut body) = body.try_into_mut() {
        body.as_mut().zeroize();
    }
    value
}

fn unreadable(problem: impl ToString) -> Failure {
    Failure::new(FailureKind::Unreadable, "the request cannot be understood").with(problem.to_string())
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        unreadable(rejection.body_text())
    }
}
