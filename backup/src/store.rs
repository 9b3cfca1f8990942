//! The store: an S3 bucket or a directory, each call with a time limit, and nothing taken for stored that was not seen to be there.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload, RetryConfig};
use tokio::time::Instant;

use crate::error::{BackupError, Fault};
use crate::http::Connector;
use crate::wide;

/// The number of bytes that are asked for at once.
const READ_BYTES: usize = 8 << 20;
/// The time that one call may take, its retries within.
const CALL: Duration = Duration::from_secs(90);
/// The time for which a failure that may pass is tried again.
const RETRIES: Duration = Duration::from_secs(20);
/// The longest manifest that is read.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;

/// A store of backups.
#[derive(Clone, Debug)]
pub struct Store {
    url: Arc<str>,
    prefix: Path,
    inner: Arc<dyn ObjectStore>,
}

/// An object that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredObject {
    /// Its name, below the store's address.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// When it was put there, by the store's clock, ms since the Unix epoch.
    pub put_ms: u64,
}

/// Bounds how fast bytes go, over a second or more.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: Option<u64>,
    free: Instant,
}

impl Pace {
    /// So many bytes in a second, or as many as there can be.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self { bytes_per_second: bytes_per_second.filter(|rate| *rate > 0), free: Instant::now() }
    }

    /// Waits until so many bytes may go.
    async fn wait(&mut self, bytes: usize) {
        let Some(rate) = self.bytes_per_second else { return };
        tokio::time::sleep_until(self.free).await;
        let takes = wide(bytes).saturating_mul(1_000) / rate;
        self.free = self.free.max(Instant::now()) + Duration::from_millis(takes);
    }
}

impl Store {
    /// The store at an address: `s3://BUCKET/PREFIX`, with the rest from the usual `AWS_` variables, or `file:///DIRECTORY`.
    ///
    /// # Errors
    /// When it is no such address, or a client for it cannot be made.
    pub fn open(url: &str) -> Result<Self, BackupError> {
        Self::open_with(url, &[])
    }

