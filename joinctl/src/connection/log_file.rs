//! The log's static files (c2sp.org/tlog-tiles), by HTTP over the same connection.

use anyhow::bail;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tonic::{Status, body::Body};
use tower::ServiceExt as _;

use super::Client;
use crate::exit::Fault;

/// The largest file taken: a checkpoint with many cosignatures; a hash tile has 8 KiB.
const MAX_FILE: usize = 256 << 10;

impl Client {
    /// The file below `/log/`; nothing when it is not there.
    pub(crate) async fn log_file(&self, path: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let request = Request::get(format!("/log/{path}")).body(Body::empty())?;
        let answer = self.channel().oneshot(request).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::SERVICE_UNAVAILABLE => {
                return Err(Status::unavailable(format!("/log/{path} is not served now")).into());
            }
            StatusCode::MISDIRECTED_REQUEST => {
                bail!("this node serves no files of the log (it has no log.directory): ask another node")
            }
            // As where it can't read its own ledger: to an auditor that is a finding.
            StatusCode::INTERNAL_SERVER_ERROR => {
                bail!(Fault(format!("the authority can't read its own log: /log/{path} is damaged; its log says how")))
            }
            other => bail!("/log/{path} is not served: the authority answers {other}"),
        }
        let body = Limited::new(answer.into_body(), MAX_FILE).collect().await.map_err(Status::from_error)?;
        Ok(Some(body.to_bytes().into()))
    }
}
