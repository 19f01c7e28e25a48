//! Takes up changed rules while the pipeline runs; a bad set is refused, and the old one stays.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::alert::time::EventTime;
use crate::clock;
use crate::config::Rules;
use crate::engine::Engine;
use crate::pipeline::Order;
use crate::pipeline::notice::{Kind, Notice};

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_secs(5);

/// Lines of a refusal that its notice tells; the log has all of them.
const LINES_MAX: usize = 5;

/// The rules of a configuration, and how to load them again.
#[derive(Clone)]
pub struct Reload {
    rules: Rules,
    proxies: Vec<IpNet>,
    asked: Arc<Notify>,
    /// What the files were when they were loaded last.
    loaded: Arc<AtomicU64>,
    standing: Arc<Mutex<Loaded>>,
}

/// What rules are at work.
#[derive(Clone, Debug, Default)]
struct Loaded {
    rules: usize,
    /// Why those that came later are not.
    refused: Option<String>,
}

impl Reload {
    /// For these rules; proxies are compiled into them.
    pub fn new(rules: Rules, proxies: Vec<IpNet>) -> Reload {
        let loaded = Arc::new(AtomicU64::new(0));
        let standing = Arc::default();
        Reload { rules, proxies, asked: Arc::new(Notify::new()), loaded, standing }
    }

    /// Loads and compiles, off the async threads.
    ///
    /// # Errors
    /// What is wrong with the rules, by file and line.
    pub async fn load(&self) -> Result<Arc<Engine>, String> {
        let Reload { rules, proxies, .. } = self.clone();
        // Before they are read: a change in between is found at the next look.
        self.loaded.store(self.fingerprint().await, Ordering::Relaxed);
        let loaded = tokio::task::spawn_blocking(move || rules.compile(&proxies)).await;
        let loaded = loaded.map_err(|error| error.to_string())?;
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match &loaded {
            Ok(engine) => {
                *standing = Loaded { rules: engine.rules().rules.len(), refused: None };
            }
            Err(error) => standing.refused = Some(error.brief()),
        }
        loaded.map_err(|error| error.to_string())
    }

    /// How many rules are at work, and whether changed ones were refused.
    pub fn status(&self) -> String {
        let Loaded { rules, refused } =
            self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match refused {
            Some(problem) => format!("{rules} at work; changed ones were refused: {problem}"),
            None => format!("{rules} at work"),
        }
    }

    /// Loads the rules again as soon as may be, changed or not.
    pub fn ask(&self) {
        self.asked.notify_one();
    }

    /// Hands new rules to the pipeline whenever asked, and when their files changed and then kept
    /// still for one look; until cancelled.
    pub async fn watch(self, orders: UnboundedSender<Order>, cancelled: CancellationToken) {
        let mut seen = self.loaded.load(Ordering::Relaxed);
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                () = self.asked.notified() => {}
                () = tokio::time::sleep(LOOK), if self.rules.reload => {
                    let now = self.fingerprint().await;
                    let is_still = now == std::mem::replace(&mut seen, now);
                    if now == self.loaded.load(Ordering::Relaxed) || !is_still {
                        continue;
                    }
                }
            }
            self.hand_over(&orders).await;
        }
    }

    async fn hand_over(&self, orders: &UnboundedSender<Order>) {
        let (order, result) = match self.load().await {
            Ok(engine) => {
                tracing::info!(rules = engine.rules().rules.len(), "rules loaded");
                (Order::Rules(engine), "loaded")
            }
            Err(problem) => {
                tracing::error!(problem, "rules refused; the old ones stay");
                (Order::Notice(refused(&self.rules, problem)), "refused")
            }
        };
        metrics::counter!("kubewitness_rules_reloads_total", "result" => result).increment(1);
        // Nobody takes it only while the process ends.
        let _ = orders.send(order);
    }

    async fn fingerprint(&self) -> u64 {
        let rules = self.rules.clone();
        let found = tokio::task::spawn_blocking(move || rules.fingerprint()).await;
        found.unwrap_or_default()
    }
}

fn refused(rules: &Rules, problem: String) -> Notice {
    let paths: Vec<String> =
        rules.paths.iter().map(|path: &PathBuf| path.display().to_string()).collect();
    Notice {
        kind: Kind::RulesRefused,
        time: EventTime(clock::now_us()),
        source: "rules".to_owned(),
        subject: paths.join(", "),
        text: problem.lines().take(LINES_MAX).collect::<Vec<_>>().join("; "),
        lost_bytes: None,
    }
}
