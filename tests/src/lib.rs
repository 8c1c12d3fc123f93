//! A real control plane for tests and for `make up`.
//!
//! Nothing here imitates Kubernetes: a [`ControlPlane`] is an etcd and a kube-apiserver of one's own on loopback, with
//! RBAC on. On it run the real binaries of this project, each with the rights that `deploy/` gives it:
//!
//! ```no_run
//! # use konductor_tests::*;
//! # async fn example() {
//! let plane = ControlPlane::installed().await; //            etcd, kube-apiserver, our CRDs and our RBAC
//! let controller = Controller::start(&plane, ControllerOptions::default()).await;
//! let team = plane.namespace("team-a").await;
//! let alice = team.user(&["konductor-lease-user"]).await; // a service account with exactly these roles
//!
//! team.create_lease("db-migration", "10m").await;
//! alice.koncli("lease acquire db-migration --holder pod-a").run().await.succeeds();
//! team.lease_is("db-migration", "held by pod-a", |l| l.holder() == Some("pod-a")).await;
//!
//! controller.kill();
//! plane.kill_apiserver();
//! plane.start_apiserver().await;
//! checker::check(&plane.history(&team).await).expect("never two holders");
//! # }
//! ```
//!
//! The functions that tests call panic instead of returning errors: a test that cannot go on has failed, and the panic
//! says what was last seen. What is only used to get there (files, certificates, server flags) returns errors, because
//! `konductor-dev` uses it too.
//!
//! Nothing outlives a test: see [`guard`]. With `KONDUCTOR_KEEP=1` the directory with data and logs is kept.

mod assets;
mod audit;
pub mod binaries;
pub mod book;
pub mod checker;
mod cli;
mod controller;
mod etcd;
pub mod guard;
pub mod hostile;
pub mod identity;
pub mod kubeconfig;
pub mod kubelet;
mod leases;
pub mod manifests;
pub mod markdown;
mod namespace;
mod pki;
mod plane;
pub mod policies;
mod ports;
mod process;
mod proxy;
mod pty;
pub mod repo;
mod resource;
mod servers;
pub mod tools;
pub mod torture;
mod wait;
mod web;

pub use assets::assets;
pub use audit::{audit_events, audited};
pub use binaries::binary;
pub use cli::{Cli, Output, Running};
pub use controller::{Controller, ControllerOptions, Metrics};
pub use etcd::{Change, Event, History, Stored};
pub use identity::User;
pub use leases::{Holding, LeaseExt, RequestExt};
pub use namespace::Namespace;
pub use plane::{ControlPlane, Options};
pub use ports::Port;
pub use process::{Exit, Process};
pub use proxy::{Line, Proxy};
pub use pty::Terminal;
pub use resource::{Access, Resource};
pub use servers::{Ports, Server, Servers, Version};
pub use wait::{eventually, poll, within};
pub use web::{Answer, get};

pub use rustix::process::Signal;
