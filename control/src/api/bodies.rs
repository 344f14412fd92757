//! Answers that are written while they are taken, and answers that know for whom they are.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::stream::poll_fn;
use hyper::body::{Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of one piece: large enough that handing it over costs nothing beside writing it.
const PIECE: usize = 64 << 10;
/// Pieces that wait for a client. With the one in the making, a slow client costs 320 KiB.
const PIECES: usize = 4;

/// Where a text is written that a client takes piece by piece. Writing waits for the client, so it has a thread of its own;
/// it fails when the client has gone.
pub struct Pieces {
    piece: Vec<u8>,
    sender: Sender<Result<Bytes, std::convert::Infallible>>,
}

/// The two ends of a text.
pub fn pieces() -> (Pieces, Body) {
    let (sender, mut receiver): (_, Receiver<_>) = channel(PIECES);
    let piece = Vec::with_capacity(PIECE);
    let body = Body::from_stream(poll_fn(move |context| receiver.poll_recv(context)));
    (Pieces { piece, sender }, body)
}

impl Pieces {
    /// Hands over what is left.
    ///
    /// # Errors
    /// The client has gone.
    pub fn finish(mut self) -> fmt::Result {
        self.hand_over()
    }

    fn hand_over(&mut self) -> fmt::Result {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.piece.len() + text.len() > PIECE {
            self.hand_over()?;
        }
        self.piece.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// An answer that keeps `G` until it has been written or given up.
pub struct Guarded<G> {
    body: Body,
    _guard: G,
}

impl<G> Guarded<G> {
    /// Of a body.
    pub fn new(body: Body, guard: G) -> Self {
        Self { body, _guard: guard }
    }
}

impl<G: Unpin> HttpBody for Guarded<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
