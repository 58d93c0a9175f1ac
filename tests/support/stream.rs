//! An OTAP stream, message by message, as exporters and worse clients open it.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use otlake::proto::arrow::{BatchArrowRecords, BatchStatus, StatusCode};
use otlake::receive::otap::stream_path;
use otlake::signal::Signal;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Server;
use super::raw::frame;

type Piece = Result<Frame<Bytes>, Infallible>;

/// One open stream on a connection of its own.
pub struct OtapStream {
    sender: Option<mpsc::Sender<Piece>>,
    body: Incoming,
    arrived: BytesMut,
    trailers: Option<HeaderMap>,
    pub headers: HeaderMap,
}

impl OtapStream {
    /// Opens a stream; the answer's head must be there before anything is sent.
    pub async fn open(server: &Server, signal: Signal) -> OtapStream {
        OtapStream::open_with(server, signal, &[]).await
    }

    /// Opens a stream with more headers.
    pub async fn open_with(
        server: &Server,
        signal: Signal,
        headers: &[(&str, &str)],
    ) -> OtapStream {
        let opened = OtapStream::connect(server.grpc, signal, headers).await;
        opened.expect("an answer")
    }

    /// Opens a stream to whoever listens there; none if nobody answers.
    pub async fn connect(
        address: SocketAddr,
        signal: Signal,
        headers: &[(&str, &str)],
    ) -> Option<OtapStream> {
        let url = format!("http://{address}");
        OtapStream::connect_over(HttpConnector::new(), &url, signal, headers).await
    }

    /// Opens a stream over connections that somebody else makes.
    pub async fn connect_over<C>(
        connector: C,
        url: &str,
        signal: Signal,
        headers: &[(&str, &str)],
    ) -> Option<OtapStream>
    where
        C: Connect + Clone + Send + Sync + 'static,
    {
        let uri = format!("{url}{}", stream_path(signal));
        let mut request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (sender, receiver) = mpsc::channel(64);
        let body = StreamBody::new(ReceiverStream::<Piece>::new(receiver).fuse());
        let client: Client<_, _> = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .build(connector);
        let response = client.request(request.body(body).unwrap()).await.ok()?;
        let (parts, body) = response.into_parts();
        Some(OtapStream {
            sender: Some(sender),
            body,
            arrived: BytesMut::new(),
            trailers: None,
            headers: parts.headers,
        })
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&self, bytes: impl Into<Bytes>) {
        let piece = Ok(Frame::data(bytes.into()));
        // A server that has ended the stream takes nothing more.
        let _ = self.sender.as_ref().unwrap().send(piece).await;
    }

    /// Sends one batch.
    pub async fn send(&self, batch: &BatchArrowRecords) {
        self.send_raw(frame(false, &batch.encode_to_vec())).await;
    }

    /// Closes the client's side.
    pub fn close_send(&mut self) {
        self.sender = None;
    }

    /// The next status; `None` when the server has ended the stream.
    pub async fn status(&mut self) -> Option<BatchStatus> {
        let next = self.try_status().await;
        next.unwrap_or_else(|error| panic!("the stream broke: {error}"))
    }

    /// The same, where the connection may break.
    pub async fn try_status(&mut self) -> Result<Option<BatchStatus>, hyper::Error> {
        loop {
            if let Some(length) = self.arrived.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.arrived.len() >= 5 + length {
                    self.arrived.advance(5);
                    let message = self.arrived.split_to(length);
                    return Ok(Some(BatchStatus::decode(message).unwrap()));
                }
            }
            match self.body.frame().await.transpose()? {
                None => return Ok(None),
                Some(frame) if frame.is_data() => {
                    self.arrived.extend(frame.into_data().unwrap());
                }
                Some(frame) => self.trailers = Some(frame.into_trailers().unwrap()),
            }
        }
    }

    /// Sends one batch and waits for its status.
    pub async fn exchange(&mut self, batch: &BatchArrowRecords) -> (StatusCode, String) {
        self.send(batch).await;
        let status = self.status().await.expect("the stream goes on");
        assert_eq!(status.batch_id, batch.batch_id);
        (status.status_code(), status.status_message)
    }

    /// How the stream ended: all statuses that were left, and the gRPC status.
    pub async fn end(&mut self) -> (Vec<BatchStatus>, Status) {
        let mut left = Vec::new();
        while let Some(status) = self.status().await {
            left.push(status);
        }
        (left, self.grpc_status().expect("a grpc-status"))
    }

    /// The gRPC status, once the stream has ended.
    pub fn grpc_status(&self) -> Option<Status> {
        Status::from_header_map(&self.headers)
            .or_else(|| Status::from_header_map(self.trailers.as_ref()?))
    }
}
