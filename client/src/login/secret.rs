//! Secrets, and where they come from.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::spawn_blocking;

/// A password or another secret: its bytes, or where to ask for them whenever they are needed.
#[derive(Clone)]
pub struct Secret(Source);

#[derive(Clone)]
enum Source {
    Bytes(Arc<[u8]>),
    File(Arc<PathBuf>),
    Ask(Arc<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>),
}

impl Secret {
    /// The content of a file, without the end of its line. It is read anew each time.
    pub fn file(path: impl Into<PathBuf>) -> Secret {
        Secret(Source::File(Arc::new(path.into())))
    }

    /// What the function says each time. It may block, as it runs on a thread of its own.
    pub fn ask(ask: impl Fn() -> io::Result<Vec<u8>> + Send + Sync + 'static) -> Secret {
        Secret(Source::Ask(Arc::new(ask)))
    }

    /// The secret; an error says what cannot be read.
    pub(crate) async fn get(&self) -> Result<Vec<u8>, String> {
        match &self.0 {
            Source::Bytes(bytes) => Ok(bytes.to_vec()),
            Source::File(path) => {
                let path = path.clone();
                blocking(move || {
                    let text = std::fs::read(&*path);
                    text.map_err(|error| format!("{}: {error}", path.display())).map(line)
                })
                .await
            }
            Source::Ask(ask) => {
                let ask = ask.clone();
                blocking(move || ask().map_err(|error| error.to_string())).await
            }
        }
    }
}

/// On a thread where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}

fn line(mut text: Vec<u8>) -> Vec<u8> {
    if text.last() == Some(&b'\n') {
        text.pop();
        if text.last() == Some(&b'\r') {
            text.pop();
        }
    }
    text
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Secret {
        Secret(Source::Bytes(bytes.into()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::from(text.into_bytes())
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Secret {
        Secret::from(text.as_bytes().to_vec())
    }
}

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::File(path) => write!(f, "Secret(file {})", path.display()),
            Source::Bytes(_) | Source::Ask(_) => f.write_str("Secret"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_line_is_no_part_of_a_secret() {
        for (text, secret) in [
            ("pass word", "pass word"),
            ("pass\n", "pass"),
            ("pass\r\n", "pass"),
            ("pass\n\n", "pass\n"),
            ("", ""),
        ] {
            assert_eq!(line(text.into()), secret.as_bytes(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn a_secret_is_asked_for_each_time_and_never_shown() {
        let count = std::sync::atomic::AtomicUsize::new(0);
        let secret = Secret::ask(move || {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n < 2 {
                Ok(format!("s3cret {n}").into_bytes())
            } else {
                Err(io::ErrorKind::NotFound.into())
            }
        });
        assert_eq!(secret.get().await, Ok(b"s3cret 0".to_vec()));
        assert_eq!(secret.get().await, Ok(b"s3cret 1".to_vec()));
        assert!(secret.get().await.is_err());
        assert_eq!(format!("{secret:?} {:?}", Secret::from("s3cret")), "Secret Secret");
        let missing = Secret::file("/nowhere/password").get().await;
        assert!(missing.unwrap_err().contains("/nowhere/password"));
    }
}
