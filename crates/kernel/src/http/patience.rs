//! A connection with limits on how long it waits for its client: for the rest of a request body, and for the client to
//! read what was sent. It sits below HTTP, so it covers every path, and whatever a connection is upgraded to.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long to wait for a client.
#[derive(Debug, Clone, Copy)]
pub struct IoTimeouts {
    /// For a whole request body, measured from its head.
    pub body: Duration,
    /// For the client to read any of what was sent. What it reads buys time at 1 KiB per second.
    pub writing: Duration,
}

/// Bytes per second that a client has to read of what is pending: byte by byte it could keep its slot forever.
const RATE: u64 = 1024;

/// Deadline of the body that is being received, if there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct BodyDeadline(Arc<Mutex<Option<Instant>>>);

impl BodyDeadline {
    /// Watches a request body: the deadline applies until it has ended, or is dropped.
    pub(super) fn watch(&self, body: Incoming, most: Duration) -> TrackedBody {
        if !body.is_end_stream() {
            self.set(Some(Instant::now() + most));
        }
        TrackedBody { body, due: self.clone() }
    }

    /// Gives a body that is still being received more time.
    pub(super) fn extend(&self, by: Duration) {
        if let Some(due) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *due += by;
        }
    }

    fn set(&self, due: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request body that reports when it has ended.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Incoming,
    due: BodyDeadline,
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.due.set(None);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.due.set(None);
    }
}

/// A stream that fails if its client keeps us waiting.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    stream: S,
    writing: Duration,
    due: BodyDeadline,
    reading: Option<Pin<Box<Sleep>>>,
    blocked: Option<WriteStalled>,
}

/// The client does not read what was sent.
#[derive(Debug)]
struct WriteStalled {
    since: Instant,
    /// Bytes it has read since, a few at a time.
    taken: u64,
    end: Pin<Box<Sleep>>,
}

impl<S> TimedStream<S> {
    pub(super) fn new(stream: S, writing: Duration, due: BodyDeadline) -> Self {
        Self { stream, writing, due, reading: None, blocked: None }
    }

    /// Ready once the body in progress is overdue.
    fn poll_body_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = self.due.get() else {
            self.reading = None;
            return Poll::Pending;
        };
        let end = self.reading.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if end.deadline() != due {
            end.as_mut().reset(due);
        }
        end.as_mut().poll(cx)
    }

    /// Ready once the client should have read more.
    fn poll_blocked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (now, most) = (Instant::now(), self.writing);
        let blocked = self.blocked.get_or_insert_with(|| WriteStalled {
            since: now,
            taken: 0,
            end: Box::pin(sleep_until(now + most)),
        });
        let until = blocked.since + most + Duration::from_secs(blocked.taken / RATE);
        if blocked.end.deadline() != until {
            blocked.end.as_mut().reset(until);
        }
        blocked.end.as_mut().poll(cx)
    }

    fn wrote(&mut self, polled: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match polled {
            Poll::Pending => self.poll_blocked(cx).map(|()| Err(overdue("the client does not read what it is sent"))),
            Poll::Ready(Ok(bytes)) => {
                if let Some(blocked) = &mut self.blocked {
                    blocked.taken += bytes as u64;
                }
                Poll::Ready(Ok(bytes))
            }
            failed @ Poll::Ready(_) => failed,
        }
    }
}

fn overdue(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, words)
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => self.poll_body_due(cx).map(|()| Err(overdue("the request body does not arrive"))),
            read @ Poll::Ready(_) => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Writers flush once nothing is left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.blocked = None;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const T: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_ends_the_connection() {
        let (near, _far) = duplex(16);
        let mut near = TimedStream::new(near, T, BodyDeadline::default());
        let began = Instant::now();
        assert_eq!(near.write_all(&[0; 64]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn byte_by_byte_it_ends_as_well_and_at_a_fair_rate_it_does_not() {
        for (piece, fine) in [(1, false), (4096, true)] {
            let (near, mut far) = duplex(16);
            let mut near = TimedStream::new(near, T, BodyDeadline::default());
            let reader = tokio::spawn(async move {
                let mut buf = vec![0; piece];
                while far.read_exact(&mut buf).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            });
            let written = near.write_all(&vec![0; 1024 * 1024]).await;
            assert_eq!(written.is_ok(), fine, "{piece} bytes at a time: {written:?}");
            reader.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_waited_for_while_nothing_is_due() {
        let (near, mut far) = duplex(16);
        let mut near = TimedStream::new(near, T, BodyDeadline::default());
        tokio::spawn(async move {
            tokio::time::sleep(T * 100).await;
            far.write_all(b"x").await.unwrap();
            tokio::time::sleep(T).await;
        });
        assert_eq!(near.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_due_ends_it_however_slowly_it_comes() {
        let (near, mut far) = duplex(16);
        let due = BodyDeadline::default();
        due.set(Some(Instant::now() + T));
        let mut near = TimedStream::new(near, T, due);
        tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = Instant::now();
        let read = near.read_to_end(&mut vec![]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_gets_the_time_that_its_route_allows() {
        let (near, _far) = duplex(16);
        let due = BodyDeadline::default();
        due.set(Some(Instant::now() + T));
        due.extend(T);
        let began = Instant::now();
        let read = TimedStream::new(near, T, due).read_to_end(&mut vec![]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 60);
    }
}
