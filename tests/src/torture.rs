//! Real processes under faults: a control plane, two controllers that both decide, and a crowd of `koncli` processes
//! whose workers guard a resource that checks fencing tokens. Everything that happened is judged.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::ServiceAccount;
use konductor_crds::v1::LeasePhase;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use crate::{
    ControlPlane, Controller, ControllerOptions, LeaseExt as _, Line, Namespace, Output, Proxy, Resource, Running,
    Server, Signal, User,
    checker::{self, Report},
    eventually, identity,
    wait::pause,
    within,
};

mod mutant;
mod token;

pub use mutant::Mutant;

/// Short, so that holds run out all the time; long enough for a `koncli` that a busy machine starts slowly.
const TTL: &str = "2s";
/// A fault lasts longer than a ttl: who was away has lost what it held.
const LONG: Duration = Duration::from_secs(4);
/// How long it may take until somebody is served again after a fault. The longest on the way there are: a connection
/// that is dead is noticed after 35 s, and the longest back-off after that.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take until a controller takes a token from its file: it reads it once a minute, and what it is told
/// then it tries again after a pause.
const RENEWED_WITHIN: Duration = Duration::from_secs(150);
/// kube-apiserver takes a token for a minute after it has expired. It is accepted still when a controller reads it, in
/// nearly all cases, and refused soon after: in seconds.
const EXPIRED_FOR: i64 = 30;
/// A controller behind a silent line goes on with what it knew, and reads the rest when the line is good again.
const LAG_MS: i64 = 60_000;
const LEASES: [&str; 3] = ["north", "east", "south"];
const ACCOUNT: (&str, &str) = ("konductor-system", "konductor-controller");

/// Who acquires, writes to what the lease protects, and releases; or forgets to. It is told `yes` or `no`, and goes on
/// either way: what keeps an old token out is the resource.
const WORKER: &str = r#"
leases=(north east south)
access() {
  exec 3<>"/dev/tcp/127.0.0.1/$RESOURCE" || return
  echo "$1 $2 $HOSTNAME" >&3
  read -r answer <&3
  exec 3>&-
  echo "op access $answer"
}
while :; do
  lease=${leases[RANDOM % 3]}
  out=$(koncli lease acquire "$lease" --timeout 4s -o json 2>&2); code=$?
  echo "op acquire $code"
  if [ "$code" != 0 ]; then sleep 0.2; continue; fi
  token=$(sed -n 's/^ *"token": *\([0-9]*\).*/\1/p' <<<"$out")
  for turn in 1 2 3; do
    access "$lease" "$token"
    sleep 0.1
    if [ $((RANDOM % 3)) = 0 ]; then
      koncli lease renew "$lease" >&2; echo "op renew $?"
    fi
  done
  access "$lease" "$token"
  if [ $((RANDOM % 8)) != 0 ]; then
    koncli lease release "$lease" >&2; echo "op release $?"
  fi
done
"#;

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A controller is killed and started again.
    KillController,
    /// A controller is frozen for longer than a ttl.
    StopController,
    /// A worker and its koncli are killed, and another one comes in its place, of the same name.
    KillWorker,
    /// A worker and its koncli are frozen for longer than a ttl, and go on where they were.
    StopWorker,
    /// kube-apiserver is killed and started again.
    KillApiserver,
    /// kube-apiserver is frozen.
    StopApiserver,
    /// etcd is killed and started again.
    KillEtcd,
    /// etcd is frozen.
    StopEtcd,
    /// etcd has used up its quota and refuses every write.
    FullEtcd,
    /// etcd cannot write another byte to any file, which ends it; later there is room, and it is started again.
    FullDisk,
    /// Everything that a controller or a worker says and hears takes longer.
    SlowLine,
    /// A controller or a worker is cut off without being told, and hears everything later.
    SilentLine,
    /// The connections of a controller or a worker break.
    CutLine,
    /// The controllers' token is not valid any more; they get a new one later.
    BadToken,
    /// The controllers' token expires, and later its file has a new one: nobody restarts them.
    ExpiredToken,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::KillController,
        Self::StopController,
        Self::KillWorker,
        Self::StopWorker,
        Self::KillApiserver,
        Self::StopApiserver,
        Self::KillEtcd,
        Self::StopEtcd,
        Self::FullEtcd,
        Self::FullDisk,
        Self::SlowLine,
        Self::SilentLine,
        Self::CutLine,
        Self::BadToken,
        Self::ExpiredToken,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::KillController => "kill controller",
            Self::StopController => "stop controller",
            Self::KillWorker => "kill worker",
            Self::StopWorker => "stop worker",
            Self::KillApiserver => "kill kube-apiserver",
            Self::StopApiserver => "stop kube-apiserver",
            Self::KillEtcd => "kill etcd",
            Self::StopEtcd => "stop etcd",
            Self::FullEtcd => "full etcd",
            Self::FullDisk => "full disk",
            Self::SlowLine => "slow line",
            Self::SilentLine => "silent line",
            Self::CutLine => "cut line",
            Self::BadToken => "bad token",
            Self::ExpiredToken => "expired token",
        }
    }
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// For a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // A seed of zero would give nothing but zeros.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or_default() % sides.max(1)
    }
}

