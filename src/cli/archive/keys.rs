//! Keys of logs and witnesses: made, changed, given up.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::archive::cosignature::Cosigner;
use crate::archive::kms;
use crate::archive::note::{Signer, Verifier};
use crate::archive::signatory::Signatory;
use crate::cli::archive::{WriterArgs, failed};
use crate::cli::{Done, Error, print};
use crate::clock;
use crate::telemetry::chain;

/// Arguments of `archive keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// The log's origin, such as audit.example.com/prod-eu1/cp-1, never used by a second log; or
    /// the witness's name
    pub origin: String,
    /// Where the secret key goes, or what says where it is; must not exist
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Make the key of a witness, not of a log
    #[arg(long)]
    pub witness: bool,
    /// Make no key: take one of Ed25519 that a key service keeps, by
    /// https://HOST/v1/MOUNT/keys/NAME (Vault, OpenBao) or arn:aws:kms:REGION:ACCOUNT:key/ID
    #[arg(long, value_name = "KEY", conflicts_with = "witness")]
    pub kms: Option<String>,
    /// File of the token for Vault or OpenBao; read again for every signature
    #[arg(long, value_name = "FILE", requires = "kms")]
    pub token_file: Option<PathBuf>,
    /// The authorities that may vouch for Vault or OpenBao, PEM
    #[arg(long, value_name = "FILE", requires = "kms")]
    pub ca_file: Option<PathBuf>,
    /// The namespace in Vault or OpenBao
    #[arg(long, value_name = "NAME", requires = "kms")]
    pub namespace: Option<String>,
    /// The key's version in Vault or OpenBao
    #[arg(long, value_name = "N", default_value = "1", requires = "kms")]
    pub key_version: u32,
}

/// Arguments of `archive rotate`.
#[derive(Debug, Args)]
#[command(after_help = "Example, with the writer stopped:
  kubewitness archive keygen audit.example.com/prod-1 -o next.key > next.pub
  kubewitness archive rotate s3://audit-archive/prod-1 --key-file archive.key --next next.key \\
    --state-dir /var/lib/kubewitness/archive

The record that names the new key is signed by both. Set `key_file` to the new one before the writer
starts, tell witnesses and verifiers the new public key, and destroy the old secret one. Verifiers
that know only the old public key follow the log to the new one.")]
pub struct RotateArgs {
    /// The archive, with its present key
    #[command(flatten)]
    pub writer: WriterArgs,
    /// The new key, of the same origin: a file of `keygen`
    #[arg(long, value_name = "FILE")]
    pub next: PathBuf,
}

/// Arguments of `archive close`.
#[derive(Debug, Args)]
pub struct CloseArgs {
    /// The archive
    #[command(flatten)]
    pub writer: WriterArgs,
    /// Why
    #[arg(long)]
    pub reason: String,
    /// The public key of the log that goes on in its place
    #[arg(long, value_name = "KEY")]
    pub successor: Option<String>,
}

/// What goes to the file, and the public half.
async fn make(args: &KeygenArgs) -> Result<(String, String), Error> {
    let input = |error: &dyn std::error::Error| Error::Input(chain(error));
    if let Some(key) = &args.kms {
        let (token, ca, version) =
            (args.token_file.clone(), args.ca_file.clone(), args.key_version);
        let service = kms::locate(key, token, ca, args.namespace.clone(), version);
        let service = service.map_err(Error::Input)?;
        let config = kms::describe(&args.origin, service).await.map_err(|error| input(&error))?;
        let text = serde_json::to_string_pretty(&config).map_err(|error| input(&error))?;
        return Ok((text, config.public_key));
    }
    let mut seed = [0; 32];
    crypto_box::aead::rand_core::RngCore::fill_bytes(&mut crypto_box::aead::OsRng, &mut seed);
    let keys = if args.witness {
        Cosigner::new(&args.origin, &seed).map(|it| (it.secret_text(), it.witness().to_string()))
    } else {
        Signer::new(&args.origin, &seed).map(|it| (it.secret_text(), it.verifier().to_string()))
    };
    keys.map_err(|error| input(&error))
}

pub(crate) async fn keygen(args: &KeygenArgs) -> Result<Done, Error> {
    let (secret, public) = make(args).await?;
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    let at = |error: std::io::Error| Error::Input(format!("{}: {error}", args.output.display()));
    let mut file = options.open(&args.output).map_err(at)?;
    writeln!(file, "{secret}").and_then(|()| file.sync_all()).map_err(at)?;
    print(&public.to_string())?;
    Ok(Done::Fine)
}

pub(crate) async fn rotate(args: &RotateArgs) -> Result<Done, Error> {
    let path = &args.next;
    let next = Signatory::open(path).await;
    let wrong = |text: String| Error::Input(format!("{}: {text}", path.display()));
    let next = next.map_err(|error| wrong(chain(&error)))?;
    let verifier = next.verifier();
    let mut writer = args.writer.open(None).await?;
    writer.change_key(next, clock::now_us()).await.map_err(failed)?;
    print(&format!("signed by {verifier} from record {} on", writer.size()))?;
    Ok(Done::Fine)
}

pub(crate) async fn close(args: &CloseArgs) -> Result<Done, Error> {
    let mut says = vec![("reason", args.reason.as_str())];
    if let Some(successor) = &args.successor {
        Verifier::parse(successor).map_err(|error| Error::Input(chain(&error)))?;
        says.push(("successor", successor));
    }
    let writer = args.writer.open(None).await?;
    let size = writer.close(&says, clock::now_us()).await.map_err(failed)?;
    print(&format!("closed with record {}, {size} in all", size.saturating_sub(1)))?;
    Ok(Done::Fine)
}
