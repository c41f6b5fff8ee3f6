//! The way to the broker: a socket, and what stands between it and MQTT.

mod connect;
#[cfg(feature = "socks")]
mod proxy;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
#[cfg(feature = "tls")]
use tokio_rustls::client::TlsStream;

use crate::{Address, Error};
#[cfg(feature = "websocket")]
use websocket::WebSocket;

pub(crate) use connect::connect;
#[cfg(feature = "socks")]
pub(crate) use proxy::Proxy;

/// Any byte stream, such as one that the application has opened.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(crate) enum Socket {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Other(Box<dyn Stream>),
}

impl Socket {
    #[cfg(feature = "tls")]
    fn into_stream(self) -> Box<dyn Stream> {
        match self {
            Socket::Tcp(stream) => Box::new(stream),
            Socket::Tls(stream) => stream,
            Socket::Unix(stream) => Box::new(stream),
            Socket::Other(stream) => stream,
        }
    }

    fn as_stream(&mut self) -> Pin<&mut dyn Stream> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream),
            #[cfg(feature = "tls")]
            Socket::Tls(stream) => Pin::new(&mut **stream),
            Socket::Unix(stream) => Pin::new(stream),
            Socket::Other(stream) => Pin::new(&mut **stream),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        // Without a call through a table for what is most usual.
        let read = match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_read(cx, &mut buffer),
            other => other.as_stream().poll_read(cx, &mut buffer),
        };
        ready!(read)?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Socket::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            other => other.as_stream().poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            // A socket of the system has nothing of its own to flush.
            Socket::Tcp(_) | Socket::Unix(_) => Poll::Ready(Ok(())),
            other => other.as_stream().poll_flush(cx),
        }
    }
}

/// A socket whose bytes are MQTT.
pub(crate) struct Link {
    socket: Socket,
    #[cfg(feature = "websocket")]
    websocket: Option<Box<WebSocket>>,
    needs_flush: bool,
}

impl Link {
    /// What is spoken at `address`, on a socket to it.
    #[cfg_attr(not(feature = "websocket"), expect(unused_variables))]
    fn new(socket: Socket, address: &Address, bearer: Option<&str>) -> Result<Link, Error> {
        #[cfg(feature = "websocket")]
        let websocket = match address {
            Address::WebSocket { host, port, path } => {
                Some(Box::new(WebSocket::new(host, *port, path, bearer)?))
            }
            _ => None,
        };
        Ok(Link {
            socket,
            #[cfg(feature = "websocket")]
            websocket,
            needs_flush: false,
        })
    }

    /// The next MQTT bytes, which are in `buffer`: none when a layer below had something to say
    /// for itself. The end of the stream is an error.
    pub(crate) fn poll_read<'b>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &'b mut [u8],
    ) -> Poll<Result<&'b [u8], Error>> {
        #[cfg(feature = "websocket")]
        if let Some(error) = self.websocket.as_mut().and_then(|websocket| websocket.take_end()) {
            return Poll::Ready(Err(error));
        }
        let len = match ready!(self.socket.poll_read(cx, buffer)) {
            Ok(0) => return Poll::Ready(Err(Error::Lost(io::ErrorKind::UnexpectedEof.into()))),
            Ok(len) => len,
            Err(error) => return Poll::Ready(Err(Error::from_socket(error))),
        };
        let bytes = buffer.get_mut(..len).unwrap_or_default();
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            return Poll::Ready(websocket.decode(bytes));
        }
        Poll::Ready(Ok(bytes))
    }

    /// Takes MQTT bytes; how many. What a layer keeps of them goes out with [`Link::poll_flush`].
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            ready!(websocket.poll_write_pending(&mut self.socket, cx))?;
            let taken = websocket.encode(bytes);
            self.needs_flush = true;
            return match websocket.poll_write_pending(&mut self.socket, cx)? {
                Poll::Pending | Poll::Ready(()) if taken > 0 => Poll::Ready(Ok(taken)),
                Poll::Ready(()) | Poll::Pending => Poll::Pending,
            };
        }
        let written = ready!(self.socket.poll_write(cx, bytes)).map_err(Error::from_socket);
        self.needs_flush = true;
        Poll::Ready(written)
    }

    /// Whether a layer has something of its own to say.
    pub(crate) fn has_pending(&self) -> bool {
        #[cfg(feature = "websocket")]
        return self.websocket.as_ref().is_some_and(|websocket| websocket.has_pending());
        #[cfg(not(feature = "websocket"))]
        false
    }

    /// Ready when everything that was taken is with the system.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            ready!(websocket.poll_write_pending(&mut self.socket, cx))?;
        }
        if self.needs_flush {
            ready!(self.socket.poll_flush(cx)).map_err(Error::from_socket)?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be sent, as far as the layers have a way to.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        #[cfg(feature = "websocket")]
        if let Some(websocket) = &mut self.websocket {
            websocket.close();
            // Politeness only.
            let _ = websocket.poll_write_pending(&mut self.socket, cx);
        }
        self.socket.as_stream().poll_shutdown(cx)
    }
}
