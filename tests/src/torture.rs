//! Real processes under faults: a control plane, two controllers that both decide, and a crowd of `koncli` processes
//! whose workers guard a resource that checks fencing tokens. Everything that happened is judged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use konductor_crds::v1::LeasePhase;
use serde_json::{Value, json};

use crate::{
    ControlPlane, Controller, ControllerOptions, LeaseExt as _, Line, Namespace, Output, Proxy, Resource, Running,
    Server, Signal, User, checker, eventually, wait::pause, within,
};

mod credentials;
mod fault;
mod mutant;
mod outcome;
mod token;

pub use fault::{Dice, Fault};
pub use mutant::Mutant;
pub use outcome::Outcome;

/// Short, so that holds run out all the time; long enough for a `koncli` that a busy machine starts slowly.
const TTL: &str = "2s";
/// A fault lasts longer than a ttl: who was away has lost what it held.
const LONG: Duration = Duration::from_secs(4);
/// How long it may take until somebody is served again after a fault. The longest on the way there are: a connection
/// that is dead is noticed after 35 s, and the longest back-off after that.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);
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
        self.resource.refused()
    }

    /// Waits until work goes on: more is written with new tokens than with those that there may have been before.
    ///
    /// # Panics
    /// If it does not.
    pub async fn recovers(&self) {
        let before = self.resource.holds();
        // Each lease may be held by somebody who has not written yet.
        within("work goes on after a fault", RECOVERS_WITHIN, async || match self.resource.holds() {
            now if now > before + LEASES.len() => Ok(()),
            now => Err(format!("{} holds since", now - before)),
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
        let refused = self.resource.refused();
        Outcome {
            wrong_accesses: self.resource.judge(&report.holds),
            operations: self.operations,
            report,
            refused,
            faults: self.faults,
        }
    }
}
