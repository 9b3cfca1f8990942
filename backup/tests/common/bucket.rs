//! A bucket behind a real socket, which answers as S3 does, checks signatures, and loses, delays, repeats or tears what it is told to.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use zue_backup::Store;

const NAME: &str = "logs";
const KEY: &str = "zue";
const SECRET: &str = "not-a-secret";

/// The fate of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// It is carried out and answered.
    Pass,
    /// A PUT is answered, and not carried out.
    Lose,
    /// A PUT is carried out twice, the second time a while after it was answered.
    Repeat,
    /// A PUT is answered, and only a part of the object is there.
    Tear,
    /// It takes a while.
    Delay,
    /// It is refused.
    Refuse,
    /// It is never answered: whoever has asked is to be ended.
    Hang,
    /// It is carried out and never answered.
    HangBehind,
}

/// A bucket of its own.
pub(crate) struct Bucket {
    pub(crate) root: Arc<TempDir>,
    address: std::net::SocketAddr,
    pub(crate) fault: Arc<Fault>,
}

/// The fate of one request.
pub(crate) struct Fault {
    seen: AtomicUsize,
    at: AtomicUsize,
    fate: std::sync::Mutex<Fate>,
    only_puts: std::sync::Mutex<bool>,
    pub(crate) hangs: Notify,
}

impl Fault {
    /// The request number `at` from now on, or PUT number `at`, has that fate.
    pub(crate) fn set(&self, at: usize, fate: Fate, only_puts: bool) {
        self.seen.store(0, Ordering::SeqCst);
        self.at.store(at, Ordering::SeqCst);
        *self.fate.lock().unwrap() = fate;
        *self.only_puts.lock().unwrap() = only_puts;
    }

    pub(crate) fn clear(&self) {
        self.set(usize::MAX, Fate::Pass, false);
    }

    /// The number of requests, or PUTs, since it was set.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    fn next(&self, method: &Method) -> Fate {
        if *self.only_puts.lock().unwrap() && method != Method::PUT {
            return Fate::Pass;
        }
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number == self.at.load(Ordering::SeqCst) { *self.fate.lock().unwrap() } else { Fate::Pass }
    }
}

impl Bucket {
    pub(crate) async fn start() -> Self {
        let root = Arc::new(tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join(NAME)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let fault = Arc::new(Fault {
            seen: AtomicUsize::new(0),
            at: AtomicUsize::new(usize::MAX),
            fate: std::sync::Mutex::new(Fate::Pass),
            only_puts: std::sync::Mutex::new(false),
            hangs: Notify::new(),
        });
        let (of_server, files) = (Arc::clone(&fault), Arc::clone(&root));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, fault, files) = (service.clone(), Arc::clone(&of_server), Arc::clone(&files));
                let serve = service_fn(move |request| {
                    let (service, fault, files) = (service.clone(), Arc::clone(&fault), Arc::clone(&files));
                    async move { Ok::<_, Infallible>(answer(service, &fault, &files, request).await) }
                });
                tokio::spawn(async move {
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve).await;
                });
            }
        });
        Self { root, address, fault }
    }

    /// The variables by which programs reach it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 5] {
        [
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
        ]
    }

    pub(crate) fn store(&self) -> Store {
        let endpoint = format!("http://{}", self.address);
        let settings = [
            ("endpoint", endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", KEY),
            ("secret_access_key", SECRET),
            ("allow_http", "true"),
        ];
        Store::open_with(&format!("s3://{NAME}/p"), &settings).unwrap()
    }

    /// The file that has the bytes of an object.
    pub(crate) fn file(&self, object: &str) -> std::path::PathBuf {
        self.root.path().join(NAME).join("p").join(object)
    }
}

async fn answer(service: S3Service, fault: &Fault, files: &TempDir, request: Request<Incoming>) -> Response<s3s::Body> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let fate = fault.next(&parts.method);
    let again = || Request::from_parts(parts.clone(), s3s::Body::from(bytes.clone()));
    let plain = |status: u16| Response::builder().status(status).body(s3s::Body::empty()).unwrap();
    match fate {
        Fate::Hang => {
            fault.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        Fate::Refuse => return plain(403),
        Fate::Delay => tokio::time::sleep(Duration::from_millis(200)).await,
        Fate::Lose if parts.method == Method::PUT => return plain(200),
        _ => {}
    }
    let done = service.call(again()).await;
    let answer = done.unwrap_or_else(|_| plain(500));
    match fate {
        Fate::HangBehind => {
            fault.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        Fate::Tear if parts.method == Method::PUT => {
            let file = files.path().join(parts.uri.path().trim_start_matches('/'));
            if let Ok(file) = std::fs::File::options().write(true).open(&file) {
                let bytes = file.metadata().unwrap().len();
                file.set_len(bytes / 2).unwrap();
            }
        }
        Fate::Repeat => {
            let late = Request::from_parts(parts.clone(), s3s::Body::from(bytes.clone()));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let _ = service.call(late).await;
            });
        }
        _ => {}
    }
    answer
}
