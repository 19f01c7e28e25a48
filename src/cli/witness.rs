//! `kubewitness witness`: cosigns the checkpoints of other installations' archives.

mod tls;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Response, StatusCode, header};
use axum::routing::{get, post};
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use crate::archive::cosignature::Cosigner;
use crate::archive::submission::SUBMISSION_BYTES_MAX;
use crate::archive::witness::{Answer, Book};
use crate::cli::verify::{block_on, read_key};
use crate::cli::witness::tls::Secure;
use crate::cli::{Done, Error, print};
use crate::clock;
use crate::ingest::webhook;
use crate::ingest::webhook::config::{ClientCertificate, Tls, TlsVersion};
use crate::ingest::webhook::tls::TlsFiles;
use crate::telemetry::chain;

/// Requests that are looked at at a time; the others wait.
const REQUESTS_MAX: usize = 64;

/// Arguments of `witness`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  kubewitness archive keygen --witness witness.example.com/eu -o witness.key > witness.pub
  kubewitness witness --listen 0.0.0.0:7380 --key-file witness.key --state-dir /var/lib/witness \\
    --log audit.example.com/prod-1+70cc14c8+Aek…

It speaks c2sp.org/tlog-witness: POST /add-checkpoint; GET /<SHA-256 of origin>/checkpoint tells the
last one. All that counts is signed; TLS keeps others from seeing and from standing in the way.")]
pub struct WitnessArgs {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7380")]
    pub listen: SocketAddr,
    /// The witness's secret key, as `archive keygen --witness` wrote it
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// Where it keeps what it cosigned; never restored from a backup
    #[arg(long, value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The server's certificate and its intermediates, PEM; read again every minute
    #[arg(long, value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// Public key of a log to witness, or a file that holds it (repeatable)
    #[arg(long = "log", value_name = "KEY", required = true)]
    pub logs: Vec<String>,
}

impl WitnessArgs {
    fn tls_files(&self) -> Result<Option<TlsFiles>, Error> {
        let files = self.tls_cert_file.clone().zip(self.tls_key_file.clone());
        let Some((cert_file, key_file)) = files else { return Ok(None) };
        let tls = Tls {
            cert_file,
            key_file,
            client_ca_file: None,
            client_certificate: ClientCertificate::default(),
            allowed_names: Vec::new(),
            version_min: TlsVersion::default(),
        };
        let files = TlsFiles::open(&tls, &webhook::config::Config::default());
        files.map(Some).map_err(|error| Error::Input(chain(&error)))
    }
}

/// Serves until a signal ends it.
///
/// # Errors
/// Wrong input; the address or directory cannot be had.
pub fn run(args: &WitnessArgs) -> Result<Done, Error> {
    let path = &args.key_file;
    let text = fs::read_to_string(path)
        .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
    let cosigner = Cosigner::parse(&text)
        .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
    let logs = args.logs.iter().map(|log| read_key(log)).collect::<Result<Vec<_>, _>>()?;
    let witness = cosigner.witness();
    let book = Book::open(&args.state_dir, cosigner, logs);
    let book = book.map_err(|error| Error::Input(chain(&error)))?;
    let tls = args.tls_files()?;
    block_on(async {
        let listener = TcpListener::bind(args.listen).await;
        let listener =
            listener.map_err(|error| Error::Input(format!("{}: {error}", args.listen)))?;
        let address = listener.local_addr()?;
        print(&format!("witness {witness} listens on {address}"))?;
        let end = {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            async move {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            }
        };
        let router = router(Arc::new(book));
        match tls {
            None => axum::serve(listener, router).with_graceful_shutdown(end).await?,
            Some(files) => {
                let secure = Secure::new(listener, files)?;
                axum::serve(secure, router).with_graceful_shutdown(end).await?;
            }
        }
        Ok(Done::Fine)
    })
}

struct Shared {
    book: Arc<Book>,
    room: Semaphore,
}

fn router(book: Arc<Book>) -> Router {
    let shared = Arc::new(Shared { book, room: Semaphore::new(REQUESTS_MAX) });
    Router::new()
        .route("/add-checkpoint", post(add))
        .route("/{origin}/checkpoint", get(head))
        .with_state(shared)
}

fn response(status: u16, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

async fn add(State(shared): State<Arc<Shared>>, body: Body) -> Response<Body> {
    let _permit = shared.room.acquire().await;
    let answer = match to_bytes(body, SUBMISSION_BYTES_MAX).await {
        Err(_) => Answer::Malformed,
        Ok(bytes) => {
            let (book, now_s) = (Arc::clone(&shared.book), clock::now_us() / 1_000_000);
            let now_s = u64::try_from(now_s).unwrap_or(0);
            let answered = tokio::task::spawn_blocking(move || book.add(&bytes, now_s)).await;
            answered.unwrap_or(Answer::Failed)
        }
    };
    response(answer.status(), answer.content_type(), answer.body())
}

async fn head(State(shared): State<Arc<Shared>>, Path(hash): Path<String>) -> Response<Body> {
    let _permit = shared.room.acquire().await;
    let book = Arc::clone(&shared.book);
    let found = tokio::task::spawn_blocking(move || book.head_of(&hash)).await;
    let text = "text/plain; charset=utf-8";
    match found {
        Ok(Ok(Some((note, _)))) => response(200, text, note),
        Ok(Ok(None)) => response(404, text, "nothing was cosigned for this log\n".to_owned()),
        _ => {
            let answer = Answer::Failed;
            response(answer.status(), answer.content_type(), answer.body())
        }
    }
}
