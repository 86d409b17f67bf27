// SPDX-License-Identifier: Apache-2.0
//! Putting the daemon together, and taking it apart on SIGTERM. What the dataplane runs goes on either way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::api::{self, Api};
use crate::core::{Core, Paths};
use crate::history::History;
use crate::keys::Keys;
use crate::place::Place;
use crate::store::Store;

/// Commands that may wait for the core.
const WAITING: usize = 64;
/// How long requests under way may take when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs control until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting: the message names the thing, what was wrong and what would be right.
pub fn run(place: &Place, state_dir: Option<&PathBuf>) -> anyhow::Result<()> {
    sysmem::no_core_dumps().context("core dumps could not be forbidden")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(place, state_dir))
}

async fn serve(place: &Place, state_dir: Option<&PathBuf>) -> anyhow::Result<()> {
    let store = Store::open(&place.state_dir(state_dir))?;
    let keys = Keys::open(&place.config_dir(), store.keys_folder())?;
    let history = Arc::new(History::default());
    let paths = Paths { dataplane_socket: place.dataplane_socket(), config_file: place.config_file() };
    let core = Core::new(paths, store, keys, Arc::clone(&history))?;
    let socket = place.control_socket();
    let listener = listen(&socket).await?;
    let (commands, waiting) = mpsc::channel(WAITING);
    let api = Api { instance: place.instance.as_str().into(), view: core.view(), commands, history };
    tracing::info!(instance = place.instance, "listening on {}", socket.display());
    let core = tokio::spawn(core.run(waiting));
    let (stop, stopped) = oneshot::channel::<()>();
    let server =
        axum::serve(listener, api::router(api)).with_graceful_shutdown(async { drop(stopped.await) });
    let server = tokio::spawn(async move { server.await });
    let result = tokio::select! {
        signal = asked_to_stop() => signal,
        _ = core => bail!("the core ended"),
    };
    drop(stop);
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "{} stays behind", socket.display());
    }
    // Who keeps a connection open does not keep us.
    let _ = tokio::time::timeout(FAREWELL, server).await;
    tracing::info!("stopped; the dataplane goes on");
    result
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

/// Listens at `path`, mode 0660; a socket that nobody answers on is replaced.
async fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if UnixStream::connect(path).await.is_ok() {
        bail!(
            "{}: another greyhound-control answers there; give this one an --instance of its own",
            path.display()
        );
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(path.display().to_string())?
        }
        _ => {}
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let old_mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o117));
    let listener = UnixListener::bind(path);
    rustix::process::umask(old_mask);
    listener.with_context(|| path.display().to_string())
}
