//! `kubewitness run` as a child process: its configuration, what it says, what it costs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kubewitness::clock::Stopwatch;

pub mod client;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(900);

/// A running instance; killed when it is dropped.
pub struct Instance {
    child: Child,
    /// Where it receives.
    pub webhook: String,
    admin: String,
}

impl Instance {
    /// Starts one in this directory and waits until it runs. `sinks` is YAML.
    pub fn start(dir: &Path, sinks: &str) -> Instance {
        let config = dir.join("config.yaml");
        let key = dir.join("redaction.key");
        let made = std::fs::OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&key);
        let mut made = made.expect("the directory can be written");
        made.write_all(&[7; 32]).expect("the disk has room");
        let dir = dir.display();
        let text = format!(
            "cluster: bench
sources:
  - {{type: log, path: {dir}/audit.log}}
  - {{type: webhook, listen: '127.0.0.1:0'}}
rules: {{pack: paranoid}}
redaction: {{key_file: {dir}/redaction.key}}
spool: {{dir: {dir}/spool}}
sinks:
{sinks}
admin: {{listen: '127.0.0.1:0'}}
"
        );
        std::fs::write(&config, text).expect("the directory can be written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubewitness"))
            .args(["run", "--set", "log.format=json", "--config"])
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (mut webhook, mut admin, mut is_running) = (String::new(), String::new(), false);
        while !is_running || webhook.is_empty() || admin.is_empty() {
            let mut line = String::new();
            let length = stderr.read_line(&mut line).expect("stderr can be read");
            assert!(length > 0, "it ended before it ran");
            let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            let address = || said["address"].as_str().unwrap_or_default().to_owned();
            match said["message"].as_str().unwrap_or_default() {
                "running" => is_running = true,
                "receiving" => webhook = address(),
                "serving /livez, /readyz and /metrics" => admin = address(),
                _ if said["level"] == "INFO" => {}
                _ => eprint!("{line}"),
            }
        }
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        Instance { child, webhook, admin }
    }

    /// CPU time of all its threads, the system's included.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The name before may hold anything; the times are the 14th and 15th of all, in 10 ms.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = rest.split_whitespace().skip(11).take(2);
        Duration::from_millis(ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    /// A line of `/proc/<pid>/status` in bytes: `VmRSS`, `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    fn proc(&self, name: &str) -> String {
        let path: PathBuf = ["/proc", &self.child.id().to_string(), name].iter().collect();
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.admin).expect("its admin server listens");
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let lines = answer.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Waits until something holds; asks every 50 ms.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Instance) -> bool) {
        let clock = Stopwatch::start();
        while !holds(self) {
            assert!(clock.elapsed() < PATIENCE, "{what}");
            pause(Duration::from_millis(50));
        }
    }

    /// Waits until so many events were stored or known.
    pub fn stored(&self, events: u64) {
        self.until("everything is stored", |instance| {
            let stored = instance.metric("kubewitness_pipeline_events_total");
            stored + instance.metric("kubewitness_pipeline_duplicates_total") >= events as f64
        });
    }

    /// Waits until everything that is stored was delivered: the alerts, and the events where a sink
    /// asks for them.
    pub fn delivered(&self, records: &str) {
        self.until("everything is delivered", |instance| {
            let events = instance.metric("kubewitness_pipeline_events_total");
            let asked = if records.contains("events") { events } else { 0.0 };
            let wanted = asked + instance.metric("kubewitness_pipeline_alerts_total");
            instance.metric("kubewitness_sink_sent_total") >= wanted
        });
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // It ends by itself only when it failed, which the waiting above has told.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits; nothing here is woken earlier.
pub fn pause(time: Duration) {
    let clock = Stopwatch::start();
    while let Some(left) = time.checked_sub(clock.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}