/// What has happened, and what of it must never happen.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, by what and with which answer.
    pub operations: BTreeMap<String, usize>,
    /// What the history shows.
    pub report: Report,
    /// What is wrong with the accesses to the resource.
    pub wrong_accesses: Vec<String>,
    /// How often an access was refused for its old token.
    pub refused: usize,
    /// The faults.
    pub faults: BTreeMap<Fault, usize>,
}

impl Outcome {
    /// How much is wrong.
    #[must_use]
    pub fn violations(&self) -> usize {
        self.report.violations.len() + self.wrong_accesses.len()
    }

    /// Fails if anything is wrong.
    ///
    /// # Panics
    /// With everything that is.
    pub fn is_fine(&self) {
        let violations = checker::Violations(self.report.violations.clone());
        assert!(self.violations() == 0, "{violations}{}", self.wrong_accesses.join("\n"));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: usize = self.operations.values().sum();
        let faults: usize = self.faults.values().sum();
        let list: Vec<String> =
            self.faults.iter().map(|(fault, count)| format!("{} {count}", fault.as_str())).collect();
        write!(
            f,
            "{} operations, {} grants, {} old tokens refused, {faults} faults ({}), {} violations",
            grouped(operations),
            grouped(self.report.figures.grants),
            grouped(self.refused),
            list.join(", "),
            self.violations()
        )
    }
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Worker {
    running: Running,
}

/// The scene. Controllers and the first worker each have a line of their own to kube-apiserver.
pub struct Torture<'p> {
    plane: &'p ControlPlane,
    team: Namespace<'p>,
    user: User<'p>,
    resource: Resource,
    lines: Vec<Proxy>,
    controllers: Vec<Controller>,
    workers: Vec<Worker>,
    operations: BTreeMap<String, usize>,
    faults: BTreeMap<Fault, usize>,
    dice: Dice,
    recorder: Running,
    recording: PathBuf,
    broken: Option<mutant::Broken>,
}

const CONTROLLERS: usize = 2;

impl<'p> Torture<'p> {
    /// Sets it up, and waits until somebody was served.
    ///
    /// # Panics
    /// If something does not start.
    pub async fn new(plane: &'p ControlPlane, seed: u64, workers: usize) -> Self {
        let team = plane.namespace("team").await;
        for lease in LEASES {
            team.create_lease(lease, TTL).await;
        }
        let user = team.user(&["konductor-lease-user"]).await;
        let resource = Resource::start().await.unwrap_or_else(|problem| panic!("{problem:#}"));
        let mut lines = Vec::new();
        for _ in 0..=CONTROLLERS {
            let to = plane.servers().apiserver_port();
            lines.push(Proxy::start(to).await.unwrap_or_else(|problem| panic!("{problem:#}")));
        }
        let recording = plane.directory().join("torture.jsonl");
        let recorder = user.koncli("lease record --file").arg(&recording).spawn();
        let mut torture = Self {
            plane,
            team,
            user,
            resource,
            lines,
            controllers: Vec::new(),
            workers: Vec::new(),
            operations: BTreeMap::new(),
            faults: BTreeMap::new(),
            dice: Dice::new(seed),
            recorder,
            recording,
            broken: None,
        };
        for index in 0..CONTROLLERS {
            let controller = torture.controller(index).await;
            torture.controllers.push(controller);
        }
        for index in 0..workers {
            let worker = torture.worker(index);
            torture.workers.push(worker);
        }
        torture.recovers().await;
        torture
    }

