//! An S3 server over a directory, to try backups with: `bucket ADDRESS DIRECTORY NAME` serves one bucket of that name. It checks the
//! signatures of requests against `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and speaks no TLS.

use std::path::PathBuf;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error>;

fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|error| format!("{name}: {error}").into())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, directory, name] = args.as_slice() else { return Err("usage: bucket ADDRESS DIRECTORY NAME".into()) };
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(directory.join(name))?;
    let files = s3s_fs::FileSystem::new(&directory).map_err(|error| format!("{}: {error:?}", directory.display()))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?));
    let service = builder.build();
    let listener = TcpListener::bind(address).await?;
    loop {
        // A connection that cannot be taken, or breaks, is its client's matter.
        let Ok((socket, _)) = listener.accept().await else { continue };
        let service = service.clone();
        tokio::spawn(async move {
            drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await);
        });
    }
}
