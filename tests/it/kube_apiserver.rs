//! A real kube-apiserver with both audit backends pointed at one instance, which is restarted and
//! killed meanwhile: where `KUBEWITNESS_TEST_KUBE_APISERVER` is set, as `tests/servers/
//! kube-apiserver.sh build` prints it; without it nothing is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kubewitness::alert::Alert;
use kubewitness::clock::Stopwatch;
use kubewitness::record::{StoredEvent, kind};
use kubewitness::spool::{self, Options, Spool};
use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};

const VARIABLE: &str = "KUBEWITNESS_TEST_KUBE_APISERVER";
const URL: &str = "https://127.0.0.1:26443";
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(240);
/// Nothing of this leaves the process.
const SECRET: &str = "Pl4nted-s3cret-of-the-cluster-c0ffee";

/// Bodies of everything, so that redaction has something to do.
const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules: [{level: RequestResponse}]
";

/// Titles of rules that must raise an alert.
const EXPECTED: [&str; 7] = [
    "Access granted to anonymous callers",
    "Access granted and revoked again",
    "Anonymous secret access refused",
    "Identity bound to cluster-admin",
    "Secrets asked for with a rejected credential",
    "Service account created and given a token at once",
    "Whole collection deleted by a person",
];

/// What an event is known by: redaction changes none of these.
type Name = (String, String, String);

/// A directory with an instance's configuration and certificates, and an API server's files.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site = Site { dir: tempfile::tempdir().unwrap() };
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (pki, kube) = (site.path("pki"), site.path("kube"));
        let port_text = port.to_string();
        let args = ["certs", "init", "--host", "127.0.0.1", "--port", &port_text];
        let made = kubewitness(&[&args[..], &[pki.to_str().unwrap()]].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
        std::fs::create_dir(&kube).unwrap();
        std::fs::copy(pki.join("webhook-kubeconfig.yaml"), kube.join("webhook-kubeconfig.yaml"))
            .unwrap();
        std::fs::write(kube.join("policy.yaml"), POLICY).unwrap();
        let config = format!(
            "cluster: real
sources:
  - {{type: log, path: DIR/kube/audit/audit.log}}
  - type: webhook
    listen: 127.0.0.1:{port}
    tls:
      cert_file: DIR/pki/tls.crt
      key_file: DIR/pki/tls.key
      client_ca_file: DIR/pki/ca.crt
      allowed_names: [kube-apiserver]
spool: {{dir: DIR/spool, passed_bytes_min: 5GiB}}
sinks:
  - {{type: file, name: out, records: [events, alerts, notices], path: DIR/out.jsonl}}
admin: {{listen: '127.0.0.1:0'}}
"
        );
        let config = config.replace("DIR", site.dir.path().to_str().unwrap());
        std::fs::write(site.path("c.yaml"), config).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.path("stderr"));
        let config = self.path("c.yaml");
        Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(["run", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap()
    }

    /// Every event that the log backend wrote.
    fn written(&self) -> Vec<Name> {
        let files = std::fs::read_dir(self.path("kube/audit")).unwrap();
        let read = |file: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(file.unwrap().path()).unwrap()
        };
        let text: String = files.map(read).collect();
        text.lines().map(|line| name(line.as_bytes())).collect()
    }
}

/// The API server; ended when it is dropped.
struct Server(PathBuf);

impl Server {
    fn start(dir: PathBuf) -> Server {
        let output = script("start", &dir);
        assert!(output.status.success(), "{}", text(&output.stderr));
        Server(dir)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        script("stop", &self.0);
    }
}

fn script(command: &str, dir: &Path) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/kube-apiserver.sh");
    Command::new(script).arg(command).arg(dir).output().unwrap()
}

fn kubewitness(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubewitness")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn name(raw: &[u8]) -> Name {
    let event: Value = serde_json::from_slice(raw).unwrap();
    let text = |key: &str| event[key].as_str().unwrap().to_owned();
    (text("auditID"), text("stage"), text("stageTimestamp"))
}

/// Asks the API server; who has no token is nobody.
struct Caller {
    client: Client,
}

impl Caller {
    fn new(certificate: &Path) -> Caller {
        _ = rustls::crypto::ring::default_provider().install_default();
        let pem = std::fs::read(certificate).unwrap();
        let authorities = Certificate::from_pem_bundle(&pem).unwrap();
        Caller { client: Client::builder().tls_certs_only(authorities).build().unwrap() }
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>, body: Value) -> Value {
        let mut request = self.client.request(method, format!("{URL}{path}"));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        request.send().await.unwrap().json().await.unwrap()
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let answer = self.ask(method, path, Some("admin-token"), body).await;
        assert_ne!(answer["status"], "Failure", "{path}: {answer}");
        answer
    }

    /// Secrets made, listed, read and deleted, until the log has been rotated.
    async fn use_secrets(&self, round: usize) {
        let secrets = "/api/v1/namespaces/default/secrets";
        for number in 0..12 {
            let name = format!("s-{round}-{number}");
            let filling = BASE64.encode([number as u8; 9_000]);
            let body = json!({
                "metadata": {"name": name}, "data": {"filling": filling},
                "stringData": {"password": SECRET},
            });
            self.admin(Method::POST, secrets, body).await;
            self.admin(Method::GET, &format!("{secrets}/{name}"), Value::Null).await;
            self.admin(Method::GET, secrets, Value::Null).await;
        }
        self.admin(Method::DELETE, secrets, Value::Null).await;
    }