    /// A kubeconfig that goes through a line.
    fn through(&self, line: usize, kubeconfig: &Path) -> PathBuf {
        let text = std::fs::read_to_string(kubeconfig).unwrap_or_else(|problem| panic!("no kubeconfig: {problem}"));
        let direct = format!("https://127.0.0.1:{}", self.plane.servers().apiserver_port());
        assert!(text.contains(&direct), "{text}");
        let path = kubeconfig.with_extension(format!("line-{line}"));
        let through = text.replace(&direct, &format!("https://127.0.0.1:{}", self.lines[line].port()));
        std::fs::write(&path, through).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        path
    }

    async fn controller(&self, index: usize) -> Controller {
        let kubeconfig = self.through(index, &self.plane.kubeconfig_for_controller().await);
        // As in a Pod: the token is a file, which somebody else renews.
        let text = std::fs::read_to_string(&kubeconfig).unwrap_or_else(|problem| panic!("no kubeconfig: {problem}"));
        let mut text: Value = serde_yaml::from_str(&text).unwrap_or_else(|problem| panic!("{problem}"));
        let token = text["users"][0]["user"]["token"].as_str().unwrap_or_default().to_owned();
        text["users"][0]["user"] = json!({ "tokenFile": self.token_file(index) });
        for (path, text) in [(self.token_file(index), token), (kubeconfig.clone(), text.to_string())] {
            std::fs::write(&path, text).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        }
        let options = ControllerOptions::with("--leader-elect=false --max-clock-skew=0s --expired-retention=1s")
            .env("KUBECONFIG", &kubeconfig.display().to_string());
        Controller::start(self.plane, options.named(&format!("{}-{index}", self.plane.number()))).await
    }

    fn token_file(&self, index: usize) -> PathBuf {
        self.plane.directory().join(format!("controller-{index}.token"))
    }

    /// Lets one more controller work, which is broken.
    ///
    /// # Panics
    /// If it cannot get to kube-apiserver.
    pub async fn breaks(&mut self, mutant: Mutant) {
        let kubeconfig = self.plane.kubeconfig_for_controller().await;
        let client = crate::kubeconfig::client(&kubeconfig).await.unwrap_or_else(|problem| panic!("{problem:#}"));
        self.broken = Some(mutant::Broken::start(mutant, client, self.team.name().to_owned()));
    }

    /// Waits until the broken controller has done what it does.
    ///
    /// # Panics
    /// If it does not.
    pub async fn is_broken(&self) {
        within("the broken controller breaks something", RECOVERS_WITHIN, async || {
            match self.broken.as_ref().map(mutant::Broken::done) {
                Some(1..) => Ok(()),
                done => Err(format!("{done:?} writes")),
            }
        })
        .await;
    }

    fn worker(&self, index: usize) -> Worker {
        let name = format!("worker-{index}");
        let script = self.user.script(&name, WORKER).env("RESOURCE", self.resource.port().to_string());
        let script = match index {
            0 => script.env("KUBECONFIG", self.through(CONTROLLERS, self.user.kubeconfig())),
            _ => script,
        };
        Worker { running: script.spawn() }
    }

    /// How often the resource was asked with an old token, and refused.
    #[must_use]
    pub fn refused(&self) -> usize {
        self.resource.counts().1
    }

    /// Waits until work goes on: more is written with a new token than before.
    ///
    /// # Panics
    /// If it does not.
    pub async fn recovers(&self) {
        let before = self.resource.counts().0;
        within("work goes on after a fault", RECOVERS_WITHIN, async || match self.resource.counts().0 {
            now if now >= before + 3 => Ok(()),
            now => Err(format!("{} accesses since", now - before)),
        })
        .await;
    }

    /// Chooses a fault.
    pub fn any(&mut self) -> Fault {
        Fault::ALL[self.dice.roll(Fault::ALL.len())]
    }