    /// As [`Store::open`], with settings of the S3 client that count more than the variables: `endpoint`, `region` and the like.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(url: &str, settings: &[(&str, &str)]) -> Result<Self, BackupError> {
        let bad = |what: String| BackupError::Url { url: url.to_owned(), what };
        if let Some(dir) = url.strip_prefix("file://") {
            if !dir.starts_with('/') {
                return Err(bad("a directory begins with a slash".to_owned()));
            }
            std::fs::create_dir_all(dir).map_err(|error| bad(error.to_string()))?;
            let local = LocalFileSystem::new_with_prefix(FilePath::new(dir)).map_err(|error| bad(error.to_string()))?;
            return Ok(Self { url: url.into(), prefix: Path::default(), inner: Arc::new(local.with_fsync(true)) });
        }
        let Some(rest) = url.strip_prefix("s3://") else { return Err(bad("its scheme is not known".to_owned())) };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad("it names no bucket".to_owned()));
        }
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|error| bad(error.to_string()))?;
        let retry = RetryConfig { max_retries: 5, retry_timeout: RETRIES, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_checksum_algorithm(Checksum::SHA256)
            .with_http_connector(Connector)
            .with_retry(retry);
        for (name, value) in settings {
            let key = name.parse().map_err(|_| bad(format!("{name} is no setting of an S3 client")))?;
            builder = builder.with_config(key, *value);
        }
        let inner = builder.build().map_err(|error| bad(error.to_string()))?;
        Ok(Self { url: url.into(), prefix, inner: Arc::new(inner) })
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn path(&self, object: &str) -> Path {
        self.prefix.parts().chain(object.split('/').map(Into::into)).collect()
    }

    /// All objects whose names begin with that folder; all there are for an empty one.
    ///
    /// # Errors
    /// When the store does not tell.
    pub async fn list(&self, folder: &str) -> Result<Vec<StoredObject>, BackupError> {
        let prefix = if folder.is_empty() { self.prefix.clone() } else { self.path(folder.trim_end_matches('/')) };
        let own = self.prefix.parts().count();
        let found = |meta: object_store::ObjectMeta| {
            let words: Vec<String> = meta.location.parts().skip(own).map(|part| part.as_ref().to_owned()).collect();
            let put_ms = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or_default();
            StoredObject { object: words.join("/"), bytes: meta.size, put_ms }
        };
        let all = self.inner.list(Some(&prefix)).map_ok(found).try_collect();
        self.call("list", folder, all).await
    }

    /// Puts an object there and sees that it is there. With the name of one that is there it takes its place: names say what the bytes are.
    ///
    /// # Errors
    /// When the store refuses, or does not have it then.
    pub async fn put(&self, object: &str, bytes: Bytes, pace: &mut Pace) -> Result<(), BackupError> {
        pace.wait(bytes.len()).await;
        let length = wide(bytes.len());
        self.call("put", object, self.inner.put(&self.path(object), PutPayload::from_bytes(bytes))).await?;
        self.is_there(object, length).await
    }

    /// Puts an object there, unless there is one of that name.
    ///
    /// # Errors
    /// As [`Store::put`]; when there is another one of that name.
    pub async fn create(&self, object: &str, bytes: Bytes) -> Result<(), BackupError> {
        let path = self.path(object);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.inner.put_opts(&path, PutPayload::from_bytes(bytes.clone()), options);
        match self.call("create", object, put).await {
            // By a try of ours that was answered too late: its name says what its bytes are.
            Err(BackupError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => {}
            created => drop(created?),
        }
        if self.get(object).await? == bytes {
            return Ok(());
        }
        Err(BackupError::NotKept { object: object.to_owned(), expected: wide(bytes.len()), found: None })
    }

    async fn is_there(&self, object: &str, expected: u64) -> Result<(), BackupError> {
        let found = match self.call("look at", object, self.inner.head(&self.path(object))).await {
            Err(BackupError::Store { source: object_store::Error::NotFound { .. }, .. }) => None,
            found => Some(found?.size),
        };
        if found == Some(expected) {
            return Ok(());
        }
        Err(BackupError::NotKept { object: object.to_owned(), expected, found })
    }

    /// A small object, whole.
    ///
    /// # Errors
    /// When it is not there, or the store refuses.
    pub async fn get(&self, object: &str) -> Result<Bytes, BackupError> {
        let path = self.path(object);
        let get = async {
            let found = self.inner.get(&path).await?;
            let bytes = if found.meta.size > MANIFEST_BYTES_MAX { Bytes::new() } else { found.bytes().await? };
            Ok(bytes)
        };
        self.call("get", object, get).await.map_err(|error| missing(error, object))
    }

    /// Gives the bytes of an object of that length to `take`, piece by piece in order.
    ///
    /// # Errors
    /// When it is not there, is of another length, or the store refuses; whatever `take` fails with.
    pub async fn read(
        &self,
        object: &str,
        bytes: u64,
        mut take: impl FnMut(u64, &Bytes) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let (path, mut at) = (self.path(object), 0);
        while at < bytes {
            let end = bytes.min(at + wide(READ_BYTES));
            let piece = self.call("get", object, self.inner.get_range(&path, at..end)).await;
            let piece = piece.map_err(|error| missing(error, object))?;
            if wide(piece.len()) != end - at {
                let fault = Fault::Length { expected: bytes, found: at + wide(piece.len()) };
                return Err(BackupError::Object { object: object.to_owned(), fault });
            }
            take(at, &piece)?;
            at = end;
        }
        Ok(())
    }

    /// Removes objects; those that are not there are no error.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn remove(&self, objects: &[String]) -> Result<(), BackupError> {
        for object in objects {
            match self.call("remove", object, self.inner.delete(&self.path(object))).await {
                Err(BackupError::Store { source: object_store::Error::NotFound { .. }, .. }) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    async fn call<T>(
        &self,
        what: &'static str,
        object: &str,
        call: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BackupError> {
        let name = || if object.is_empty() { self.url.to_string() } else { object.to_owned() };
        match tokio::time::timeout(CALL, call).await {
            Err(_) => Err(BackupError::TimedOut { what, object: name(), seconds: CALL.as_secs() }),
            Ok(done) => done.map_err(|source| BackupError::Store { what, object: name(), source }),
        }
    }

    /// Runs so many of the futures at a time.
    pub(crate) async fn together<T>(
        count: usize,
        all: impl IntoIterator<Item = impl Future<Output = Result<T, BackupError>>>,
    ) -> Result<Vec<T>, BackupError> {
        futures::stream::iter(all).buffered(count).try_collect().await
    }
}

fn missing(error: BackupError, object: &str) -> BackupError {
    match error {
        BackupError::Store { source: object_store::Error::NotFound { .. }, .. } => {
            BackupError::Object { object: object.to_owned(), fault: Fault::Missing }
        }
        error => error,
    }
}