    /// What the rules know. Returns the token that the server made.
    async fn attack(&self) -> String {
        let secrets = "/api/v1/namespaces/kube-system/secrets";
        self.ask(Method::GET, secrets, None, Value::Null).await;
        self.ask(Method::GET, secrets, Some("no-token"), Value::Null).await;
        let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
        let body = json!({
            "metadata": {"name": "door"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "User",
                "name": "system:anonymous",
            }],
        });
        self.admin(Method::POST, bindings, body).await;
        self.admin(Method::DELETE, &format!("{bindings}/door"), Value::Null).await;
        let accounts = "/api/v1/namespaces/default/serviceaccounts";
        self.admin(Method::POST, accounts, json!({"metadata": {"name": "robot"}})).await;
        let token = self.admin(Method::POST, &format!("{accounts}/robot/token"), json!({})).await;
        token["status"]["token"].as_str().unwrap().to_owned()
    }
}

/// What is stored: how often each event, and the titles of the alerts.
struct Stored {
    events: BTreeMap<Name, u64>,
    alerts: BTreeSet<String>,
}

async fn stored(dir: &Path, secrets: &[String]) -> Stored {
    let options = Options { passed_bytes_min: 5 << 30, ..Options::default() };
    let (spool, recovery) = Spool::open(dir, options).unwrap();
    assert_eq!(recovery.damages, []);
    let mut stored = Stored { events: BTreeMap::new(), alerts: BTreeSet::new() };
    let mut reader = spool.reader(1);
    while let Some(records) = reader.try_read(&spool::Limits::default()).await.unwrap() {
        for record in records.iter() {
            let payload = text(record.payload);
            for secret in secrets {
                assert!(!payload.contains(secret.as_str()), "{secret} in {payload}");
            }
            match record.kind {
                kind::EVENT => {
                    let event = StoredEvent::decode(record.payload).unwrap();
                    *stored.events.entry(name(event.raw)).or_default() += 1;
                }
                kind::ALERT => {
                    let alert: Alert = serde_json::from_slice(record.payload).unwrap();
                    stored.alerts.insert(alert.rule.title);
                }
                kind::NOTICE => panic!("{payload}"),
                _ => {}
            }
        }
    }
    stored
}

fn end(mut instance: Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(&instance);
    rustix::process::kill_process(pid, signal).unwrap();
    let status = instance.wait().unwrap();
    let is_drained = signal == rustix::process::Signal::TERM;
    assert!(!is_drained || status.code() == Some(0), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_api_server_and_both_its_backends() {
    use rustix::process::Signal;
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    let site = Site::new();
    let instance = site.start();
    let server = Server::start(site.path("kube"));
    let caller = Caller::new(&site.path("kube/pki/apiserver.crt"));
    caller.use_secrets(0).await;
    let token = caller.attack().await;
    end(instance, Signal::TERM);
    let instance = site.start();
    caller.use_secrets(1).await;
    end(instance, Signal::KILL);
    caller.use_secrets(2).await;
    let instance = site.start();
    caller.use_secrets(3).await;

    let (ca, spool) = (site.path("kube/pki/apiserver.crt"), site.path("spool"));
    let (ca, spool) = (ca.to_str().unwrap(), spool.to_str().unwrap());
    let probe = ["probe", URL, "--ca-file", ca, "--spool", spool, "--wait", "2m"];
    let probed = kubewitness(&probe);
    let said = text(&probed.stdout);
    assert_eq!(probed.status.code(), Some(0), "{said}");
    assert!(said.contains("audit events of 14 of 14 requests arrived"), "{said}");

    drop(server);
    let written = site.written();
    let distinct: BTreeSet<Name> = written.iter().cloned().collect();
    assert_eq!(distinct.len(), written.len(), "the log has each event once");
    let watch = Stopwatch::start();
    let lines = || {
        let out = std::fs::read_to_string(site.path("out.jsonl")).unwrap_or_default();
        let events = out.lines().filter(|line| line.contains("\"auditID\""));
        events.filter_map(|line| serde_json::from_str::<Value>(line).ok()).count()
    };
    while lines() < written.len() && watch.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    end(instance, Signal::TERM);
    let rotated = std::fs::read_dir(site.path("kube/audit")).unwrap().count();
    assert!(rotated > 2, "rotated into {rotated} files");
    let secrets = [SECRET.to_owned(), BASE64.encode(SECRET), token];
    let logged: String = std::fs::read_dir(site.path("kube/audit"))
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    // What is given as text is logged as base64 only.
    assert!(secrets[1..].iter().all(|secret| logged.contains(secret.as_str())), "in the log");
    let out = std::fs::read_to_string(site.path("out.jsonl")).unwrap();
    assert!(!secrets.iter().any(|secret| out.contains(secret.as_str())));
    let stored = stored(&site.path("spool"), &secrets).await;
    let twice: Vec<_> = stored.events.iter().filter(|(_, count)| **count > 1).collect();
    assert_eq!(twice, [], "each event once");
    let stored_names: BTreeSet<Name> = stored.events.keys().cloned().collect();
    let lost: Vec<_> = distinct.difference(&stored_names).collect();
    assert_eq!(lost, Vec::<&Name>::new(), "of {} events", distinct.len());
    let silent = EXPECTED.iter().filter(|title| !stored.alerts.contains(**title));
    assert_eq!(silent.collect::<Vec<_>>(), Vec::<&&str>::new(), "of {:#?}", stored.alerts);
}