    /// Lets something go wrong, and puts it right.
    ///
    /// # Panics
    /// If it cannot be put right.
    pub async fn suffers(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        match fault {
            Fault::KillController => {
                let index = self.dice.roll(CONTROLLERS);
                self.controllers[index].kill();
                self.controllers[index] = self.controller(index).await;
            }
            Fault::StopController => {
                let index = self.dice.roll(CONTROLLERS);
                self.controllers[index].signal(Signal::STOP);
                pause(LONG).await;
                self.controllers[index].signal(Signal::CONT);
            }
            Fault::KillWorker => {
                let index = self.dice.roll(self.workers.len());
                let new = self.worker(index);
                let old = std::mem::replace(&mut self.workers[index], new);
                self.ended(&old).await;
            }
            Fault::StopWorker => {
                let index = self.dice.roll(self.workers.len());
                self.workers[index].running.signal_group(Signal::STOP);
                pause(LONG).await;
                self.workers[index].running.signal_group(Signal::CONT);
            }
            Fault::KillApiserver => {
                self.plane.kill_apiserver();
                self.plane.start_apiserver().await;
            }
            Fault::KillEtcd => {
                self.plane.kill_etcd();
                self.plane.start_etcd().await;
            }
            Fault::StopApiserver | Fault::StopEtcd => {
                let server = if fault == Fault::StopEtcd { Server::Etcd } else { Server::Apiserver };
                self.plane.signal_server(server, Signal::STOP);
                pause(LONG).await;
                self.plane.signal_server(server, Signal::CONT);
            }
            Fault::FullEtcd => {
                self.plane.fill_etcd().await;
                self.refuses_writes().await;
                pause(LONG).await;
                self.plane.relieve_etcd().await;
            }
            Fault::FullDisk => {
                self.plane.fill_disk().await;
                pause(LONG).await;
                self.plane.start_etcd().await;
            }
            Fault::SlowLine | Fault::SilentLine | Fault::CutLine => {
                let line = self.dice.roll(self.lines.len());
                self.lines[line].is(match fault {
                    Fault::SlowLine => Line::Slow(Duration::from_millis(300)),
                    Fault::SilentLine => Line::Silent,
                    _ => Line::Cut,
                });
                pause(LONG).await;
                self.lines[line].is(Line::Good);
            }
            Fault::BadToken => self.replaces_token().await,
            Fault::ExpiredToken => self.renews_token().await,
        }
        // Nothing is tried twice at once: each fault has to be survived.
        self.recovers().await;
    }

    /// What etcd refuses reaches the users.
    async fn refuses_writes(&self) {
        eventually("kube-apiserver refuses a write", async || {
            let patch = self.user.koncli("lease create ballast --ttl 1s").run().await;
            if patch.stderr.contains("space exceeded") { Ok(()) } else { Err(patch) }
        })
        .await;
    }

