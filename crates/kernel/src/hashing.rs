//! Hashes passwords, which is slow and takes much memory by design, without taking over the machine: a fixed number of
//! threads, each with memory that is allocated once, and a queue that refuses work at once when it is full.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use rand::RngExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use crate::error::{Code, Error, Result};

/// Threads for hashing. Each keeps 19 MiB permanently; freeing and allocating it again would take more, because the
/// allocator keeps what each thread of the runtime freed.
const THREADS: usize = 2;
/// Maximum length of the queue: a second or two of work.
const QUEUE: usize = 64;
/// The part of it for unknown clients. The rest is for clients from known networks.
const STRANGERS: usize = QUEUE / 2;

/// The kind of client that waits for a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashClient {
    /// Any client.
    Stranger,
    /// A client that is authenticated, or comes from a known network.
    Known,
}

static POOL: LazyLock<HashPool> = LazyLock::new(HashPool::new);

type Work = Box<dyn FnOnce(&mut Vec<Block>) + Send>;

struct HashPool {
    queue: SyncSender<Work>,
    waiting: Arc<AtomicUsize>,
}

impl HashPool {
    fn new() -> Self {
        let (queue, work) = sync_channel::<Work>(QUEUE);
        let (work, waiting) = (Arc::new(Mutex::new(work)), Arc::new(AtomicUsize::new(0)));
        for n in 0..THREADS {
            let (work, waiting) = (Arc::clone(&work), Arc::clone(&waiting));
            let thread = std::thread::Builder::new().name(format!("hashing-{n}"));
            if let Err(error) = thread.spawn(move || work_on(&work, &waiting)) {
                tracing::error!(%error, "cannot start a password hashing thread");
            }
        }
        Self { queue, waiting }
    }

    async fn run<T: Send + 'static>(
        &self,
        asker: HashClient,
        work: impl FnOnce(&mut Vec<Block>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let most = if asker == HashClient::Known { QUEUE } else { STRANGERS };
        if self.waiting.load(Ordering::Relaxed) >= most {
            return Err(too_many());
        }
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |memory| {
            // No work for a client that has disconnected.
            if !answer.is_closed() {
                let _ = answer.send(work(memory));
            }
        });
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.queue.try_send(work).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(too_many());
        }
        answered.await.map_err(Error::internal)?
    }
}

fn work_on(work: &Mutex<Receiver<Work>>, waiting: &AtomicUsize) {
    let mut memory = Vec::new();
    loop {
        let Ok(next) = work.lock().unwrap_or_else(PoisonError::into_inner).recv() else { return };
        waiting.fetch_sub(1, Ordering::Relaxed);
        // A panic is an error for the caller that waits for the result, and must not end the thread.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| next(&mut memory)));
    }
}

fn too_many() -> Error {
    let words = "Too many users are signing in right now; try again in a few seconds.";
    Error { retry_after: Some(Duration::from_secs(3)), ..Error::new(Code::RateLimited, words) }
}

/// Hashes a user's password with argon2id.
pub async fn hash(asker: HashClient, password: SecretString) -> Result<String> {
    POOL.run(asker, move |memory| {
        let (params, salt): (_, [u8; 16]) = (Params::default(), rand::rng().random());
        let hash = compute(Algorithm::Argon2id, Version::default(), &params, &password, &salt, memory)?;
        let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        Ok(format!("$argon2id$v={}$m={m},t={t},p={p}${salt}${hash}", u32::from(Version::default())))
    })
    .await
}

/// Checks a password against its hash. Without a hash it works just as long and returns false, so that the time does
/// not reveal whether an account exists.
pub async fn verify(asker: HashClient, password: SecretString, hash: Option<String>) -> Result<bool> {
    POOL.run(asker, move |memory| {
        let Some(hash) = hash else {
            compute(Algorithm::Argon2id, Version::default(), &Params::default(), &password, &[0; 16], memory)?;
            return Ok(false);
        };
        let known = PasswordHash::new(&hash).map_err(Error::internal)?;
        let algorithm = Algorithm::new(known.algorithm.as_str()).map_err(Error::internal)?;
        let version = known.version.map_or(Ok(Version::default()), Version::try_from).map_err(Error::internal)?;
        let params = Params::try_from(&known).map_err(Error::internal)?;
        let (Some(salt), Some(expected)) = (known.salt, known.hash) else {
            return Err(Error::internal(anyhow::anyhow!("a stored password hash is truncated")));
        };
        let found = compute(algorithm, version, &params, &password, &salt, memory)?;
        // Compared in constant time.
        Ok(argon2::password_hash::phc::Output::new(&found).map_err(Error::internal)? == expected)
    })
    .await
}

fn compute(
    algorithm: Algorithm,
    version: Version,
    params: &Params,
    password: &SecretString,
    salt: &[u8],
    memory: &mut Vec<Block>,
) -> Result<Vec<u8>> {
    let mut hash = vec![0; params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN)];
    if memory.len() < params.block_count() {
        memory.resize(params.block_count(), Block::default());
    }
    Argon2::new(algorithm, version, params.clone())
        .hash_password_into_with_memory(password.expose_secret().as_bytes(), salt, &mut hash, memory.as_mut_slice())
        .map_err(Error::internal)?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        SecretString::from(text)
    }

    #[tokio::test]
    async fn passwords_verify() {
        let stored = hash(HashClient::Stranger, secret("correct horse")).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(verify(HashClient::Known, secret("correct horse"), Some(stored.clone())).await.unwrap());
        assert!(!verify(HashClient::Stranger, secret("wrong horse"), Some(stored)).await.unwrap());
        assert!(!verify(HashClient::Stranger, secret("x"), None).await.unwrap());
    }

    /// Existing accounts have hashes that the library encoded itself.
    #[tokio::test]
    async fn what_was_stored_before_verifies() {
        use argon2::password_hash::PasswordHasher;
        let stored = Argon2::default().hash_password(b"correct horse").unwrap().to_string();
        assert!(verify(HashClient::Stranger, secret("correct horse"), Some(stored)).await.unwrap());
    }

    #[tokio::test]
    async fn a_long_queue_is_refused_at_once_and_sooner_to_strangers() {
        let pool = HashPool::new();
        let held = Arc::new(Mutex::new(()));
        let guard = held.lock().unwrap();
        let mut waiting = vec![];
        let mut fill = |asker, most: usize| {
            for _ in waiting.len()..most {
                let held = Arc::clone(&held);
                let mut run = Box::pin(pool.run(asker, move |_| {
                    drop(held.lock().unwrap());
                    Ok(())
                }));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                match run.as_mut().poll(&mut context) {
                    std::task::Poll::Pending => waiting.push(run),
                    std::task::Poll::Ready(done) => return done.unwrap_err().code,
                }
            }
            Code::Internal
        };
        assert_eq!(fill(HashClient::Stranger, 1000), Code::RateLimited);
        assert_eq!(fill(HashClient::Known, 1000), Code::RateLimited);
        assert!((QUEUE..=QUEUE + THREADS).contains(&waiting.len()), "{}", waiting.len());
        drop(guard);
        for run in waiting {
            run.await.unwrap();
        }
    }
}
