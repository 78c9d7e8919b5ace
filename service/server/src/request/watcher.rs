//! The caller of a call that streams. It may go on for long, so it is asked again whether its identity still counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::Extensions;
use join_domain::refusal::Refusal;
use tonic::{Request, Status};

use crate::{app::App, request::problem};

/// How often.
const AGAIN: Duration = Duration::from_secs(5);

/// Somebody who may read, for as long as the identity counts.
pub struct Watcher {
    app: Arc<App>,
    extensions: Extensions,
    asked: Instant,
}

impl Watcher {
    /// The auditor behind a request.
    ///
    /// # Errors
    /// UNAUTHENTICATED, ROLE_REQUIRED.
    pub async fn of<T: Sync>(app: &Arc<App>, request: &Request<T>) -> Result<Self, Refusal> {
        app.admitted_administrator(request.extensions()).await?;
        Ok(Self { app: Arc::clone(app), extensions: request.extensions().clone(), asked: Instant::now() })
    }

    /// Asks again, when it is time to.
    ///
    /// # Errors
    /// UNAUTHENTICATED once the identity has expired or was revoked.
    pub async fn still_counts(&mut self) -> Result<(), Status> {
        if self.asked.elapsed() >= AGAIN {
            let asked = self.app.admitted_administrator(&self.extensions).await;
            asked.map_err(problem::status)?;
            self.asked = Instant::now();
        }
        Ok(())
    }
}
