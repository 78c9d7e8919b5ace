//! JSON over HTTP/1.1, as `curl` speaks it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    network::{Certificate, Network},
    refused::Refused,
};

/// One connection.
pub(crate) struct Http {
    sender: http1::SendRequest<Full<Bytes>>,
    host: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Http {
    pub(crate) async fn connect(
        network: &Arc<Network>,
        node: usize,
        certificate: Option<&Certificate>,
    ) -> Result<Self, Refused> {
        let stream = network.connect(node, certificate, "http/1.1").await?;
        Ok(Self::over(stream, network.address(node).to_string()).await)
    }

    /// Without TLS, as metrics are read.
    pub(crate) async fn plain(address: std::net::SocketAddr) -> Self {
        Self::over(tokio::net::TcpStream::connect(address).await.unwrap(), address.to_string()).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, host: String) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender, host }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value, Refused> {
        self.send(Method::POST, path, Some(body)).await?.json()
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, Refused> {
        let mut request = http::Request::builder().method(method).uri(path).header(header::HOST, &self.host);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        self.raw(request.body(Full::from(body)).unwrap()).await
    }

    pub(crate) async fn raw(&mut self, request: http::Request<Full<Bytes>>) -> Result<Answer, Refused> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let (parts, body) = answer.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(self) -> Result<Value, Refused> {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()));
        if self.status.is_success() { Ok(body) } else { Err(Refused::from_json(self.status, &body)) }
    }
}