    /// The service account is deleted, with it its tokens; later there is another one of its name, and a new token.
    async fn replaces_token(&mut self) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.plane.admin().clone(), ACCOUNT.0);
        let seen: Vec<usize> = self.controllers.iter().map(|controller| refusals(&controller.log())).collect();
        accounts
            .delete(ACCOUNT.1, &DeleteParams::default())
            .await
            .unwrap_or_else(|problem| panic!("cannot delete the service account: {problem}"));
        // kube-apiserver believes a token for some seconds more.
        within("the controllers are told that their token is not valid", RECOVERS_WITHIN, async || {
            let told = |(controller, before): (&Controller, &usize)| refusals(&controller.log()) > *before;
            if self.controllers.iter().zip(&seen).all(told) { Ok(()) } else { Err("not both were told") }
        })
        .await;
        let granted = self.tokens().await;
        pause(LONG).await;
        assert_eq!(self.tokens().await, granted, "a controller whose token is not valid has granted a lease");
        identity::make_user(self.plane.admin(), ACCOUNT.0, ACCOUNT.1, &[])
            .await
            .unwrap_or_else(|problem| panic!("{problem:#}"));
        self.plane.kubeconfig_for_service_account(ACCOUNT.0, ACCOUNT.1).await;
        // One after the other, as a roll-out does it.
        for index in 0..CONTROLLERS {
            self.controllers[index].kill();
            self.controllers[index] = self.controller(index).await;
        }
    }

    /// The controllers' token expires. Later somebody renews the file, and they go on as they are.
    async fn renews_token(&mut self) {
        let seen: Vec<usize> = self.controllers.iter().map(|controller| refusals(&controller.log())).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let expires = i64::try_from(now.as_secs()).unwrap_or_default() - EXPIRED_FOR;
        let key = self.plane.servers().account_key();
        let mut good = Vec::new();
        for index in 0..CONTROLLERS {
            let path = self.token_file(index);
            let token = std::fs::read_to_string(&path).unwrap_or_else(|problem| panic!("no token: {problem}"));
            // One that is signed like this and has not expired is taken: what is refused is refused for its age.
            self.is_taken(&token::expiring(&token, &key, expires + 3_600)).await;
            let old = token::expiring(&token, &key, expires).unwrap_or_else(|problem| panic!("{problem:#}"));
            std::fs::write(&path, old).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
            good.push((path, token));
        }
        within("the controllers are told that their token has expired", RENEWED_WITHIN, async || {
            let told = |(controller, before): (&Controller, &usize)| refusals(&controller.log()) > *before;
            if self.controllers.iter().zip(&seen).all(told) { Ok(()) } else { Err("not both were told") }
        })
        .await;
        let granted = self.tokens().await;
        pause(LONG).await;
        assert_eq!(self.tokens().await, granted, "a controller whose token has expired has granted a lease");
        for (path, token) in good {
            std::fs::write(&path, token).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        }
        within("the controllers take the new token from its file", RENEWED_WITHIN, async || {
            if self.tokens().await == granted { Err("nothing is granted") } else { Ok(()) }
        })
        .await;
    }

    /// kube-apiserver takes this token of the controllers.
    async fn is_taken(&self, token: &anyhow::Result<String>) {
        let token = token.as_ref().unwrap_or_else(|problem| panic!("{problem:#}"));
        let path = self.plane.directory().join("signed-anew.kubeconfig");
        let text = self.plane.servers().kubeconfig(ACCOUNT.1, token, ACCOUNT.0);
        std::fs::write(&path, text.unwrap_or_else(|problem| panic!("{problem:#}")))
            .unwrap_or_else(|problem| panic!("{}: {problem}", path.display()));
        let client = crate::kubeconfig::client(&path).await.unwrap_or_else(|problem| panic!("{problem:#}"));
        let leases: Api<konductor_crds::Lease> = Api::namespaced(client, self.team.name());
        leases
            .get(LEASES[0])
            .await
            .unwrap_or_else(|problem| panic!("a token that was signed anew is refused: {problem}"));
    }

    /// The newest token of every lease.
    async fn tokens(&self) -> Vec<Option<i64>> {
        let mut tokens = Vec::new();
        for lease in LEASES {
            tokens.push(self.team.lease(lease).await.token());
        }
        tokens
    }

    /// Kills a worker and counts what it has done; that may be nothing, if it had just begun.
    async fn ended(&mut self, worker: &Worker) {
        worker.running.kill();
        let output: Output = worker.running.wait().await;
        for line in output.stdout.lines().filter_map(|line| line.strip_prefix("op ")) {
            *self.operations.entry(line.to_owned()).or_default() += 1;
        }
    }

    /// Ends it: workers are killed, and everything is judged, by etcd's history and by what `koncli lease record` saw.
    ///
    /// # Panics
    /// If what was abandoned does not run out, or the two judgements differ.
    pub async fn ends(mut self) -> Outcome {
        self.broken = None;
        for worker in std::mem::take(&mut self.workers) {
            self.ended(&worker).await;
        }
        for lease in LEASES {
            self.team.lease_is(lease, "free", |lease| lease.phase() == LeasePhase::Available).await;
        }
        self.recorder.signal(Signal::TERM);
        self.recorder.wait().await.succeeds();
        let history = self.plane.history(&self.team).await;
        let options = checker::Options { lag: LAG_MS, ..checker::one_clock() };
        let report = konductor_verify::check(&history, &options);
        let verified = self.user.koncli("lease verify --lag 60s --max-clock-skew 0s").arg(&self.recording).run().await;
        assert_eq!(verified.code == 0, report.violations.is_empty(), "the recording says otherwise: {verified}");
        let (_, refused) = self.resource.counts();
        Outcome {
            wrong_accesses: self.resource.judge(&report.holds),
            operations: self.operations,
            report,
            refused,
            faults: self.faults,
        }
    }
}

/// How often a controller was told that nobody knows it.
fn refusals(log: &str) -> usize {
    log.matches("Unauthorized").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_what_happens() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..50).map(|_| dice.roll(Fault::ALL.len())).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let mut every = (0..20).flat_map(rolls).collect::<Vec<_>>();
        every.sort_unstable();
        every.dedup();
        assert_eq!(every.len(), Fault::ALL.len());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 12_345, 1_234_567].map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
